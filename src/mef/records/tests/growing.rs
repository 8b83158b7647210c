//! Files that somebody is writing (format section 13.2).

use super::*;

/// The records of `whole` that end before `length`.
fn whole_before(whole: &RecordScan, length: usize) -> Vec<u64> {
    let end =
        |position: &RecordPosition| position.file_offset + 24 + u64::from(position.body_bytes);
    let inside = |position: &&RecordPosition| end(position) <= length as u64;
    let records = whole.positions.iter().filter(inside);
    records.map(|position| position.file_offset).collect()
}

#[test]
fn a_torn_end_is_no_damage_wherever_it_is_torn() {
    let pair = Pair::of(&notes(4));
    let whole = pair.scan(false);
    for length in 0..pair.data.len() {
        let data = pair.data[..length].to_vec();
        for index in [pair.index.clone(), None] {
            let scan = Pair {
                data: data.clone(),
                index,
            }
            .scan(true);
            assert_eq!(offsets(&scan), whole_before(&whole, length), "{length}");
            assert_eq!(findings(&scan), [], "{length}");
        }
    }
}

#[test]
fn an_end_that_is_not_written_yet_is_no_damage() {
    // The file has its new length, and only some of the new bytes.
    let pair = Pair::of(&notes(4));
    let whole = pair.scan(false);
    for length in 1024..pair.data.len() {
        let mut data = pair.data.clone();
        data[length..].fill(0);
        // The pad of a record is not zero, so that none is whole too early.
        let scan = Pair { data, index: None }.scan(true);
        assert_eq!(offsets(&scan), whole_before(&whole, length), "{length}");
        assert_eq!(findings(&scan), [], "{length}");
    }
}

#[test]
fn damage_before_a_good_record_is_damage_in_a_growing_file_too() {
    let mut pair = Pair::of(&notes(4));
    pair.data[1024 + 40 + 30] ^= 1;
    for pair in [pair.clone(), pair.clone().without_index()] {
        let scan = pair.scan(true);
        assert_eq!(offsets(&scan), [1024, 1104, 1144]);
        assert!(matches!(
            findings(&scan)[..],
            [(1064, RecordError::Crc { .. })]
        ));
    }
}

#[test]
fn an_index_that_is_behind_is_no_hindrance() {
    let mut pair = Pair::of(&notes(4));
    // Two entries and a part of the third.
    pair.index.as_mut().unwrap().truncate(1024 + 2 * 24 + 7);
    let scan = pair.scan(true);
    assert_eq!((scan.positions.len(), findings(&scan)), (4, Vec::new()));
}

/// A file that grew after it was asked for its size.
struct Grown<'a> {
    bytes: &'a [u8],
    size: u64,
}

impl ReadAt for Grown<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.read_at(buffer, offset)
    }
}

#[test]
fn a_scan_ends_where_the_file_ended_when_it_began() {
    let empty = RecordBody::Unrecognised;
    let empty = |number| NewRecord::new(RecordType::UNRC, START + number, empty.clone());
    let pair = Pair::of(&[0, 1, 2, 3].map(empty));
    let whole = pair.scan(false);
    assert_eq!(whole.positions.len(), 4);
    for length in 1024..pair.data.len() {
        let data = Grown {
            bytes: &pair.data,
            size: length as u64,
        };
        let files = RecordFiles {
            data: &data,
            index: None,
            path: Path::new("s.rdat"),
            recording_time_offset: 0,
            growing: true,
        };
        let scan = scan(&files, &RecordFilter::default()).unwrap();
        assert_eq!(offsets(&scan), whole_before(&whole, length), "{length}");
    }
}
