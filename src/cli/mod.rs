//! The command line: what the program can be told to do.
//!
//! One file or folder per command. A command reads its arguments, does its work
//! through the library, and ends in success or in a [`Failure`], which is one
//! line on standard error.

mod check;
mod client;
mod demo;
mod descriptors;
mod failure;
mod generate;
mod health;
mod info;
mod iso8601;
mod logging;
mod notify;
mod output;
mod password;
mod read;
mod reload;
mod serve;
mod sockets;
#[cfg(feature = "otlp")]
mod spans;
mod tables;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What whoever serves by this program is told, where it is one for tests: `cargo test`
/// leaves it where `cargo build` puts the one to serve by.
const BUILT_FOR_TESTS: Option<&str> = if cfg!(feature = "fault-injection") {
    Some("built for tests, not to serve: sessions can crash its workers; run cargo build again")
} else {
    None
};

/// Serves MEF 3.0 brain recordings, and looks into them.
#[derive(Debug, Parser)]
#[command(name = "mef3-server", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  See it work, on a recording that it makes itself:
    mef3-server demo
  Serve recordings to gRPC clients:
    mef3-server serve --listen 127.0.0.1:50051
  What is in a session, and is it whole?
    mef3-server info night.mefd
    mef3-server info night.mefd --deep
    mef3-server check night.mefd
  A channel as text, and ten seconds of it as numbers for another program:
    mef3-server read night.mefd --channel Fp1 | head
    mef3-server read night.mefd --channel Fp1 --format f64 --output fp1.f64 \\
        --start 1600000000000000 --end 1600000010000000
  What a server has, and ten seconds of it for numpy.load:
    mef3-server client 127.0.0.1:50051 list
    mef3-server client 127.0.0.1:50051 read lab:night.mefd --output night.npy \\
        --format npy --from 1600000000000000 --to 1600000010000000

Times are uUTC: microseconds since 1970-01-01T00:00:00 UTC.
A session is a folder whose name ends in .mefd.
Every command explains itself: mef3-server COMMAND --help";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Demo(demo::Arguments),
    Health(health::Arguments),
    Info(info::Arguments),
    Check(check::Arguments),
    Read(read::Arguments),
    Generate(generate::Arguments),
    Client(client::Arguments),
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Read(arguments) => read::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Client(arguments) => client::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: `mef3-server read ... | head`.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            failure.details().iter().for_each(|line| complain(line));
            failure.exit_code()
        }
    }
}

/// Says on standard error what is wrong: one line, whatever stands in the names
/// of files.
fn complain(text: &str) {
    // Nobody is left to tell if standard error is gone, too.
    let _ = writeln!(io::stderr(), "mef3-server: {}", units::printable(text));
}
