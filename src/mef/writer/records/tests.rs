//! What the record writer leaves on disk, and what it refuses to touch.

mod crashes;
mod peers;
mod refusals;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use zerocopy::little_endian::{I32, I64, U32};
use zerocopy::{FromBytes, FromZeros};

use super::*;
use crate::mef::crc::crc32;
use crate::mef::layout::set_text;
use crate::mef::records::tests::corpus::reference;
use crate::mef::records::tests::{Bytes, START};
use crate::mef::records::{
    Record, RecordBody, RecordDamage, RecordFiles, RecordFilter, RecordScan, load, scan,
};
use crate::mef::time::NO_TIME;

const STEM: &str = "a.b";

fn template() -> UniversalHeader {
    let mut template = UniversalHeader::new_zeroed();
    template.segment_number = I32::new(-2);
    template.level_uuid = [7; 16];
    set_text(&mut template.channel_name, STEM);
    set_text(&mut template.session_name, "s");
    template
}

fn create(folder: &Path) -> RecordWriter {
    let mut rng = Rng::with_seed(1);
    RecordWriter::create(folder, STEM, &template(), None, 0, &mut rng).unwrap()
}

fn open(folder: &Path) -> Result<RecordWriter, WriteError> {
    RecordWriter::open(folder, STEM, None, 0, &mut Rng::with_seed(2))
}

/// Notes of different lengths, out of their order in time.
fn notes(range: std::ops::Range<i64>) -> Vec<NewRecord> {
    let note = |number: i64| {
        let text = "x".repeat(usize::try_from(number).unwrap() * 7);
        NewRecord::note(START - number, text)
    };
    range.map(note).collect()
}

/// The two files as they are on disk.
#[derive(Clone, PartialEq)]
struct Image {
    data: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Image {
    fn read(folder: &Path) -> Self {
        let [data, index] = paths(folder);
        Self {
            data: fs::read(data).unwrap(),
            index: fs::read(index).ok(),
        }
    }

    fn write(&self, folder: &Path) {
        let [data, index] = paths(folder);
        fs::write(data, &self.data).unwrap();
        match &self.index {
            Some(bytes) => fs::write(index, bytes).unwrap(),
            None => drop(fs::remove_file(index)),
        }
    }

    fn scan(&self, growing: bool) -> RecordScan {
        let index = self.index.as_deref().map(Bytes);
        let files = RecordFiles {
            data: &Bytes(&self.data),
            index: index.as_ref().map(|index| index as _),
            path: Path::new("a.b.rdat"),
            recording_time_offset: 0,
            growing,
        };
        scan(&files, &RecordFilter::default()).unwrap()
    }

    /// All records; nothing may be damaged.
    fn records(&self) -> Vec<Record> {
        let scan = self.scan(false);
        assert_eq!(scan.damage, RecordDamage::default());
        let load = |position| load(&Bytes(&self.data), position, &Keys::default(), 0).unwrap();
        scan.positions.iter().map(load).collect()
    }

    /// The texts of all notes in the order of the file.
    fn texts(&self) -> Vec<String> {
        let mut records = self.records();
        records.sort_by_key(|record| record.file_offset);
        let text = |record: Record| match record.body {
            RecordBody::Note { text } => text,
            other => panic!("{other:?}"),
        };
        records.into_iter().map(text).collect()
    }

    fn headers(&self) -> [UniversalHeader; 2] {
        [&self.data, self.index.as_ref().unwrap()]
            .map(|bytes| UniversalHeader::read_from_prefix(bytes).unwrap().0)
    }

    /// Checks all that the headers say; `offsets` are those of the index.
    fn check_headers(&self, records: usize) {
        let [data, index] = self.headers();
        let bodies = [&self.data, self.index.as_ref().unwrap()].map(|bytes| &bytes[HEADER_BYTES..]);
        for (header, body) in [&data, &index].into_iter().zip(bodies) {
            assert_eq!(header.number_of_entries.get(), records as i64);
            assert_eq!(header.header_crc.get(), crc32(&header.as_bytes()[4..]));
            assert_eq!(header.body_crc.get(), crc32(body));
        }
        let entries: Vec<u64> = bodies[1]
            .chunks_exact(RECORD_ENTRY_BYTES)
            .map(|entry| u64::from_le_bytes(entry[8..16].try_into().unwrap()))
            .collect();
        let mut offsets: Vec<u64> = self
            .scan(false)
            .positions
            .iter()
            .map(|p| p.file_offset)
            .collect();
        offsets.sort_unstable();
        assert_eq!(entries, offsets);
        assert_eq!(entries.len(), records);
    }
}

fn paths(folder: &Path) -> [PathBuf; 2] {
    ["rdat", "ridx"].map(|extension| folder.join(format!("{STEM}.{extension}")))
}

fn texts(records: &[NewRecord]) -> Vec<String> {
    let text = |record: &NewRecord| match &record.body {
        RecordBody::Note { text } => text.clone(),
        other => panic!("{other:?}"),
    };
    records.iter().map(text).collect()
}

#[test]
fn new_files_hold_no_records_and_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(folder.path()));
    let image = Image::read(folder.path());
    assert_eq!(image.records(), []);
    image.check_headers(0);
    let [data, index] = image.headers();
    assert_eq!(&data.file_type, b"rdat\0");
    assert_eq!(&index.file_type, b"ridx\0");
    for header in [&data, &index] {
        assert_eq!((header.version_major, header.version_minor), (3, 0));
        assert_eq!(header.byte_order, 1);
        assert_eq!(header.start_time.get(), NO_TIME);
        assert_eq!(header.level_uuid, [7; 16]);
        assert_eq!(header.provenance_uuid, header.file_uuid);
        assert_eq!(header.segment_number.get(), -2);
        assert_eq!(header.channel_name[..4], *b"a.b\0");
    }
    assert_ne!(data.file_uuid, index.file_uuid);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn appends_in_any_pieces_give_the_same_bytes() {
    let records = notes(0..20);
    let mut images = Vec::new();
    for length in [20, 7, 1] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = create(folder.path());
        for (number, piece) in records.chunks(length).enumerate() {
            writer.append(piece).unwrap();
            if number % 2 == 0 {
                // The lock ends with its writer.
                drop(writer);
                writer = open(folder.path()).unwrap();
            }
        }
        writer.append(&[]).unwrap();
        let image = Image::read(folder.path());
        image.check_headers(20);
        assert_eq!(image.texts(), texts(&records));
        images.push(image);
    }
    assert!(images.iter().all(|image| *image == images[0]));
    let [data, index] = images[0].headers();
    for header in [&data, &index] {
        assert_eq!(header.start_time.get(), -(START - 19));
        assert_eq!(header.end_time.get(), -START);
    }
    assert_eq!(data.maximum_entry_size.get(), 24 + 144);
    assert_eq!(index.maximum_entry_size.get(), 24);
}

/// A copy of a session of the corpus, which can be written to.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["rdat", "ridx"] {
        let file = format!("{name}.{extension}");
        let from = reference::folder().join(format!("{name}.mefd")).join(&file);
        let bytes = fs::read(from).unwrap();
        fs::write(folder.path().join(format!("{STEM}.{extension}")), bytes).unwrap();
    }
    folder
}

#[test]
fn files_of_others_are_extended_and_nothing_in_them_changes() {
    for (name, count) in [("records_mef3io", 13), ("records_pymef", 9)] {
        let folder = copy(name);
        let before = Image::read(folder.path());
        let records = before.records();
        assert_eq!(records.len(), count);
        open(folder.path()).unwrap().append(&notes(1..3)).unwrap();
        let after = Image::read(folder.path());
        let old_index = before.index.as_ref().unwrap();
        assert_eq!(after.data[1024..before.data.len()], before.data[1024..]);
        assert_eq!(
            after.index.as_ref().unwrap()[1024..old_index.len()],
            old_index[1024..]
        );
        let found = after.records();
        assert!(records.iter().all(|record| found.contains(record)));
        assert_eq!(found.len(), count + 2);

        let ([old, _], [data, index]) = (before.headers(), after.headers());
        assert_eq!(data.number_of_entries.get(), count as i64 + 2);
        assert_eq!(index.number_of_entries.get(), count as i64 + 2);
        // Extended, and kept zero where it was (format section 15, row 5).
        let expected = match old.body_crc.get() {
            0 => 0,
            _ => crc32(&after.data[1024..]),
        };
        assert_eq!(data.body_crc.get(), expected);
        assert_eq!(old.body_crc.get() == 0, name == "records_pymef");
        assert_eq!(
            index.body_crc.get(),
            crc32(&after.index.as_ref().unwrap()[1024..])
        );
        // Identity and end stay; the new records are later than the others.
        assert_eq!(data.file_uuid, old.file_uuid);
        assert_eq!(data.start_time, old.start_time);
        assert_eq!(data.end_time.get(), -(START - 1));
        assert_eq!(data.maximum_entry_size, old.maximum_entry_size);
    }
}

#[test]
fn the_time_offset_of_the_recording_is_kept() {
    let folder = copy("time_offset_pymef");
    let offset = 1_590_740_800_000_000;
    let mut rng = Rng::with_seed(1);
    let mut writer = RecordWriter::open(folder.path(), STEM, None, offset, &mut rng).unwrap();
    writer.append(&[NewRecord::note(offset + 5, "x")]).unwrap();
    let early = writer.append(&[NewRecord::note(offset - 5, "x")]);
    assert!(matches!(early, Err(WriteError::Record { position: 0, .. })));
    // A refusal costs nothing.
    writer.append(&[NewRecord::note(offset + 6, "y")]).unwrap();
    let image = Image::read(folder.path());
    let times = image
        .records()
        .into_iter()
        .map(|record| record.time_uutc.unwrap());
    // Without the offset, the times are those of 1970.
    assert_eq!(
        times.collect::<Vec<_>>(),
        [5, 6, 1_591_000_001_000_000 - offset]
    );
    assert_eq!(image.headers()[0].start_time.get(), -5);
}

#[test]
fn records_of_a_protected_session_are_encrypted() {
    let folder = copy("encrypted_mef3io");
    let image = Image::read(folder.path());
    let header = &image.headers()[0];
    let keys = crate::mef::records::tests::keys(header, Some("pw-L2"));
    let mut rng = Rng::with_seed(1);
    let mut writer =
        RecordWriter::open(folder.path(), STEM, Some(keys.clone()), 0, &mut rng).unwrap();
    writer.append(&[NewRecord::note(START, "hidden")]).unwrap();
    drop(writer);
    let image = Image::read(folder.path());
    let last = *image.scan(false).positions.last().unwrap();
    let read = |keys: &Keys| load(&Bytes(&image.data), &last, keys, 0).unwrap();
    let text = "hidden".to_owned();
    assert_eq!(read(&keys).body, RecordBody::Note { text });
    assert_eq!(
        (read(&keys).level, read(&Keys::default()).body),
        (2, RecordBody::Locked)
    );
    image.check_headers(4);

    // The password of level 1 does not suffice, and nothing is written.
    let level_1 = crate::mef::records::tests::keys(header, Some("pw-L1"));
    let mut writer = RecordWriter::open(folder.path(), STEM, Some(level_1), 0, &mut rng).unwrap();
    let refused = writer.append(&[NewRecord::note(START, "")]);
    assert!(matches!(refused, Err(WriteError::Record { .. })));
    assert!(Image::read(folder.path()) == image);
}
