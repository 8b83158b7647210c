//! Sessions whose every sample is known.

use std::path::{Path, PathBuf};

use mef3_server::mef::synth::{Synth, UNITS_CONVERSION_FACTOR};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tempfile::TempDir;

/// Start of every session, uUTC.
pub const START: i64 = 1_700_000_000_000_000;
/// Samples of a block.
const BLOCK: u32 = 1024;

/// A session in a temporary folder, without gaps.
pub struct KnownSession {
    _folder: TempDir,
    pub path: PathBuf,
    /// Samples a second.
    pub rate: i64,
    pub seconds: i64,
    /// The counts of each channel.
    channels: Vec<Vec<i32>>,
}

impl KnownSession {
    /// Writes a session.
    pub fn write(channels: u32, rate: i64, seconds: i64) -> Self {
        Self::with_blocks(channels, rate, seconds, BLOCK)
    }

    /// Writes a session with so many samples in a block.
    pub fn with_blocks(channels: u32, rate: i64, seconds: i64, block_samples: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.mefd");
        let options = SessionOptions {
            seed: Some(1),
            ..SessionOptions::default()
        };
        let mut session = SessionWriter::create(&path, options).unwrap();
        let channels = (0..channels).map(|number| {
            let mut counts = vec![0; (rate * seconds) as usize];
            Synth::new(9, number, rate as f64).fill(&mut counts);
            let mut channel = session
                .channel(ChannelOptions {
                    units_conversion_factor: UNITS_CONVERSION_FACTOR,
                    block_samples: Some(block_samples),
                    ..ChannelOptions::new(name(number as usize), rate as f64)
                })
                .unwrap();
            channel.write(START, &counts).unwrap();
            channel.finish().unwrap();
            counts
        });
        let channels = channels.collect();
        Self {
            _folder: folder,
            path,
            rate,
            seconds,
            channels,
        }
    }

    /// The path as clients send it.
    pub fn key(&self) -> String {
        path_text(&self.path)
    }

    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The whole session.
    pub fn all(&self) -> Span {
        self.span(0..self.channels(), 0, self.seconds)
    }

    /// Some channels from one second to another.
    pub fn span(&self, channels: std::ops::Range<usize>, from_s: i64, to_s: i64) -> Span {
        Span {
            channels: channels.collect(),
            from_s,
            to_s,
        }
    }

    /// What a span must read as: row after row.
    pub fn expected(&self, span: &Span) -> Vec<Vec<f32>> {
        let samples = (span.from_s * self.rate) as usize..(span.to_s * self.rate) as usize;
        let value = |&count: &i32| (f64::from(count) * UNITS_CONVERSION_FACTOR) as f32;
        let row = |&channel: &usize| {
            let counts = &self.channels[channel][samples.clone()];
            counts.iter().map(value).collect()
        };
        span.channels.iter().map(row).collect()
    }
}

/// A part of a session.
#[derive(Clone, Debug)]
pub struct Span {
    pub channels: Vec<usize>,
    pub from_s: i64,
    pub to_s: i64,
}

impl Span {
    pub fn names(&self) -> Vec<String> {
        self.channels.iter().map(|&number| name(number)).collect()
    }

    /// Start, uUTC.
    pub fn start(&self) -> i64 {
        START + self.from_s * 1_000_000
    }

    /// End, uUTC.
    pub fn end(&self) -> i64 {
        START + self.to_s * 1_000_000
    }
}

/// Name of a channel.
pub fn name(number: usize) -> String {
    format!("ch {number:03}")
}

/// A path as text.
pub fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Checks that what was read is complete and right, bit for bit.
///
/// # Panics
/// Where it is not.
pub fn assert_same(read: &[Vec<f32>], written: &[Vec<f32>]) {
    assert_eq!(read.len(), written.len(), "number of rows");
    for (row, (read, written)) in read.iter().zip(written).enumerate() {
        assert_eq!(read.len(), written.len(), "samples in row {row}");
        let mut pairs = read.iter().zip(written);
        let wrong = pairs.position(|(read, written)| read.to_bits() != written.to_bits());
        assert_eq!(wrong, None, "first wrong sample of row {row}");
    }
}
