//! Finds the records of a pair of record files (format sections 9, 13.2 and 14).

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::index::{RecordIndex, file_header};
use super::walk::{Met, MetRecord, RecordWalk};
use super::{DamagedRecord, RecordError, RecordFilter, RecordPosition};
use crate::mef::crypto::{Keys, NoKey};
use crate::mef::error::MefError;
use crate::mef::header::{parse_header, verify_header_crc};
use crate::mef::layout::HEADER_BYTES;
use crate::mef::store::ReadAt;
use crate::mef::time;

/// Most findings that a scan lists; the others are counted.
pub(crate) const MAX_LISTED_DAMAGE: usize = 1000;

/// A pair of record files, and how they are to be read.
#[derive(Clone, Copy)]
pub(crate) struct RecordFiles<'a> {
    /// The records (`.rdat`).
    pub(crate) data: &'a dyn ReadAt,
    /// Their index (`.ridx`), where there is one.
    pub(crate) index: Option<&'a dyn ReadAt>,
    /// Path of the data file, for errors.
    pub(crate) path: &'a Path,
    /// Recording time offset of the metadata.
    pub(crate) recording_time_offset: i64,
    /// Somebody may be writing: counts are stale and the end may be torn.
    pub(crate) growing: bool,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordScan {
    /// The wanted records by time, those of the same time in file order; first
    /// the ones without a time.
    pub(crate) positions: Vec<RecordPosition>,
    /// How many of them have a body that is stored as plain text.
    pub(crate) plain: u64,
    /// Records, wanted or not, whose time is stored relative to the offset.
    pub(crate) relative: u64,
    /// What is wrong with the files, whatever is wanted.
    pub(crate) damage: RecordDamage,
}

/// Findings about a pair of record files, at most [`MAX_LISTED_DAMAGE`] of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordDamage {
    /// The findings in the order in which they were met.
    pub(crate) listed: Vec<DamagedRecord>,
    /// Number of findings that are not listed.
    pub(crate) further: u64,
}

impl RecordDamage {
    fn note(&mut self, file: &Path, file_offset: u64, error: RecordError) {
        self.add(DamagedRecord {
            file: file.into(),
            file_offset,
            error,
        });
    }

    fn add(&mut self, damaged: DamagedRecord) {
        if self.listed.len() < MAX_LISTED_DAMAGE {
            self.listed.push(damaged);
        } else {
            self.further += 1;
        }
    }

    /// Takes in later findings.
    fn append(&mut self, later: &mut Self) {
        later.listed.drain(..).for_each(|damaged| self.add(damaged));
        self.further += std::mem::take(&mut later.further);
    }
}

/// Goes through the data file and finds all wanted records, and all that cannot
/// be believed.
///
/// The header of a record in the data file decides what it is; the index only
/// says where to go on behind one that cannot be believed. Memory is a buffer of
/// fixed size, 32 bytes for each wanted record and 32 for each entry of the
/// index.
///
/// A file that is not growing is read up to the number of records that it
/// declares, or to its end where it declares none or its header's CRC is wrong. A
/// growing one is read up to the last record that is whole; what is behind it is
/// no damage.
///
/// # Errors
/// [`MefError`] where a file cannot be read or the data file's header is no
/// header of records. Everything else is a finding.
pub(crate) fn scan(files: &RecordFiles<'_>, filter: &RecordFilter) -> Result<RecordScan, MefError> {
    let index_path = files.path.with_extension("ridx");
    let data_error = |error| MefError::io(files.path, &error);
    let index_error = |error| MefError::io(&index_path, &error);
    // The index first: what it had by then, the data file has, too.
    let index_bytes = files.index.map(|index| index.size().map_err(index_error));
    let index_bytes = index_bytes.transpose()?.unwrap_or(0);
    let size = files.data.size().map_err(data_error)?;
    if files.growing && size < HEADER_BYTES as u64 {
        // It is about to be written.
        return Ok(RecordScan::default());
    }
    let mut damage = RecordDamage::default();
    let mut walk = RecordWalk::new(files.data, size);
    let head = walk.head(HEADER_BYTES).map_err(data_error)?;
    let declared = declared_records(head, files, &mut damage)?;
    let index = match files.index {
        None => RecordIndex::default(),
        Some(index) => RecordIndex::read(index, index_bytes, size, &index_path, |offset, error| {
            // A growing index is as stale and torn as the data.
            if !files.growing {
                damage.note(&index_path, offset, error);
            }
        })
        .map_err(index_error)?,
    };
    let mut scanner = Scanner {
        files,
        filter,
        index,
        found: RecordScan {
            positions: Vec::new(),
            plain: 0,
            relative: 0,
            damage,
        },
        pending: RecordDamage::default(),
        records: 0,
    };
    let end = scanner.walk(&mut walk, declared).map_err(data_error)?;
    Ok(scanner.finish(declared, end))
}

/// Checks the data file's header, and gives the number of records to expect.
fn declared_records(
    head: &[u8],
    files: &RecordFiles<'_>,
    damage: &mut RecordDamage,
) -> Result<Option<u64>, MefError> {
    let header = parse_header(head, "rdat", files.path)?;
    if files.growing {
        return Ok(None);
    }
    if let Err(error) = verify_header_crc(header, files.path) {
        damage.note(files.path, 0, file_header(error));
        return Ok(None);
    }
    Ok(u64::try_from(header.number_of_entries.get()).ok())
}

struct Scanner<'a> {
    files: &'a RecordFiles<'a>,
    filter: &'a RecordFilter,
    index: RecordIndex,
    found: RecordScan,
    /// Damage behind the last good record: of a growing file, perhaps only its
    /// torn end.
    pending: RecordDamage,
    /// Number of records so far, damaged ones included.
    records: u64,
}

impl Scanner<'_> {
    /// Goes from record to record, and returns the offset where that ended.
    fn walk(&mut self, walk: &mut RecordWalk<'_>, declared: Option<u64>) -> io::Result<u64> {
        let mut offset = HEADER_BYTES as u64;
        // Whether the records so far led here, without a damaged one between.
        let mut in_step = true;
        while declared.is_none_or(|declared| self.records < declared) {
            let (error, next) = match walk.at(offset)? {
                Met::End if !self.index.reaches(offset) => break,
                Met::End => (RecordError::NoType, None),
                Met::Exhausted => {
                    self.lose(offset, RecordError::Overlaps);
                    break;
                }
                Met::Damaged { error, next } => (error, next),
                Met::Record(record) => {
                    // Where the index has another record, somebody must vouch for it.
                    let undisputed = in_step && !self.index.begins_at(offset);
                    if record.verified || undisputed || self.index.has(offset, record.kind) {
                        in_step = true;
                        self.keep(offset, &record);
                        offset = record.next;
                        continue;
                    }
                    (RecordError::Unverified, Some(record.next))
                }
            };
            self.lose(offset, error);
            in_step = false;
            // The length of a damaged record is the last thing to rely on.
            match self.index.next_after(offset).or(next) {
                Some(next) => offset = next,
                None => break,
            }
        }
        Ok(offset)
    }

    fn keep(&mut self, file_offset: u64, record: &MetRecord) {
        self.records += 1;
        let told = (record.kind, record.header.time.get());
        self.index.meet(file_offset, Some(told));
        self.found.damage.append(&mut self.pending);
        let header = &record.header;
        if level_is_undefined(header.encryption) {
            let error = RecordError::EncryptionLevel(header.encryption);
            let path = self.files.path;
            return self.found.damage.note(path, file_offset, error);
        }
        let time_uutc = time::absolute(header.time.get(), self.files.recording_time_offset);
        let relative = time::is_relative(header.time.get());
        self.found.relative += u64::from(relative);
        if self.filter.matches(record.kind, time_uutc) {
            self.found.plain += u64::from(header.encryption <= 0 && header.bytes.get() > 0);
            self.found.positions.push(RecordPosition {
                file_offset,
                time_uutc,
                relative,
                kind: record.kind,
                body_bytes: header.bytes.get(),
            });
        }
    }

    fn lose(&mut self, file_offset: u64, error: RecordError) {
        self.records += 1;
        self.index.meet(file_offset, None);
        self.pending.note(self.files.path, file_offset, error);
    }

    fn finish(self, declared: Option<u64>, end: u64) -> RecordScan {
        let mut found = self.found;
        let mut pending = self.pending;
        if !self.files.growing {
            found.damage.append(&mut pending);
            for (offset, kind) in self.index.unmet(end) {
                let error = RecordError::IndexOnly { kind, offset };
                found.damage.note(self.files.path, offset, error);
            }
        }
        if let Some(declared) = declared.filter(|&declared| declared > self.records) {
            let error = RecordError::Missing {
                declared,
                found: self.records,
            };
            found.damage.note(self.files.path, end, error);
        }
        // File order among equals makes the order stable without more memory.
        let order = |position: &RecordPosition| (position.time_uutc, position.file_offset);
        found.positions.sort_unstable_by_key(order);
        found
    }
}

fn level_is_undefined(level: i8) -> bool {
    Keys::default().decrypt(level, &mut []) == Err(NoKey::UndefinedLevel)
}
