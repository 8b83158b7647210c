//! Goes from record to record through a data file (format sections 9.1 and 14).

use std::io;

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::layout::{RECORD_HEADER_BYTES, RecordHeader};
use super::load::MAX_BODY_BYTES;
use super::pieces::Pieces;
use super::{RecordError, RecordType};
use crate::mef::crc::{CRC_NOT_COMPUTED, RunningCrc};
use crate::mef::store::ReadAt;

/// How often the bytes of a file are checked, at most. Once is enough for records
/// that follow each other; a file whose index sends us back into bodies costs
/// more, and one that does so over and over must end.
const MAX_PASSES: u64 = 3;

/// What stands at a place of the data file.
pub(crate) enum Met {
    /// A record whose extent lies inside the file and whose CRC is right or was
    /// not computed.
    Record(MetRecord),
    /// No believable record, and where the next one would be if its length is
    /// right.
    Damaged {
        error: RecordError,
        next: Option<u64>,
    },
    /// Nothing: the end of the file, or bytes without a type.
    End,
    /// Too many bytes were checked already; see [`MAX_PASSES`].
    Exhausted,
}

/// A record that stands in the data file.
pub(crate) struct MetRecord {
    pub(crate) header: RecordHeader,
    pub(crate) kind: RecordType,
    /// Byte offset just behind its body.
    pub(crate) next: u64,
    /// It has a CRC, and that is right.
    pub(crate) verified: bool,
}

/// Looks at records one by one, through a buffer of fixed size.
pub(crate) struct RecordWalk<'a> {
    pieces: Pieces<'a>,
    size: u64,
    /// Bytes that may still be checked.
    budget: u64,
}

impl<'a> RecordWalk<'a> {
    /// Walks through the first `size` bytes of a file.
    pub(crate) fn new(data: &'a dyn ReadAt, size: u64) -> Self {
        Self {
            pieces: Pieces::new(data, size),
            size,
            budget: size.saturating_mul(MAX_PASSES),
        }
    }

    /// The file's first `length` bytes, as far as there are so many.
    pub(crate) fn head(&mut self, length: usize) -> io::Result<&[u8]> {
        self.pieces.at(0, length)
    }

    /// Looks at what stands at `offset`.
    pub(crate) fn at(&mut self, offset: u64) -> io::Result<Met> {
        let remaining = self.size.saturating_sub(offset);
        let bytes = self.pieces.at(offset, RECORD_HEADER_BYTES)?;
        let within = usize::try_from(remaining).unwrap_or(usize::MAX);
        let bytes = bytes.get(..within).unwrap_or(bytes);
        let Ok((&header, _)) = RecordHeader::ref_from_prefix(bytes) else {
            if bytes.iter().all(|&byte| byte == 0) {
                return Ok(Met::End);
            }
            let have = bytes.len() as u64;
            let error = RecordError::HeaderCutShort { have };
            return Ok(Met::Damaged { error, next: None });
        };
        let kind = RecordType::new(header.kind);
        if kind.is_none() {
            return Ok(Met::End);
        }
        let body_bytes = header.bytes.get();
        let available = remaining.saturating_sub(RECORD_HEADER_BYTES as u64);
        if u64::from(body_bytes) > available {
            let error = RecordError::OutsideFile {
                bytes: body_bytes,
                available,
            };
            return Ok(Met::Damaged { error, next: None });
        }
        // Inside the file, so it cannot overflow.
        let next = offset + RECORD_HEADER_BYTES as u64 + u64::from(body_bytes);
        let damaged = |error| {
            Ok(Met::Damaged {
                error,
                next: Some(next),
            })
        };
        if body_bytes > MAX_BODY_BYTES {
            return damaged(RecordError::TooLong(body_bytes));
        }
        let stored = header.crc.get();
        if stored != CRC_NOT_COMPUTED {
            let Some(budget) = self.budget.checked_sub(next - offset) else {
                return Ok(Met::Exhausted);
            };
            self.budget = budget;
            let computed = self.crc(offset + size_of::<U32>() as u64, next)?;
            if stored != computed {
                return damaged(RecordError::Crc { stored, computed });
            }
        }
        Ok(Met::Record(MetRecord {
            header,
            kind,
            next,
            verified: stored != CRC_NOT_COMPUTED,
        }))
    }

    /// CRC of the bytes from `from` up to `until`, as far as they can be read.
    fn crc(&mut self, from: u64, until: u64) -> io::Result<u32> {
        let mut crc = RunningCrc::new();
        let mut offset = from;
        while offset < until {
            let piece = self.pieces.at(offset, 1)?;
            let left = usize::try_from(until - offset).unwrap_or(usize::MAX);
            let piece = piece.get(..left).unwrap_or(piece);
            if piece.is_empty() {
                // The file became shorter, which no CRC survives.
                break;
            }
            crc.update(piece);
            offset += piece.len() as u64;
        }
        Ok(crc.value())
    }
}
