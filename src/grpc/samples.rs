//! Samples as bytes of a message.

use bytes::Bytes;

use crate::mef::SampleValue;

// The wire is little-endian.
#[cfg(target_endian = "big")]
compile_error!("messages carry samples in the byte order of the machine");

struct SampleBytes<T>(Vec<T>);

impl<T: SampleValue> AsRef<[u8]> for SampleBytes<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Samples as the bytes of a message, without a copy.
pub(super) fn sample_bytes<T: SampleValue>(samples: Vec<T>) -> Bytes {
    Bytes::from_owner(SampleBytes(samples))
}
