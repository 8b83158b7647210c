//! `client`: asks a server over the native API.

mod address;
mod connection;
mod info;
mod list;
mod read;
mod stats;
mod top;
mod trouble;

use std::future::Future;

use clap::{Args, Subcommand};
use tokio::runtime::{Builder, Runtime};

use self::address::Address;
use self::connection::{Client, ConnectionArguments, Server};
pub(super) use self::trouble::{ClientError, chain, summary};
use super::failure::Failure;

const DETAILS: &str = "\
ADDR is HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:PATH; without a port it
is 50051. HOST:PORT is encrypted where --ca or --cert is given, and otherwise not.
https:// without --ca trusts the authorities that this system trusts. Tokens and
passwords are never arguments, and they are sent over encrypted connections, over Unix
sockets and within this machine only.

RECORDING is an id, as `list` shows it, or a path on the server's machine.

What the server refuses is told with its reason, the field or the limit at fault, the
damaged block, and when to try again, as far as that applies. The exit status is 0 where
all went well, 1 where it did not, 2 where the arguments are wrong, and 3 where a read is
whole but for damage that was masked.

Examples:
  mef3-server client 127.0.0.1:50051 list
  mef3-server client 127.0.0.1:50051 info lab:night.mefd
  mef3-server client 127.0.0.1:50051 read lab:night.mefd --channel Fp1 | head
  mef3-server client unix:/run/mef3/mef3.sock top
  MEF3_TOKEN=... mef3-server client https://eeg.example.org list --root lab";

/// Ask a server: what it has, what is in a recording, its samples, and how it is
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// The server: HOST:PORT, http://..., https://... or unix:PATH
    #[arg(value_name = "ADDR")]
    address: Address,
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Arguments),
    Info(info::Arguments),
    Read(read::Arguments),
    Stats(stats::Arguments),
    Top(top::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = |password| Server::new(&arguments.address, &arguments.connection, password);
    match &arguments.command {
        Command::List(list) => {
            let server = server(Some(&list.password))?;
            wait_for(list::run(list, &server))
        }
        Command::Info(info) => {
            let server = server(Some(&info.password))?.with_recording(&info.recording);
            wait_for(info::run(info, &server))
        }
        Command::Read(read) => {
            let server = server(Some(&read.password))?.with_recording(&read.recording);
            read::run(read, &server)
        }
        Command::Stats(stats) => wait_for(stats::run(stats, &server(None)?)),
        Command::Top(top) => wait_for(top::run(top, &server(None)?)),
    }
}

/// A runtime with a thread of its own for the connection, which lives on while we wait
/// for a slow disk.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.map_err(Failure::Start)
}

fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(command)
}
