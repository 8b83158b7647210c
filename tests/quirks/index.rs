//! What an index says, and what its blocks say.

use std::fs;

use mef3_server::mef::{MefError, Problem, ReadError, Rule};

use crate::common::forge::{BLOCK, BLOCKS, Forged, PERIOD, START, counts, put, values, window};

/// Puts the start of a block into the block and into its entry.
fn start_at(forged: &Forged, block: usize, start: i64) {
    forged.patch_block(block, |bytes| put(bytes, 40, (-start).to_le_bytes()));
    forged.put_in("tidx", block, 8, (-start).to_le_bytes());
}

/// Puts the flags of a block into the block and into its entry.
fn flag(forged: &Forged, block: usize, flags: u8) {
    forged.patch_block(block, |bytes| bytes[4] = flags);
    forged.put_in("tidx", block, 44, [flags]);
}

fn start_of(block: usize) -> i64 {
    START + (block * BLOCK) as i64 * PERIOD
}

#[test]
fn row_11_start_samples_may_be_of_the_segment_or_of_the_channel() {
    let forged = Forged::of_two_segments();
    let both = [counts(), counts()].concat();
    let of_segment: Vec<i64> = (0..BLOCKS).map(|block| (block * BLOCK) as i64).collect();
    let of_channel = of_segment
        .iter()
        .map(|s| s + (BLOCK * BLOCKS) as i64)
        .collect();
    let absurd = vec![i64::MAX, i64::MIN, -1, 7];
    for starts in [of_segment, of_channel, absurd] {
        for (entry, start) in starts.iter().enumerate() {
            forged.put_in("tidx", entry, 16, start.to_le_bytes());
        }
        // Samples are placed by the times of their blocks.
        assert_eq!(forged.read::<i32>("bad").unwrap(), both, "{starts:?}");
        assert_eq!(
            forged.open().channels[0].stored_samples(),
            2 * (BLOCK * BLOCKS) as u64
        );
        assert_eq!(forged.findings(true), [], "{starts:?}");
    }
}

#[test]
fn row_19_a_discontinuity_flag_is_no_gap() {
    let forged = Forged::new();
    flag(&forged, 2, 1);
    let recording = forged.open();
    let channel = &recording.channels[0];
    assert!(channel.segments[0].index.get(2).unwrap().discontinuity());
    assert_eq!(channel.gaps(), []);
    forged.assert_right("flagged");

    // And without a flag there may be one.
    start_at(&forged, 3, start_of(3) + 1_000_000);
    flag(&forged, 3, 0);
    let recording = forged.open();
    let gaps = recording.channels[0].gaps();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].start_uutc, gaps[0].end_uutc),
        (start_of(3), start_of(3) + 1_000_000)
    );
    assert_eq!(forged.info_json(None)["channels"][0]["gaps"]["count"], 1);
}

#[test]
fn row_20_blocks_drift_and_overlap_and_the_last_one_wins() {
    let forged = Forged::new();
    // Less than half a sample is no gap, and moves nothing.
    for (block, drift) in [(1, -1), (2, -4_999), (3, -9_998)] {
        start_at(&forged, block, start_of(block) + drift);
    }
    assert_eq!(forged.open().channels[0].gaps(), []);
    assert_eq!(forged.findings(true), []);
    // The third is a sample early by now.
    let mut drifted = values();
    drifted.copy_within(3 * BLOCK.., 3 * BLOCK - 1);
    let read = forged.read::<f64>("bad").unwrap();
    let last = drifted.len() - 1;
    assert_eq!(read[..last], drifted[..last]);
    assert!(read[last].is_nan());
    // Three samples early: the later block has the three slots.
    let forged = Forged::new();
    start_at(&forged, 2, start_of(2) - 3 * PERIOD);
    let mut expected = values();
    expected.copy_within(2 * BLOCK..3 * BLOCK, 2 * BLOCK - 3);
    expected[3 * BLOCK - 3..3 * BLOCK].fill(f64::NAN);
    let read = forged.read::<f64>("bad").unwrap();
    for (slot, (found, expected)) in read.iter().zip(&expected).enumerate() {
        let same = found == expected || found.is_nan() && expected.is_nan();
        assert!(same, "slot {slot}: {found} {expected}");
    }
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_21_padding_of_an_index_is_skipped() {
    let forged = Forged::new();
    forged.patch("tidx", |bytes| {
        let entries = bytes.split_off(1024);
        let (first, rest) = entries.split_at(2 * 56);
        let nothing: Vec<u8> = [
            (-1_i64).to_le_bytes().as_slice(),
            &i64::MIN.to_le_bytes(),
            &(-1_i64).to_le_bytes(),
            &[0xFF; 8],
            &[0; 24],
        ]
        .concat();
        bytes.extend(
            [
                first,
                &[0; 56],
                &nothing,
                &[0xFF; 56],
                rest,
                &[0; 56],
                &[7; 30],
            ]
            .concat(),
        );
    });
    let recording = forged.open();
    let segment = &recording.channels[0].segments[0];
    assert_eq!(segment.index.len(), BLOCKS);
    assert_eq!(segment.index.trailing_bytes(), 30);
    forged.assert_right("padding");
    let trailing = &forged.info_json(None)["channels"][0]["trailing_index_bytes"];
    assert_eq!(trailing[0]["bytes"], 30);
    let found = forged.findings(false);
    let trailing = |problem: &Problem| *problem == Problem::Trailing(30);
    assert!(
        found.iter().any(|finding| trailing(&finding.problem)),
        "{found:?}"
    );
}

#[test]
fn row_23_a_block_s_header_wins_over_its_entry() {
    for (what, offset, value) in [
        (
            "start",
            8,
            (-start_of(1) - 77_000_000).to_le_bytes().to_vec(),
        ),
        (
            "a little early",
            8,
            (-start_of(1) + 3_333).to_le_bytes().to_vec(),
        ),
        (
            "a sample late",
            8,
            (-start_of(1) - PERIOD).to_le_bytes().to_vec(),
        ),
        ("no start", 8, i64::MIN.to_le_bytes().to_vec()),
        ("samples", 24, 49_u32.to_le_bytes().to_vec()),
        ("no samples", 24, 0_u32.to_le_bytes().to_vec()),
        ("unknown samples", 24, u32::MAX.to_le_bytes().to_vec()),
    ] {
        let forged = Forged::new();
        forged.patch("tidx", |bytes| {
            let place = 1024 + 56 + offset;
            bytes[place..place + value.len()].copy_from_slice(&value);
        });
        forged.assert_right(what);
        // It is told, by everything that looks at the session.
        let recording = forged.open();
        assert_eq!(
            recording.channels[0].segments[0].repairs.corrected, 1,
            "{what}"
        );
        let report = forged.info_json(None);
        assert_eq!(report["channels"][0]["repaired_indices"][0]["corrected"], 1);
        assert_eq!(
            report["channels"][1]["repaired_indices"]
                .as_array()
                .unwrap()
                .len(),
            0
        );
        let text = String::from_utf8(forged.info(&[], None).stdout).unwrap();
        assert!(text.contains("1 entries corrected"), "{text}");
        let found = forged.findings(false);
        let told = |problem: &Problem| matches!(problem, Problem::Entry { entry: 1, .. });
        assert!(found.iter().any(|finding| told(&finding.problem)), "{what}");
    }
}

#[test]
fn row_25_a_segment_without_its_index_is_skipped_and_told() {
    let forged = Forged::of_two_segments();
    let index = forged.file("tidx");
    let bytes = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    let missing = MefError::NotFound {
        path: index.clone(),
    };
    assert_eq!(forged.refusals(), [missing]);
    let recording = forged.open();
    assert_eq!(recording.channels[0].segments.len(), 1);
    let first = (START, START + 2_000_000);
    let read = window::<i32>(&recording, "bad", Rule::Mef3io, first);
    assert_eq!(read.unwrap(), counts());
    // Where it may have samples is not called a gap.
    let behind = (START + 2_000_000, START + 4_000_000);
    let read = window::<i32>(&recording, "bad", Rule::Mef3io, behind);
    assert!(matches!(read, Err(ReadError::UnreadableSegment { .. })));
    forged.assert_good("no index");
    // It may only be late.
    fs::write(&index, bytes).unwrap();
    assert_eq!(forged.refusals(), []);
    assert_eq!(
        forged.read::<i32>("bad").unwrap(),
        [counts(), counts()].concat()
    );
}
