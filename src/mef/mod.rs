//! MEF 3.0 on disk, and nothing else: no actors, no async, no gRPC.
//!
//! Everything that is read is hostile until checked; no function here panics on
//! any input.

pub mod crc;
mod error;
mod layout;
pub mod red;
pub mod synth;
pub mod time;
mod writer;

pub use error::{BlockError, IndexField, Malformation, MefError};
pub use writer::{ChannelOptions, ChannelWriter, SessionOptions, SessionWriter, WriteError};
