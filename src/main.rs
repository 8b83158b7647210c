//! The `mef3-server` program.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: a worker is this same program, and never gets past this line.
    mef3_server::worker::init();
    cli::run()
}
