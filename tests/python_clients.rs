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

/// Runs the script that compares reduced reads, against a server with such stretches.
fn drive_reduced(tile_s: &str, whole_blocks: &str, sessions: &[&str]) {
    let server = Server::start_with(|serve| {
        serve.env("TILE_DURATION_S", tile_s);
        serve.env("RESPECT_MEF_BLOCKS", whole_blocks);
    });
    let arguments = [&server.address().to_string(), tile_s, whole_blocks];
    let mut arguments: Vec<PathBuf> = arguments.iter().map(PathBuf::from).collect();
    let corpus = corpus::folder();
    arguments.extend(
        sessions
            .iter()
            .map(|name| corpus.join(format!("{name}.mefd"))),
    );
    run_python("client_reduced.py", arguments);
    let status = server.stop().expect("the server ends when told to");
    assert!(status.success(), "{status}");
}

#[test]
fn reduced_reads_and_envelopes() {
    drive_reduced("60", "false", &SESSIONS);
}

#[test]
fn reduced_reads_in_other_stretches() {
    drive_reduced("2.5", "false", &["eight_channels", "staggered_channels"]);
    let whole_blocks = ["gaps_short_long", "mixed_rates", "fractional_fs"];
    drive_reduced("7", "true", &whole_blocks);
}

#[test]
fn sessions_of_clients() {
    let server = Server::start_with(|serve| {
        serve.env("SESSION_TTL_S", "2");
        serve.env("MAX_SESSIONS", "3");
    });
    let corpus = corpus::folder();
    let sessions = ["eight_channels", "multi_segment"];
    let sessions = sessions.map(|name| corpus.join(format!("{name}.mefd")));
    let mut arguments: Vec<PathBuf> = [server.address().to_string().as_str(), "2", "3"]
        .iter()
        .map(PathBuf::from)
        .collect();
    arguments.extend(sessions);
    run_python("client_sessions.py", arguments);
}

#[test]
fn stubs_of_the_native_service() {
    let server = Server::start(&[]);
    let address = PathBuf::from(server.address().to_string());
    let corpus = corpus::folder();
    let mut arguments = vec![address.clone(), "-".into()];
    arguments.extend(SESSIONS.map(|name| corpus.join(format!("{name}.mefd"))));
    run_python("client_native.py", arguments);
    let hostile = ["block_payload_flip", "bases/base_two"];
    let hostile = hostile.map(|name| corpus.join(format!("hostile/{name}.mefd")));
    let [damaged, whole] = hostile;
    run_python(
        "client_native.py",
        [address.clone(), "-".into(), damaged, whole],
    );
    for level in ["password_level_1", "password_level_2"] {
        let session = corpus::Session::load(&corpus, "encrypted_mef3io");
        let password = session.facts[level].as_str().unwrap();
        let arguments = vec![address.clone(), password.into(), session.path];
        run_python("client_native.py", arguments);
    }
}

#[test]
fn client_of_the_first_generation() {
    drive("client_g1.py", "2");
}

#[test]
fn client_of_the_first_generation_without_workers() {
    drive("client_g1.py", "0");
}
