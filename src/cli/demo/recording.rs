//! The demo's recording, and what it must read back as.

use std::path::{Path, PathBuf};

use mef3_server::mef::synth::{Synth, UNITS_CONVERSION_FACTOR, UNITS_DESCRIPTION};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, WriteError};
use tempfile::TempDir;

use crate::cli::failure::Failure;

/// 2026-01-15 21:00:00 UTC.
pub(super) const START_UUTC: i64 = 1_768_510_800_000_000;
/// Length of the recording in seconds, the gap included.
pub(super) const SECONDS: i64 = 600;
/// First and last second of the gap, after the start.
pub(super) const GAP: (i64, i64) = (240, 255);
/// Rates in Hz and the channels that have them: depth electrodes, and two
/// faster micro-wires.
const CHANNELS: [(&str, i64); 8] = [
    ("LA 1", 256),
    ("LA 2", 256),
    ("LH 1", 256),
    ("LH 2", 256),
    ("RA 1", 256),
    ("RA 2", 256),
    ("micro 1", 1000),
    ("micro 2", 1000),
];
const SEED: u64 = 3;

/// A session in a temporary folder, which goes when this is dropped.
pub(super) struct DemoRecording {
    path: PathBuf,
    /// The written samples of each channel as they must come back: one a column,
    /// NaN in the gap.
    channels: Vec<DemoChannel>,
    _folder: TempDir,
}

/// A channel with its truth.
pub(super) struct DemoChannel {
    pub(super) name: &'static str,
    /// Samples a second, in Hz.
    pub(super) rate: i64,
    /// Samples over the whole span, in units.
    pub(super) samples: Vec<f32>,
}

impl DemoRecording {
    /// Writes the session.
    pub(super) fn make() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("mef3-demo-")
            .tempdir()
            .map_err(Failure::Start)?;
        let path = folder.path().join("demo.mefd");
        let channels = write(&path).map_err(|source| Failure::Write {
            session: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            channels,
            _folder: folder,
        })
    }

    /// The session folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Channels of a rate.
    pub(super) fn channels(&self, rate: i64) -> impl Iterator<Item = &DemoChannel> {
        self.channels
            .iter()
            .filter(move |channel| channel.rate == rate)
    }
}

fn write(path: &Path) -> Result<Vec<DemoChannel>, WriteError> {
    let mut session = SessionWriter::create(
        path,
        SessionOptions {
            seed: Some(SEED),
            session_description: "synthetic recording of the demo".into(),
            ..SessionOptions::default()
        },
    )?;
    let mut channels = Vec::new();
    for (&(name, rate), number) in CHANNELS.iter().zip(0u32..) {
        let mut signal = Synth::new(SEED, number, rate as f64);
        let mut channel = session.channel(ChannelOptions {
            units_conversion_factor: UNITS_CONVERSION_FACTOR,
            units_description: UNITS_DESCRIPTION.into(),
            ..ChannelOptions::new(name, rate as f64)
        })?;
        let mut samples = Vec::new();
        for (from, until) in [(0, GAP.0), (GAP.1, SECONDS)] {
            let mut counts = vec![0; ((until - from) * rate) as usize];
            signal.fill(&mut counts);
            channel.write(START_UUTC + from * 1_000_000, &counts)?;
            samples.resize((from * rate) as usize, f32::NAN);
            let scaled = counts
                .iter()
                .map(|&c| (f64::from(c) * UNITS_CONVERSION_FACTOR) as f32);
            samples.extend(scaled);
        }
        channel.finish()?;
        channels.push(DemoChannel {
            name,
            rate,
            samples,
        });
    }
    Ok(channels)
}
