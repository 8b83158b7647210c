//! Bytes that can be read at any place.

use std::io;

/// A file of a session, wherever its bytes are. It may grow while it is read.
pub(crate) trait ReadAt {
    /// Its length in bytes now.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on, as far as the bytes reach, and returns
    /// how many there were.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(start..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        let (filled, _) = buffer.split_at_mut(length);
        filled.copy_from_slice(rest.get(..length).unwrap_or_default());
        Ok(length)
    }
}
