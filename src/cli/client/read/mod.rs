//! `client read`: a window of a recording as a file.

mod arrow;
mod csv;
mod interrupt;
mod masked;
mod npy;
mod patience;
mod reply;
mod value;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mef3_server::config::OnDamage;
use mef3_server::grpc::proto::native::read_signal_request::Window;
use mef3_server::grpc::proto::native::{
    Channel, Compression, DamageInfo, OnDamage as OnDamageField, ReadSignalRequest, SampleForm,
    SignalGroup, TimeSpan,
};

use tokio::task::yield_now;

use self::interrupt::Interrupts;
use self::masked::Masked;
use self::reply::{Part, Reply};
use self::value::Value;
use super::{ClientError, Server, info, runtime};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::password::PasswordArguments;
use crate::cli::units::rate;

/// How long a read may take until its progress is shown.
const PATIENCE: Duration = Duration::from_secs(1);
const PROGRESS: &str = "{wide_bar} {percent:>3} %  {binary_bytes_per_sec}  {eta} left";
/// Channels of one rate that an error names.
const NAMED: usize = 4;

const DETAILS: &str = "\
Samples stand on a regular grid: column i has the time start + i / rate. A column without
a sample is NaN (csv: an empty value, arrow: null): a gap, a time outside the recording,
or damage that is masked. Damage otherwise ends the read. With --on-damage mask it is left
out, a line on standard error says what is masked, and the exit status is 3.

  csv    lines of time in uUTC and a value of each channel
  npy    an array for numpy.load, of shape (channels, samples) in Fortran order: the
         values of a time lie together, since it is in this order that they come
  arrow  an Arrow IPC file with a column of times and one for each channel, for
         pyarrow.ipc.open_file, pandas.read_feather or polars.read_ipc

All of it is written as it comes, and some tens of MiB are held, however long the window
is. One file has room for one rate: where the channels have several, the error lists
them, to be chosen by --channel. The server has a limit for one request (limits.request_mb);
--type f32 halves the samples' size.

A channel that cannot be read at all ends the read of all channels, or is masked, and has
no column.

A reply that is cut goes on where it was, as soon as the server is there again: it may be
away for --retry-s. A file has another name until it is whole; a read that fails, or is
ended by a signal, leaves nothing of it.

Examples:
  Two channels, to look at:
    mef3-server client 127.0.0.1:50051 read lab:night.mefd --channel Fp1 --channel Fp2 | head
  Ten seconds of all channels for numpy.load('night.npy'):
    mef3-server client 127.0.0.1:50051 read lab:night.mefd --format npy --output night.npy \\
        --from 1600000000000000 --to 1600000010000000
  What can be read of a damaged recording, and a list of what cannot:
    mef3-server client 127.0.0.1:50051 read lab:night.mefd --on-damage mask \\
        --format arrow --output night.arrow 2> masked.txt";

/// Write a window of a recording to a file, or to standard output
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Id of the recording, or its path on the server's machine
    pub(super) recording: String,
    /// Name of a channel; may be repeated [default: all, in byte order]
    // Names may begin with a dash.
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    channel: Vec<String>,
    /// Start of the window in uUTC [default: the earliest start of the channels]
    #[arg(
        long,
        alias = "start",
        value_name = "UUTC",
        allow_negative_numbers = true
    )]
    from: Option<i64>,
    /// End of the window in uUTC, exclusive [default: the latest end of the channels]
    #[arg(
        long,
        alias = "end",
        value_name = "UUTC",
        allow_negative_numbers = true
    )]
    to: Option<i64>,
    /// What to do where a block or segment cannot be read
    #[arg(long, value_enum, default_value_t = OnDamage::Fail)]
    on_damage: OnDamage,
    /// What to write
    #[arg(short, long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// What a sample is
    #[arg(long = "type", value_enum, default_value_t = Type::F64)]
    value_type: Type,
    /// Write to a file, which is replaced only once the whole window is read; - is
    /// standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Have the samples packed on their way (zstd), for slow networks
    #[arg(long)]
    compress: bool,
    /// Seconds without a sample in which a reply that was cut is tried again, such as while
    /// the server is restarted; 0 is never
    #[arg(long, value_name = "S", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    retry_s: u64,
    #[command(flatten)]
    pub(super) password: PasswordArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text
    Csv,
    /// A NumPy array
    Npy,
    /// An Arrow IPC file
    Arrow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// 64-bit: every digit
    F64,
    /// 32-bit
    F32,
}

/// A form that samples are written in. Nothing is kept but what it gathers for a batch.
trait Form<T> {
    /// Writes what stands before the samples.
    fn begin(&mut self, output: &mut Output) -> Result<(), Failure>;

    /// Writes some columns, which come one after another.
    fn write(&mut self, part: &Part<T>, output: &mut Output) -> Result<(), Failure>;

    /// Writes what stands after them.
    fn end(&mut self, output: &mut Output) -> Result<(), Failure>;
}

pub(super) fn run(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let file = arguments.output.as_deref();
    let file = file.filter(|path| *path != Path::new("-"));
    let mut names = HashSet::new();
    if let Some(twice) = arguments.channel.iter().find(|name| !names.insert(*name)) {
        return Err(Failure::Arguments(format!(
            "--channel {twice} is there twice"
        )));
    }
    let runtime = runtime()?;
    // Before anything is read: a folder that is not there is the commonest mistake.
    let output = match file {
        Some(file) => Output::file(file)?,
        None => Output::stdout(),
    };
    if output.is_terminal() && arguments.format != Format::Csv {
        return Err(Failure::BinaryToTerminal);
    }
    if !output.is_pending() {
        // There is nothing to remove, and a pipe that nobody reads has us wait in a write:
        // signals end us there as they end any program.
        return runtime.block_on(read(arguments, server, output));
    }
    let mut signals = Interrupts::new(&runtime).map_err(Failure::Start)?;
    runtime.block_on(async {
        tokio::select! {
            outcome = read(arguments, server, output) => outcome,
            // What is written so far goes with the output.
            () = signals.next() => Err(ClientError::Interrupted.into()),
        }
    })
}

async fn read(arguments: &Arguments, server: &Server, output: Output) -> Result<(), Failure> {
    let mut masked = Masked::default();
    let request = arguments.request(server, &mut masked).await?;
    match arguments.value_type {
        Type::F64 => read_as::<f64>(arguments, server, request, masked, output).await,
        Type::F32 => read_as::<f32>(arguments, server, request, masked, output).await,
    }
}

async fn read_as<T: Value>(
    arguments: &Arguments,
    server: &Server,
    request: ReadSignalRequest,
    mut masked: Masked,
    mut output: Output,
) -> Result<(), Failure> {
    let retry_limit = Duration::from_secs(arguments.retry_s);
    let mut reply = Reply::<T>::begin(server, request, retry_limit).await?;
    let group = only_group(reply.groups())?.clone();
    let mut form: Box<dyn Form<T>> = match arguments.format {
        Format::Csv => Box::new(csv::Csv::new(&group)),
        Format::Npy => Box::new(npy::Npy::new(&group)),
        Format::Arrow => Box::new(arrow::Arrow::<T>::new(&arguments.recording, &group)?),
    };
    let progress = Progress::new(&group, T::BYTES, output.is_terminal());
    form.begin(&mut output)?;
    while let Some(part) = reply.next().await? {
        if !part.damage.is_empty() {
            progress.bar.suspend(|| masked.tell(&part.damage));
        }
        form.write(&part, &mut output)?;
        progress.show(part.first_column + part.columns as u64);
        // Samples may come as fast as they are written: signals have their turn, too.
        yield_now().await;
    }
    form.end(&mut output)?;
    output.finish()?;
    progress.bar.finish_and_clear();
    masked.outcome(&arguments.recording)
}

impl Arguments {
    /// What is asked for. Channels that cannot be read are told by `masked`, or end it.
    async fn request(
        &self,
        server: &Server,
        masked: &mut Masked,
    ) -> Result<ReadSignalRequest, Failure> {
        let time = match (self.from, self.to) {
            (Some(start_uutc), Some(end_uutc)) if !self.channel.is_empty() => TimeSpan {
                start_uutc,
                end_uutc,
            },
            (from, to) => {
                let span = self.span_of_channels(server, masked).await?;
                TimeSpan {
                    start_uutc: from.unwrap_or(span.start_uutc),
                    end_uutc: to.unwrap_or(span.end_uutc),
                }
            }
        };
        let mut request = ReadSignalRequest {
            recording: self.recording.clone(),
            channels: self.channel.clone(),
            window: Some(Window::Time(time)),
            ..ReadSignalRequest::default()
        };
        request.set_form(match self.value_type {
            Type::F64 => SampleForm::Float64,
            Type::F32 => SampleForm::Float32,
        });
        request.set_on_damage(match self.on_damage {
            OnDamage::Fail => OnDamageField::Fail,
            OnDamage::Mask => OnDamageField::Mask,
        });
        request.set_compression(match self.compress {
            true => Compression::Zstd,
            false => Compression::None,
        });
        Ok(request)
    }

    /// From the earliest start of the channels to the latest end.
    async fn span_of_channels(
        &self,
        server: &Server,
        masked: &mut Masked,
    ) -> Result<TimeSpan, Failure> {
        let mut client = server.connect().await?;
        let (described, channels) = info::describe(&mut client, server, &self.recording).await?;
        if self.channel.is_empty() {
            self.mask_unreadable(&channels, masked)?;
            return described.span.ok_or_else(|| {
                let recording = self.recording.clone();
                ClientError::NoChannel { recording }.into()
            });
        }
        let mut spans = Vec::with_capacity(self.channel.len());
        for name in &self.channel {
            spans.push(self.span_of(name, &channels)?);
        }
        let start = spans.iter().map(|span| span.start_uutc).min();
        let end = spans.iter().map(|span| span.end_uutc).max();
        Ok(TimeSpan {
            start_uutc: start.unwrap_or_default(),
            end_uutc: end.unwrap_or_default(),
        })
    }

    /// The server leaves them out of the channels of a recording without a word.
    fn mask_unreadable(&self, channels: &[Channel], masked: &mut Masked) -> Result<(), Failure> {
        let unreadable = channels
            .iter()
            .filter(|channel| !channel.unreadable_reason.is_empty());
        for channel in unreadable {
            if self.on_damage == OnDamage::Fail {
                return Err(self.unreadable(channel));
            }
            masked.tell(&[DamageInfo {
                channel: channel.name.clone(),
                reason: channel.unreadable_reason.clone(),
                ..DamageInfo::default()
            }]);
        }
        Ok(())
    }

    fn unreadable(&self, channel: &Channel) -> Failure {
        ClientError::UnreadableChannel {
            recording: self.recording.clone(),
            channel: channel.name.clone(),
            reason: channel.unreadable_reason.clone(),
        }
        .into()
    }

    fn span_of(&self, name: &str, channels: &[Channel]) -> Result<TimeSpan, Failure> {
        let Some(channel) = channels.iter().find(|channel| channel.name == name) else {
            return Err(Failure::UnknownChannel {
                session: PathBuf::from(&self.recording),
                channel: name.into(),
                known: channels
                    .iter()
                    .map(|channel| channel.name.clone())
                    .collect(),
            });
        };
        channel.span.ok_or_else(|| self.unreadable(channel))
    }
}

/// The group that all channels are in.
fn only_group(groups: &[SignalGroup]) -> Result<&SignalGroup, ClientError> {
    if let [group] = groups {
        return Ok(group);
    }
    let rates = groups.iter().map(|group| {
        let named = group.channels.iter().take(NAMED).cloned();
        let mut named: Vec<String> = named.collect();
        if group.channels.len() > NAMED {
            named.push(format!("and {} more", group.channels.len() - NAMED));
        }
        format!("{} of {}", rate(group.sampling_frequency), named.join(", "))
    });
    let rates: Vec<String> = rates.collect();
    Err(ClientError::Rates {
        rates: rates.join("; "),
    })
}

/// The time of a column in uUTC, to the nearest microsecond.
fn time_of(group: &SignalGroup, column: u64) -> i64 {
    let distance = (column as f64 * 1e6 / group.sampling_frequency).round();
    group.start_uutc.saturating_add(distance as i64)
}

/// How far a long read has come, on a terminal that the samples do not go to.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
    /// Of a column.
    bytes: u64,
    may_show: bool,
}

impl Progress {
    fn new(group: &SignalGroup, value_bytes: usize, to_terminal: bool) -> Self {
        let bytes = (group.rows.len() * value_bytes) as u64;
        let length = group.columns.saturating_mul(bytes);
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(PROGRESS) {
            bar.set_style(style);
        }
        Self {
            bar,
            begun: Instant::now(),
            bytes,
            may_show: !to_terminal,
        }
    }

    fn show(&self, columns: u64) {
        if self.may_show && self.bar.is_hidden() && self.begun.elapsed() > PATIENCE {
            // Stays hidden where standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(columns.saturating_mul(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(sampling_frequency: f64, channels: &[&str]) -> SignalGroup {
        SignalGroup {
            sampling_frequency,
            channels: channels.iter().map(|&name| name.into()).collect(),
            start_uutc: 7,
            ..SignalGroup::default()
        }
    }

    #[test]
    fn times_do_not_drift_at_a_fractional_rate() {
        let group = group(1000.0 / 3.0, &[]);
        assert_eq!(time_of(&group, 0), 7);
        assert_eq!(time_of(&group, 1), 3007);
        assert_eq!(time_of(&group, 30_000_000), 90_000_000_007);
    }

    #[test]
    fn several_rates_are_listed_with_their_channels() {
        let groups = [
            group(256.0, &["a"]),
            group(32_000.0, &["b", "c", "d", "e", "f", "g"]),
        ];
        only_group(&groups[..1]).unwrap();
        let error = only_group(&groups).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with(": 256 Hz of a; 32 kHz of b, c, d, e, and 2 more"),
            "{text}"
        );
    }
}
