//! What the integration tests share.

#[allow(dead_code, reason = "not every test program reads the corpus")]
pub mod corpus;
#[allow(dead_code, reason = "not every test program starts the server")]
pub mod server;
#[allow(dead_code, reason = "not every test program asks the server")]
pub mod wire;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python interpreter that has the peers: other implementations of MEF 3.0.
///
/// It is `MEF3_PEERS_PYTHON`, or that of the environment which
/// `tests/python/setup.sh` makes. A missing one fails the test: a comparison
/// that did not happen must not look like one that passed.
#[allow(dead_code, reason = "not every test program compares with the peers")]
pub fn peers_python() -> PathBuf {
    let python = std::env::var_os("MEF3_PEERS_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/python"),
        PathBuf::from,
    );
    assert!(
        python.is_file(),
        "{} is missing: run tests/python/setup.sh once, or set MEF3_PEERS_PYTHON \
         to an interpreter that has the packages of tests/python/requirements.txt",
        python.display()
    );
    python
}

/// Runs a script of `tests/python` with the peers, and gives what it printed.
#[allow(dead_code, reason = "not every test program compares with the peers")]
pub fn run_python<S: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let output = Command::new(peers_python())
        .arg(scripts.join(script))
        .args(arguments)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}
