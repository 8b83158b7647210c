//! Files that the writer does not touch.

use super::*;
use crate::mef::error::{Malformation, MefError};

/// Why the files are not opened; they must be as they were.
fn refusal(folder: &Path, image: &Image) -> WriteError {
    image.write(folder);
    let refused = open(folder).err().unwrap();
    assert!(Image::read(folder) == *image, "{refused}");
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        paths(folder).iter().filter(|path| path.exists()).count()
    );
    refused
}

fn fault(folder: &Path, image: &Image) -> RecordFileFault {
    match refusal(folder, image) {
        WriteError::RecordFile { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// Three notes at offsets 1024, 1064 and 1120.
fn three() -> (TempDir, Image) {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path()).append(&notes(1..4)).unwrap();
    let image = Image::read(folder.path());
    assert_eq!(image.data.len(), 1024 + 40 + 40 + 56);
    (folder, image)
}

/// Changes a header, and sets its CRC.
fn with_header(bytes: &mut [u8], change: impl FnOnce(&mut UniversalHeader)) {
    let (header, _) = UniversalHeader::mut_from_prefix(bytes).unwrap();
    change(header);
    header.header_crc = U32::new(crc32(&header.as_bytes()[4..]));
}

#[test]
fn existing_files_are_not_created_again() {
    let (folder, image) = three();
    let [data, index] = paths(folder.path());
    for kept in [&data, &index] {
        image.write(folder.path());
        let other = if *kept == data { &index } else { &data };
        fs::remove_file(other).unwrap();
        let mut rng = Rng::with_seed(1);
        let again = RecordWriter::create(folder.path(), STEM, &template(), None, 0, &mut rng);
        assert!(matches!(again, Err(WriteError::Exists { path }) if path == *kept));
        assert!(!other.exists());
    }
}

#[test]
fn files_that_are_not_there_or_no_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(folder.path()), Err(WriteError::Io { .. })));
    let [data, _] = paths(folder.path());
    fs::create_dir(&data).unwrap();
    assert!(matches!(open(folder.path()), Err(WriteError::Io { .. })));
}

#[test]
fn headers_that_are_none_are_refused() {
    let (folder, image) = three();
    for length in [0, 1023] {
        let mut short = image.clone();
        short.data.truncate(length);
        let expected = Malformation::TooShort {
            need: 1024,
            have: length as u64,
        };
        let refused = refusal(folder.path(), &short);
        assert!(
            matches!(&refused, WriteError::Unreadable(MefError::Malformed { reason, .. }) if *reason == expected),
            "{refused}"
        );
        let mut short = image.clone();
        short.index.as_mut().unwrap().truncate(length);
        let refused = refusal(folder.path(), &short);
        assert!(matches!(refused, WriteError::Unreadable(_)));
    }
    for place in [0, 8, 40, 1000] {
        let mut flipped = image.clone();
        flipped.data[place] ^= 1;
        let refused = refusal(folder.path(), &flipped);
        assert!(matches!(refused, WriteError::Unreadable(_)));
    }
}

#[test]
fn passwords_and_keys_belong_together() {
    let (folder, image) = three();
    let mut protected = image.clone();
    with_header(&mut protected.data, |header| {
        header.level_2_validation[3] = 1
    });
    let expected = RecordFileFault::Protection { protected: true };
    assert_eq!(fault(folder.path(), &protected), expected);
    image.write(folder.path());
    let keys = Some(Keys::default());
    let mut rng = Rng::with_seed(1);
    let refused = RecordWriter::open(folder.path(), STEM, keys.clone(), 0, &mut rng).err();
    let expected = RecordFileFault::Protection { protected: false };
    assert!(matches!(refused, Some(WriteError::RecordFile { fault, .. }) if fault == expected));
    let folder = tempfile::tempdir().unwrap();
    let refused = RecordWriter::create(folder.path(), STEM, &template(), keys, 0, &mut rng);
    assert!(matches!(refused, Err(WriteError::RecordFile { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_index_that_is_not_of_these_records_is_refused() {
    let (folder, image) = three();
    // Outside the file, padding, of another type, in the middle of a record.
    let changes: [fn(&mut [u8]); 4] = [
        |entry| entry[8..16].copy_from_slice(&i64::MAX.to_le_bytes()),
        |entry| entry.fill(0),
        |entry| entry[0] = b'X',
        |entry| entry[8..16].copy_from_slice(&1130_i64.to_le_bytes()),
    ];
    for change in changes {
        let mut wrong = image.clone();
        change(&mut wrong.index.as_mut().unwrap()[1024 + 48..]);
        let fault = fault(folder.path(), &wrong);
        assert!(
            matches!(
                fault,
                RecordFileFault::Index(_) | RecordFileFault::LastRecord(_)
            ),
            "{fault}"
        );
    }
}

#[test]
fn a_last_record_that_is_damaged_is_refused() {
    let (folder, image) = three();
    let mut wrong = image.clone();
    wrong.data[1120] ^= 1;
    assert!(matches!(
        fault(folder.path(), &wrong),
        RecordFileFault::LastRecord(RecordError::Crc { .. })
    ));
    let mut cut = image.clone();
    cut.data.truncate(1150);
    assert!(matches!(
        fault(folder.path(), &cut),
        RecordFileFault::LastRecord(RecordError::OutsideFile { .. })
    ));
    // One before it costs nothing but itself.
    let mut wrong = image;
    wrong.data[1064] ^= 1;
    wrong.write(folder.path());
    open(folder.path()).unwrap().append(&notes(4..5)).unwrap();
    let scan = Image::read(folder.path()).scan(false);
    assert_eq!((scan.positions.len(), scan.damage.listed.len()), (3, 1));
}

#[test]
fn bytes_that_may_be_records_are_not_overwritten() {
    let (folder, image) = three();
    // The index lost its last entry: what it pointed to has no CRC, or a false one.
    let mut shorter = image.clone();
    with_header(&mut shorter.data, |header| {
        header.number_of_entries = I64::new(2)
    });
    shorter.index.as_mut().unwrap().truncate(1024 + 48);
    for crc in [0, 1] {
        let mut unsure = shorter.clone();
        unsure.data[1104..1108].copy_from_slice(&u32::to_le_bytes(crc));
        let expected = RecordFileFault::Tail { offset: 1104 };
        assert_eq!(fault(folder.path(), &unsure), expected);
    }
    // The header counts what cannot be found.
    for declared in [4, i64::MAX] {
        let mut more = image.clone();
        with_header(&mut more.data, |header| {
            header.number_of_entries = I64::new(declared)
        });
        let declared = declared as u64;
        let expected = RecordFileFault::Missing { declared, found: 3 };
        assert_eq!(fault(folder.path(), &more), expected);
    }
    // It does not say what it counts, or there is no index.
    let mut torn = image;
    torn.data.extend([9; 30]);
    let mut unknown = torn.clone();
    with_header(&mut unknown.data, |header| {
        header.number_of_entries = I64::new(-1)
    });
    let mut without_index = torn;
    without_index.index = None;
    for image in [unknown, without_index] {
        let expected = RecordFileFault::Tail { offset: 1160 };
        assert_eq!(fault(folder.path(), &image), expected);
    }
}

#[test]
fn one_writer_at_a_time() {
    let (folder, _) = three();
    let first = open(folder.path()).unwrap();
    let second = open(folder.path()).err();
    assert!(matches!(second, Some(WriteError::Busy { .. })));
    // A child process that is being started has the file, too.
    let in_child = first.data.file.try_clone().unwrap();
    drop(first);
    assert!(open(folder.path()).is_ok());
    drop(in_child);
}

#[test]
fn a_writer_stops_where_somebody_else_wrote() {
    let changes: [fn(&Path); 3] = [
        |path| {
            let bytes = [fs::read(path).unwrap(), vec![0; 24]].concat();
            fs::write(path, bytes).unwrap();
        },
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).unwrap();
            fs::rename(other, path).unwrap();
        },
    ];
    for change in changes {
        for file in [0, 1] {
            let (folder, _) = three();
            let mut writer = open(folder.path()).unwrap();
            change(&paths(folder.path())[file]);
            let before = paths(folder.path()).map(|path| fs::read(path).ok());
            let refused = writer.append(&notes(1..2)).err();
            assert!(matches!(refused, Some(WriteError::Changed { .. })));
            let refused = writer.append(&notes(1..2)).err();
            assert!(matches!(refused, Some(WriteError::Unusable)));
            let after = paths(folder.path()).map(|path| fs::read(path).ok());
            assert!(before == after);
        }
    }
}

#[test]
fn faults_are_said_in_full_sentences() {
    for (fault, text) in [
        (
            RecordFileFault::Protection { protected: false },
            "the file says that there are no passwords, unlike the session",
        ),
        (
            RecordFileFault::Index(Some(RecordError::NoType)),
            "index does not fit the data file: record has no type",
        ),
        (
            RecordFileFault::Index(None),
            "index does not fit the data file",
        ),
    ] {
        assert_eq!(fault.to_string(), text);
    }
}
