//! What the tests of records share: files in memory, and all of their records.

pub(in crate::mef) mod corpus;
mod damage;
mod growing;
mod mutations;
mod round_trip;
mod vectors;

use std::io;
use std::path::Path;

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::mef::crc::crc32;
use crate::mef::crypto::{Keys, Password};
use crate::mef::error::MefError;
use crate::mef::layout::{HEADER_BYTES, UniversalHeader};
use crate::mef::store::ReadAt;

pub(in crate::mef) const START: i64 = 1_600_000_000_000_000;

/// A file in memory.
pub(in crate::mef) struct Bytes<'a>(pub(in crate::mef) &'a [u8]);

impl ReadAt for Bytes<'_> {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// A pair of record files in memory.
#[derive(Clone)]
struct Pair {
    data: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Pair {
    /// The files of these records, with all counts and CRCs.
    fn of(records: &[NewRecord]) -> Self {
        let (mut body, mut entries) = (Vec::new(), Vec::new());
        for record in records {
            let offset = (HEADER_BYTES + body.len()) as u64;
            let encoded = encode_record(record, None, 0, offset).unwrap();
            body.extend(encoded.bytes);
            entries.extend_from_slice(encoded.entry.as_bytes());
        }
        let count = records.len() as i64;
        Self {
            data: file(b"rdat\0", count, &body),
            index: Some(file(b"ridx\0", count, &entries)),
        }
    }

    fn without_index(mut self) -> Self {
        self.index = None;
        self
    }

    /// Declares another number of records.
    fn declaring(mut self, records: i64) -> Self {
        self.data = file(b"rdat\0", records, &self.data[HEADER_BYTES..]);
        self
    }

    /// Clears the CRC of the record at `offset`.
    fn without_crc_at(mut self, offset: u64) -> Self {
        self.data[offset as usize..][..4].fill(0);
        self
    }

    fn scan(&self, growing: bool) -> RecordScan {
        self.scan_for(growing, &RecordFilter::default()).unwrap()
    }

    fn scan_for(&self, growing: bool, filter: &RecordFilter) -> Result<RecordScan, MefError> {
        let index = self.index.as_deref().map(Bytes);
        let files = RecordFiles {
            data: &Bytes(&self.data),
            index: index.as_ref().map(|index| index as &dyn ReadAt),
            path: Path::new("s.mefd/s.rdat"),
            recording_time_offset: 0,
            growing,
        };
        scan(&files, filter)
    }

    /// The records that a scan gives, each of which must load.
    fn records(&self, scan: &RecordScan) -> Vec<Record> {
        let load = |position| load(&Bytes(&self.data), position, &Keys::default(), 0).unwrap();
        scan.positions.iter().map(load).collect()
    }
}

/// A file with a header that is right in every respect.
fn file(file_type: &[u8; 5], entries: i64, body: &[u8]) -> Vec<u8> {
    let mut header = UniversalHeader::new_zeroed();
    header.file_type = *file_type;
    header.version_major = 3;
    header.byte_order = 1;
    header.number_of_entries = I64::new(entries);
    header.body_crc = U32::new(crc32(body));
    header.header_crc = U32::new(crc32(&header.as_bytes()[4..]));
    [header.as_bytes(), body].concat()
}

/// Notes, one a second.
fn notes(count: usize) -> Vec<NewRecord> {
    let note =
        |number| NewRecord::note(START + number as i64 * 1_000_000, format!("note {number}"));
    (0..count).map(note).collect()
}

/// The offsets of the findings, with what was found.
fn findings(scan: &RecordScan) -> Vec<(u64, RecordError)> {
    let damaged = scan.damage.listed.iter();
    damaged.map(|d| (d.file_offset, d.error.clone())).collect()
}

/// The offsets of the records that were found, in the order of the scan.
fn offsets(scan: &RecordScan) -> Vec<u64> {
    scan.positions.iter().map(|p| p.file_offset).collect()
}

/// The keys that a password gives for a file with these validation fields.
pub(in crate::mef) fn keys(header: &UniversalHeader, password: Option<&str>) -> Keys {
    let password = password.and_then(Password::new);
    Keys::unlock(header, password.as_ref()).unwrap().1
}
