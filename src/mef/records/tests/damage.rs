//! What a scan makes of files that are wrong.

use std::cell::Cell;

use super::*;
use crate::mef::error::Malformation;
use crate::mef::records::load::MAX_BODY_BYTES;
use crate::mef::records::scan::MAX_LISTED_DAMAGE;

/// Offset of one of the [`notes`], which take one AES block each.
fn place(note: u64) -> u64 {
    1024 + note * 40
}

fn all_but(lost: u64, count: u64) -> Vec<u64> {
    (0..count).filter(|&note| note != lost).map(place).collect()
}

/// Sets the declared body length of the record at `offset`.
fn set_length(pair: &mut Pair, offset: u64, bytes: u32) {
    pair.data[offset as usize + 12..][..4].copy_from_slice(&bytes.to_le_bytes());
}

fn set_crc(pair: &mut Pair, offset: u64) {
    let offset = offset as usize;
    let bytes = u32::from_le_bytes(pair.data[offset + 12..][..4].try_into().unwrap());
    let end = offset + 24 + bytes as usize;
    let crc = crc32(&pair.data[offset + 4..end]);
    pair.data[offset..][..4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_damaged_body_costs_one_record_with_or_without_an_index() {
    let mut pair = Pair::of(&notes(5));
    pair.data[place(2) as usize + 30] ^= 1;
    for pair in [pair.clone(), pair.without_index()] {
        let scan = pair.scan(false);
        assert_eq!(offsets(&scan), all_but(2, 5));
        let found = findings(&scan);
        assert!(matches!(found[..], [(offset, RecordError::Crc { .. })] if offset == place(2)));
        assert_eq!(scan.damage.listed[0].file, Path::new("s.mefd/s.rdat"));
    }
}

#[test]
fn a_false_length_costs_one_record_where_there_is_an_index() {
    // Too long for the file, or ending in the middle of another record.
    for length in [u32::MAX, 1 << 20, 80, 96, 48, 0] {
        let mut pair = Pair::of(&notes(5));
        set_length(&mut pair, place(1), length);
        let scan = pair.scan(false);
        assert_eq!(offsets(&scan), all_but(1, 5), "{length}");
        assert_eq!(findings(&scan).len(), 1, "{length}");
        // Even if nobody computed a CRC, what lies beyond the file is no record.
        if length > 1000 {
            let scan = pair.without_crc_at(place(1)).scan(false);
            assert_eq!(offsets(&scan), all_but(1, 5), "{length}");
        }
    }
}

#[test]
fn a_crc_of_zero_was_not_computed() {
    let mut pair = Pair::of(&notes(3)).without_crc_at(place(1));
    pair.data[place(1) as usize + 24] = b'N';
    let scan = pair.scan(false);
    assert_eq!(findings(&scan), []);
    let texts = pair.records(&scan).into_iter().map(|record| record.body);
    let expected =
        ["note 0", "Note 1", "note 2"].map(|text| RecordBody::Note { text: text.into() });
    assert_eq!(texts.collect::<Vec<_>>(), expected);
}

#[test]
fn without_a_crc_a_record_that_the_index_disputes_is_lost() {
    let mut pair = Pair::of(&notes(4)).without_crc_at(place(2));
    pair.data[place(2) as usize + 4] = b'X';
    let scan = pair.scan(false);
    assert_eq!(offsets(&scan), all_but(2, 4));
    let found = findings(&scan);
    assert!(matches!(found[..], [(offset, RecordError::Unverified)] if offset == place(2)));
}

#[test]
fn without_a_crc_a_record_behind_a_damaged_one_needs_the_index() {
    let mut pair = Pair::of(&notes(4)).without_crc_at(place(2));
    pair.data[place(1) as usize + 30] ^= 1;
    assert_eq!(offsets(&pair.scan(false)), all_but(1, 4));
    let scan = pair.without_index().scan(false);
    assert_eq!(offsets(&scan), [place(0), place(3)]);
    assert_eq!(findings(&scan)[1], (place(2), RecordError::Unverified));
}

#[test]
fn the_number_of_records_is_declared_or_found_by_walking() {
    let five = Pair::of(&notes(5));
    for (declared, found) in [(5, 5), (-1, 5), (i64::MIN, 5), (3, 3), (0, 0)] {
        let scan = five.clone().declaring(declared).scan(false);
        assert_eq!(scan.positions.len(), found, "{declared}");
        assert_eq!(findings(&scan), [], "{declared}");
    }
    for declared in [6, i64::MAX] {
        let scan = five.clone().declaring(declared).scan(false);
        assert_eq!(scan.positions.len(), 5);
        let declared = declared as u64;
        let missing = RecordError::Missing { declared, found: 5 };
        assert_eq!(findings(&scan), [(place(5), missing)]);
    }
    // A growing file's number is stale.
    for declared in [0, 3, 6] {
        let scan = five.clone().declaring(declared).scan(true);
        assert_eq!((scan.positions.len(), findings(&scan)), (5, Vec::new()));
    }
}

#[test]
fn zeros_behind_the_records_end_them() {
    for zeros in [1, 24, 100] {
        let mut pair = Pair::of(&notes(2)).declaring(-1);
        pair.data.extend(vec![0; zeros]);
        let scan = pair.scan(false);
        assert_eq!((scan.positions.len(), findings(&scan)), (2, Vec::new()));
    }
    let mut torn = Pair::of(&notes(2)).declaring(-1);
    torn.data.extend([7; 10]);
    let cut_short = RecordError::HeaderCutShort { have: 10 };
    assert_eq!(findings(&torn.scan(false)), [(place(2), cut_short)]);
}

#[test]
fn a_record_without_a_type_is_damage_where_the_index_has_more() {
    let mut pair = Pair::of(&notes(4));
    pair.data[place(1) as usize..place(2) as usize].fill(0);
    let scan = pair.scan(false);
    assert_eq!(offsets(&scan), all_but(1, 4));
    assert_eq!(findings(&scan), [(place(1), RecordError::NoType)]);
}

#[test]
fn an_index_that_points_outside_is_reported_and_not_followed() {
    let mut pair = Pair::of(&notes(3));
    for (entry, offset) in [(0_usize, i64::MAX), (1, -7), (2, 1024 + 3 * 40 - 23)] {
        let index = pair.index.as_mut().unwrap();
        index[1024 + 24 * entry + 8..][..8].copy_from_slice(&offset.to_le_bytes());
    }
    let index = pair.index.take().unwrap();
    pair.index = Some(file(b"ridx\0", 3, &index[1024..]));
    let scan = pair.scan(false);
    assert_eq!(offsets(&scan), [place(0), place(1), place(2)]);
    let file_bytes = pair.data.len() as u64;
    let outside = |offset| RecordError::IndexOffset { offset, file_bytes };
    assert_eq!(
        findings(&scan),
        [
            (1024, outside(i64::MAX)),
            (1048, outside(-7)),
            (1072, outside(1024 + 3 * 40 - 23))
        ]
    );
    assert_eq!(scan.damage.listed[0].file, Path::new("s.mefd/s.ridx"));
}

/// Puts other entries into the index.
fn with_entries(mut pair: Pair, entries: &[&[u8]]) -> Pair {
    pair.index = Some(file(b"ridx\0", entries.len() as i64, &entries.concat()));
    pair
}

#[test]
fn an_index_in_any_order_and_with_padding_leads_on() {
    let mut pair = Pair::of(&notes(5));
    set_length(&mut pair, place(1), u32::MAX);
    let index = pair.index.clone().unwrap();
    let padding = [[0; 24], [0; 24]];
    let mut entries: Vec<&[u8]> = index[1024..].chunks(24).rev().collect();
    entries.truncate(4);
    entries.splice(1..1, padding.iter().map(<[u8; 24]>::as_slice));
    // One for each record that the file could hold, at most: so few are read.
    pair.data.extend([0; 100]);
    let scan = with_entries(pair.declaring(-1), &entries).scan(false);
    assert_eq!(offsets(&scan), all_but(1, 5));
    assert_eq!(findings(&scan).len(), 1);
}

#[test]
fn an_index_with_more_entries_than_the_data_have_room_for_is_not_read_whole() {
    let pair = Pair::of(&notes(3));
    let index = pair.index.as_ref().unwrap();
    let entries = index[1024..].repeat(1000);
    let index = file(b"ridx\0", 3000, &entries);
    let (size, data_bytes) = (index.len() as u64, pair.data.len() as u64);
    let path = Path::new("s.ridx");
    let report = |_, error| panic!("{error}");
    let read = RecordIndex::read(&Bytes(&index), size, data_bytes, path, report).unwrap();
    assert_eq!(read.len(), 3 * 40 / 24);
}

#[test]
fn an_index_that_is_none_is_reported_and_not_needed() {
    let mut pair = Pair::of(&notes(3));
    pair.index.as_mut().unwrap().truncate(1000);
    let scan = pair.scan(false);
    assert_eq!(scan.positions.len(), 3);
    let too_short = Malformation::TooShort {
        need: 1024,
        have: 1000,
    };
    assert_eq!(findings(&scan), [(0, RecordError::FileHeader(too_short))]);
}

#[test]
fn a_data_file_that_is_none_is_an_error() {
    let pair = Pair::of(&notes(1));
    let mut other_type = pair.clone();
    other_type.data[8] = b'x';
    let mut short = pair.clone();
    short.data.truncate(1023);
    let mut big_endian = pair;
    big_endian.data[15] = 0;
    for pair in [other_type, short, big_endian] {
        let result = pair.scan_for(false, &RecordFilter::default());
        assert!(matches!(result, Err(MefError::Malformed { .. })));
    }
}

#[test]
fn a_header_with_a_false_crc_is_reported_and_its_number_not_believed() {
    let mut pair = Pair::of(&notes(3));
    pair.data[32] = 1;
    let scan = pair.scan(false);
    assert_eq!(scan.positions.len(), 3);
    let found = findings(&scan);
    assert!(matches!(
        found[..],
        [(0, RecordError::FileHeader(Malformation::HeaderCrc { .. }))]
    ));
}

#[test]
fn an_undefined_encryption_level_is_damage_and_what_follows_is_not() {
    let mut pair = Pair::of(&notes(3)).without_index();
    for (level, undefined) in [
        (3, true),
        (127, true),
        (-3, true),
        (-2, false),
        (-128, false),
    ] {
        pair.data[place(1) as usize + 11] = level as u8;
        set_crc(&mut pair, place(1));
        let scan = pair.scan(false);
        let expected = undefined.then_some((place(1), RecordError::EncryptionLevel(level)));
        assert_eq!(findings(&scan), Vec::from_iter(expected));
        assert_eq!(scan.positions.len(), if undefined { 2 } else { 3 });
    }
}

#[test]
fn records_come_by_time_and_those_of_one_time_in_file_order() {
    let times = [30, 10, 20, 10, 10, 40, 0];
    let records = times.map(|time| NewRecord::note(START + time, ""));
    let mut pair = Pair::of(&records);
    // The last one has no time.
    pair.data[place(6) as usize + 16..][..8].copy_from_slice(&i64::MIN.to_le_bytes());
    set_crc(&mut pair, place(6));
    assert_eq!(offsets(&pair.scan(false)), [6, 1, 3, 4, 2, 0, 5].map(place));
    let filter = RecordFilter {
        types: vec![RecordType::NOTE],
        from_uutc: Some(START + 10),
        until_uutc: Some(START + 30),
    };
    let scan = pair.scan_for(false, &filter).unwrap();
    assert_eq!(offsets(&scan), [1, 3, 4, 2].map(place));
    let none = RecordFilter {
        types: vec![RecordType::EDFA],
        ..filter
    };
    assert_eq!(pair.scan_for(false, &none).unwrap().positions, []);
}

#[test]
fn the_list_of_findings_has_an_end() {
    let count = MAX_LISTED_DAMAGE + 234;
    let mut pair = Pair::of(&notes(count));
    for note in 0..count {
        pair.data[place(note as u64) as usize + 30] ^= 1;
    }
    let scan = pair.without_index().scan(false);
    assert_eq!(scan.positions, []);
    assert_eq!(scan.damage.listed.len(), MAX_LISTED_DAMAGE);
    assert_eq!(scan.damage.further, 234);
}

/// Counts how a file is read.
struct Counted<'a> {
    bytes: &'a [u8],
    most: Cell<usize>,
    total: Cell<usize>,
}

impl<'a> Counted<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (most, total) = (Cell::new(0), Cell::new(0));
        Self { bytes, most, total }
    }

    fn scan(&self, index: Option<&[u8]>) -> RecordScan {
        let index = index.map(Bytes);
        let files = RecordFiles {
            data: self,
            index: index.as_ref().map(|index| index as &dyn ReadAt),
            path: Path::new("s.rdat"),
            recording_time_offset: 0,
            growing: false,
        };
        scan(&files, &RecordFilter::default()).unwrap()
    }
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.most.set(self.most.get().max(buffer.len()));
        self.total.set(self.total.get() + buffer.len());
        self.bytes.read_at(buffer, offset)
    }
}

#[test]
fn records_across_the_ends_of_the_buffer_are_whole() {
    let pair = Pair::of(&notes(10_000));
    for pair in [pair.clone(), pair.without_index()] {
        let scan = pair.scan(false);
        assert_eq!(findings(&scan), []);
        assert_eq!(offsets(&scan), all_but(u64::MAX, 10_000));
    }
}

#[test]
fn a_large_body_is_checked_through_a_small_buffer() {
    let mut records = notes(3);
    let raw = RecordBody::Unknown(vec![5; 3 << 20]);
    records[1] = NewRecord::new(RecordType::new(*b"BigB"), START, raw);
    let mut pair = Pair::of(&records);
    let counted = Counted::new(&pair.data);
    assert_eq!(counted.scan(None).positions.len(), 3);
    assert_eq!(counted.most.get(), 64 * 1024);
    assert!(counted.total.get() < (3 << 20) + 3 * 64 * 1024);
    pair.data[2 << 20] ^= 1;
    assert_eq!(Counted::new(&pair.data).scan(None).positions.len(), 2);
}

#[test]
fn bodies_inside_each_other_do_not_cost_more_than_a_few_passes() {
    // Each header claims the rest of the file, and the index leads to all of them.
    let count = 20_000;
    let mut pair = Pair::of(&notes(count));
    let size = pair.data.len() as u64;
    for note in 0..count as u64 {
        set_length(&mut pair, place(note), (size - place(note) - 24) as u32);
    }
    let counted = Counted::new(&pair.data);
    let scan = counted.scan(pair.index.as_deref());
    assert!(counted.total.get() < 5 * pair.data.len());
    assert_eq!(scan.positions, []);
    let mut found = findings(&scan);
    assert!(matches!(
        found.pop(),
        Some((_, RecordError::Missing { .. }))
    ));
    assert!(matches!(found.pop(), Some((_, RecordError::Overlaps))));
}

/// A file that is long and almost empty.
struct Sparse {
    head: Vec<u8>,
    size: u64,
}

impl ReadAt for Sparse {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        assert!(buffer.len() <= 1 << 20, "a body was read whole");
        let rest = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
        let length = rest.min(buffer.len());
        buffer[..length].fill(0);
        self.head.as_slice().read_at(buffer, offset)?;
        Ok(length)
    }
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let mut pair = Pair::of(&notes(1));
    set_length(&mut pair, 1024, MAX_BODY_BYTES + 16);
    let sparse = Sparse {
        head: pair.data,
        size: 1 << 33,
    };
    let files = RecordFiles {
        data: &sparse,
        index: None,
        path: Path::new("s.rdat"),
        recording_time_offset: 0,
        growing: false,
    };
    let scan = scan(&files, &RecordFilter::default()).unwrap();
    assert_eq!(scan.positions, []);
    let too_long = RecordError::TooLong(MAX_BODY_BYTES + 16);
    assert_eq!(findings(&scan)[0], (1024, too_long.clone()));
    let position = RecordPosition {
        file_offset: 1024,
        time_uutc: Some(START),
        relative: true,
        kind: RecordType::NOTE,
        body_bytes: MAX_BODY_BYTES + 16,
    };
    let loaded = load(&sparse, &position, &Keys::default(), 0);
    assert_eq!(loaded, Err(too_long));
}

#[test]
fn a_record_that_is_no_longer_there_is_not_loaded() {
    let pair = Pair::of(&notes(2));
    let positions = pair.scan(false).positions;
    let load = |data: &[u8], position| load(&Bytes(data), position, &Keys::default(), 0);
    // The file was cut.
    for length in [0, 1024, 1064, 1080, 1103] {
        let result = load(&pair.data[..length], &positions[1]);
        assert!(matches!(result, Err(RecordError::OutsideFile { .. })));
    }
    // Another record stands there now, or the record is damaged.
    let other = Pair::of(&[NewRecord::note(START, ""), NewRecord::note(START + 1, "")]);
    let result = load(&other.data, &positions[1]);
    assert_eq!(result, Err(RecordError::Changed));
    let mut damaged = pair.data;
    damaged[place(1) as usize + 30] ^= 1;
    let result = load(&damaged, &positions[1]);
    assert!(matches!(result, Err(RecordError::Crc { .. })));
}
