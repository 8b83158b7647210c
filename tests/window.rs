//! Reading windows straight from files, through the library.

mod common;

use std::fs;
use std::path::Path;

use common::corpus::{folder, plain_sessions};
use mef3_server::mef::{
    ChannelReader, Grid, MefError, ReadError, Rule, SegmentReader, open_session,
};

/// Equal to the last bit, where one NaN is as good as another.
fn same(found: &[f64], expected: &[f64]) -> bool {
    let mut pairs = found.iter().zip(expected);
    found.len() == expected.len()
        && pairs.all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// Long windows are read in chunks; the corpus has no window so long.
#[test]
fn a_window_read_in_pieces_is_the_window() {
    for session in plain_sessions() {
        let recording = open_session(&session.path).unwrap();
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

/// A copy of a session of the corpus, which may be spoilt.
fn copy_of(name: &str, folder_of_copy: &Path) -> std::path::PathBuf {
    let copy = folder_of_copy.join(format!("{name}.mefd"));
    copy_folder(&folder().join(format!("{name}.mefd")), &copy);
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Another file under the same name, with fewer blocks, must not read as a gap.
#[test]
fn a_segment_that_was_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("gaps_short_long_mef3io", folder.path());
    let recording = open_session(&path).unwrap();
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
    let index = data.with_extension("tidx");
    let bytes = fs::read(&index).unwrap();
    let shorter = folder.path().join("shorter");
    fs::write(&shorter, &bytes[..bytes.len() - 56]).unwrap();
    fs::rename(&shorter, &index).unwrap();

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
    let gaps = |path: &Path| open_session(path).unwrap().channels[0].gaps();
    let (recording, before) = (open_session(&path).unwrap(), gaps(&path));
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
    let before = open_session(&path).unwrap();
    let channel = &before.channels[0];
    let last = channel.segments.last().unwrap();
    let data = before.data_file(&channel.name, &last.stem);
    fs::remove_file(&data).unwrap();

    let recording = open_session(&path).unwrap();
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
