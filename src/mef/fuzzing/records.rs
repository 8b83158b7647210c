//! A pair of record files: found, read, and written again.

use super::common::{Controls, Counted, SECRETS, check_error, here, seal, seal_file, u32_at};
use crate::mef::crypto::Keys;
use crate::mef::layout::HEADER_BYTES;
use crate::mef::records::{
    NewRecord, RECORD_ENTRY_BYTES, Record, RecordBody, RecordFiles, RecordFilter, RecordPosition,
    RecordScan, encode_record, load, scan,
};
use crate::mef::store::ReadAt;

const RECORD_HEADER_BYTES: usize = 24;
/// The listed findings of a scan are as many at most.
const MOST_LISTED: usize = 1000;

/// Bits of the first byte of an input.
pub(super) mod mode {
    /// The records' checksums stay as they are.
    pub(crate) const RAW: u8 = 1;
    /// There is no index.
    pub(crate) const ALONE: u8 = 2;
    /// The files were written to a moment ago.
    pub(crate) const GROWING: u8 = 4;
    /// The password is not at hand.
    pub(crate) const LOCKED: u8 = 8;
    /// The header's checksum is wrong.
    pub(crate) const HEADER: u8 = 16;
    /// Entries point where records are.
    pub(crate) const ALIGNED: u8 = 32;
    /// The header declares a number of records.
    pub(crate) const COUNTED: u8 = 64;
}

/// The input is: mode, number of index entries, number of records by the header,
/// eight bytes of recording time offset, the entries, and the records.
pub fn records(input: &[u8]) {
    let mut controls = Controls(input);
    let [mode, entries, declared] = controls.array();
    let is = |what| mode & what != 0;
    let offset = i64::from_le_bytes(controls.array());
    let mut index = vec![0; HEADER_BYTES];
    index.extend_from_slice(controls.take(usize::from(entries & 31) * RECORD_ENTRY_BYTES));
    let mut data = vec![0; HEADER_BYTES];
    data.extend_from_slice(controls.0);
    let places = records_in(&mut data, !is(mode::RAW));
    if is(mode::ALIGNED) {
        let entries = index[HEADER_BYTES..].chunks_exact_mut(RECORD_ENTRY_BYTES);
        for (entry, &place) in entries.zip(&places) {
            entry[..5].copy_from_slice(&data[place + 4..place + 9]);
            entry[8..16].copy_from_slice(&(place as u64).to_le_bytes());
        }
    }
    let declared = if is(mode::COUNTED) {
        i64::from(declared as i8)
    } else {
        -1
    };
    data[32..40].copy_from_slice(&declared.to_le_bytes());
    seal_file(&mut data, "rdat");
    seal_file(&mut index, "ridx");
    if is(mode::HEADER) {
        data[0] ^= 0x55;
        index[0] ^= 0x55;
    }

    let (data, index) = (Counted::new(&data), Counted::new(&index));
    let files = RecordFiles {
        data: &data,
        index: (!is(mode::ALONE)).then_some(&index as &dyn ReadAt),
        path: here(),
        recording_time_offset: offset,
        growing: is(mode::GROWING),
    };
    let all = match scan(&files, &RecordFilter::default()) {
        Ok(all) => all,
        Err(error) => return check_error(&error),
    };
    let entries = (index.bytes.len() - HEADER_BYTES) / RECORD_ENTRY_BYTES;
    check_scan(&all, data.bytes.len(), entries);
    assert!(data.reads.get() <= (all.positions.len() + all.damage.listed.len() + 8) as u64);
    if let Some(first) = all.positions.first() {
        only_some(&files, &all, first);
    }
    let none = Keys::default();
    let keys = if is(mode::LOCKED) {
        &none
    } else {
        &SECRETS.keys
    };
    for position in &all.positions {
        let record = load(&data, position, keys, offset).expect("it was found");
        check_record(
            &record,
            position,
            keys.decrypt(record.level, &mut []).is_err(),
        );
        write_again(&record, keys, offset);
    }
}

/// Where records follow each other from the header on. Those that say so are
/// encrypted, and their checksums put right.
fn records_in(data: &mut [u8], sealed: bool) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(length) = u32_at(data, at + 12)
        && let Some(record) = at
            .checked_add(RECORD_HEADER_BYTES + length as usize)
            .and_then(|end| data.get_mut(at..end))
    {
        // No checksum is as good as the right one, where none was computed.
        if sealed && record[..4] != [0; 4] {
            let (header, body) = record.split_at_mut(RECORD_HEADER_BYTES);
            let _ = SECRETS.keys.encrypt(header[11] as i8, body);
            seal(record);
        }
        places.push(at);
        at += RECORD_HEADER_BYTES + length as usize;
    }
    places
}

fn check_scan(found: &RecordScan, data_bytes: usize, entries: usize) {
    let damage = &found.damage;
    assert!(damage.listed.len() <= MOST_LISTED);
    assert!(damage.further == 0 || damage.listed.len() == MOST_LISTED);
    let records = data_bytes.saturating_sub(HEADER_BYTES) / RECORD_HEADER_BYTES;
    // Each entry may be wrong, may send a reader to a wrong place, and may be the
    // only one to know of a record.
    let most = records + 3 * entries + 4;
    assert!(found.positions.len() + damage.listed.len() + damage.further as usize <= most);
    for damaged in &damage.listed {
        assert!(damaged.to_string().len() < 1024);
    }
    let order = |position: &RecordPosition| (position.time_uutc, position.file_offset);
    assert!(found.positions.is_sorted_by(|a, b| order(a) < order(b)));
    for position in &found.positions {
        let end = position.file_offset + RECORD_HEADER_BYTES as u64;
        assert!(position.file_offset >= HEADER_BYTES as u64);
        assert!(end + u64::from(position.body_bytes) <= data_bytes as u64);
    }
}

/// A filter leaves out what does not match, and nothing else.
fn only_some(files: &RecordFiles<'_>, all: &RecordScan, first: &RecordPosition) {
    let middle = all.positions[all.positions.len() / 2].time_uutc;
    for filter in [
        RecordFilter {
            types: vec![first.kind],
            ..RecordFilter::default()
        },
        RecordFilter {
            from_uutc: middle,
            ..RecordFilter::default()
        },
    ] {
        let some = scan(files, &filter).expect("as before");
        assert_eq!(some.damage, all.damage);
        let matching = all
            .positions
            .iter()
            .filter(|position| filter.matches(position.kind, position.time_uutc));
        assert!(some.positions.iter().eq(matching));
    }
}

fn check_record(record: &Record, position: &RecordPosition, locked: bool) {
    assert_eq!(record.kind, position.kind);
    assert_eq!(record.time_uutc, position.time_uutc);
    assert_eq!(record.file_offset, position.file_offset);
    assert_eq!(record.body == RecordBody::Locked, locked);
    let bytes = position.body_bytes as usize;
    match &record.body {
        RecordBody::Unknown(raw) => assert_eq!(raw.len(), bytes),
        RecordBody::LineNoiseTemplate { template } => assert!(4 * template.len() <= bytes),
        RecordBody::Seizure(seizure) => assert!(272 * seizure.channels.len() <= bytes),
        RecordBody::Note { text } | RecordBody::SystemLog { text } => {
            assert!(text.len() <= 3 * bytes && !text.contains('\0'));
        }
        _ => {}
    }
    if let Some(kind) = record.body.kind() {
        assert_eq!((kind, (1, 0)), (record.kind, record.version));
    }
}

/// A record that can be written reads back as it was.
fn write_again(record: &Record, keys: &Keys, offset: i64) {
    if let RecordBody::Unknown(raw) = &record.body
        && !raw.len().is_multiple_of(16)
    {
        // Written with padding, which is part of a raw body.
        return;
    }
    let again = NewRecord {
        kind: record.kind,
        version: record.version,
        time_uutc: record.time_uutc.unwrap_or(1),
        body: record.body.clone(),
    };
    for keys in [None, Some(keys)] {
        let Ok(encoded) = encode_record(&again, keys, offset, 0) else {
            continue;
        };
        assert_eq!(encoded.entry.kind, record.kind.bytes());
        let position = RecordPosition {
            file_offset: 0,
            time_uutc: Some(again.time_uutc),
            relative: true,
            kind: record.kind,
            body_bytes: (encoded.bytes.len() - RECORD_HEADER_BYTES) as u32,
        };
        let keys = keys.cloned().unwrap_or_default();
        let data = Counted::new(&encoded.bytes);
        let read = load(&data, &position, &keys, offset).expect("it was just written");
        assert_eq!(read.version, record.version);
        // Numbers that are none equal nothing, not even themselves.
        let same =
            read.body == record.body || format!("{:?}", read.body) == format!("{:?}", record.body);
        assert!(same, "{:?} became {:?}", record.body, read.body);
    }
}
