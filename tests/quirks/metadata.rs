//! What metadata files declare.

use std::fs;
use std::thread;
use std::time::Duration;

use mef3_server::mef::{
    Access, Malformation, MefError, OpenOptions, SessionOptions, SessionWriter,
};

use crate::common::forge::{BLOCK, Forged, START, counts, values};

/// What readers of other makes size their buffers by.
const MAXIMA: [(usize, usize); 9] = [
    (8928, 8),
    (8936, 8),
    (8944, 4),
    (8948, 4),
    (8952, 8),
    (8960, 8),
    (8968, 8),
    (8976, 8),
    (8984, 8),
];

fn set_maxima(forged: &Forged, byte: u8) {
    forged.patch("tmet", |bytes| {
        for (offset, length) in MAXIMA {
            bytes[offset..offset + length].fill(byte);
        }
    });
}

#[test]
fn row_01_section_levels_are_signed() {
    let forged = Forged::new();
    assert_eq!(forged.bytes("tmet")[1024..1026], [0xFF, 0xFE]);
    for levels in [[0xFF, 0xFE], [0, 0], [0x80, 0x80], [0xFE, 0xFF]] {
        forged.put("tmet", 1024, levels);
        let recording = forged.open();
        assert_eq!(recording.access, Access::Unprotected);
        assert!(recording.subject.is_some(), "{levels:?}");
        assert!(!recording.channels[0].times_unresolved());
        forged.assert_right(&format!("{levels:?}"));
    }
}

#[test]
fn row_07_declared_maxima_are_not_believed() {
    let forged = Forged::new();
    let exact = forged.bytes("tmet");
    for byte in [0x00, 0xFF, 0x7F] {
        set_maxima(&forged, byte);
        forged.assert_right(&format!("maxima of {byte:02X}"));
    }
    // An append puts them right.
    set_maxima(&forged, 0);
    forged.put("tmet", 8948, u32::MAX.to_le_bytes());
    let mut session = SessionWriter::open(&forged.path, &OpenOptions::default()).unwrap();
    let mut channel = session.continue_channel("bad").unwrap();
    channel.write(START + 2_000_000, &[7; BLOCK]).unwrap();
    channel.finish().unwrap();
    let repaired = forged.bytes("tmet");
    let number = |bytes: &[u8], offset: usize| {
        i64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    };
    assert_eq!(number(&repaired, 8928), number(&exact, 8928) + 1);
    assert_eq!(number(&repaired, 8960), 1);
    assert_eq!(number(&repaired, 8968), 5);
    assert_eq!(number(&repaired, 8984), 250);
    let largest = |bytes: &[u8]| bytes[8936..8948].to_vec();
    assert_eq!(largest(&repaired), largest(&exact));
    // What the old blocks need is not known without decoding them: a safe bound.
    let differences = u32::from_le_bytes(repaired[8948..8952].try_into().unwrap());
    assert_eq!(differences, 5 * BLOCK as u32);
}

#[test]
fn row_08_contiguous_bytes_and_blocks_are_ignored() {
    let forged = Forged::new();
    let body = (forged.bytes("tdat").len() - 1024) as i64;
    for (blocks, bytes) in [(1, body), (i64::MAX, i64::MAX), (i64::MIN, 0)] {
        forged.put("tmet", 8968, blocks.to_le_bytes());
        forged.put("tmet", 8976, bytes.to_le_bytes());
        forged.assert_right("contiguous blocks");
        assert_eq!(forged.findings(true), []);
    }
}

#[test]
fn row_09_durations_are_recomputed() {
    let forged = Forged::new();
    for declared in [1, 0, -1, i64::MAX, i64::MIN] {
        forged.put("tmet", 6656, declared.to_le_bytes());
        let recording = forged.open();
        let acquisition = recording.channels[0].acquisition().unwrap();
        let known = (declared >= 0).then_some(declared);
        assert_eq!(acquisition.declared_duration_us, known);
        let report = forged.info_json(None);
        assert_eq!(
            report["channels"][0]["duration_us"], 2_000_000,
            "{declared}"
        );
        assert_eq!(forged.findings(true), []);
    }
}

#[test]
fn row_10_native_extremes_do_not_scale() {
    let forged = Forged::new();
    forged.put("tmet", 8760, 0.5_f64.to_le_bytes());
    let halves: Vec<f64> = values().iter().map(|value| value * 0.5).collect();
    for extremes in [
        [497.0, -100.0],
        [0.0, 0.0],
        [f64::NAN, f64::INFINITY],
        [-1e300, 1e300],
    ] {
        forged.put("tmet", 8896, extremes[0].to_le_bytes());
        forged.put("tmet", 8904, extremes[1].to_le_bytes());
        assert_eq!(forged.read::<f64>("bad").unwrap(), halves, "{extremes:?}");
        let recording = forged.open();
        let acquisition = recording.channels[0].acquisition().unwrap();
        let known = Some(extremes[0]).filter(|extreme| !extreme.is_nan());
        assert_eq!(acquisition.declared_maximum, known);
    }
}

#[test]
fn row_22_bytes_behind_the_metadata_are_ignored_and_kept() {
    let forged = Forged::new();
    forged.spoil("tmet", |bytes| bytes.extend([0xAB; 100]));
    forged.assert_right("a tail");
    assert_eq!(forged.findings(true), []);
    let mut session = SessionWriter::open(&forged.path, &OpenOptions::default()).unwrap();
    let mut channel = session.continue_channel("bad").unwrap();
    channel.write(START + 2_000_000, &[7; BLOCK]).unwrap();
    channel.finish().unwrap();
    let bytes = forged.bytes("tmet");
    assert_eq!(bytes.len(), 16384 + 100);
    assert_eq!(bytes[16384..], [0xAB; 100]);
    let longer = forged.read::<i32>("bad").unwrap();
    assert_eq!(longer, [counts(), vec![7; BLOCK]].concat());
}

#[test]
fn row_26_short_metadata_are_tried_again_then_skipped() {
    let forged = Forged::of_two_segments();
    let whole = forged.bytes("tmet");
    for (length, need) in [(0, 1024), (1023, 1024), (1024, 16384), (16383, 16384)] {
        forged.spoil("tmet", |bytes| *bytes = whole[..length].to_vec());
        let reason = Malformation::TooShort {
            need,
            have: length as u64,
        };
        let file = forged.file("tmet");
        assert_eq!(forged.refusals(), [MefError::Malformed { file, reason }]);
        assert_eq!(forged.open().channels[0].segments.len(), 1);
        forged.assert_good("short metadata");
    }
    // Somebody cuts the file over and over before he writes it: it is waited for.
    // On a busy machine he may come to a halt for longer than that.
    let waited_for = (0..5).any(|_| {
        let (file, whole) = (forged.file("tmet"), whole.clone());
        fs::write(&file, &whole[..100]).unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(2));
                fs::write(&file, &whole[..100]).unwrap();
            }
            fs::write(&file, &whole).unwrap();
        });
        let refusals = forged.refusals();
        writer.join().unwrap();
        refusals.is_empty()
    });
    assert!(waited_for);
    let read = forged.read::<i32>("bad").unwrap();
    assert_eq!(read, [counts(), counts()].concat());
}

#[test]
fn row_27_a_factor_of_zero_counts_as_one_and_is_flagged() {
    let forged = Forged::new();
    for zero in [0.0_f64, -0.0] {
        forged.put("tmet", 8760, zero.to_le_bytes());
        forged.assert_right("a factor of zero");
        let report = forged.info_json(None);
        let flagged = |channel: usize| &report["channels"][channel]["unset_conversion_factors"];
        assert_eq!(flagged(0)[0], "bad-000000");
        assert_eq!(flagged(1).as_array().unwrap().len(), 0);
        let text = String::from_utf8(forged.info(&[], None).stdout).unwrap();
        assert!(text.contains("conversion factor was never set"), "{text}");
    }
}

#[test]
fn row_28_factors_are_those_of_the_segment_and_rates_must_agree() {
    let forged = Forged::of_two_segments();
    forged.put("tmet", 8760, (-2.5_f64).to_le_bytes());
    let other: Vec<f64> = values().iter().map(|value| value * -2.5).collect();
    assert_eq!(
        forged.read::<f64>("bad").unwrap(),
        [values(), other].concat()
    );
    // Segments of different rates have no common grid.
    forged.put("tmet", 8720, 200.0_f64.to_le_bytes());
    let recording = forged.open();
    assert_eq!(recording.channel_position("bad"), None);
    let rates = Malformation::RateChanges(100.0, 200.0);
    let refused = &recording.unreadable[0];
    assert_eq!(refused.name, "bad");
    assert!(matches!(&refused.error, MefError::Malformed { reason, .. } if *reason == rates));
    forged.assert_good("two rates");
}

#[test]
fn row_34_an_offset_without_entry_is_zero() {
    let forged = Forged::with(SessionOptions::default());
    forged.put("tmet", 13312, i64::MIN.to_le_bytes());
    let recording = forged.open();
    let channel = &recording.channels[0];
    assert_eq!(channel.segments[0].recording_time_offset, Some(0));
    assert!(!channel.times_unresolved());
    assert_eq!(channel.start_uutc, START);
    forged.assert_right("no offset");
    assert_eq!(
        forged.info_json(None)["channels"][0]["recording_time_offset_us"],
        0
    );
    assert_eq!(forged.findings(true), []);
    forged.put("tmet", 13312, 1_000_i64.to_le_bytes());
    assert_eq!(forged.open().channels[0].start_uutc, START + 1_000);
}
