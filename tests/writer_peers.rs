//! Written sessions, read back by mef3io, pymef and mef_tools.
//!
//! The tests write a session and, beside it, `expected.json` and the counts of
//! each channel as raw little-endian integers; the Python script compares. It
//! derives blocks, times and grids from the runs by itself.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use mef3_server::mef::synth::Synth;
use mef3_server::mef::{ChannelOptions, ChannelWriter, SessionOptions, SessionWriter};
use serde::Serialize;
use tempfile::TempDir;

const START: i64 = 1_600_000_000_123_456;

#[derive(Serialize)]
struct ExpectedSession {
    session: String,
    subject_id: String,
    channels: Vec<ExpectedChannel>,
}

#[derive(Serialize)]
struct ExpectedChannel {
    name: String,
    sampling_frequency: f64,
    units_conversion_factor: f64,
    units_description: String,
    block_samples: u32,
    /// File of the counts of all pieces, one after another.
    counts: String,
    pieces: Vec<Piece>,
}

/// Samples of one segment without a gap between them.
#[derive(Serialize)]
struct Piece {
    segment: u32,
    /// Start of a run in absolute uUTC; `None` goes on with the run before.
    start: Option<i64>,
    samples: usize,
}

/// A session in the making, and what is to be read from it.
struct Recording {
    folder: TempDir,
    writer: SessionWriter,
    expected: ExpectedSession,
}

impl Recording {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let session = format!("{name}.mefd");
        let options = SessionOptions {
            seed: Some(1),
            subject_id: "S-Ω".into(),
            session_description: name.into(),
            gmt_offset: Some(3600),
            ..SessionOptions::default()
        };
        let writer = SessionWriter::create(folder.path().join(&session), options.clone()).unwrap();
        let expected = ExpectedSession {
            session,
            subject_id: options.subject_id,
            channels: Vec::new(),
        };
        Self {
            folder,
            writer,
            expected,
        }
    }

    fn channel(&mut self, options: ChannelOptions, block_samples: u32) -> Channel<'_> {
        let expected = ExpectedChannel {
            name: options.name.clone(),
            sampling_frequency: options.sampling_frequency,
            units_conversion_factor: options.units_conversion_factor,
            units_description: options.units_description.clone(),
            block_samples,
            counts: format!("{}.raw", self.expected.channels.len()),
            pieces: Vec::new(),
        };
        Channel {
            writer: self.writer.channel(options).unwrap(),
            folder: self.folder.path(),
            done: &mut self.expected.channels,
            expected,
            counts: Vec::new(),
            segment: 0,
        }
    }

    /// Lets the peers read the session.
    fn check(self) {
        let json = serde_json::to_vec_pretty(&self.expected).unwrap();
        fs::write(self.folder.path().join("expected.json"), json).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check_written.py");
        let output = Command::new(common::peers_python())
            .arg(script)
            .arg(self.folder.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

struct Channel<'a> {
    writer: ChannelWriter,
    folder: &'a Path,
    done: &'a mut Vec<ExpectedChannel>,
    expected: ExpectedChannel,
    counts: Vec<i32>,
    segment: u32,
}

impl Channel<'_> {
    /// Writes samples that begin a run.
    fn run(&mut self, start: i64, samples: &[i32]) -> &mut Self {
        self.writer.write(start, samples).unwrap();
        self.expect(Some(start), samples)
    }

    /// Writes samples that go on with the run, at about their time.
    fn more(&mut self, about: i64, samples: &[i32]) -> &mut Self {
        self.writer.write(about, samples).unwrap();
        self.expect(None, samples)
    }

    fn expect(&mut self, start: Option<i64>, samples: &[i32]) -> &mut Self {
        self.counts.extend_from_slice(samples);
        match self.expected.pieces.last_mut() {
            Some(piece) if start.is_none() && piece.segment == self.segment => {
                piece.samples += samples.len();
            }
            _ => self.expected.pieces.push(Piece {
                segment: self.segment,
                start,
                samples: samples.len(),
            }),
        }
        self
    }

    fn segment(&mut self) -> &mut Self {
        self.writer.new_segment().unwrap();
        self.segment += 1;
        self
    }

    fn finish(self) {
        self.writer.finish().unwrap();
        let bytes: Vec<u8> = self.counts.iter().flat_map(|c| c.to_le_bytes()).collect();
        fs::write(self.folder.join(&self.expected.counts), bytes).unwrap();
        self.done.push(self.expected);
    }
}

fn signal(channel: u32, fs: f64, samples: usize) -> Vec<i32> {
    let mut counts = vec![0; samples];
    Synth::new(5, channel, fs).fill(&mut counts);
    counts
}

fn options(name: &str, fs: f64) -> ChannelOptions {
    ChannelOptions {
        units_conversion_factor: 0.1,
        ..ChannelOptions::new(name, fs)
    }
}

#[test]
fn gaps_in_two_segments() {
    let mut recording = Recording::new("gaps");
    for (index, fs, block) in [(0, 250.0, 2500), (1, 256.0, 2560), (2, 5000.0, 5000)] {
        let second = |seconds: i64| START + seconds * 1_000_000;
        let length = |seconds: f64| (seconds * fs) as usize;
        let data = signal(index, fs, length(80.0));
        let mut channel = recording.channel(options(&format!("ch{index}"), fs), block);
        channel
            .run(second(0), &data[..length(25.0)])
            .run(second(40), &data[length(25.0)..length(26.0)])
            .more(second(41) + 90, &data[length(26.0)..length(31.5)])
            .run(second(50), &data[length(31.5)..length(32.0)])
            .segment()
            .run(second(3600), &data[length(32.0)..length(75.0)])
            .run(second(3700), &data[length(75.0)..]);
        channel.finish();
    }
    recording.check();
}

#[test]
fn a_run_that_goes_on_in_the_next_segment() {
    let mut recording = Recording::new("through");
    let data = signal(0, 1000.0, 60_000);
    let mut channel = recording.channel(options("c", 1000.0), 10_000);
    channel
        .run(START, &data[..25_000])
        .segment()
        .more(START + 25_000_000, &data[25_000..40_000])
        .segment()
        .more(START + 40_000_300, &data[40_000..]);
    channel.finish();
    recording.check();
}

#[test]
fn a_fractional_sampling_frequency() {
    let mut recording = Recording::new("fractional");
    for (index, fs, block) in [(0, 249.7, 2497), (1, 1000.0 / 3.0, 3333), (2, 0.5, 5)] {
        let data = signal(index, fs, 30_011);
        let mut channel = recording.channel(options(&format!("ch{index}"), fs), block);
        let gap = START + 30_000_000_000;
        channel.run(START, &data[..12_345]);
        channel.run(gap, &data[12_345..]);
        channel.finish();
    }
    recording.check();
}

#[test]
fn blocks_of_one_sample() {
    let mut recording = Recording::new("single");
    let data = signal(0, 100.0, 300);
    let mut channel = recording.channel(
        ChannelOptions {
            block_samples: Some(1),
            ..options("ones", 100.0)
        },
        1,
    );
    channel
        .run(START, &data[..200])
        .run(START + 5_000_000, &data[200..201])
        .run(START + 6_000_000, &data[201..]);
    channel.finish();
    // One sample is all there is, in a block that could hold ten.
    let mut channel = recording.channel(options("one", 1.0), 10);
    channel.run(START, &[-77]);
    channel.finish();
    recording.check();
}

#[test]
fn extremes_and_constants() {
    let mut recording = Recording::new("extremes");
    let fs = 500.0;
    let full = i32::MAX;
    let alternating: Vec<i32> = (0..10_000)
        .map(|i| if i % 2 == 0 { full } else { -full })
        .collect();
    let mut rng = fastrand::Rng::with_seed(3);
    let noise: Vec<i32> = (0..10_000).map(|_| rng.i32(-full..=full)).collect();
    let step: Vec<i32> = (0..10_000)
        .map(|i| if i < 7000 { -full } else { full })
        .collect();
    for (name, data) in [
        ("alternating", &alternating),
        ("noise", &noise),
        ("step", &step),
        ("zero", &vec![0; 10_000]),
        ("low", &vec![-full; 10_000]),
        ("high", &vec![full; 10_000]),
    ] {
        let mut channel = recording.channel(options(name, fs), 5000);
        channel.run(START, data);
        channel.finish();
    }
    let inverted = ChannelOptions {
        units_conversion_factor: -0.25,
        units_description: "mV".into(),
        ..options("inverted", fs)
    };
    let data = signal(0, fs, 10_000);
    let mut channel = recording.channel(inverted, 5000);
    channel.run(START, &data);
    channel.finish();
    recording.check();
}

#[test]
fn names_with_spaces_and_dots() {
    let mut recording = Recording::new("Näme of 1.5 sessions");
    for name in ["LT 1.a-000003", "EEG Fp1-Ref", "µ"] {
        let data = signal(0, 200.0, 4100);
        let mut channel = recording.channel(options(name, 200.0), 2000);
        channel.run(START, &data);
        channel.finish();
    }
    recording.check();
}
