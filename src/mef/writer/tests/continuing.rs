//! Going on with channels: where new blocks go, what is kept, what is refused.

use std::collections::BTreeMap;
use std::fs::OpenOptions as FileOptions;
use std::io::Write;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32};

use super::*;
use crate::mef::crc::crc32;
use crate::mef::layout::{METADATA_BYTES, UniversalHeader};
use crate::mef::{ChannelReader, Grid, MefError, Password, Rule, check_session, open_session};

const RATE: f64 = 10.0;

/// A session of one channel: fifteen seconds, in a block of ten and one of five.
fn fifteen_seconds(options: SessionOptions) -> (TempDir, PathBuf) {
    let (folder, mut session) = session(options);
    let mut channel = session.channel(ChannelOptions::new("c", RATE)).unwrap();
    channel.write(START, &counts(0..150)).unwrap();
    channel.finish().unwrap();
    let path = folder.path().join("s.mefd");
    (folder, path)
}

fn counts(range: std::ops::Range<i32>) -> Vec<i32> {
    range.collect()
}

fn with_password(text: &str) -> OpenOptions {
    OpenOptions {
        password: Password::new(text),
    }
}

fn writer(path: &Path) -> Result<ChannelWriter, WriteError> {
    SessionWriter::open(path, &OpenOptions::default())?.continue_channel("c")
}

fn at(second: i64) -> i64 {
    START + second * 1_000_000
}

fn segment_file(path: &Path, number: u32, extension: &str) -> PathBuf {
    path.join(format!(
        "c.timd/c-{number:06}.segd/c-{number:06}.{extension}"
    ))
}

/// All samples from the start on, by a reader that a healthy session has no
/// finding for.
fn samples(path: &Path, options: &OpenOptions) -> Vec<f64> {
    let mut findings = Vec::new();
    check_session(path, options, true, &mut |finding| findings.push(finding)).unwrap();
    assert_eq!(findings, []);
    let recording = open_session(path, options).unwrap();
    let channel = &recording.channels[0];
    let grid = Grid::new(Rule::Mef3io, channel.start_uutc, channel.end_uutc, RATE).unwrap();
    let mut values = vec![0.0; grid.columns() as usize];
    let mut reader = ChannelReader::new(&recording, channel, grid).unwrap();
    reader.read(0, &mut values).unwrap();
    values
}

fn ramp(length: i32) -> Vec<f64> {
    (0..length).map(f64::from).collect()
}

/// Changes a file's header, and its CRC with it.
fn edit_header(path: &Path, edit: impl FnOnce(&mut UniversalHeader)) {
    let mut bytes = fs::read(path).unwrap();
    let (header, _) = UniversalHeader::mut_from_prefix(&mut bytes).unwrap();
    edit(header);
    header.header_crc = U32::new(crc32(&header.as_bytes()[4..]));
    fs::write(path, bytes).unwrap();
}

#[test]
fn seamless_samples_go_on_in_the_last_segment() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    let mut channel = writer(&path).unwrap();
    assert_eq!(channel.end_uutc(), Some(at(15)));
    assert_eq!(channel.sampling_frequency(), RATE);
    channel.write(at(15), &counts(150..170)).unwrap();
    channel.flush().unwrap();
    let none = OpenOptions::default();
    assert_eq!(samples(&path, &none), ramp(170));
    channel.write(at(17) + 30_000, &counts(170..400)).unwrap();
    channel.finish().unwrap();
    assert_eq!(samples(&path, &none), ramp(400));
    assert_eq!(names(&path.join("c.timd")), ["c-000000.segd"]);
    let recording = open_session(&path, &none).unwrap();
    let blocks: Vec<_> = recording.channels[0].segments[0].index.iter().collect();
    let flags: Vec<bool> = blocks.iter().map(|block| block.discontinuity()).collect();
    assert_eq!(flags, [true, false, false, false, false, false]);
    let lengths: Vec<u32> = blocks.iter().map(|block| block.samples).collect();
    assert_eq!(lengths, [100, 50, 20, 100, 100, 30]);
}

#[test]
fn a_gap_an_overlap_and_a_new_segment() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    let mut channel = writer(&path).unwrap();
    let early = channel.write(at(15) - 50_000, &[1]);
    assert!(matches!(early, Err(WriteError::Overlap { end, .. }) if end == at(15)));
    channel.write(at(20), &[7; 10]).unwrap();
    channel.new_segment().unwrap();
    channel.write(at(30), &[8; 10]).unwrap();
    channel.finish().unwrap();
    let found = samples(&path, &OpenOptions::default());
    assert_eq!(found.len(), 310);
    assert!(found[150..200].iter().all(|value| value.is_nan()));
    assert_eq!(found[200..210], [7.0; 10]);
    assert_eq!(found[300..], [8.0; 10]);
    let metadata = fs::read(segment_file(&path, 1, "tmet")).unwrap();
    let section = Metadata::read_from_bytes(&metadata).unwrap().section_2;
    assert_eq!(section.start_sample.get(), 160);
}

/// The next segment could not say how many samples there are before it.
#[test]
fn a_channel_with_an_unreadable_segment_is_refused() {
    for lost in [0, 1] {
        let (_folder, path) = fifteen_seconds(SessionOptions::default());
        let mut channel = writer(&path).unwrap();
        channel.new_segment().unwrap();
        channel.write(at(15), &counts(150..200)).unwrap();
        channel.finish().unwrap();
        fs::remove_file(segment_file(&path, lost, "tidx")).unwrap();
        let refused = writer(&path).err().unwrap();
        let WriteError::UnreadableSegment { path: folder, .. } = &refused else {
            panic!("{refused}");
        };
        let file = segment_file(&path, lost, "tidx");
        assert_eq!(Some(folder.as_path()), file.parent());
    }
}

/// The run that a channel goes on with has its time from the files.
#[test]
fn an_absurd_end_of_what_stands_there_is_a_gap() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    let mut channel = writer(&path).unwrap();
    channel.run.as_mut().unwrap().start = i64::MIN;
    channel.write(at(15), &counts(150..200)).unwrap();
    channel.finish().unwrap();
}

/// Each of these leaves the old segment byte for byte as it is.
#[test]
fn a_torn_segment_stays_and_a_new_one_is_begun() {
    let append = |extension: &'static str, bytes: usize| {
        move |path: &Path| {
            let file = segment_file(path, 0, extension);
            let mut file = FileOptions::new().append(true).open(file).unwrap();
            file.write_all(&vec![0x55; bytes]).unwrap();
        }
    };
    let flip = |extension: &'static str, from_end: usize| {
        move |path: &Path| {
            let file = segment_file(path, 0, extension);
            let mut bytes = fs::read(&file).unwrap();
            let place = bytes.len() - from_end;
            bytes[place] ^= 1;
            fs::write(file, bytes).unwrap();
        }
    };
    let tears: [&dyn Fn(&Path); 5] = [
        &append("tdat", 312),
        &append("tdat", 5),
        &append("tidx", 20),
        // The payload of the last block; a protected byte of an index entry.
        &flip("tdat", 1),
        &flip("tidx", 16),
    ];
    for (number, tear) in tears.into_iter().enumerate() {
        let (_folder, path) = fifteen_seconds(SessionOptions::default());
        tear(&path);
        let files = ["tdat", "tidx", "tmet"].map(|kind| segment_file(&path, 0, kind));
        let before = files.each_ref().map(|file| fs::read(file).unwrap());
        let mut channel = writer(&path).unwrap();
        channel.write(at(15), &counts(150..200)).unwrap();
        channel.finish().unwrap();
        let after = files.each_ref().map(|file| fs::read(file).unwrap());
        assert!(before == after, "tear {number}");
        let recording = open_session(&path, &OpenOptions::default()).unwrap();
        let segments = &recording.channels[0].segments;
        assert_eq!(segments.len(), 2, "tear {number}");
        assert_eq!(segments[1].index.total_samples(), 50);
        assert_eq!(segments[1].index.start_uutc(), Some(at(15)));
    }
}

#[test]
fn headers_that_a_crash_left_behind_are_put_right() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    for extension in ["tdat", "tidx"] {
        edit_header(&segment_file(&path, 0, extension), |header| {
            header.number_of_entries = I64::new(1);
            header.body_crc = U32::new(77);
        });
    }
    let mut channel = writer(&path).unwrap();
    channel.write(at(15), &counts(150..200)).unwrap();
    channel.finish().unwrap();
    assert_eq!(samples(&path, &OpenOptions::default()), ramp(200));
}

#[test]
fn what_others_have_put_into_the_files_is_kept() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    for extension in ["tdat", "tidx", "tmet"] {
        edit_header(&segment_file(&path, 0, extension), |header| {
            header.discretionary_region = [9; 64];
            header.protected_region = [3; 60];
            if extension != "tmet" {
                header.body_crc = U32::new(0);
            }
        });
    }
    let tmet = segment_file(&path, 0, "tmet");
    let mut file = FileOptions::new().append(true).open(&tmet).unwrap();
    file.write_all(b"foreign").unwrap();
    let mut channel = writer(&path).unwrap();
    channel.write(at(15), &counts(150..200)).unwrap();
    channel.finish().unwrap();
    let bytes = fs::read(&tmet).unwrap();
    assert_eq!(bytes[METADATA_BYTES..], *b"foreign");
    for extension in ["tdat", "tidx", "tmet"] {
        let bytes = fs::read(segment_file(&path, 0, extension)).unwrap();
        let (header, _) = UniversalHeader::ref_from_prefix(&bytes).unwrap();
        assert_eq!(header.discretionary_region, [9; 64]);
        assert_eq!(header.protected_region, [3; 60]);
        // "Never computed" stays so.
        assert_eq!(header.body_crc.get() == 0, extension != "tmet");
    }
    assert_eq!(samples(&path, &OpenOptions::default()), ramp(200));
}

#[test]
fn one_writer_at_a_time_has_a_segment() {
    let (_folder, path) = fifteen_seconds(SessionOptions::default());
    let first = writer(&path).unwrap();
    assert!(matches!(writer(&path), Err(WriteError::Busy { .. })));
    drop(first);
    assert!(writer(&path).is_ok());
}

#[test]
fn a_writer_stops_where_somebody_else_has_written() {
    for extension in ["tdat", "tidx"] {
        let (_folder, path) = fifteen_seconds(SessionOptions::default());
        let mut channel = writer(&path).unwrap();
        let file = segment_file(&path, 0, extension);
        fs::write(&file, [fs::read(&file).unwrap(), vec![0; 8]].concat()).unwrap();
        channel.write(at(15), &[1; 10]).unwrap();
        let refused = channel.flush();
        assert!(matches!(refused, Err(WriteError::Changed { path }) if path == file));
        assert!(matches!(channel.flush(), Err(WriteError::Unusable)));
    }
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let (folder, path) = fifteen_seconds(SessionOptions::default());
    let none = OpenOptions::default();
    let mut session = SessionWriter::open(&path, &none).unwrap();
    fs::create_dir(path.join("empty.timd")).unwrap();
    for name in ["empty", "nowhere"] {
        let refused = session.continue_channel(name).err().unwrap();
        let expected = matches!(
            refused,
            WriteError::NothingToContinue { .. } | WriteError::Unreadable(_)
        );
        assert!(expected, "{name}: {refused}");
    }
    fs::write(path.join(".mefd-operation"), "").unwrap();
    assert!(SessionWriter::open(&path, &none).is_ok());
    fs::write(path.join(".mef3io-operation"), "").unwrap();
    let refused = SessionWriter::open(&path, &none).err();
    assert!(matches!(refused, Some(WriteError::Unfinished { .. })));
    let refused = SessionWriter::open(folder.path().join("other.mefd"), &none).err();
    assert!(matches!(refused, Some(WriteError::Unreadable(_))));
}

#[test]
fn what_a_dead_writer_has_left_is_not_touched() {
    let (folder, mut writer) = session(SessionOptions::default());
    let mut channel = writer.channel(ChannelOptions::new("c", RATE)).unwrap();
    channel.write(START, &counts(0..150)).unwrap();
    channel.new_segment().unwrap();
    channel.write(at(15), &counts(150..300)).unwrap();
    // As if the process had died.
    drop(channel);
    let path = folder.path().join("s.mefd");
    let left = fs::read(path.join("c.timd/c-000001.segd.partial/c-000001.tdat")).unwrap();
    let mut channel = writer.continue_channel("c").unwrap();
    channel.new_segment().unwrap();
    channel.write(at(15), &counts(150..200)).unwrap();
    channel.finish().unwrap();
    assert_eq!(samples(&path, &OpenOptions::default()), ramp(200));
    let kept = fs::read(path.join("c.timd/c-000001.segd.partial/c-000001.tdat")).unwrap();
    assert!(left == kept);
}

fn protected() -> SessionOptions {
    SessionOptions {
        passwords: Some(Passwords::new("first", "sécond").unwrap()),
        subject_name_1: "Somebody".into(),
        session_description: "a night".into(),
        recording_time_offset: Some(START - 1_000_000),
        ..SessionOptions::default()
    }
}

#[test]
fn a_protected_session_stays_protected() {
    let (_folder, path) = fifteen_seconds(protected());
    let refused = |password: &str| {
        let options = with_password(password);
        SessionWriter::open(&path, &options)
            .and_then(|mut session| session.continue_channel("c").map(drop))
            .err()
            .unwrap()
    };
    assert!(matches!(refused("first"), WriteError::Locked { .. }));
    let error = refused("");
    assert!(matches!(
        error,
        WriteError::Unreadable(MefError::Encrypted { .. })
    ));
    let error = refused("third");
    assert!(matches!(
        error,
        WriteError::Unreadable(MefError::WrongPassword { .. })
    ));

    let options = with_password("sécond");
    let mut session = SessionWriter::open(&path, &options).unwrap();
    let mut channel = session.continue_channel("c").unwrap();
    channel.write(at(15), &counts(150..200)).unwrap();
    channel.new_segment().unwrap();
    channel.write(at(20), &counts(200..250)).unwrap();
    channel.finish().unwrap();
    let mut more = session.channel(ChannelOptions::new("d", RATE)).unwrap();
    more.write(START, &[1; 10]).unwrap();
    more.finish().unwrap();
    assert_eq!(samples(&path, &options), ramp(250));

    let recording = open_session(&path, &options).unwrap();
    assert_eq!(recording.subject.unwrap().name_1, "Somebody");
    assert_eq!(recording.channels[1].start_uutc, START);
    // The signal, but neither the subject nor the date.
    let recording = open_session(&path, &with_password("first")).unwrap();
    assert!(recording.subject.is_none());
    assert!(recording.channels[0].times_unresolved());
    assert_eq!(recording.channels[0].start_uutc, 1_000_000);
    for file in files(&path) {
        let bytes = fs::read(&file).unwrap();
        for text in [&b"Somebody"[..], b"a night", &START.to_le_bytes()] {
            let found = bytes.windows(text.len()).any(|window| window == text);
            assert!(!found, "{}", file.display());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn times_that_the_offset_cannot_hide_are_refused() {
    let (_folder, mut session) = session(protected());
    let mut channel = session.channel(ChannelOptions::new("c", RATE)).unwrap();
    for start in [START - 1_000_000, START - 2_000_000] {
        let refused = channel.write(start, &[1]);
        assert!(matches!(refused, Err(WriteError::StartTime(time)) if time == start));
    }
    channel.write(START - 999_999, &[1]).unwrap();
    channel.finish().unwrap();
}

#[test]
fn passwords_that_not_all_readers_could_use_are_refused() {
    for (first, second, level) in [
        ("", "b", 1),
        ("a", "", 2),
        ("a\0", "b", 1),
        ("0123456789abcdef", "b", 1),
        ("a", "ääääääää", 2),
        ("same", "same", 2),
        // One key, by the format's rule of the low eight bits.
        ("A", "\u{141}", 2),
    ] {
        let refused = Passwords::new(first, second).err();
        assert!(
            matches!(refused, Some(WriteError::Password { level: found, .. }) if found == level),
            "{first:?} {second:?}"
        );
    }
    let passwords = Passwords::new("0123456789abcde", "ä").unwrap();
    assert_eq!(format!("{passwords:?}"), "Passwords(..)");
}

/// The sums that readers size their buffers by are those of all blocks, however
/// many calls they came in.
#[test]
fn declarations_are_the_same_as_if_written_at_once() {
    let declared = |path: &Path| {
        let bytes = fs::read(segment_file(path, 0, "tmet")).unwrap();
        let section = Metadata::read_from_bytes(&bytes).unwrap().section_2;
        BTreeMap::from([
            ("samples", section.number_of_samples.get()),
            ("blocks", section.number_of_blocks.get()),
            ("block bytes", section.maximum_block_bytes.get()),
            ("block samples", section.maximum_block_samples.get().into()),
            ("duration", section.recording_duration.get()),
            ("gaps", section.number_of_discontinuities.get()),
            ("run blocks", section.maximum_contiguous_blocks.get()),
            ("run bytes", section.maximum_contiguous_block_bytes.get()),
            ("run samples", section.maximum_contiguous_samples.get()),
            ("maximum", section.maximum_native_sample_value.get() as i64),
            ("minimum", section.minimum_native_sample_value.get() as i64),
        ])
    };
    let pieces = [(0, 0..200), (40, 200..500), (70, 500..700), (200, 700..800)];
    let (folder, mut at_once) = session(SessionOptions::default());
    let mut channel = at_once.channel(ChannelOptions::new("c", RATE)).unwrap();
    for (second, range) in pieces.clone() {
        channel.write(at(second), &counts(range)).unwrap();
    }
    channel.finish().unwrap();
    let (other, mut by_piece) = session(SessionOptions::default());
    let mut channel = by_piece.channel(ChannelOptions::new("c", RATE)).unwrap();
    for (second, range) in pieces {
        channel.write(at(second), &counts(range)).unwrap();
        channel.finish().unwrap();
        channel = by_piece.continue_channel("c").unwrap();
    }
    let [expected, found] = [folder, other].map(|folder| declared(&folder.path().join("s.mefd")));
    assert_eq!(found, expected);
}
