//! `mef3-server check`: nothing in what is healthy, everything in what is not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::corpus::{copy_folder, folder, sessions};
use common::forge::{Forged, START, passwords};
use mef3_server::mef::{
    Finding, NewRecord, OpenOptions, Password, Problem, SessionOptions, check_session,
};
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

    for path in ["Cargo.toml", "no-such.mefd", "Cargo.toml/within.mefd"] {
        let output = check(Path::new(path), &[]);
        assert_eq!(output.status.code(), Some(2), "{path}");
    }
    let locked = folder().join("encrypted_mef3io.mefd");
    assert_eq!(check(&locked, &[]).status.code(), Some(2));
    let no_password = check(&healthy, &["--password-file", "no-such-file"]);
    assert_eq!(no_password.status.code(), Some(2));
}

fn problems(forged: &Forged, deep: bool) -> Vec<Problem> {
    let findings = forged.findings(deep).into_iter();
    findings.map(|finding| finding.problem).collect()
}

fn count(what: &'static str, declared: i64, found: i64) -> Problem {
    Problem::Count {
        what,
        declared,
        found,
    }
}

#[test]
fn a_video_is_held_against_its_metadata_and_clips() {
    let forged = Forged::copy("video_pymef", "cam");
    let video = forged.file("vmet").with_extension("mp4");
    let bytes: Vec<u8> = (0..90_000_u32).map(|n| n as u8).collect();
    fs::write(&video, &bytes).unwrap();
    forged.settle();
    let stored = mef3_server::mef::crc::crc32(&bytes);
    forged.put("vmet", 6832, stored.to_le_bytes());
    assert_eq!(forged.findings(true), []);

    forged.put("vmet", 6832, 7_u32.to_le_bytes());
    assert_eq!(problems(&forged, false), []);
    let found = forged.findings(true);
    let crc = Problem::Crc {
        part: "video file",
        stored: 7,
        computed: stored,
    };
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].file, &found[0].problem), (&video, &crc));
    // It was not computed.
    forged.put("vmet", 6832, 0_u32.to_le_bytes());
    assert_eq!(problems(&forged, true), []);

    forged.put("vmet", 6688, 5_i64.to_le_bytes());
    assert_eq!(problems(&forged, false), [count("clips", 5, 2)]);
    forged.put("vmet", 6688, (-1_i64).to_le_bytes());
    assert_eq!(problems(&forged, false), []);

    forged.put("vidx", 32, 3_i64.to_le_bytes());
    assert_eq!(problems(&forged, false), [count("entries", 3, 2)]);
    forged.put("vidx", 32, 2_i64.to_le_bytes());
    forged.patch("vidx", |bytes| bytes.extend([0; 9]));
    assert_eq!(problems(&forged, false), [Problem::Trailing(9)]);
    forged.patch("vidx", |bytes| bytes.truncate(1024 + 128));

    fs::write(&video, &bytes[..89_999]).unwrap();
    forged.settle();
    assert_eq!(problems(&forged, false), [Problem::Clip(1)]);
}

#[test]
fn a_record_index_has_what_it_declares() {
    let notes = [NewRecord::note(START, "one"), NewRecord::note(START, "two")];
    let forged = Forged::new().with_records(&notes);
    assert_eq!(problems(&forged, false), []);
    forged.put("ridx", 32, 3_i64.to_le_bytes());
    assert_eq!(problems(&forged, false), [count("entries", 3, 2)]);
    forged.put("ridx", 32, (-1_i64).to_le_bytes());
    assert_eq!(problems(&forged, false), []);
}

#[test]
fn findings_about_records_beyond_those_listed_are_counted() {
    let notes: Vec<_> = (0..1200).map(|n| NewRecord::note(START + n, "n")).collect();
    let forged = Forged::new().with_records(&notes);
    forged.spoil("rdat", |bytes| {
        for record in bytes[1024..].chunks_mut(40) {
            record[24] ^= 1;
        }
    });
    let further = problems(&forged, false).into_iter().filter_map(|problem| {
        let Problem::FurtherRecords(further) = problem else {
            return None;
        };
        Some(further)
    });
    assert_eq!(further.collect::<Vec<_>>(), [200]);
}

/// Headers that the legacy writer has appended to have absolute times among masked
/// ones (format section 15, row 3).
#[test]
fn times_of_both_kinds_are_compared_under_the_offset() {
    const OFFSET: i64 = START - 1_000_000_000;
    let end = START + 2_000_000;
    let masked = Forged::with(SessionOptions {
        recording_time_offset: Some(OFFSET),
        ..SessionOptions::default()
    });
    let locked = Forged::with(SessionOptions {
        recording_time_offset: Some(OFFSET),
        passwords: Some(passwords()),
        ..SessionOptions::default()
    });
    for forged in [&masked, &locked] {
        for file in ["tdat", "tidx"] {
            forged.put(file, 16, START.to_le_bytes());
            forged.put(file, 24, (OFFSET - end).to_le_bytes());
        }
    }
    assert_eq!(masked.findings(true), []);
    for password in ["first", "second"] {
        assert_eq!(
            findings(&locked.path, Some(password), true),
            [],
            "{password}"
        );
    }
    // One that does end before it starts.
    masked.put("tdat", 16, (end + 20_000).to_le_bytes());
    let wrong = Problem::Time("starts after it ends");
    assert!(problems(&masked, false).contains(&wrong));
}
