//! `mef3-server generate`: what it is asked for is what stands in the files.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mef3_server::mef::{
    Access, Channel, OpenOptions, Password, RecordFilter, RecordQuery, RecordType, Recording,
    check_session, open_session,
};
use tempfile::TempDir;

const START: i64 = 1_600_000_000_000_000;
/// The header of a file, and its identifiers.
const HEADER: usize = 1024;
const LEVEL_UUID: Range<usize> = 820..836;
const FILE_UUID: Range<usize> = 836..852;

struct Session {
    _folder: TempDir,
    path: PathBuf,
}

impl Session {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.mefd");
        Self {
            _folder: folder,
            path,
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        command.arg("generate").arg(&self.path);
        command.args(arguments.split_whitespace());
        for variable in ["MEF3_PASSWORD", "MEF3_LEVEL_1_PASSWORD"] {
            command.env_remove(variable);
        }
        command
    }

    fn generate(&self, arguments: &str) {
        succeed(&mut self.command(arguments));
    }

    /// The session, which has nothing that a check would find.
    fn open(&self, password: Option<&str>) -> Recording {
        let options = OpenOptions {
            password: password.and_then(Password::new),
        };
        let mut findings = Vec::new();
        check_session(&self.path, &options, true, &mut |finding| {
            findings.push(finding)
        })
        .unwrap();
        assert_eq!(findings, []);
        open_session(&self.path, &options).unwrap()
    }
}

fn succeed(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

fn complaint(command: &mut Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(code));
    String::from_utf8(stderr).unwrap()
}

fn blocks(channel: &Channel) -> Vec<u32> {
    let segments = channel.segments.iter();
    let blocks = segments.flat_map(|segment| segment.index.iter());
    blocks.map(|block| block.samples).collect()
}

/// Seconds of samples that the channel holds.
fn held(channel: &Channel) -> f64 {
    channel.stored_samples() as f64 / channel.sampling_frequency
}

#[test]
fn rates_gaps_segments_and_hum() {
    let session = Session::new();
    session.generate(&format!(
        "--channels 5 --rate 250,1000,0.5 --seconds 100 --gaps 4 --gap-seconds 4 \
         --segments 3 --line-hz 50 --start {START}"
    ));
    let recording = session.open(None);
    let rates: Vec<f64> = recording
        .channels
        .iter()
        .map(|c| c.sampling_frequency)
        .collect();
    assert_eq!(rates, [250.0, 1000.0, 0.5, 250.0, 1000.0]);
    for channel in &recording.channels {
        assert_eq!(channel.segments.len(), 3);
        assert_eq!(channel.start_uutc, START);
        assert_eq!(channel.end_uutc, START + 100_000_000);
        // A slow channel's samples may miss a part of each gap.
        let sample = 1.0 / channel.sampling_frequency;
        assert!(
            (held(channel) - 84.0).abs() <= 4.0 * sample,
            "{}",
            held(channel)
        );
        assert_eq!(channel.acquisition().unwrap().line_frequency, Some(50.0));
    }
}

#[test]
fn block_lengths() {
    for (option, expected) in [
        ("--block-seconds 2.5", vec![500, 500, 200]),
        ("--block-samples 700", vec![700, 500]),
        ("", vec![1200]),
    ] {
        let session = Session::new();
        session.generate(&format!("--channels 1 --rate 200 --seconds 6 {option}"));
        assert_eq!(
            blocks(&session.open(None).channels[0]),
            expected,
            "{option}"
        );
    }
}

/// A data file of a session that was made with further arguments.
fn data_file(arguments: &str) -> Vec<u8> {
    let session = Session::new();
    session.generate(&format!(
        "--channels 3 --rate 250 --seconds 30 --gaps 2 --start {START} {arguments}"
    ));
    let file = "ch2.timd/ch2-000000.segd/ch2-000000.tdat";
    std::fs::read(session.path.join(file)).unwrap()
}

/// The number of threads changes nothing.
#[test]
fn a_seed_fixes_every_byte() {
    let one = data_file("--seed 7 --threads 1");
    assert!(data_file("--seed 7 --threads 3") == one);
    assert!(data_file("--seed 1")[HEADER..] != one[HEADER..]);
}

/// Two sessions of the same identifiers would pass for one (format section 3).
#[test]
fn without_a_seed_only_the_identifiers_are_random() {
    let (one, other) = (data_file(""), data_file(""));
    assert!(one[HEADER..] == other[HEADER..]);
    assert!(one[HEADER..] == data_file("--seed 0")[HEADER..]);
    for uuid in [LEVEL_UUID, FILE_UUID] {
        assert_ne!(one[uuid.clone()], other[uuid]);
    }
}

#[test]
fn passwords_and_records() {
    let session = Session::new();
    let arguments = "--channels 2 --rate 250 --seconds 10 --encrypt --records 7";
    let complaint = complaint(&mut session.command(arguments), 1);
    assert!(complaint.contains("MEF3_LEVEL_1_PASSWORD"), "{complaint}");
    assert!(!session.path.exists());
    let file = session.path.with_extension("password");
    std::fs::write(&file, "first\n").unwrap();
    let mut command = session.command(arguments);
    command.arg("--level-1-password-file").arg(&file);
    succeed(command.env("MEF3_PASSWORD", "second"));
    assert!(open_session(&session.path, &OpenOptions::default()).is_err());
    let recording = session.open(Some("second"));
    assert_eq!(recording.access, Access::Level2);
    let query = |types: &[RecordType]| RecordQuery {
        limit: 100,
        filter: RecordFilter {
            types: types.to_vec(),
            ..RecordFilter::default()
        },
        ..RecordQuery::default()
    };
    assert_eq!(recording.records(&query(&[])).unwrap().records.len(), 7);
    let notes = recording.records(&query(&[RecordType::NOTE])).unwrap();
    assert_eq!(notes.records.len(), 3);
    assert_eq!(session.open(Some("first")).access, Access::Level1);
}

#[test]
fn more_of_a_session() {
    let session = Session::new();
    session.generate(&format!(
        "--channels 2 --rate 250 --seconds 10 --start {START} --records 2"
    ));
    session.generate("--append --seconds 5 --records 3");
    let later = START + 60_000_000;
    session.generate(&format!(
        "--append --seconds 5 --segments 2 --start {later}"
    ));
    let recording = session.open(None);
    for channel in &recording.channels {
        assert_eq!(channel.end_uutc, START + 65_000_000);
        assert_eq!(held(channel), 20.0);
        assert_eq!(channel.segments.len(), 2);
    }
    let all = RecordQuery {
        limit: 100,
        ..RecordQuery::default()
    };
    let records = recording.records(&all).unwrap();
    assert_eq!(records.records.len(), 5);
    let overlapping = complaint(
        &mut session.command(&format!("--append --seconds 5 --start {START}")),
        1,
    );
    assert!(overlapping.contains("before the data end"), "{overlapping}");
}

#[test]
fn a_live_recording_takes_its_time() {
    let session = Session::new();
    let begun = std::time::Instant::now();
    session.generate("--channels 2 --rate 250 --seconds 1 --live --live-interval 0.25");
    assert!(begun.elapsed().as_secs_f64() >= 1.0);
    // Each step is a block.
    assert_eq!(blocks(&session.open(None).channels[0]), [63, 62, 63, 62]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let session = Session::new();
    for (arguments, reason) in [
        (
            "--channels 1 --rate 250 --seconds 10 --gaps 5",
            "do not fit",
        ),
        ("--channels 1 --rate 0 --seconds 10", "positive"),
        ("--channels 1 --seconds 10", "--rate"),
        ("--append --channels 2 --rate 1 --seconds 1", "--append"),
        (
            "--channels 1 --rate 9 --seconds 1 --block-seconds 1 --block-samples 9",
            "--block-s",
        ),
    ] {
        let complaint = complaint(&mut session.command(arguments), 2);
        assert!(complaint.contains(reason), "{arguments}: {complaint}");
        assert!(!session.path.exists());
    }
    let nowhere = complaint(&mut session.command("--append --seconds 1"), 1);
    assert_eq!(
        nowhere.matches(&name(&session.path)).count(),
        1,
        "{nowhere}"
    );
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_session_that_cannot_be_finished_is_not_left_behind() {
    let mut failed = 0;
    // Too few descriptors for the files of segments that are written at a time, and
    // enough to remove them.
    for descriptors in 6..9 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("night.mefd");
        let limited = format!(
            "ulimit -n {descriptors} && exec {} generate {} --channels 4 --rate 256 --seconds 600",
            env!("CARGO_BIN_EXE_mef3-server"),
            path.display()
        );
        let ended = Command::new("sh").args(["-c", &limited]).output().unwrap();
        if ended.status.code() == Some(1) {
            failed += 1;
            assert!(!path.exists(), "{descriptors} descriptors: {ended:?}");
        }
    }
    assert!(failed > 0, "a session was written with six descriptors");
}
