//! The record index, for those who lost their way in the data file
//! (format section 9.2).

use std::io;
use std::path::Path;

use zerocopy::FromBytes;

use super::layout::{RECORD_ENTRY_BYTES, RECORD_HEADER_BYTES, RecordEntry};
use super::pieces::Pieces;
use super::{RecordError, RecordType};
use crate::mef::error::MefError;
use crate::mef::header::{parse_header, verify_header_crc};
use crate::mef::layout::HEADER_BYTES;
use crate::mef::store::ReadAt;

/// Where records begin by the index, in the order of the data file.
#[derive(Default)]
pub(crate) struct RecordIndex {
    entries: Vec<(u64, RecordType)>,
    /// The stored time of each, until it is accounted for.
    unmet: Vec<Option<i64>>,
}

impl RecordIndex {
    /// Reads `size` bytes of an index of a data file that is `data_bytes` long.
    ///
    /// What is wrong is reported with its offset in the index. Entries that are
    /// padding are left out, and so is what the data file has no room for.
    pub(crate) fn read(
        index: &dyn ReadAt,
        size: u64,
        data_bytes: u64,
        path: &Path,
        mut report: impl FnMut(u64, RecordError),
    ) -> io::Result<Self> {
        let mut pieces = Pieces::new(index, size);
        let header = pieces.at(0, HEADER_BYTES)?;
        match parse_header(header, "ridx", path) {
            Ok(header) => {
                if let Err(error) = verify_header_crc(header, path) {
                    report(0, file_header(error));
                }
            }
            Err(error) => {
                report(0, file_header(error));
                return Ok(Self::default());
            }
        }
        let start = HEADER_BYTES as u64;
        let last_offset = data_bytes.saturating_sub(RECORD_HEADER_BYTES as u64);
        let records = data_bytes.saturating_sub(start) / RECORD_HEADER_BYTES as u64;
        let entries = (size.saturating_sub(start) / RECORD_ENTRY_BYTES as u64).min(records);
        let mut timed = Vec::new();
        for place in (0..entries).map(|entry| start + entry * RECORD_ENTRY_BYTES as u64) {
            let bytes = pieces.at(place, RECORD_ENTRY_BYTES)?;
            let Ok((entry, _)) = RecordEntry::ref_from_prefix(bytes) else {
                // The file became shorter.
                break;
            };
            let kind = RecordType::new(entry.kind);
            let offset = entry.file_offset.get();
            if kind.is_none() && offset <= 0 {
                continue;
            }
            match u64::try_from(offset) {
                Ok(inside) if (start..=last_offset).contains(&inside) => {
                    timed.push(((inside, kind), Some(entry.time.get())));
                }
                _ => report(
                    place,
                    RecordError::IndexOffset {
                        offset,
                        file_bytes: data_bytes,
                    },
                ),
            }
        }
        timed.sort_unstable();
        let (entries, unmet) = timed.into_iter().unzip();
        Ok(Self { entries, unmet })
    }

    /// Number of entries that are not padding and point into the data file.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The record that is last in the data file.
    pub(crate) fn last(&self) -> Option<(u64, RecordType)> {
        self.entries.last().copied()
    }

    /// The first record behind `offset`.
    pub(super) fn next_after(&self, offset: u64) -> Option<u64> {
        let behind = self.entries.partition_point(|&(begin, _)| begin <= offset);
        self.entries.get(behind).map(|&(begin, _)| begin)
    }

    /// Whether a record of this type begins at `offset`.
    pub(super) fn has(&self, offset: u64, kind: RecordType) -> bool {
        self.entries.binary_search(&(offset, kind)).is_ok()
    }

    /// Whether a record of any type begins at `offset`.
    pub(super) fn begins_at(&self, offset: u64) -> bool {
        let first = self.entries.partition_point(|&(begin, _)| begin < offset);
        self.entries
            .get(first)
            .is_some_and(|&(begin, _)| begin == offset)
    }

    /// Takes note that what the index has at `offset` is accounted for: a record of
    /// this type and stored time, or whatever it may be where that cannot be told.
    pub(super) fn meet(&mut self, offset: u64, record: Option<(RecordType, i64)>) {
        let first = self.entries.partition_point(|&(begin, _)| begin < offset);
        let entries = self.entries.iter().skip(first);
        for (&(begin, kind), unmet) in entries.zip(self.unmet.iter_mut().skip(first)) {
            if begin != offset {
                break;
            }
            if record.is_none_or(|(met, time)| met == kind && Some(time) == *unmet) {
                *unmet = None;
            }
        }
    }

    /// What the index has before `end` and nobody has met.
    pub(super) fn unmet(&self, end: u64) -> impl Iterator<Item = (u64, RecordType)> {
        let entries = self.entries.iter().copied().zip(&self.unmet);
        let before = entries.take_while(move |((begin, _), _)| *begin < end);
        before
            .filter(|(_, unmet)| unmet.is_some())
            .map(|(entry, _)| entry)
    }

    /// Whether a record begins at `offset` or behind it.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        self.last().is_some_and(|(begin, _)| begin >= offset)
    }
}

/// The finding that stands for an error of a file's header.
pub(super) fn file_header(error: MefError) -> RecordError {
    match error {
        MefError::Malformed { reason, .. } => RecordError::FileHeader(reason),
        other => RecordError::Io(other.to_string()),
    }
}
