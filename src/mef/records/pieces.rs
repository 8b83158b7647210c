//! A file's bytes through a buffer of fixed size.

use std::io;

use crate::mef::store::ReadAt;

/// Bytes that are read with one call, and most that can be asked for at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads a file in pieces, so that its size costs no memory.
pub(super) struct Pieces<'a> {
    source: &'a dyn ReadAt,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins, and how much of it is filled.
    start: u64,
    filled: usize,
}

impl<'a> Pieces<'a> {
    /// Reads a file that is `size` bytes long or more.
    pub(super) fn new(source: &'a dyn ReadAt, size: u64) -> Self {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        Self {
            source,
            buffer: vec![0; length.min(PIECE_BYTES)],
            start: 0,
            filled: 0,
        }
    }

    /// The bytes from `offset` on that are at hand: at least `want`, unless the
    /// file ends before or `want` is more than a piece.
    pub(super) fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let buffered = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| {
                self.filled
                    .checked_sub(*skip)
                    .is_some_and(|rest| rest >= want)
            });
        let skip = match buffered {
            Some(skip) => skip,
            None => {
                // Nothing is at hand if the call fails.
                self.filled = 0;
                self.filled = self.source.read_at(&mut self.buffer, offset)?;
                self.start = offset;
                0
            }
        };
        Ok(self.buffer.get(skip..self.filled).unwrap_or_default())
    }
}
