//! What the fuzz targets of `fuzz/` run, one function each: any bytes go in, and
//! whatever is promised of the answer is asserted.
//!
//! Compiled for fuzzing and for tests only. `cargo test` runs the same functions
//! over the seeds, some mutants of them, and every input that once was a finding
//! (`fuzz/regressions`).
//!
//! Random bytes hardly ever have the right checksum, and no reader goes on after
//! a wrong one. Most targets therefore put checksums right before they read.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken promise has to stop the program here"
)]

mod archive;
mod common;
mod header;
mod index;
mod metadata;
mod oracle;
mod records;
mod red_block;
mod seeds;
mod session;
#[cfg(test)]
mod tests;
mod video;

pub use archive::archive;
pub use header::header;
pub use index::index;
pub use metadata::metadata;
pub use records::records;
pub use red_block::red_block;
pub use seeds::{Seed, seeds};
pub use session::session;
pub use video::video;

/// Takes any input, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("archive", archive),
    ("header", header),
    ("index", index),
    ("metadata", metadata),
    ("records", records),
    ("red_block", red_block),
    ("session", session),
    ("video", video),
];
