//! `generate`: a synthetic recording, for trying things out.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use mef3_server::mef::synth::{Synth, UNITS_CONVERSION_FACTOR, UNITS_DESCRIPTION};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, WriteError};

use super::failure::Failure;

/// Samples that are made and written at a time: 256 KiB.
const CHUNK: usize = 64 * 1024;

/// Writes a new session of synthetic intracranial EEG: 1/f noise, line hum,
/// spikes and drift, in steps of 0.1 uV.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Session folder to make; its name must end in .mefd
    #[arg(value_name = "OUT.mefd")]
    session: PathBuf,
    /// Number of channels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    channels: u32,
    /// Samples a second of each channel, in Hz; may be fractional
    #[arg(long, value_name = "HZ", value_parser = positive)]
    rate: f64,
    /// Length in seconds; may be fractional
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: f64,
    /// Start in uUTC, microseconds since 1970 UTC; now, unless given
    #[arg(long, value_name = "UUTC")]
    start: Option<i64>,
    /// The same seed makes the same samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("must be a positive number".into())
    }
}

/// Writes the session.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let start = arguments.start.unwrap_or_else(now);
    write(arguments, start).map_err(|source| Failure::Write {
        session: arguments.session.clone(),
        source,
    })
}

fn write(arguments: &Arguments, start: i64) -> Result<(), WriteError> {
    let mut session = SessionWriter::create(
        &arguments.session,
        SessionOptions {
            seed: Some(arguments.seed),
            session_description: "synthetic recording".into(),
            ..SessionOptions::default()
        },
    )?;
    let samples = (arguments.seconds * arguments.rate).round().max(1.0) as u64;
    let digits = arguments.channels.to_string().len();
    let mut chunk = vec![0; CHUNK];
    for number in 0..arguments.channels {
        let mut channel = session.channel(ChannelOptions {
            units_conversion_factor: UNITS_CONVERSION_FACTOR,
            units_description: UNITS_DESCRIPTION.into(),
            ..ChannelOptions::new(format!("ch{:0digits$}", number + 1), arguments.rate)
        })?;
        let mut signal = Synth::new(arguments.seed, number, arguments.rate);
        let mut written = 0;
        while written < samples {
            let length = (samples - written).min(CHUNK as u64) as usize;
            let Some(part) = chunk.get_mut(..length) else {
                break;
            };
            signal.fill(part);
            let offset = (written as f64 / arguments.rate * 1e6).round() as i64;
            channel.write(start.saturating_add(offset), part)?;
            written += length as u64;
        }
        channel.finish()?;
    }
    Ok(())
}

/// The present time in uUTC.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
