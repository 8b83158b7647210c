//! Every byte of a small pair of files, flipped or cut off.

use super::*;

/// Records of several types, one with long runs of zeros and one with a text that
/// looks like a record.
fn records() -> Vec<NewRecord> {
    let seizure = Seizure {
        earliest_onset_uutc: Some(START),
        annotation: "onset".into(),
        channels: vec![SeizureChannel::default()],
        ..Seizure::default()
    };
    let bait = "Note\u{1}\u{1}NoteNoteNoteNoteNoteNoteNote~~~~";
    let log = RecordBody::SystemLog { text: bait.into() };
    let edfa = RecordBody::EdfAnnotation {
        duration_us: Some(5),
        text: "event".into(),
    };
    vec![
        NewRecord::note(START, "first"),
        NewRecord::new(RecordType::SYLG, START + 3, log),
        NewRecord::new(RecordType::SEIZ, START + 2, RecordBody::Seizure(seizure)),
        NewRecord::new(RecordType::EDFA, START + 2, edfa),
        NewRecord::note(START + 1, "last"),
    ]
}

const FLIPS: [fn(u8) -> u8; 5] = [
    |byte| byte ^ 0x01,
    |byte| byte ^ 0x80,
    |byte| byte ^ 0xFF,
    |_| 0,
    |byte| byte.wrapping_add(16),
];

/// Fails unless all records are true ones; returns how many there are.
fn assert_true(pair: &Pair, growing: bool, truth: &[Record], what: &str) -> usize {
    let Ok(scan) = pair.scan_for(growing, &RecordFilter::default()) else {
        return 0;
    };
    let records = pair.records(&scan);
    for record in &records {
        assert!(truth.contains(record), "{what}: {record:?}");
    }
    let lost = truth.len() - records.len();
    if !growing && lost > 0 {
        assert_ne!(
            findings(&scan),
            [],
            "{what}: {lost} records lost in silence"
        );
    }
    records.len()
}

#[test]
fn a_flipped_byte_gives_true_records_or_damage() {
    let pair = Pair::of(&records());
    let truth = pair.records(&pair.scan(false));
    assert_eq!(truth.len(), 5);
    for place in 0..pair.data.len() {
        for flip in FLIPS {
            let mut pair = pair.clone();
            pair.data[place] = flip(pair.data[place]);
            let what = format!("data byte {place}");
            let growing = assert_true(&pair, true, &truth, &what);
            let found = assert_true(&pair, false, &truth, &what);
            // Not even the length of a record can hide those behind it.
            if place >= HEADER_BYTES {
                assert!(found >= 4 && growing >= 4, "{what}: {found} {growing}");
            }
            let pair = pair.without_index();
            assert_true(&pair, true, &truth, &what);
            assert_true(&pair, false, &truth, &what);
        }
    }
}

#[test]
fn a_flipped_byte_of_the_index_costs_no_record() {
    let pair = Pair::of(&records());
    let truth = pair.records(&pair.scan(false));
    for place in 0..pair.index.as_ref().unwrap().len() {
        for flip in FLIPS {
            let mut pair = pair.clone();
            let index = pair.index.as_mut().unwrap();
            index[place] = flip(index[place]);
            for growing in [true, false] {
                let what = format!("index byte {place}");
                assert_eq!(assert_true(&pair, growing, &truth, &what), 5, "{what}");
            }
        }
    }
}

#[test]
fn a_flip_in_both_files_gives_true_records_or_damage() {
    let pair = Pair::of(&records());
    let truth = pair.records(&pair.scan(false));
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..5000 {
        let mut pair = pair.clone();
        let index = pair.index.as_mut().unwrap();
        for bytes in [&mut pair.data, index] {
            let place = rng.usize(HEADER_BYTES..bytes.len());
            bytes[place] = rng.u8(..);
        }
        for growing in [true, false] {
            assert_true(&pair, growing, &truth, "both");
        }
    }
}

#[test]
fn a_cut_anywhere_leaves_the_records_before_it() {
    let pair = Pair::of(&records());
    let truth = pair.records(&pair.scan(false));
    let ends: Vec<usize> = {
        let scan = pair.scan(false);
        let ends = scan.positions.iter();
        ends.map(|p| p.file_offset as usize + 24 + p.body_bytes as usize)
            .collect()
    };
    for length in 0..pair.data.len() {
        let mut cut = pair.clone();
        cut.data.truncate(length);
        let expected = ends.iter().filter(|&&end| end <= length).count();
        for cut in [cut.clone(), cut.without_index()] {
            for growing in [true, false] {
                let found = assert_true(&cut, growing, &truth, &format!("cut at {length}"));
                assert_eq!(found, expected, "cut at {length}");
            }
        }
    }
    for length in 0..pair.index.as_ref().unwrap().len() {
        let mut cut = pair.clone();
        cut.index.as_mut().unwrap().truncate(length);
        for growing in [true, false] {
            assert_eq!(assert_true(&cut, growing, &truth, "index cut"), 5);
        }
    }
}
