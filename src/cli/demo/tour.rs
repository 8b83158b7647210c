//! The tour: a client's view of the server, checked sample by sample.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{
    FileInfoRequest, FileInfoResponse, OpenFileRequest, SignalRangeRequest,
};
use mef3_server::{Engine, Error, WorkerState};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error as ThisError;
use tonic::transport::Channel;

use super::plot::plot;
use super::recording::{DemoChannel, DemoRecording, GAP, SECONDS, START_UUTC};

/// Columns of the picture.
const WIDTH: usize = 64;
/// How long a worker may take to be there.
const WORKER_LIMIT: Duration = Duration::from_secs(5);

type Client = LegacyClient<Channel>;

/// What can go wrong on the tour.
#[derive(Debug, ThisError)]
pub(in crate::cli) enum TourError {
    #[error("the demo's client cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the demo's call failed: {0}")]
    Call(#[from] tonic::Status),
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("channel {channel}: sample {column} was read as {read}, {written} was written")]
    Wrong {
        channel: &'static str,
        column: usize,
        read: f32,
        written: f32,
    },
    #[error(
        "{rows} rows of {columns} samples were read, {expected_rows} of {expected_columns} were written"
    )]
    Shape {
        rows: usize,
        columns: usize,
        expected_rows: usize,
        expected_columns: usize,
    },
    #[error("no worker came up within {WORKER_LIMIT:?}")]
    NoWorker,
    #[error(transparent)]
    Engine(#[from] Error),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints one line of the tour.
macro_rules! say {
    ($($text:tt)*) => { writeln!(io::stdout(), $($text)*)? };
}

/// Opens, reads cold and warm, kills a worker, reads again, draws.
pub(super) async fn take(
    engine: &Engine,
    address: SocketAddr,
    recording: &DemoRecording,
) -> Result<(), TourError> {
    let path = recording.path().display().to_string();
    let mut client: Client = LegacyClient::connect(format!("http://{address}")).await?;
    say!("serving on {address}");
    let info = open(&mut client, &path).await?;
    describe(&info)?;

    let mut picture = Vec::new();
    for rate in [1000, 256] {
        let channels: Vec<&DemoChannel> = recording.channels(rate).collect();
        say!(
            "\nreading {} channels of {rate} Hz, {SECONDS} s",
            channels.len()
        );
        for temperature in ["cold", "warm"] {
            let hits = engine.statistics().await?.cache.hits;
            let read = timed_read(&mut client, &path, &channels).await?;
            let hits = engine.statistics().await?.cache.hits - hits;
            say!("  {temperature}: {read}, {hits} cache hits; every sample as written");
            picture = read.rows.into_iter().next().unwrap_or_default();
        }
    }
    draw(&picture)?;
    kill_a_worker(engine, &mut client, &path, recording).await
}

async fn open(client: &mut Client, path: &str) -> Result<FileInfoResponse, TourError> {
    let request = OpenFileRequest {
        file_path: path.into(),
        ..OpenFileRequest::default()
    };
    let info = client.open_file(request).await?.into_inner();
    match info.error_message {
        Some(message) if !info.file_opened => Err(TourError::Refused(message)),
        _ => Ok(info),
    }
}

fn describe(info: &FileInfoResponse) -> Result<(), TourError> {
    let span = info.duration_s.unwrap_or_default();
    say!(
        "opened {}: {} channels, {span} s",
        info.file_path,
        info.channel_names.len()
    );
    for (name, rate) in info.channel_names.iter().zip(&info.channel_sampling_rates) {
        say!("  {name:<10} {rate:>6} Hz");
    }
    say!(
        "  nothing was recorded from second {} to second {}",
        GAP.0,
        GAP.1
    );
    Ok(())
}

/// What was read, and how long it took.
struct Read {
    rows: Vec<Vec<f32>>,
    time: Duration,
}

impl std::fmt::Display for Read {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.time.as_secs_f64() * 1e3;
        let samples: usize = self.rows.iter().map(Vec::len).sum();
        let rate = samples as f64 / self.time.as_secs_f64() / 1e6;
        write!(
            formatter,
            "{samples} samples in {millis:.1} ms ({rate:.1} million a second)"
        )
    }
}

/// Reads the whole span of the channels and compares it with the truth.
async fn timed_read(
    client: &mut Client,
    path: &str,
    channels: &[&DemoChannel],
) -> Result<Read, TourError> {
    let begin = Instant::now();
    let request = SignalRangeRequest {
        file_path: path.into(),
        channel_names: channels.iter().map(|channel| channel.name.into()).collect(),
        start_uutc: START_UUTC,
        end_uutc: START_UUTC + SECONDS * 1_000_000,
        n_points: None,
    };
    let mut stream = client.get_signal_range(request).await?.into_inner();
    let mut rows: Vec<Vec<f32>> = vec![Vec::new(); channels.len()];
    while let Some(message) = stream.message().await? {
        if let Some(error) = message.error_message.filter(|error| !error.is_empty()) {
            return Err(TourError::Refused(error));
        }
        let columns = message.shape.get(1).copied().unwrap_or_default().max(0) as usize;
        let samples = message
            .array_bytes
            .chunks_exact((columns * size_of::<f32>()).max(1));
        for (row, bytes) in rows.iter_mut().zip(samples) {
            let (values, _) = bytes.as_chunks::<4>();
            row.extend(values.iter().map(|&value| f32::from_le_bytes(value)));
        }
    }
    let time = begin.elapsed();
    compare(&rows, channels)?;
    Ok(Read { rows, time })
}

fn compare(rows: &[Vec<f32>], channels: &[&DemoChannel]) -> Result<(), TourError> {
    for (row, channel) in rows.iter().zip(channels) {
        if row.len() != channel.samples.len() {
            return Err(TourError::Shape {
                rows: rows.len(),
                columns: row.len(),
                expected_rows: channels.len(),
                expected_columns: channel.samples.len(),
            });
        }
        for ((&read, &written), column) in row.iter().zip(&channel.samples).zip(0..) {
            let same = read.to_bits() == written.to_bits() || (read.is_nan() && written.is_nan());
            if !same {
                return Err(TourError::Wrong {
                    channel: channel.name,
                    column,
                    read,
                    written,
                });
            }
        }
    }
    Ok(())
}

/// Kills a worker under a cold read, and waits for its successor.
async fn kill_a_worker(
    engine: &Engine,
    client: &mut Client,
    path: &str,
    recording: &DemoRecording,
) -> Result<(), TourError> {
    let before = workers_without(engine, None).await?;
    let victim = *before.first().ok_or(TourError::NoWorker)?;
    let request = FileInfoRequest {
        file_path: path.into(),
    };
    client.close_file(request).await?;
    open(client, path).await?;
    let channels: Vec<&DemoChannel> = recording.channels(256).collect();
    say!("\nkilling worker {victim} under a cold read");
    let begin = Instant::now();
    let mut reader = client.clone();
    let (read, killed) = tokio::join!(timed_read(&mut reader, path, &channels), async {
        // Late enough to be at work, early enough not to be done.
        tokio::time::sleep(Duration::from_millis(2)).await;
        kill(victim)
    });
    killed?;
    say!("  {}; every sample as written", read?);
    let after = workers_without(engine, Some(victim)).await?;
    let successor = after
        .iter()
        .find(|pid| !before.contains(pid))
        .ok_or(TourError::NoWorker)?;
    let millis = begin.elapsed().as_millis();
    say!("  worker {successor} took its place after {millis} ms");
    Ok(())
}

fn kill(pid: u32) -> Result<(), TourError> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(TourError::NoWorker)?;
    kill_process(pid, Signal::KILL).map_err(|error| TourError::Output(error.into()))
}

/// Waits until all workers are up, `gone` not being one of them, and returns
/// their process ids.
async fn workers_without(engine: &Engine, gone: Option<u32>) -> Result<Vec<u32>, TourError> {
    let begin = Instant::now();
    while begin.elapsed() < WORKER_LIMIT {
        let workers = engine.statistics().await?.supervisor.workers;
        let ready = workers
            .iter()
            .filter(|worker| worker.state == WorkerState::Ready);
        let pids: Vec<u32> = ready.filter_map(|worker| worker.pid).collect();
        if pids.len() == workers.len() && !gone.is_some_and(|gone| pids.contains(&gone)) {
            return Ok(pids);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(TourError::NoWorker)
}

/// Draws ten seconds of what was read of a 256 Hz channel, across the start of
/// the gap.
fn draw(row: &[f32]) -> Result<(), TourError> {
    let from = ((GAP.0 - 8) * 256) as usize;
    let until = ((GAP.0 + 2) * 256) as usize;
    say!("\nthe first channel in uV, ten seconds up to and into the gap");
    for line in plot(row.get(from..until).unwrap_or_default(), WIDTH) {
        say!("{line}");
    }
    Ok(())
}

/// Says how to go on with the server that keeps running.
pub(super) fn print_what_next(address: SocketAddr, session: &Path) {
    let path = session.display();
    let text = format!(
        "
Still serving; ^C ends it and removes the recording. From here:

  mef3-server info {path}
  mef3-server read {path} --channel 'LA 1' | head

  pip install mef3io-server
  python3 - <<'END'
  from mef3io_server.client import Mef3Client
  client = Mef3Client('{address}')
  info = client.open_file('{path}')
  start = info['start_uutc']
  print(client.get_signal_range('{path}', ['LA 1'], start, start + 10_000_000)['array'])
  END
"
    );
    // Nobody is left to tell if standard output is gone.
    let _ = io::stdout().write_all(text.as_bytes());
}
