//! Reading windows straight from files, through the library.

mod common;

use std::fs;
use std::path::Path;

use common::corpus::{Session, copy_folder, folder, sessions};
use mef3_server::mef::{
    Access, ChannelReader, Grid, MefError, OpenOptions, Password, ReadError, Rule, SegmentReader,
    open_session,
};

fn with_password(text: Option<&str>) -> OpenOptions {
    OpenOptions {
        password: text.and_then(Password::new),
    }
}

/// Equal to the last bit, where one NaN is as good as another.
fn same(found: &[f64], expected: &[f64]) -> bool {
    let mut pairs = found.iter().zip(expected);
    found.len() == expected.len()
        && pairs.all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// Long windows are read in chunks; the corpus has no window so long.
#[test]
fn a_window_read_in_pieces_is_the_window() {
    for session in sessions() {
        let options = with_password(session.password_level_2.as_deref());
        let recording = open_session(&session.path, &options).unwrap();
        for window in session.windows() {
            let channel = &recording.channels[recording.channel_position(&window.channel).unwrap()];
            let truths = [
                (Rule::Mef3io, Some(&window.mef3io)),
                (Rule::Pymef, window.pymef.as_ref()),
            ];
            for (rule, truth) in truths {
                let (start, end) = (window.start_uutc, window.end_uutc);
                let grid = Grid::new(rule, start, end, channel.sampling_frequency).unwrap();
                let mut reader = ChannelReader::new(&recording, channel, grid).unwrap();
                let mut values = vec![0.0; grid.columns() as usize];
                // An odd length, so that pieces end anywhere in a block.
                let length = values.len() / 5 + 3;
                for (piece, row) in values.chunks_mut(length).enumerate() {
                    reader.read((piece * length) as u64, row).unwrap();
                }
                let equal = same(&values, truth.unwrap());
                assert!(equal, "{} {} {rule:?}", session.name, window.channel);
            }
        }
    }
}

/// The passwords open what they open in mef3io, and nothing else opens anything.
#[test]
fn passwords_open_what_the_format_says() {
    for name in ["encrypted_mef3io", "encrypted_pymef", "encrypted_blocks"] {
        let session = Session::load(&folder(), name);
        let open = |text: Option<&str>| open_session(&session.path, &with_password(text));
        let wrong = open(Some("thirdthird")).unwrap_err();
        assert!(matches!(wrong, MefError::WrongPassword { .. }), "{wrong}");
        let missing = open(None);
        let full = open(session.password_level_2.as_deref()).unwrap();
        assert_eq!(full.access, Access::Level2);
        let subject = full.subject.unwrap();
        let truth = &session.facts["subject"];
        assert_eq!(subject.name_1, truth["subject_name_1"].as_str().unwrap());
        assert_eq!(subject.id, truth["subject_id"].as_str().unwrap());
        assert!(matches!(missing.unwrap_err(), MefError::Encrypted { .. }));

        let signal = open(session.password_level_1.as_deref()).unwrap();
        assert_eq!(signal.access, Access::Level1);
        assert_eq!(signal.subject, None);
        assert_eq!(signal.channels.len(), full.channels.len());
        for channel in &signal.channels {
            assert!(channel.times_unresolved(), "the offset is locked, too");
            let facts = &session.facts["channels"][&channel.name];
            assert_eq!(facts["sampling_frequency"], channel.sampling_frequency);
            let grid = |rule| {
                let (start, end) = (channel.start_uutc, channel.end_uutc);
                Grid::new(rule, start, end, channel.sampling_frequency).unwrap()
            };
            let mut row = vec![0.0; grid(Rule::Mef3io).columns() as usize];
            let reader = ChannelReader::new(&signal, channel, grid(Rule::Mef3io));
            let read = reader.unwrap().read::<f64>(0, &mut row);
            if channel.name == "level2" {
                let locked = read.unwrap_err().to_string();
                assert!(locked.contains("level-2 password"), "{locked}");
                continue;
            }
            read.unwrap();
            let windows = session.windows();
            let full = windows
                .iter()
                .find(|w| w.kind == "full" && w.channel == channel.name);
            assert!(same(&row, &full.unwrap().mef3io), "{name} {}", channel.name);
        }
    }
}

/// A copy of a session of the corpus, which may be spoilt.
fn copy_of(name: &str, folder_of_copy: &Path) -> std::path::PathBuf {
    let copy = folder_of_copy.join(format!("{name}.mefd"));
    copy_folder(&folder().join(format!("{name}.mefd")), &copy);
    copy
}

/// Another file under the same name is another recording, however alike.
#[test]
fn a_segment_that_was_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("gaps_short_long_mef3io", folder.path());
    let recording = open_session(&path, &OpenOptions::default()).unwrap();
    let channel = &recording.channels[0];
    let (start, end) = (channel.start_uutc, channel.end_uutc);
    let grid = Grid::new(Rule::Mef3io, start, end, channel.sampling_frequency).unwrap();
    let mut row = vec![0.0; grid.columns() as usize];
    let mut read = || {
        let mut reader = ChannelReader::new(&recording, channel, grid).unwrap();
        reader.read::<f64>(0, &mut row)
    };
    assert_eq!(read(), Ok(()));

    let data = recording.data_file(&channel.name, &channel.segments[0].stem);
    let other = folder.path().join("other");
    fs::copy(&data, &other).unwrap();
    fs::rename(&other, &data).unwrap();

    let changed = MefError::Changed { file: data };
    assert_eq!(read(), Err(ReadError::Mef(changed.clone())));
    let reader = SegmentReader::open_in(&recording, channel, &channel.segments[0]);
    assert_eq!(reader.err(), Some(changed));
}

/// Time that an unreadable segment may have samples in is not called a gap.
#[test]
fn gaps_leave_out_what_nobody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("multi_segment_mef3io", folder.path());
    let gaps = |path: &Path| {
        open_session(path, &OpenOptions::default())
            .unwrap()
            .channels[0]
            .gaps()
    };
    let (recording, before) = (
        open_session(&path, &OpenOptions::default()).unwrap(),
        gaps(&path),
    );
    assert_eq!(before.len(), 2, "between three segments");

    let stem = &recording.channels[0].segments[1].stem;
    let data = recording.data_file(&recording.channels[0].name, stem);
    fs::remove_file(data.with_extension("tidx")).unwrap();
    assert_eq!(gaps(&path), []);
}

/// The last segment, too: a read beyond the one before it is told, and what is
/// before that stays readable.
#[test]
fn a_last_segment_without_its_data_file_is_not_a_short_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("multi_segment_mef3io", folder.path());
    let before = open_session(&path, &OpenOptions::default()).unwrap();
    let channel = &before.channels[0];
    let last = channel.segments.last().unwrap();
    let data = before.data_file(&channel.name, &last.stem);
    fs::remove_file(&data).unwrap();

    let recording = open_session(&path, &OpenOptions::default()).unwrap();
    let left = &recording.channels[0];
    assert_eq!(left.segments.len(), channel.segments.len() - 1);
    assert_eq!(left.unreadable[0].stem, last.stem);
    let missing = MefError::NotFound { path: data };
    assert_eq!(left.unreadable[0].error, missing);

    let reader = |start, end| {
        let grid = Grid::new(Rule::Mef3io, start, end, left.sampling_frequency).unwrap();
        ChannelReader::new(&recording, left, grid).map(|_| ())
    };
    assert_eq!(reader(left.start_uutc, left.end_uutc), Ok(()));
    let lost = reader(last.start_uutc, last.end_uutc);
    let expected = ReadError::UnreadableSegment {
        channel: left.name.clone(),
        segment: last.stem.clone(),
        error: missing,
    };
    assert_eq!(lost, Err(expected));
}
