//! A NumPy array (format 1.0), values of a time together.

use mef3_server::grpc::proto::native::SignalGroup;

use super::value::Value;
use super::{Form, Part};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// Samples begin at a multiple of it.
const ALIGNMENT: usize = 64;

/// An array of shape (channels, samples) in Fortran order: it is written from its first
/// byte to its last, also into a pipe, though samples come channel after channel for a
/// short time only.
pub(super) struct Npy {
    rows: usize,
    columns: u64,
    /// The part that is being turned round.
    bytes: Vec<u8>,
}

impl Npy {
    pub(super) fn new(group: &SignalGroup) -> Self {
        Self {
            rows: group.rows.len(),
            columns: group.columns,
            bytes: Vec::new(),
        }
    }

    /// What stands before the samples.
    fn header(&self, descr: &str) -> Vec<u8> {
        let shape = format!("({}, {})", self.rows, self.columns);
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': True, 'shape': {shape}, }}");
        let before = MAGIC.len() + size_of::<u16>();
        // The text ends in a newline.
        let whole = (before + text.len() + 1).next_multiple_of(ALIGNMENT);
        text += &" ".repeat(whole - before - text.len() - 1);
        text.push('\n');
        // Two numbers and a few words never need more.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        [MAGIC, &length.to_le_bytes(), text.as_bytes()].concat()
    }
}

impl<T: Value> Form<T> for Npy {
    fn begin(&mut self, output: &mut Output) -> Result<(), Failure> {
        let header = self.header(T::NUMPY);
        output.write_with(|out| out.write_all(&header))
    }

    fn write(&mut self, part: &Part<T>, output: &mut Output) -> Result<(), Failure> {
        self.bytes.clear();
        for column in 0..part.columns {
            let values = part.values.iter().skip(column).step_by(part.columns);
            values.for_each(|value| value.write(&mut self.bytes));
        }
        output.write_with(|out| out.write_all(&self.bytes))
    }

    fn end(&mut self, _: &mut Output) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_begin_where_they_are_aligned() {
        for columns in [1, 10, 123_456_789, u64::MAX] {
            let npy = Npy {
                rows: 3,
                columns,
                bytes: Vec::new(),
            };
            let header = npy.header("<f8");
            assert_eq!(header.len() % ALIGNMENT, 0);
            let length = u16::from_le_bytes([header[8], header[9]]);
            assert_eq!(usize::from(length) + 10, header.len());
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }
}
