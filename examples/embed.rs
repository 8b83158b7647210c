//! Embeds the engine in a plain tokio program: opens a session, reads a window
//! of it as placed samples, and its stored blocks.
//!
//! ```text
//! cargo run --example embed                  # on a recording that it makes
//! cargo run --example embed -- night.mefd    # on one of yours
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};

use mef3_server::mef::synth::Synth;
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, WriteError};
use mef3_server::{BlockItem, Engine, ReadRequest};

/// Not `#[tokio::main]` on `main` itself: a worker is this same program, and
/// whatever comes before `worker::init` happens in every worker, too.
fn main() -> Result<(), Box<dyn Error>> {
    mef3_server::worker::init();
    tokio::runtime::Runtime::new()?.block_on(read())
}

async fn read() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => make_recording(folder.path())?,
    };
    let engine = Engine::builder().workers(2).cache_mb(128).start()?;
    let recording = engine.open(&path).await?;
    let channel = recording
        .info()
        .channels
        .first()
        .ok_or("the session has no readable channel")?;
    let (start, rate) = (channel.start_uutc, channel.sampling_frequency);
    println!(
        "{}: {} channels",
        path.display(),
        recording.info().channels.len()
    );

    // Ten seconds, placed on a regular grid; where nothing was recorded, NaN.
    let request =
        ReadRequest::new(&recording, start, start + 10_000_000).channels([channel.name.as_str()]);
    let mut windows = engine.read::<f32>(&request)?;
    let (mut samples, mut gaps) = (0, 0);
    while let Some(window) = windows.next().await {
        let window = window?;
        samples += window.samples.len();
        gaps += window
            .samples
            .iter()
            .filter(|sample| sample.is_nan())
            .count();
    }
    println!(
        "{}: {samples} samples at {rate} Hz, {gaps} of them in gaps",
        channel.name
    );

    // The same ten seconds as the blocks that were stored, in counts.
    let mut blocks = engine.read_blocks(&request)?;
    while let Some(block) = blocks.next().await {
        // Unreadable segments come only where the request masks damage.
        let BlockItem::Block(block) = block? else {
            continue;
        };
        match block.counts() {
            Ok(counts) => println!("block at {}: {} counts", block.start_uutc, counts.len()),
            Err(damage) => println!("block at {}: {}", block.start_uutc, damage.error),
        }
    }

    let statistics = engine.statistics().await?;
    println!(
        "pages: {} decoded, {} hits; workers: {}",
        statistics.coordinator.decoded,
        statistics.cache.hits,
        statistics.supervisor.workers.len()
    );
    engine.shutdown().await;
    Ok(())
}

/// A minute of two synthetic channels.
fn make_recording(folder: &Path) -> Result<PathBuf, WriteError> {
    let path = folder.join("example.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default())?;
    for (name, number) in ["LA 1", "LA 2"].into_iter().zip(0..) {
        let mut samples = vec![0; 60 * 256];
        Synth::new(1, number, 256.0).fill(&mut samples);
        let mut channel = session.channel(ChannelOptions::new(name, 256.0))?;
        channel.write(1_700_000_000_000_000, &samples)?;
        channel.finish()?;
    }
    Ok(path)
}
