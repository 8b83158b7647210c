//! The two types that samples are written as.

use std::fmt::Debug;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type};

/// A sample in units; NaN is none.
pub(super) trait Value: Copy + Debug + Send + 'static {
    /// Its length as the server sends it, little-endian.
    const BYTES: usize;
    /// Its name in NumPy.
    const NUMPY: &'static str;
    /// Its type in Arrow.
    type Arrow: ArrowPrimitiveType<Native = Self>;

    /// The samples of some bytes; what is no whole one at the end is left out.
    fn read_all(bytes: &[u8]) -> Vec<Self>;

    /// Appends it, little-endian.
    fn write(self, to: &mut Vec<u8>);

    /// Whether there is none.
    fn is_missing(self) -> bool;
}

macro_rules! value {
    ($type:ty, $numpy:literal, $arrow:ty) => {
        impl Value for $type {
            const BYTES: usize = size_of::<Self>();
            const NUMPY: &'static str = $numpy;
            type Arrow = $arrow;

            fn read_all(bytes: &[u8]) -> Vec<Self> {
                let (values, _) = bytes.as_chunks();
                values
                    .iter()
                    .map(|&bytes| Self::from_le_bytes(bytes))
                    .collect()
            }

            fn write(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn is_missing(self) -> bool {
                self.is_nan()
            }
        }
    };
}

value!(f64, "<f8", Float64Type);
value!(f32, "<f4", Float32Type);
