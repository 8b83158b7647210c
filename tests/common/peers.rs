//! Other implementations of MEF 3.0, which are written in Python.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python interpreter that has the peers: other implementations of MEF 3.0
/// and of its servers.
///
/// It is `MEF3_PEERS_PYTHON`, or that of the environment which
/// `tests/python/setup.sh` makes, and which is made here where it is missing or
/// has other packages than it should. A machine on which that fails fails the
/// test: a comparison that did not happen must not look like one that passed.
pub fn peers_python() -> PathBuf {
    if let Some(python) = std::env::var_os("MEF3_PEERS_PYTHON") {
        return python.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/peers/bin/python");
    let complete = root.join("target/peers/complete");
    let wanted = fs::read(root.join("tests/python/requirements.txt")).unwrap();
    // Several test programs may get here at the same time.
    fs::create_dir_all(root.join("target")).unwrap();
    let lock = File::create(root.join("target/peers.lock")).unwrap();
    lock.lock().unwrap();
    if !fs::read(complete).is_ok_and(|found| found == wanted) {
        let script = root.join("tests/python/setup.sh");
        let made = Command::new("bash").arg(&script).status();
        assert!(
            made.as_ref().is_ok_and(|status| status.success()),
            "the Python peers cannot be installed ({made:?}): {} needs python3 with venv \
             and a package index. Or set MEF3_PEERS_PYTHON to an interpreter that has the \
             packages of tests/python/requirements.txt",
            script.display()
        );
    }
    python
}

/// Runs a script of `tests/python` with the peers, and gives what it printed.
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
