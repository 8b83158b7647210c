//! Files as a whole, and their headers.

use mef3_server::mef::{
    BlockError, Malformation, MefError, NewRecord, Problem, RecordError, RecordQuery,
};

use crate::common::forge::{Forged, START};
use crate::{ABSURD, block_error, refusal};

fn too_short(need: u64, have: usize) -> Malformation {
    Malformation::TooShort {
        need,
        have: have as u64,
    }
}

#[test]
fn any_file_size() {
    for file in ["tmet", "tidx", "tdat"] {
        let forged = Forged::new();
        let whole = forged.bytes(file);
        for have in [0, 1, 1023] {
            forged.spoil(file, |bytes| *bytes = whole[..have].to_vec());
            assert_eq!(refusal(&forged), too_short(1024, have), "{file}");
        }
    }
    let forged = Forged::new();
    forged.patch("tmet", |bytes| bytes.truncate(16383));
    assert_eq!(refusal(&forged), too_short(16384, 16383));
    // Nothing but a header is an index of no blocks, which are found by themselves.
    let forged = Forged::new();
    forged.patch("tidx", |bytes| bytes.truncate(1024));
    forged.assert_right("an empty index");
    // Nothing but a header is no block of the index.
    let forged = Forged::new();
    forged.patch("tdat", |bytes| bytes.truncate(1024));
    let outside = block_error(&forged, 0);
    assert!(matches!(
        outside,
        BlockError::OutsideFile {
            offset: 1024,
            file_bytes: 1024,
            ..
        }
    ));
    // Videos and records.
    let forged = Forged::copy("video_pymef", "cam");
    for (file, length, need) in [
        ("vmet", 16383, 16384),
        ("vmet", 1023, 1024),
        ("vidx", 1023, 1024),
    ] {
        let whole = forged.bytes(file);
        forged.spoil(file, |bytes| bytes.truncate(length));
        let videos = forged.open().video_channels;
        let MefError::Malformed { reason, .. } = &videos[0].unreadable[0].error else {
            panic!("{videos:?}");
        };
        assert_eq!(*reason, too_short(need, length));
        forged.spoil(file, |bytes| *bytes = whole);
    }
    let forged = Forged::new().with_records(&[NewRecord::note(START, "hi")]);
    for (file, have) in [("ridx", 1023), ("rdat", 1023)] {
        forged.spoil(file, |bytes| bytes.truncate(have));
        let page = forged.records(None);
        let found: Vec<_> = page.damaged.iter().map(|damaged| &damaged.error).collect();
        let short = RecordError::FileHeader(too_short(1024, have));
        assert!(found.contains(&&short), "{found:?}");
        // The index is not needed.
        assert_eq!(page.records.len(), usize::from(file == "ridx"));
    }
    forged.assert_right("short records");
}

#[test]
fn header_file_type() {
    for file in ["tmet", "tidx", "tdat"] {
        let forged = Forged::new();
        for other in [*b"tmeT", *b"vidx", [0; 4], [0xFF; 4], *b"mefd"] {
            forged.put(file, 8, other);
            let refused = refusal(&forged);
            let Malformation::FileType { expected, .. } = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(expected, file);
        }
        let own: [u8; 4] = file.as_bytes().try_into().unwrap();
        forged.put(file, 8, own);
        for order in [0, 2, 0xFE] {
            forged.put(file, 15, [order]);
            assert_eq!(refusal(&forged), Malformation::ByteOrder(order), "{file}");
        }
        for order in [1, 0xFF] {
            forged.put(file, 15, [order]);
            forged.assert_right("a byte order");
        }
        // Other versions are read, and told.
        for version in [3, 0, 0xFF, 2, 4, 9] {
            forged.put(file, 13, [version]);
            forged.assert_right("a version");
            let found: Vec<Problem> = forged
                .findings(true)
                .into_iter()
                .map(|f| f.problem)
                .collect();
            let known = [3, 0, 0xFF].contains(&version);
            let unknown = Problem::Unreadable(MefError::Malformed {
                file: forged.file(file),
                reason: Malformation::Version(version),
            });
            let expected = if known { Vec::new() } else { vec![unknown] };
            assert_eq!(found, expected, "{file} {version}");
        }
    }
}

#[test]
fn strings() {
    let forged = Forged::new();
    forged.patch("tmet", |bytes| {
        bytes[8768..8896].fill(b'x');
        bytes[2560..4608].fill(0xFF);
        bytes[52..308].fill(b'y');
        bytes[308..820].fill(0xC3);
    });
    for file in ["tidx", "tdat"] {
        forged.patch(file, |bytes| bytes[52..820].fill(0xFF));
    }
    let recording = forged.open();
    let acquisition = recording.channels[0].acquisition().unwrap();
    assert_eq!(acquisition.units, "x".repeat(128));
    assert_eq!(acquisition.channel_description, "\u{fffd}".repeat(2048));
    assert_eq!(recording.channels[0].name, "bad");
    forged.assert_right("texts");
    // An end in the midst of a character.
    forged.patch("tmet", |bytes| {
        bytes[8768..8896].fill(0);
        bytes[8768..8771].copy_from_slice(&[0xC2, 0xB5, 0xC2]);
    });
    let recording = forged.open();
    let acquisition = recording.channels[0].acquisition().unwrap();
    assert_eq!(acquisition.units, "µ\u{fffd}");
}

#[test]
fn number_of_entries_maximum_entry_size() {
    let forged = Forged::new().with_records(&[NewRecord::note(START, "hi")]);
    for number in ABSURD {
        for file in ["tmet", "tidx", "tdat", "rdat", "ridx"] {
            forged.put(file, 32, number.to_le_bytes());
            forged.put(file, 40, number.to_le_bytes());
        }
        forged.assert_right("counts");
        let query = RecordQuery {
            limit: 10,
            ..RecordQuery::default()
        };
        let page = forged.open().records(&query).unwrap();
        // Nought is a count, and the only one that hides a record.
        assert_eq!(page.records.len(), usize::from(number != 0));
        let missing: Vec<_> = page
            .damaged
            .into_iter()
            .map(|damaged| damaged.error)
            .collect();
        let declared = u64::try_from(number).unwrap_or(0);
        let expected = RecordError::Missing { declared, found: 1 };
        assert_eq!(
            missing,
            if declared > 1 {
                vec![expected]
            } else {
                Vec::new()
            }
        );
    }
}
