//! `mef3-server client` as its users meet it: against a real server, by what it writes,
//! says and ends in.

mod common;

#[path = "client_cli/asking.rs"]
mod asking;
#[path = "client_cli/connecting.rs"]
mod connecting;
#[path = "client_cli/cuts.rs"]
mod cuts;
#[path = "client_cli/reading.rs"]
mod reading;

use std::fmt::Display;
use std::path::Path;

use common::corpus::folder;
use common::process::{Ended, Launch, Server};

/// A server of the corpus, as the data root `corpus`.
fn serve_corpus() -> Server {
    let root = format!("corpus={}", folder().canonicalize().unwrap().display());
    Launch::new()
        .env("MEF3_SERVER_PATHS_DATA_ROOTS", root)
        .start()
}

/// The program as a client of the server at an address.
fn client(address: impl Display, arguments: &[&str]) -> Launch {
    let launch = Launch::command(["client", &address.to_string()]);
    arguments
        .iter()
        .fold(launch, |launch, argument| launch.arg(argument))
}

/// Its output, where all went well.
fn output(launch: Launch) -> String {
    let ended = launch.run();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    ended.stdout
}

/// Checks how a run failed: by its status, and in lines of the program's with these parts.
fn failure(ended: &Ended, status: i32, parts: &[&str]) {
    assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr);
    for line in ended.stderr.lines() {
        assert!(line.starts_with("mef3-server: "), "{line}");
    }
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
