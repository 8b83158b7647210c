//! `generate`: a synthetic recording, for trying things out.

mod channel;
mod plan;

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use mef3_server::mef::synth::{Synth, UNITS_CONVERSION_FACTOR, UNITS_DESCRIPTION};
use mef3_server::mef::{
    ChannelOptions, ChannelWriter, NewRecord, Passwords, RecordBody, RecordType, SessionOptions,
    SessionWriter, WriteError, open_session,
};

use super::failure::Failure;
use super::password::{MOST_PASSWORD_BYTES, PasswordArguments, VARIABLE, secret};
use channel::Generator;
use plan::Plan;

/// The environment variable that the level-1 password of a new session may come
/// in.
const LEVEL_1_VARIABLE: &str = "MEF3_LEVEL_1_PASSWORD";

const DETAILS: &str = "\
The signal is 1/f noise, line hum, spikes and drift, in steps of 0.1 uV. The same
arguments make the same samples; nothing that exists is overwritten. Files are told
apart by random identifiers, unless --seed fixes these, too.

Examples:
  An hour of 64 channels, two of three at 250 Hz, with three gaps:
    mef3-server generate night.mefd --channels 64 --rate 250,250,8000 \\
        --seconds 3600 --gaps 3
  A protected session with annotations:
    MEF3_LEVEL_1_PASSWORD=one MEF3_PASSWORD=two mef3-server generate \\
        night.mefd --channels 4 --rate 250 --seconds 60 --encrypt --records 20
  A recording that grows as it would at the bed, a second at a time:
    mef3-server generate live.mefd --channels 8 --rate 1000 --seconds 3600 --live
  Ten minutes more of what is there:
    mef3-server generate night.mefd --append --seconds 600";

/// Write a session of synthetic intracranial EEG, or more of one
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Session folder to make; its name must end in .mefd
    #[arg(value_name = "OUT.mefd")]
    session: PathBuf,
    /// Number of channels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    #[arg(required_unless_present = "append", conflicts_with = "append")]
    channels: Option<u32>,
    /// Samples a second of each channel, in Hz; may be fractional, and several, which
    /// the channels take in turn
    #[arg(long, value_name = "HZ", value_parser = positive, value_delimiter = ',')]
    #[arg(required_unless_present = "append", conflicts_with = "append")]
    rate: Vec<f64>,
    /// Length in seconds, gaps included; may be fractional
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: f64,
    /// Start in uUTC, microseconds since 1970 UTC; unless given, now, or the end of
    /// the session that is appended to
    #[arg(long, value_name = "UUTC")]
    start: Option<i64>,
    /// The same seed makes the same samples, and the same identifiers of files; unless
    /// given, samples as of seed 0, and random identifiers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of gaps, which all channels have at the same times
    #[arg(long, value_name = "N", default_value_t = 0)]
    gaps: u32,
    /// Length of a gap in seconds
    #[arg(long, value_name = "S", value_parser = positive, default_value = "2")]
    gap_seconds: f64,
    /// Number of segments, each of the same length
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    segments: u32,
    /// Length of a full block in seconds; unless given, 1 at 5 kHz and more, else 10
    #[arg(long, value_name = "S", value_parser = positive, conflicts_with = "append")]
    block_seconds: Option<f64>,
    /// Length of a full block in samples
    #[arg(long, value_name = "N", conflicts_with_all = ["block_seconds", "append"])]
    block_samples: Option<u32>,
    /// Frequency of the mains hum in Hz
    #[arg(long, value_name = "HZ", value_parser = positive, default_value = "60")]
    line_hz: f64,
    /// Number of annotations (Note, SyLg and EDFA in turn) of the session
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    records: u32,
    /// Protect metadata and records with two passwords; that of level 2 comes from
    /// --password-file or MEF3_PASSWORD
    #[arg(long, conflicts_with = "append")]
    encrypt: bool,
    /// File with the level-1 password in its first line; without it, the environment
    /// variable MEF3_LEVEL_1_PASSWORD is used
    #[arg(long, value_name = "FILE", requires = "encrypt")]
    level_1_password_file: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordArguments,
    /// Go on with a session that exists: all of its channels, at their rates
    #[arg(long)]
    append: bool,
    /// Write as time goes by, so that readers can follow
    #[arg(long)]
    live: bool,
    /// Seconds between two steps of --live, each of which ends a block
    #[arg(long, value_name = "S", value_parser = positive, default_value = "1")]
    live_interval: f64,
    /// Channels that are written at the same time; unless given, one a processor
    #[arg(long, value_name = "N", conflicts_with = "live")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Arguments {
    /// What samples and gaps are made from.
    fn sample_seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }
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
    let plan = Plan::new(arguments).map_err(Failure::Arguments)?;
    let passwords = passwords(arguments)?;
    write(arguments, &plan, passwords)
}

/// The passwords of a new session.
fn passwords(arguments: &Arguments) -> Result<Option<Passwords>, Failure> {
    if !arguments.encrypt {
        return Ok(None);
    }
    let missing = |origin: &str| Failure::Secret {
        what: "password",
        origin: origin.into(),
        reason: "--encrypt needs it".into(),
    };
    let file = arguments.level_1_password_file.as_deref();
    let level_1 = secret("password", file, LEVEL_1_VARIABLE, MOST_PASSWORD_BYTES)?;
    let level_1 = level_1.ok_or_else(|| missing(LEVEL_1_VARIABLE))?;
    let level_2 = arguments.password.text()?;
    let level_2 = level_2.ok_or_else(|| missing(VARIABLE))?;
    Passwords::new(&level_1, &level_2)
        .map(Some)
        .map_err(failure(arguments))
}

fn failure(arguments: &Arguments) -> impl Fn(WriteError) -> Failure {
    |source| Failure::Write {
        session: arguments.session.clone(),
        source,
    }
}

fn write(arguments: &Arguments, plan: &Plan, passwords: Option<Passwords>) -> Result<(), Failure> {
    let (mut session, writers, start) = if arguments.append {
        existing(arguments)?
    } else {
        let (session, writers) = new(arguments, passwords).map_err(failure(arguments))?;
        (session, writers, arguments.start.unwrap_or_else(now))
    };
    // What is appended is not what was there, once more.
    let seed = match arguments.append {
        true => arguments.sample_seed() ^ start.cast_unsigned(),
        false => arguments.sample_seed(),
    };
    let generators: Vec<Generator> = (0..)
        .zip(writers)
        .map(|(number, writer)| {
            let rate = writer.sampling_frequency();
            let signal = Synth::new(seed, number, rate).with_line_frequency(arguments.line_hz);
            Generator::new(writer, signal, start)
        })
        .collect();
    let written = if arguments.live {
        write_live(arguments, plan, generators, start)
    } else {
        write_at_once(arguments, plan, generators)
    };
    let written = written.and_then(|()| write_records(arguments, &mut session, start));
    if written.is_err() && !arguments.append && !arguments.live {
        remove(arguments);
    }
    written.map_err(failure(arguments))
}

fn new(
    arguments: &Arguments,
    passwords: Option<Passwords>,
) -> Result<(SessionWriter, Vec<ChannelWriter>), WriteError> {
    let mut session = SessionWriter::create(
        &arguments.session,
        SessionOptions {
            // Two sessions of one identifier would pass for one (format section 3).
            seed: arguments.seed,
            session_description: "synthetic recording".into(),
            passwords,
            ..SessionOptions::default()
        },
    )?;
    let channels = arguments.channels.unwrap_or_default();
    let digits = channels.to_string().len();
    let writers: Result<_, _> = (1..=channels)
        .zip(arguments.rate.iter().cycle())
        .map(|(number, &rate)| {
            let block_seconds = arguments.block_seconds;
            session.channel(ChannelOptions {
                units_conversion_factor: UNITS_CONVERSION_FACTOR,
                units_description: UNITS_DESCRIPTION.into(),
                ac_line_frequency: Some(arguments.line_hz),
                block_samples: arguments
                    .block_samples
                    .or(block_seconds.map(|seconds| (seconds * rate).max(1.0) as u32)),
                ..ChannelOptions::new(format!("ch{number:0digits$}"), rate)
            })
        })
        .collect();
    if writers.is_err() {
        remove(arguments);
    }
    Ok((session, writers?))
}

/// Removes what was made of a session: half of one would pass for a whole one.
fn remove(arguments: &Arguments) {
    // Where that cannot be done, either, the first failure is the one to tell.
    let _ = std::fs::remove_dir_all(&arguments.session);
}

/// The session and its channels, and when they go on, absolute uUTC.
fn existing(arguments: &Arguments) -> Result<(SessionWriter, Vec<ChannelWriter>, i64), Failure> {
    let options = arguments.password.open_options()?;
    let recording = open_session(&arguments.session, &options)?;
    let failure = failure(arguments);
    let mut session = SessionWriter::open(&arguments.session, &options).map_err(&failure)?;
    let channels = recording.channels.iter();
    let writers: Result<Vec<_>, _> = channels
        .map(|channel| session.continue_channel(&channel.name))
        .collect();
    let writers = writers.map_err(failure)?;
    let end = writers.iter().filter_map(ChannelWriter::end_uutc).max();
    let end = end.unwrap_or_else(now);
    let start = match arguments.live {
        true => end.max(now()),
        false => end,
    };
    Ok((session, writers, arguments.start.unwrap_or(start)))
}

/// Writes all channels, several at the same time.
fn write_at_once(
    arguments: &Arguments,
    plan: &Plan,
    generators: Vec<Generator>,
) -> Result<(), WriteError> {
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.map_or_else(processors, usize::from);
    let waiting = Mutex::new(generators.into_iter());
    let next = || waiting.lock().ok()?.next();
    let work = || -> Result<(), WriteError> {
        while let Some(mut generator) = next() {
            generator.write(plan, 0.0, plan.seconds())?;
            generator.finish()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let outcomes = workers.into_iter().map(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        outcomes.collect()
    })
}

/// Writes what has passed of the recording, step by step.
fn write_live(
    arguments: &Arguments,
    plan: &Plan,
    mut generators: Vec<Generator>,
    start: i64,
) -> Result<(), WriteError> {
    let mut written = 0.0;
    while written < plan.seconds() {
        let until = (written + arguments.live_interval).min(plan.seconds());
        let due = start.saturating_add((until * 1e6) as i64);
        let wait = u64::try_from(due.saturating_sub(now())).unwrap_or(0);
        thread::sleep(Duration::from_micros(wait));
        for generator in &mut generators {
            generator.write(plan, written, until)?;
            generator.flush()?;
        }
        written = until;
    }
    generators.into_iter().try_for_each(Generator::finish)
}

/// Writes annotations, spread over the recording.
fn write_records(
    arguments: &Arguments,
    session: &mut SessionWriter,
    start: i64,
) -> Result<(), WriteError> {
    if arguments.records == 0 {
        return Ok(());
    }
    let spacing = arguments.seconds * 1e6 / f64::from(arguments.records);
    let record = |number: u32| {
        let time = start.saturating_add((f64::from(number) * spacing) as i64);
        let text = format!("annotation {}", number + 1);
        match number % 3 {
            0 => NewRecord::note(time, text),
            1 => NewRecord::new(RecordType::SYLG, time, RecordBody::SystemLog { text }),
            _ => {
                let duration_us = Some(spacing as i64);
                let body = RecordBody::EdfAnnotation { duration_us, text };
                NewRecord::new(RecordType::EDFA, time, body)
            }
        }
    };
    let records: Vec<NewRecord> = (0..arguments.records).map(record).collect();
    session.records()?.append(&records)
}

/// The present time in uUTC.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
