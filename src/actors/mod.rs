//! The actors: who decides what is read, kept, predicted and restarted.
//!
//! They run in an actix System on one thread, send each other messages, and
//! neither read files nor decode. `actors.md` at the top of the project has the
//! picture, every message and every failure.

mod blame;
pub(crate) mod cache;
pub(crate) mod coordinator;
pub(crate) mod delays;
pub(crate) mod file_manager;
mod flights;
mod in_process;
pub(crate) mod plan;
pub(crate) mod prefetcher;
mod session_state;
pub(crate) mod settings;
pub(crate) mod slot;
mod stuck;
pub(crate) mod supervisor;
pub(crate) mod tree;
