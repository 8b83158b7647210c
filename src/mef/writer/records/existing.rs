//! Opens record files that exist, and finds out where the next record goes.

use std::io;
use std::path::Path;

use fastrand::Rng;
use zerocopy::little_endian::I64;

use super::{FileKind, RecordFileFault, RecordWriter, record_fault};
use crate::mef::crypto::Keys;
use crate::mef::error::{Malformation, MefError};
use crate::mef::header::{parse_header, verify_header_crc, verify_version};
use crate::mef::layout::{HEADER_BYTES, UniversalHeader};
use crate::mef::records::{
    Met, MetRecord, RECORD_ENTRY_BYTES, RecordEntry, RecordError, RecordIndex, RecordWalk,
};
use crate::mef::store::ReadAt;
use crate::mef::writer::WriteError;
use crate::mef::writer::file::{GrowingFile, OpenFile};

/// See [`RecordWriter::open`].
pub(super) fn open(
    folder: &Path,
    stem: &str,
    keys: Option<Keys>,
    recording_time_offset: i64,
    rng: &mut Rng,
) -> Result<RecordWriter, WriteError> {
    let data_path = FileKind::Data.path(folder, stem);
    let data = OpenFile::open(&data_path).map_err(WriteError::io(&data_path))?;
    data.lock(&data_path)?;
    let size = size_of_file(&data, &data_path)?;
    let mut walk = RecordWalk::new(&data, size);
    let head = walk
        .head(HEADER_BYTES)
        .map_err(WriteError::io(&data_path))?;
    let header = read_header(FileKind::Data, head, &data_path)?;
    check_protection(&data_path, &header, keys.as_ref())?;

    let index_path = FileKind::Index.path(folder, stem);
    let index = open_index(&index_path, size)?;
    let indexed = index.as_ref().map(|(_, index)| index);
    let end = last_end(&mut walk, indexed, &data_path)?;
    let tail = read_tail(&mut walk, end, &data_path)?;
    let indexed = indexed.map(|index| index.len() as u64);
    check_tail(&data_path, &header, indexed, &tail, size)?;

    let records = indexed.unwrap_or(0) + tail.entries.len() as u64;
    let complete = size == tail.end && header.number_of_entries.get() == records as i64;
    let (index, adopted) = match index {
        Some((file, _)) => (file, tail.entries),
        None => {
            let (template, entries) = (&header, &tail.entries);
            let offset = recording_time_offset;
            let file = FileKind::Index.create(index_path, template, entries, offset, rng)?;
            (file, Vec::new())
        }
    };
    let mut data = GrowingFile::new(data_path, data, header, size);
    data.include_size(tail.longest);
    if !complete {
        data.recompute_crc(tail.end)?;
    }
    Ok(RecordWriter {
        data,
        index,
        keys,
        recording_time_offset,
        indexed: records - adopted.len() as u64,
        adopted,
        end: tail.end,
        unusable: false,
    })
}

/// Records of a session with passwords have to be encrypted, and others must not
/// be: their readers would have no password to give.
pub(super) fn check_protection(
    path: &Path,
    header: &UniversalHeader,
    keys: Option<&Keys>,
) -> Result<(), WriteError> {
    let marks = [header.level_1_validation, header.level_2_validation];
    let protected = marks.iter().flatten().any(|&byte| byte != 0);
    if protected == keys.is_some() {
        return Ok(());
    }
    Err(record_fault(
        path,
        RecordFileFault::Protection { protected },
    ))
}

fn read_header(kind: FileKind, bytes: &[u8], path: &Path) -> Result<UniversalHeader, WriteError> {
    let header = parse_header(bytes, kind.extension(), path)?;
    verify_header_crc(header, path)?;
    verify_version(header, path)?;
    Ok(header.clone())
}

/// Opens the index, if there is one.
fn open_index(
    path: &Path,
    data_bytes: u64,
) -> Result<Option<(GrowingFile, RecordIndex)>, WriteError> {
    let file = match OpenFile::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WriteError::io(path)(error)),
    };
    let size = size_of_file(&file, path)?;
    let mut head = [0; HEADER_BYTES];
    let read = ReadAt::read_at(&file, &mut head, 0).map_err(WriteError::io(path))?;
    let header = read_header(FileKind::Index, head.get(..read).unwrap_or(&head), path)?;
    let mut finding = None;
    let index = RecordIndex::read(&file, size, data_bytes, path, |_, error| {
        finding.get_or_insert(error);
    })
    .map_err(WriteError::io(path))?;
    let body = size.saturating_sub(HEADER_BYTES as u64);
    let entries = body / RECORD_ENTRY_BYTES as u64;
    if finding.is_some() || index.len() as u64 != entries {
        return Err(record_fault(path, RecordFileFault::Index(finding)));
    }
    let torn = body % RECORD_ENTRY_BYTES as u64;
    let declared = u64::try_from(header.number_of_entries.get());
    let mut file = GrowingFile::new(path.into(), file, header, size);
    if torn != 0 || declared != Ok(entries) {
        file.recompute_crc(size - torn)?;
    }
    Ok(Some((file, index)))
}

/// Byte offset just behind the record that is last by the index.
fn last_end(
    walk: &mut RecordWalk<'_>,
    index: Option<&RecordIndex>,
    path: &Path,
) -> Result<u64, WriteError> {
    let Some((offset, kind)) = index.and_then(RecordIndex::last) else {
        return Ok(HEADER_BYTES as u64);
    };
    let fault = match walk.at(offset).map_err(WriteError::io(path))? {
        Met::Record(record) if record.kind == kind => return Ok(record.next),
        Met::Record(_) => RecordFileFault::Index(None),
        Met::Damaged { error, .. } => RecordFileFault::LastRecord(error),
        Met::End => RecordFileFault::LastRecord(RecordError::NoType),
        Met::Exhausted => RecordFileFault::LastRecord(RecordError::Overlaps),
    };
    Err(record_fault(path, fault))
}

/// What stands behind the records of the index.
struct Tail {
    /// Entries of whole records.
    entries: Vec<RecordEntry>,
    /// Length of the longest of them, with header.
    longest: u64,
    /// Byte offset just behind them.
    end: u64,
}

/// Takes the whole records behind `end`; what follows them cannot be a record.
fn read_tail(walk: &mut RecordWalk<'_>, end: u64, path: &Path) -> Result<Tail, WriteError> {
    let mut tail = Tail {
        entries: Vec::new(),
        longest: 0,
        end,
    };
    loop {
        match walk.at(tail.end).map_err(WriteError::io(path))? {
            Met::Record(record) if record.verified => {
                tail.longest = tail.longest.max(record.next - tail.end);
                tail.entries.push(entry_of(&record, tail.end));
                tail.end = record.next;
            }
            // Zeros, or cut off by the end of the file.
            Met::End | Met::Damaged { next: None, .. } => return Ok(tail),
            // A damaged record perhaps, with others behind it.
            Met::Record(_) | Met::Damaged { next: Some(_), .. } | Met::Exhausted => {
                let offset = tail.end;
                return Err(record_fault(path, RecordFileFault::Tail { offset }));
            }
        }
    }
}

fn entry_of(record: &MetRecord, offset: u64) -> RecordEntry {
    let header = &record.header;
    RecordEntry {
        kind: header.kind,
        kind_end: 0,
        version_major: header.version_major,
        version_minor: header.version_minor,
        encryption: header.encryption,
        // Within the file, so it is no large number.
        file_offset: I64::new(i64::try_from(offset).unwrap_or(i64::MAX)),
        time: header.time,
    }
}

/// Fails where what is left behind the whole records may be more than the trace of
/// a crash: where the header counts it, where it does not say what it counts, and
/// where no index says where the records end.
fn check_tail(
    path: &Path,
    header: &UniversalHeader,
    indexed: Option<u64>,
    tail: &Tail,
    size: u64,
) -> Result<(), WriteError> {
    let found = indexed.unwrap_or(0) + tail.entries.len() as u64;
    let declared = u64::try_from(header.number_of_entries.get());
    let fault = match declared {
        Ok(declared) if declared > found => RecordFileFault::Missing { declared, found },
        Ok(_) if size == tail.end || indexed.is_some() => return Ok(()),
        Err(_) if size == tail.end => return Ok(()),
        _ => RecordFileFault::Tail { offset: tail.end },
    };
    Err(record_fault(path, fault))
}

fn size_of_file(file: &OpenFile, path: &Path) -> Result<u64, WriteError> {
    let status = file.metadata().map_err(WriteError::io(path))?;
    if !status.is_file() {
        return Err(MefError::malformed(path, Malformation::NotAFile).into());
    }
    Ok(status.len())
}
