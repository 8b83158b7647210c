//! Samples and clips.

use mef3_server::mef::Rule;

use crate::common::forge::{Forged, PERIOD, START, put, window};

#[test]
fn row_29_the_least_sample_is_no_number() {
    let samples = [5, i32::MIN, i32::MIN + 1, i32::MAX, -5];
    let forged = Forged::of(&samples);
    let recording = forged.open();
    let span = (START, START + 5 * PERIOD);
    let read = window::<f64>(&recording, "bad", Rule::Pymef, span).unwrap();
    assert!(read[1].is_nan());
    let numbers: Vec<f64> = samples.iter().map(|&count| f64::from(count)).collect();
    assert_eq!(read[2..], numbers[2..], "infinities stay counts");
    let narrow = window::<f32>(&recording, "bad", Rule::Pymef, span).unwrap();
    assert!(narrow[1].is_nan());
    // To mef3io it is a number, and integers are what is stored.
    assert_eq!(forged.read::<f64>("bad").unwrap(), numbers);
    assert_eq!(
        window::<i32>(&recording, "bad", Rule::Pymef, span).unwrap(),
        samples
    );
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_30_a_step_over_the_whole_range_wraps() {
    let samples = [i32::MIN, i32::MAX];
    let forged = Forged::of(&samples);
    // As the reference encoder has it: a difference of minus one.
    forged.patch_block(0, |block| {
        put(block, 28, 6_u32.to_le_bytes());
        block[48..304].fill(0);
        (block[48], block[48 + 128], block[48 + 255]) = (3, 1, 1);
        put(block, 304, [0x2b, 0, 0x7e, 0x7e, 0x7e, 0x7e, 0x7e, 0x7e]);
    });
    assert_eq!(forged.read::<i32>("bad").unwrap(), samples);
    assert_eq!(forged.findings(true), []);
}

#[test]
fn row_33_clips_of_the_legacy_writer_ignore_the_offset() {
    let forged = Forged::copy("video_pymef", "cam");
    let entry_size = |bytes: &[u8]| i64::from_le_bytes(bytes[40..48].try_into().unwrap());
    assert_eq!(entry_size(&forged.bytes("vidx")), 56);
    let clips = |forged: &Forged| forged.open().video_channels[0].segments[0].clips.clone();
    let found = clips(&forged);
    assert_eq!(found.len(), 2);
    let start = found[0].start_uutc.unwrap();
    assert_eq!(start, 1_591_000_000_000_000);
    assert_eq!(found[1].file_offset, Some(50_000));
    // The entry size is not believed.
    for size in [64, 0, -1, i64::MAX] {
        forged.put("vidx", 40, size.to_le_bytes());
        assert_eq!(clips(&forged), found);
    }
    // The writer negates without the offset, which readers add (section 5, trap 5):
    // times come out later by it, those of the metadata do not.
    let offset = 1_000_000_000;
    forged.put("vmet", 13312, i64::to_le_bytes(offset));
    forged.put("vmet", 16, (offset - start).to_le_bytes());
    let shifted = clips(&forged);
    assert_eq!(shifted[0].start_uutc, Some(start + offset));
    assert_eq!(
        shifted[1].end_uutc,
        found[1].end_uutc.map(|end| end + offset)
    );
    let recording = forged.open();
    let metadata = &recording.video_channels[0].segments[0].metadata;
    assert_eq!(metadata.recording_time_offset, Some(offset));
    assert_eq!(metadata.start_uutc, Some(start));
}
