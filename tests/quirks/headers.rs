//! Checksums, times, counts and names in the headers of files.

use std::fs;

use mef3_server::mef::crc::{crc32, crc32_continue};
use mef3_server::mef::{BlockError, Malformation, MefError, NewRecord, Problem, ReadError};

use crate::common::forge::{BLOCKS, Forged, START, counts, put, sign_file};
use crate::common::patch::units;

const FILES: [&str; 3] = ["tmet", "tidx", "tdat"];

fn number(bytes: &[u8], offset: usize) -> i64 {
    i64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn row_02_times_are_negative_without_an_offset() {
    let forged = Forged::new();
    for file in FILES {
        assert_eq!(number(&forged.bytes(file), 16), -START, "{file}");
    }
    assert_eq!(number(&forged.bytes("tidx"), 1024 + 8), -START);
    assert_eq!(number(&forged.bytes("tdat"), 1024 + 40), -START);
    let recording = forged.open();
    assert_eq!(recording.start_uutc(), Some(START));
    assert_eq!(recording.end_uutc(), Some(START + 2_000_000));
    forged.assert_right("negative times");
}

#[test]
fn row_03_signs_of_times_are_mixed() {
    let forged = Forged::new();
    for file in ["tdat", "tidx"] {
        forged.put(file, 16, START.to_le_bytes());
        forged.put(file, 24, (START + 2_000_000).to_le_bytes());
    }
    // Entries and blocks as well: the rule is one for each value.
    forged.put_in("tidx", 1, 8, (START + 500_000).to_le_bytes());
    forged.patch_block(2, |block| put(block, 40, (START + 1_000_000).to_le_bytes()));
    let recording = forged.open();
    let segment = &recording.channels[0].segments[0];
    assert_eq!(segment.start_uutc, START);
    assert_eq!(segment.end_uutc, START + 2_000_000);
    let starts: Vec<i64> = segment.index.iter().map(|b| b.start_uutc).collect();
    assert_eq!(starts, [0, 1, 2, 3].map(|block| START + block * 500_000));
    forged.assert_right("mixed signs");
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_04_checksum_of_the_data_file_may_start_from_zero() {
    let forged = Forged::new();
    let with_body_crc = |crc: fn(&[u8]) -> u32, file: &str| {
        forged.spoil(file, |bytes| {
            let body = crc(&bytes[1024..]);
            put(bytes, 4, body.to_le_bytes());
            let header = crc32(&bytes[4..1024]);
            put(bytes, 0, header.to_le_bytes());
        });
        forged.findings(true)
    };
    assert_eq!(with_body_crc(|body| crc32_continue(0, body), "tdat"), []);
    forged.assert_right("from zero");
    assert_eq!(with_body_crc(crc32, "tdat"), []);
    // Nobody else starts from there.
    let found = with_body_crc(|body| crc32_continue(0, body), "tidx");
    assert!(matches!(found[..], [_]), "{found:?}");
    assert!(matches!(
        found[0].problem,
        Problem::Crc { part: "body", .. }
    ));
    forged.assert_right("an index from zero");
}

#[test]
fn row_05_a_checksum_of_zero_was_not_computed() {
    let forged = Forged::new().with_records(&[NewRecord::note(START, "hi")]);
    for file in ["tmet", "tidx", "tdat", "rdat", "ridx"] {
        forged.spoil(file, |bytes| {
            bytes[..8].fill(0);
            if file == "rdat" {
                bytes[1024..1028].fill(0);
            }
        });
    }
    forged.assert_right("no checksums");
    let page = forged.records(None);
    assert_eq!((page.records.len(), page.damaged.len()), (1, 0));
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_06_a_block_with_a_checksum_of_zero_is_refused() {
    let forged = Forged::new();
    let (second, _) = units("tdat", &forged.bytes("tdat"))[1];
    forged.spoil("tdat", |bytes| {
        bytes[second..second + 4].fill(0);
        sign_file(bytes);
    });
    let refused = forged.read::<f64>("bad").unwrap_err();
    let ReadError::Damaged(damaged) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(damaged.block, 1);
    assert!(matches!(
        damaged.damage.error,
        BlockError::Crc { stored: 0, .. }
    ));
    // It is told where, and nothing else is lost.
    let found = forged.findings(false);
    assert!(matches!(
        found[..],
        [ref finding] if finding.offset == Some(second as u64)
    ));
    forged.assert_good("a block without a checksum");
}

#[test]
fn row_12_the_data_file_s_entry_size_is_ignored() {
    let forged = Forged::new();
    let largest = i64::from(u16::MAX);
    for size in [0, 50, largest, i64::MAX, i64::MIN, -1] {
        forged.put("tdat", 40, size.to_le_bytes());
        forged.assert_right(&format!("entry size {size}"));
        assert_eq!(forged.findings(true), [], "{size}");
    }
}

#[test]
fn row_13_segments_have_the_numbers_of_their_folders() {
    let forged = Forged::of_two_segments();
    // Segment 12, of which the legacy writer stores the last digit.
    let channel = forged.path.join("bad.timd");
    let (old, new) = ("bad-000001", "bad-000012");
    for file in FILES {
        forged.put(file, 48, 2_i32.to_le_bytes());
        let folder = channel.join(format!("{old}.segd"));
        let to = folder.join(format!("{new}.{file}"));
        fs::rename(folder.join(format!("{old}.{file}")), to).unwrap();
    }
    let folder = |stem: &str| channel.join(format!("{stem}.segd"));
    fs::rename(folder(old), folder(new)).unwrap();
    let recording = forged.open();
    let numbers: Vec<u64> = recording.channels[0]
        .segments
        .iter()
        .map(|s| s.number)
        .collect();
    assert_eq!(numbers, [0, 12]);
    let read = forged.read::<i32>("bad").unwrap();
    assert_eq!(read, [counts(), counts()].concat());
}

#[test]
fn row_14_identifiers_of_zero_are_harmless() {
    let forged = Forged::new().with_records(&[NewRecord::note(START, "hi")]);
    for file in FILES {
        // The ancestor's.
        forged.put(file, 852, [0; 16]);
    }
    for file in ["rdat", "ridx"] {
        forged.put(file, 820, [0; 48]);
    }
    // A file without the identifier of its segment is not one of another segment.
    forged.put("tidx", 820, [0; 16]);
    forged.assert_right("no identifiers");
    assert_eq!(forged.records(None).records.len(), 1);
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_24_counts_of_entries_are_derived_from_the_size() {
    let forged = Forged::new();
    let there = BLOCKS as i64;
    for (declared, told) in [
        (-1, false),
        (2, true),
        (0, true),
        (1_000_000, true),
        (i64::MAX, true),
    ] {
        for file in ["tidx", "tdat"] {
            forged.put(file, 32, declared.to_le_bytes());
        }
        forged.assert_right(&format!("{declared} entries"));
        // Readers that are built on the reference library read short: it is told.
        let found = forged.findings(true);
        let count = Problem::Count {
            what: "entries",
            declared,
            found: there,
        };
        let problems: Vec<_> = found.iter().map(|finding| &finding.problem).collect();
        let expected = if told {
            vec![&count, &count]
        } else {
            Vec::new()
        };
        assert_eq!(problems, expected);
    }
    // More blocks than any header knows of, and than the index has.
    forged.put("tidx", 32, 3_i64.to_le_bytes());
    forged.patch("tidx", |bytes| bytes.truncate(1024 + 3 * 56));
    forged.assert_right("a short index");
    let recording = forged.open();
    assert_eq!(recording.channels[0].segments[0].repairs.recovered, 1);
}

#[test]
fn row_35_obsolete_drafts_are_refused_or_read_by_their_blocks() {
    let forged = Forged::new();
    let whole = forged.bytes("tidx");
    // A header of 512 bytes, and entries of 32.
    forged.spoil("tidx", |bytes| bytes.truncate(512 + BLOCKS * 32));
    assert!(matches!(
        forged.refusals()[..],
        [MefError::Malformed {
            reason: Malformation::TooShort {
                need: 1024,
                have: 640
            },
            ..
        }]
    ));
    forged.assert_good("a short header");
    // Entries of 40 bytes are none of ours: blocks are found by themselves.
    forged.spoil("tidx", |bytes| *bytes = whole);
    forged.patch("tidx", |bytes| {
        let entries: Vec<u8> = (0..BLOCKS)
            .flat_map(|entry| bytes[1024 + entry * 56..][..40].to_vec())
            .collect();
        bytes.truncate(1024);
        bytes.extend(entries);
    });
    forged.assert_right("short entries");
    assert!(!forged.findings(false).is_empty());
}
