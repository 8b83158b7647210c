//! `mef3-server check`: nothing in what is healthy, everything in what is not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::corpus::{copy_folder, folder, sessions};
use mef3_server::mef::{Finding, OpenOptions, Password, check_session};
use serde_json::Value;

fn findings(path: &Path, password: Option<&str>, deep: bool) -> Vec<Finding> {
    let options = OpenOptions {
        password: password.and_then(Password::new),
    };
    let mut findings = Vec::new();
    check_session(path, &options, deep, &mut |finding| findings.push(finding)).unwrap();
    findings
}

fn check(path: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
    let command = command.arg("check").arg(path).args(flags);
    command.env_remove("MEF3_PASSWORD").output().unwrap()
}

#[test]
fn a_healthy_session_has_no_finding() {
    for session in sessions() {
        for deep in [false, true] {
            let found = findings(&session.path, session.password_level_2.as_deref(), deep);
            assert_eq!(found, [], "{}", session.name);
        }
    }
}

/// What is wrong with a hostile case is found, and named with its file.
#[test]
fn what_is_hostile_is_found() {
    let hostile = folder().join("hostile");
    let manifest = fs::read(hostile.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let mut cases = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let (name, path) = (&case["name"], case["path"].as_str().unwrap());
        // Not in a checkout; right in every field that is checked; garbage that
        // decodes.
        let passed_over = case["source"].is_string()
            || ["traversal_names_in_header", "payload_garbage"].contains(&name.as_str().unwrap());
        if passed_over {
            continue;
        }
        cases += 1;
        let found = findings(&hostile.join(path), None, true);
        assert!(!found.is_empty(), "{name}");
        let bad = |finding: &Finding| {
            let file = finding.file.display().to_string();
            file.contains("/bad.timd/") || file.ends_with(".rdat")
        };
        assert!(found.iter().all(bad), "{name}: {found:?}");
    }
    assert!(cases >= 28, "{cases}");
}

/// Every file with a checksum, one byte after another changed.
#[test]
fn every_byte_under_a_checksum_counts() {
    let folder_of_copy = tempfile::tempdir().unwrap();
    let copy = folder_of_copy.path().join("base_rec.mefd");
    copy_folder(&folder().join("hostile/bases/base_rec.mefd"), &copy);
    assert_eq!(findings(&copy, None, false), []);
    let mut files = Vec::new();
    list(&copy, &mut files);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut changes = 0;
    for file in files {
        let whole = fs::read(&file).unwrap();
        for _ in 0..60 {
            let place = rng.usize(..whole.len());
            let mut changed = whole.clone();
            changed[place] ^= 1 << rng.u8(..8);
            fs::write(&file, &changed).unwrap();
            let mut found = Vec::new();
            let outcome = check_session(&copy, &OpenOptions::default(), false, &mut |finding| {
                found.push(finding);
            });
            let seen = outcome.is_err() || !found.is_empty();
            assert!(seen, "{} at {place}", file.display());
            changes += 1;
        }
        fs::write(&file, &whole).unwrap();
    }
    assert!(changes > 300, "{changes}");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn the_exit_status_says_what_was_found() {
    let healthy = folder().join("plain_single.mefd");
    let output = check(&healthy, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .ends_with(" checked\n")
    );

    let damaged = folder().join("hostile/block_payload_flip.mefd");
    let output = check(&damaged, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| {
        let problem = finding["problem"].as_str().unwrap();
        problem.starts_with("block 2: CRC mismatch") && finding["offset"].is_u64()
    }));

    for path in ["Cargo.toml", "no-such.mefd"] {
        let output = check(Path::new(path), &[]);
        assert_eq!(output.status.code(), Some(2), "{path}");
    }
    let locked = folder().join("encrypted_mef3io.mefd");
    assert_eq!(check(&locked, &[]).status.code(), Some(2));
}
