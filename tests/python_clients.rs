//! Python clients against the server: the one of mef3io-server 3.1, and stubs
//! made from our protocol file that are called as brainmaze-mef3-server's client
//! calls its own. Each has a process to itself, because the protocols of both
//! cannot be loaded into one.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::server::Server;
use common::{corpus, run_python};

const SESSIONS: [&str; 7] = [
    "eight_channels",
    "mixed_rates",
    "multi_segment",
    "gaps_short_long",
    "staggered_channels",
    "unusual_names",
    "unusual_names_pymef",
];

/// A session that our own command writes, long enough for replies of several
/// messages.
fn generate(folder: &Path) -> PathBuf {
    let path = folder.join("generated.mefd");
    let made = Command::new(env!("CARGO_BIN_EXE_mef3-server"))
        .args(["generate", "--channels", "4", "--rate", "2000"])
        .args(["--seconds", "130", "--seed", "11"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}

/// Runs a client script against a server of so many workers.
fn drive(script: &str, workers: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["--workers", workers]);
    let corpus = corpus::folder();
    let sessions = SESSIONS.map(|name| corpus.join(format!("{name}.mefd")));
    let mut arguments = vec![PathBuf::from(server.address().to_string()), corpus];
    arguments.extend(sessions);
    arguments.push(generate(folder.path()));
    run_python(script, arguments);
    let status = server.stop().expect("the server ends when told to");
    assert!(status.success(), "{status}");
}

#[test]
fn client_of_mef3io_server() {
    drive("client_mef3io_server.py", "2");
}

#[test]
fn client_of_mef3io_server_without_workers() {
    drive("client_mef3io_server.py", "0");
}

#[test]
fn client_of_the_first_generation() {
    drive("client_g1.py", "2");
}

#[test]
fn client_of_the_first_generation_without_workers() {
    drive("client_g1.py", "0");
}
