//! Serves MEF 3.0 brain recordings: any channels over any time window, from one
//! shared cache, decoded by supervised worker processes.
#![deny(unsafe_code)]

mod actors;
pub mod config;
mod engine;
mod error;
pub mod grpc;
pub mod mef;
pub mod worker;

pub use actors::cache::CacheStatistics;
pub use actors::coordinator::CoordinatorStatistics;
pub use actors::prefetcher::PrefetchStatistics;
pub use actors::supervisor::{SupervisorStatistics, WorkerState, WorkerStatus};
pub use engine::{
    Block, BlockStream, Engine, EngineBuilder, ReadRequest, Recording, StartError, Statistics,
    Window, WindowStream,
};
pub use error::Error;
