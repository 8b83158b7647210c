//! What the writer refuses, and what it leaves on disk.

use tempfile::TempDir;
use zerocopy::FromBytes;

use super::*;
use crate::mef::layout::{HEADER_BYTES, IndexEntry, Metadata};
use crate::mef::open_session;
use crate::mef::red::NAN;

mod continuing;

const START: i64 = 1_600_000_000_000_000;

fn session(options: SessionOptions) -> (TempDir, SessionWriter) {
    let folder = tempfile::tempdir().unwrap();
    let writer = SessionWriter::create(folder.path().join("s.mefd"), options).unwrap();
    (folder, writer)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn names_that_cannot_be_stored_are_refused() {
    let (_folder, mut session) = session(SessionOptions::default());
    let longest = "ä".repeat(63);
    for name in ["", ".x", "a/b", "a\0b", &format!("{longest}x")] {
        let result = session.channel(ChannelOptions::new(name, 1.0));
        assert!(matches!(result, Err(WriteError::Name { .. })), "{name:?}");
    }
    for name in ["a b.c", "x-000001", &longest] {
        assert!(session.channel(ChannelOptions::new(name, 1.0)).is_ok());
    }
}

#[test]
fn nothing_is_overwritten() {
    let (folder, mut session) = session(SessionOptions::default());
    let again = SessionWriter::create(folder.path().join("s.mefd"), SessionOptions::default());
    assert!(matches!(again, Err(WriteError::Exists { .. })));
    let elsewhere = SessionWriter::create(folder.path().join("s"), SessionOptions::default());
    assert!(matches!(elsewhere, Err(WriteError::SessionPath { .. })));
    let _first = session.channel(ChannelOptions::new("c", 1.0)).unwrap();
    let second = session.channel(ChannelOptions::new("c", 1.0));
    assert!(matches!(second, Err(WriteError::Exists { .. })));
}

#[test]
fn numbers_and_texts_that_cannot_be_stored_are_refused() {
    let (_folder, mut session) = session(SessionOptions::default());
    let good = ChannelOptions::new("c", 250.0);
    for fs in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let result = session.channel(ChannelOptions::new("c", fs));
        assert!(matches!(result, Err(WriteError::SamplingFrequency(_))));
    }
    for units_conversion_factor in [0.0, f64::NAN, f64::NEG_INFINITY] {
        let result = session.channel(ChannelOptions {
            units_conversion_factor,
            ..good.clone()
        });
        assert!(matches!(result, Err(WriteError::ConversionFactor(_))));
    }
    for samples in [0, u32::MAX] {
        let result = session.channel(ChannelOptions {
            block_samples: Some(samples),
            ..good.clone()
        });
        assert!(matches!(result, Err(WriteError::BlockSamples(_))));
    }
    let result = session.channel(ChannelOptions {
        units_description: "x".repeat(128),
        ..good
    });
    assert!(matches!(result, Err(WriteError::Text { limit: 127, .. })));
}

#[test]
fn times_that_cannot_be_stored_leave_the_channel_usable() {
    let (_folder, mut session) = session(SessionOptions::default());
    let mut channel = session.channel(ChannelOptions::new("c", 1000.0)).unwrap();
    for start in [-1, i64::MIN, i64::MAX] {
        let result = channel.write(start, &[0; 10]);
        assert!(matches!(result, Err(WriteError::StartTime(_))));
    }
    channel.write(START, &[0; 10]).unwrap();
    // Half a sample early is too early, less than that continues the run.
    let result = channel.write(START + 9_500, &[0; 10]);
    assert!(matches!(
        result,
        Err(WriteError::Overlap { end, .. }) if end == START + 10_000
    ));
    channel.write(START + 9_501, &[0; 10]).unwrap();
    channel.finish().unwrap();
}

#[test]
fn a_segment_appears_when_it_is_complete() {
    let (folder, mut session) = session(SessionOptions::default());
    let mut channel = session.channel(ChannelOptions::new("c", 10.0)).unwrap();
    let channel_folder = folder.path().join("s.mefd/c.timd");
    assert!(names(&channel_folder).is_empty());
    channel.write(START, &[1; 150]).unwrap();
    assert_eq!(names(&channel_folder), ["c-000000.segd.partial"]);
    channel.new_segment().unwrap();
    channel.new_segment().unwrap();
    assert_eq!(names(&channel_folder), ["c-000000.segd"]);
    channel.write(START + 15_000_000, &[1; 150]).unwrap();
    channel.finish().unwrap();
    assert_eq!(names(&channel_folder), ["c-000000.segd", "c-000001.segd"]);
    assert_eq!(
        names(&channel_folder.join("c-000001.segd")),
        ["c-000001.tdat", "c-000001.tidx", "c-000001.tmet"]
    );
}

#[test]
fn a_seed_fixes_every_byte_and_the_cut_into_calls_none() {
    let write = |seed, step| {
        let (folder, mut session) = session(SessionOptions {
            seed: Some(seed),
            ..SessionOptions::default()
        });
        let mut channel = session.channel(ChannelOptions::new("c", 100.0)).unwrap();
        let samples: Vec<i32> = (0..2500).collect();
        for (part, at) in samples.chunks(step).zip((0..).step_by(step)) {
            channel.write(START + at * 10_000, part).unwrap();
        }
        channel.finish().unwrap();
        let segment = folder.path().join("s.mefd/c.timd/c-000000.segd");
        ["tdat", "tidx", "tmet"]
            .map(|kind| fs::read(segment.join(format!("c-000000.{kind}"))).unwrap())
    };
    let bytes = write(1, 2500);
    assert!(write(1, 7) == bytes);
    assert!(write(2, 2500) != bytes);
}

#[test]
fn index_entry_of_section_18_9() {
    let (folder, mut session) = session(SessionOptions::default());
    let mut channel = session.channel(ChannelOptions::new("ch1", 1.0)).unwrap();
    let samples: Vec<i32> = (0..10).collect();
    channel.write(START, &samples).unwrap();
    channel.finish().unwrap();
    let path = folder.path().join("s.mefd");
    let index = fs::read(path.join("ch1.timd/ch1-000000.segd/ch1-000000.tidx")).unwrap();
    let entry: String = index[HEADER_BYTES..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        entry,
        "000400000000000000005cf8ce50faff00000000000000000a00000038010000\
         090000000000000000000000010000000000000000000000"
    );
    let recording = open_session(&path, &OpenOptions::default()).unwrap();
    let entry = recording.channels[0].segments[0].index.get(0).unwrap();
    assert_eq!((entry.file_offset, entry.start_uutc), (1024, START));
    assert_eq!((entry.samples, entry.bytes, entry.flags), (10, 312, 1));
}

#[test]
fn nan_samples_do_not_count_as_extremes() {
    for (samples, indexed, native) in [
        ([NAN, -4, 8, NAN], (-4, 8), Some((-4.0, 2.0))),
        ([NAN; 4], (NAN, NAN), None),
    ] {
        let (folder, mut session) = session(SessionOptions::default());
        let mut channel = session
            .channel(ChannelOptions {
                units_conversion_factor: -0.5,
                ..ChannelOptions::new("c", 10.0)
            })
            .unwrap();
        channel.write(START, &samples).unwrap();
        channel.finish().unwrap();
        let segment = folder.path().join("s.mefd/c.timd/c-000000.segd");
        let index = fs::read(segment.join("c-000000.tidx")).unwrap();
        let entry = IndexEntry::read_from_bytes(&index[HEADER_BYTES..]).unwrap();
        let found = (
            entry.minimum_sample_value.get(),
            entry.maximum_sample_value.get(),
        );
        assert_eq!(found, indexed);
        let metadata = fs::read(segment.join("c-000000.tmet")).unwrap();
        let section = Metadata::read_from_bytes(&metadata).unwrap().section_2;
        let least = section.minimum_native_sample_value.get();
        let greatest = section.maximum_native_sample_value.get();
        match native {
            Some(native) => assert_eq!((least, greatest), native),
            None => assert!(least.is_nan() && greatest.is_nan()),
        }
    }
}

#[test]
fn after_a_failed_write_the_channel_takes_nothing_more() {
    let (folder, mut session) = session(SessionOptions::default());
    let mut channel = session.channel(ChannelOptions::new("c", 10.0)).unwrap();
    channel.write(START, &[1; 150]).unwrap();
    fs::remove_dir_all(folder.path().join("s.mefd/c.timd")).unwrap();
    let failed = channel.new_segment();
    assert!(matches!(failed, Err(WriteError::Changed { .. })));
    let later = channel.write(START + 15_000_000, &[1; 150]);
    assert!(matches!(later, Err(WriteError::Unusable)));
    assert!(matches!(channel.finish(), Err(WriteError::Unusable)));
}
