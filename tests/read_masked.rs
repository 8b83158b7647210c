//! Damage that a reader asks to have masked: gaps in the samples, and a line for
//! everything that is behind them.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::corpus::{Session, copy_folder, folder};
use common::patch::units;
use mef3_server::config::OnDamage;
use mef3_server::mef::ReadError;
use mef3_server::{BlockItem, Engine, Error, ReadRequest};
use tempfile::TempDir;

struct Outcome {
    status: i32,
    stdout: Vec<u8>,
    /// Lines of standard error.
    told: Vec<String>,
}

fn read(path: &Path, channel: &str, flags: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_mef3-server"))
        .arg("read")
        .arg(path)
        .args(["--channel", channel])
        .args(flags)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        told: told.lines().map(str::to_owned).collect(),
    }
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    numbers
        .iter()
        .map(|&bytes| f64::from_le_bytes(bytes))
        .collect()
}

/// The only channel of a session of three segments, and a private copy of it.
fn segments() -> (TempDir, Session) {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::load(&common::corpus::folder(), "multi_segment_mef3io");
    let copy = folder.path().join("s.mefd");
    copy_folder(&session.path, &copy);
    session.path = copy;
    (folder, session)
}

const MASK: [&str; 2] = ["--on-damage", "mask"];

#[test]
fn a_masked_block_is_a_gap_and_a_line() {
    let path = folder().join("hostile/block_payload_flip.mefd");
    let base = folder().join("hostile/bases/base_two.mefd");
    let data = "bad.timd/bad-000000.segd/bad-000000.tdat";
    let offset = units("tdat", &fs::read(base.join(data)).unwrap())[2].0;
    let listed = format!(
        "mef3-server: masked: channel bad, segment bad-000000, block 2 at byte {offset} of {}, \
         from 1577000001500000 to 1577000002250000: CRC mismatch: ",
        path.join(data).display()
    );
    let summary = format!(
        "mef3-server: {}: channel bad: masked: 1 block",
        path.display()
    );
    let lost = 300..450;

    for format in ["f64", "f32", "i32", "csv"] {
        let flags = ["--format", format];
        let whole = read(&base, "bad", &flags);
        assert_eq!((whole.status, whole.told.len()), (0, 0));
        let masked = read(&path, "bad", &[&flags[..], &MASK].concat());
        assert_eq!(masked.status, 3, "{format}");
        assert!(masked.told[0].starts_with(&listed), "{}", masked.told[0]);
        assert_eq!(masked.told[1..], [summary.as_str()]);
        // Sample by sample, as text or as bytes.
        let split = |outcome: &Outcome| -> Vec<Vec<u8>> {
            let bytes = &outcome.stdout;
            match format {
                "csv" => bytes
                    .split(|&b| b == b'\n')
                    .skip(1)
                    .map(Into::into)
                    .collect(),
                "f64" => bytes.chunks(8).map(Into::into).collect(),
                _ => bytes.chunks(4).map(Into::into).collect(),
            }
        };
        let gap = |sample: &[u8]| match format {
            "csv" => sample.ends_with(b","),
            "f64" => f64::from_le_bytes(sample.try_into().unwrap()).is_nan(),
            "f32" => f32::from_le_bytes(sample.try_into().unwrap()).is_nan(),
            _ => i32::from_le_bytes(sample.try_into().unwrap()) == i32::MIN,
        };
        let (whole, masked) = (split(&whole), split(&masked));
        assert_eq!(whole.len(), masked.len());
        for (column, (whole, masked)) in whole.iter().zip(&masked).enumerate() {
            if lost.contains(&column) {
                assert!(gap(masked) && !gap(whole), "{format}, column {column}");
            } else {
                assert_eq!(whole, masked, "{format}, column {column}");
            }
        }
    }
}

#[test]
fn a_window_beside_the_damage_has_nothing_to_mask() {
    let path = folder().join("hostile/block_payload_flip.mefd");
    for flags in [
        ["--end", "1577000001500000"],
        ["--start", "1577000002250000"],
    ] {
        let outcome = read(&path, "bad", &[&flags[..], &MASK].concat());
        assert_eq!((outcome.status, outcome.told.len()), (0, 0));
        assert!(outcome.stdout == read(&path, "bad", &flags).stdout);
    }
}

/// Longer than a chunk of the output: the block is told of once.
#[test]
fn a_block_across_two_chunks_is_told_of_once() {
    let path = folder().join("hostile/block_payload_flip.mefd");
    // The first chunk ends in the middle of block 2, whose samples are 5 ms apart.
    let start = 1_577_000_001_800_000_i64 - (1 << 20) * 5_000;
    let start = start.to_string();
    let flags = ["--format", "f64", "--start", &start];
    let outcome = read(&path, "bad", &[&flags[..], &MASK].concat());
    assert_eq!(
        (outcome.status, outcome.told.len()),
        (3, 2),
        "{:?}",
        outcome.told
    );
    assert!(outcome.told[1].ends_with("masked: 1 block"));
}

#[test]
fn a_masked_output_file_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.f64");
    let path = common::corpus::folder().join("hostile/block_payload_flip.mefd");
    let flags = ["-f", "f64", "-o", file.to_str().unwrap()];
    assert_eq!(read(&path, "bad", &flags).status, 1);
    assert!(!file.exists());
    assert_eq!(read(&path, "bad", &[&flags[..], &MASK].concat()).status, 3);
    let samples = doubles(&fs::read(&file).unwrap());
    assert_eq!(samples.iter().filter(|sample| sample.is_nan()).count(), 150);
}

#[test]
fn a_masked_segment_is_a_gap_and_a_line() {
    let (_folder, session) = segments();
    let window = session
        .windows()
        .into_iter()
        .find(|w| w.kind == "full")
        .unwrap();
    let channel = window.channel.as_str();
    let (start, end) = (window.start_uutc.to_string(), window.end_uutc.to_string());
    let flags = ["--format", "f64", "--start", &start, "--end", &end];
    let stem = format!("{channel}-000001");
    let file = session
        .path
        .join(format!("{channel}.timd/{stem}.segd/{stem}.tmet"));
    fs::remove_file(&file).unwrap();

    assert_eq!(read(&session.path, channel, &flags).status, 1);
    let outcome = read(&session.path, channel, &[&flags[..], &MASK].concat());
    assert_eq!(outcome.status, 3);
    let listed = format!("mef3-server: masked: channel {channel}, segment {stem}, somewhere from ");
    assert!(outcome.told[0].starts_with(&listed), "{}", outcome.told[0]);
    assert!(outcome.told[0].contains(file.to_str().unwrap()));
    assert!(outcome.told[1].ends_with("masked: 1 segment"));
    let samples = doubles(&outcome.stdout);
    assert_eq!(samples.len(), window.mef3io.len());
    let mut lost = 0;
    for (found, truth) in samples.iter().zip(&window.mef3io) {
        assert!(found.to_bits() == truth.to_bits() || found.is_nan());
        lost += usize::from(found.is_nan() && !truth.is_nan());
    }
    assert!(lost > 0);
}

/// What has no rate has no grid either.
#[test]
fn a_channel_without_a_readable_segment_cannot_be_masked() {
    let path = folder().join("hostile/tmet_body_flip.mefd");
    let outcome = read(&path, "bad", &MASK);
    assert_eq!((outcome.status, outcome.told.len()), (1, 1));
    assert!(outcome.told[0].contains("channel bad cannot be read"));
}

#[tokio::test]
async fn a_stream_of_blocks_says_which_segments_are_masked() {
    let (_folder, session) = segments();
    let window = session
        .windows()
        .into_iter()
        .find(|w| w.kind == "full")
        .unwrap();
    let channel = window.channel.as_str();
    mef3_server::worker::init();
    let engine = Engine::builder().workers(0).start().unwrap();
    let stem = format!("{channel}-000001");
    let file = session
        .path
        .join(format!("{channel}.timd/{stem}.segd/{stem}.tmet"));
    let metadata = fs::read(&file).unwrap();

    let mut counts = Vec::new();
    for lost in [false, true] {
        if lost {
            fs::remove_file(&file).unwrap();
        } else {
            fs::write(&file, &metadata).unwrap();
        }
        engine.close(&session.path).await.unwrap();
        let recording = engine.open(&session.path).await.unwrap();
        let request = ReadRequest::new(&recording, window.start_uutc, window.end_uutc)
            .channels([channel, channel]);
        let refused = engine.read_blocks(&request);
        let unreadable = |error| {
            matches!(error, Error::Read(error)
                if matches!(error, ReadError::UnreadableSegment { .. }))
        };
        assert_eq!(refused.err().is_some_and(unreadable), lost);

        let request = request.on_damage(OnDamage::Mask);
        let mut items = engine.read_blocks(&request).unwrap();
        let (mut segments, mut blocks) = (Vec::new(), 0);
        while let Some(item) = items.next().await {
            match item.unwrap() {
                BlockItem::Segment { row, segment } => segments.push((row, segment.stem)),
                BlockItem::Block(block) => {
                    block.counts().unwrap();
                    blocks += 1;
                }
            }
        }
        let expected: Vec<_> = (0..2).map(|row| (row, stem.clone())).collect();
        assert_eq!(segments, if lost { expected } else { Vec::new() });
        counts.push(blocks);
    }
    assert!(counts[1] > 0 && counts[1] < counts[0], "{counts:?}");
    engine.shutdown().await;
}
