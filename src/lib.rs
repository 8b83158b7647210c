//! Serves MEF 3.0 brain recordings: any channels over any time window, from one
//! shared cache, decoded by supervised worker processes.
//!
//! Labs record intracranial EEG for weeks, and viewers, detectors and training
//! jobs all want windows of it. Each of them reading the files again is slow;
//! one process reading for all of them dies of the first bad file. Here an
//! [`Engine`] decodes in worker processes that it replaces when they die, keeps
//! what was decoded in one cache under a byte budget, and gives everybody
//! streams that go as fast as they are taken.
//!
//! The `mef3-server` program puts gRPC around it. This library is the same
//! engine for programs that want to embed it, the services for programs that
//! want to serve it ([`grpc`]), and the format for those that want neither
//! ([`mef`]).
//!
//! # Embedding
//!
//! Workers are this same executable, started again. A program that embeds the
//! engine therefore calls [`worker::init`] **first of all in `main`**, before it
//! starts a runtime or reads its arguments:
//!
//! ```no_run
//! use mef3_server::{Engine, ReadRequest};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     mef3_server::worker::init();
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let engine = Engine::builder().start()?;
//!         let recording = engine.open("night.mefd").await?;
//!         let start = recording.info().start_uutc().unwrap_or_default();
//!         let request = ReadRequest::new(&recording, start, start + 10_000_000).channels(["Fp1"]);
//!         let mut windows = engine.read::<f32>(&request)?;
//!         while let Some(window) = windows.next().await {
//!             println!("{} samples", window?.samples.len());
//!         }
//!         engine.shutdown().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A program that forgets it gets the same answers, decoded in its own process,
//! and a warning in its log. The library sets nothing global: no signal handler,
//! no subscriber, no exit; `tracing` records go wherever the host sends them.
//!
//! # Truth
//!
//! Damage, a gap and a time outside the recording are three different answers. A
//! gap is [`SampleValue::GAP`](mef::SampleValue::GAP) (NaN), and nothing else
//! ever is; damage is an error that names channel, segment, block and reason.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod actors;
pub mod config;
mod engine;
mod error;
pub mod grpc;
pub mod mef;
pub mod ops;
mod panics;
mod reduce;
mod trace;
pub mod worker;

pub use actors::cache::CacheStatistics;
pub use actors::coordinator::{CoordinatorStatistics, ProbeFailure};
pub use actors::delays::Delays;
pub use actors::file_manager::RecordingStatistics;
pub use actors::prefetcher::PrefetchStatistics;
pub use actors::slot::{WorkerState, WorkerStatus};
pub use actors::supervisor::SupervisorStatistics;
pub use engine::{
    Block, BlockItem, BlockStream, Engine, EngineBuilder, Follow, Held, Masked, Missing,
    MissingReason, ReadRequest, Recording, ScaleChange, StartError, Statistics, Window,
    WindowStream,
};
pub use error::Error;
pub use worker::page::Revision;
pub use worker::{Guard, Sandbox};

// Some unit tests start processes.
#[cfg(test)]
procspawn::enable_test_support!();
