//! Reads one record whole (format sections 9 and 10.3).

use std::io;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::decode::decode_body;
use super::layout::{RECORD_HEADER_BYTES, RecordHeader};
use super::{Record, RecordBody, RecordError, RecordType};
use crate::mef::crc::{CRC_NOT_COMPUTED, crc32};
use crate::mef::crypto::{Keys, NoKey};
use crate::mef::store::ReadAt;
use crate::mef::time;

/// The longest body that is read or written, padding included: 64 MiB. Writers
/// make bodies of kilobytes; this bounds the memory that one record can take.
pub(crate) const MAX_BODY_BYTES: u32 = 64 << 20;

const _: () = assert!(size_of::<RecordPosition>() == 40);

/// Where a record is, and what is needed to choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordPosition {
    /// Byte offset of the record in its data file.
    pub(crate) file_offset: u64,
    /// When it happened, absolute uUTC.
    pub(crate) time_uutc: Option<i64>,
    /// That time is stored relative to the recording's offset.
    pub(crate) relative: bool,
    /// What it is.
    pub(crate) kind: RecordType,
    /// Length of the padded body.
    pub(crate) body_bytes: u32,
}

/// Reads, checks, decrypts and decodes the record at a position that a scan of
/// the same file gave.
///
/// A body whose key is not at hand is [`RecordBody::Locked`].
///
/// # Errors
/// [`RecordError::Changed`] where the record is not the one that was scanned, and
/// whatever else is wrong with it.
pub(crate) fn load(
    data: &dyn ReadAt,
    position: &RecordPosition,
    keys: &Keys,
    recording_time_offset: i64,
) -> Result<Record, RecordError> {
    let io_error = |error: io::Error| RecordError::Io(error.to_string());
    if position.body_bytes > MAX_BODY_BYTES {
        return Err(RecordError::TooLong(position.body_bytes));
    }
    let length = RECORD_HEADER_BYTES as u64 + u64::from(position.body_bytes);
    let size = data.size().map_err(io_error)?;
    let available = size.saturating_sub(position.file_offset);
    if length > available {
        return Err(RecordError::OutsideFile {
            bytes: position.body_bytes,
            available: available.saturating_sub(RECORD_HEADER_BYTES as u64),
        });
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length as usize)
        .map_err(|_| io_error(io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length as usize, 0);
    let read = data
        .read_at(&mut bytes, position.file_offset)
        .map_err(io_error)?;
    let whole = (read == bytes.len()).then_some(bytes.as_slice());
    let Some(Ok((&header, _))) = whole.map(RecordHeader::ref_from_prefix) else {
        return Err(RecordError::Changed);
    };
    let kind = RecordType::new(header.kind);
    let time_uutc = time::absolute(header.time.get(), recording_time_offset);
    if (kind, header.bytes.get(), time_uutc)
        != (position.kind, position.body_bytes, position.time_uutc)
    {
        return Err(RecordError::Changed);
    }
    check_crc(&header, &bytes)?;
    let version = (header.version_major, header.version_minor);
    let (_, body) = bytes.split_at_mut(RECORD_HEADER_BYTES);
    let body = match keys.decrypt(header.encryption, body) {
        Ok(()) => decode_body(kind, version, body, recording_time_offset),
        Err(NoKey::Locked) => RecordBody::Locked,
        Err(NoKey::UndefinedLevel) => {
            return Err(RecordError::EncryptionLevel(header.encryption));
        }
    };
    Ok(Record {
        kind,
        version,
        level: header.encryption,
        time_uutc,
        file_offset: position.file_offset,
        body,
    })
}

fn check_crc(header: &RecordHeader, record: &[u8]) -> Result<(), RecordError> {
    let stored = header.crc.get();
    if stored == CRC_NOT_COMPUTED {
        return Ok(());
    }
    let covered = record.get(size_of_val(&header.crc)..).unwrap_or_default();
    let computed = crc32(covered);
    if stored == computed {
        return Ok(());
    }
    Err(RecordError::Crc { stored, computed })
}
