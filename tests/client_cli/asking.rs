//! What a server has, what is in a recording, and how the server is.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::corpus::{Session, copy_folder, folder, plain_sessions};
use super::common::process::{LIMIT, Launch, until};
use super::{client, failure, output, serve_corpus, text};

#[test]
fn all_recordings_are_listed_and_what_cannot_be_looked_into() {
    let lab = tempfile::tempdir().unwrap();
    let root = lab.path().join("lab");
    fs::create_dir_all(root.join("ward3")).unwrap();
    let session = folder().join("plain_single.mefd");
    for name in ["a.mefd", "b.mefd", "c.mefd", "ward3/d.mefd"] {
        copy_folder(&session, &root.join(name));
    }
    fs::create_dir(root.join("ward3/empty.mefd")).unwrap();
    // A page has two entries.
    let server = Launch::new()
        .env("MEF3_SERVER_PATHS_DATA_ROOTS", &root)
        .env("MEF3_SERVER_LIMITS_LISTING_ENTRIES", "2")
        .start();
    let ids = |arguments: &[&str]| -> Vec<String> {
        let listed = output(client(server.address, &[&["list"], arguments].concat()));
        let ids = listed
            .lines()
            .map(|line| line.split("  ").last().unwrap().to_owned());
        ids.collect()
    };
    let all = [
        "lab:a.mefd",
        "lab:b.mefd",
        "lab:c.mefd",
        "lab:ward3/d.mefd",
        "lab:ward3/empty.mefd",
    ];
    assert_eq!(ids(&[]), all);
    assert_eq!(
        ids(&["--root", "lab", "--glob", "**/[bd].mefd"]),
        [all[1], all[3]]
    );

    // A span is asked for: what has none says why, and stays.
    let facts = Session::load(&folder(), "plain_single").facts;
    let (_, channel) = facts["channels"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let end = channel["end_uutc"].as_i64().unwrap().to_string();
    let told = |arguments: &[&str]| {
        let ended = client(server.address, &[&["list"], arguments].concat()).run();
        failure(&ended, 1, &["1 folder or recording that cannot be looked"]);
        (ended.stdout, ended.stderr)
    };
    let (later, _) = told(&["--json", "--from", &end]);
    let [line] = later.lines().collect::<Vec<_>>()[..] else {
        panic!("{later}");
    };
    let entry: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (entry["id"].as_str(), &entry["span"]),
        (Some(all[4]), &Value::Null)
    );
    let problem = entry["problem"].as_str().unwrap();
    assert!(!problem.is_empty());
    let (shown, said) = told(&["--from", &end]);
    assert!(
        shown.ends_with(&format!("  -{:26}  {}\n", "", all[4])),
        "{shown}"
    );
    let line = format!("cannot be looked into: {}: {problem}\n", all[4]);
    assert!(said.contains(&line), "{said}");
    let (earlier, _) = told(&["--json", "--to", &end]);
    assert_eq!(earlier.lines().count(), 5);
    let first: Value = serde_json::from_str(earlier.lines().next().unwrap()).unwrap();
    assert_eq!(first["span"]["end_uutc"], channel["end_uutc"]);

    symlink("../../elsewhere.mefd", root.join("out.mefd")).unwrap();
    let ended = client(server.address, &["list"]).run();
    failure(
        &ended,
        1,
        &[
            "cannot be looked into: ",
            "out.mefd",
            "1 folder or recording",
        ],
    );
    assert_eq!(ended.stdout.lines().count(), 5);
    let ended = client(server.address, &["list", "--json"]).run();
    failure(&ended, 1, &["1 folder or recording"]);
    assert_eq!(
        ended
            .stdout
            .lines()
            .filter(|line| line.starts_with("{\"problem\""))
            .count(),
        1
    );
}

#[test]
fn what_a_recording_is_is_what_the_references_know() {
    let server = serve_corpus();
    for session in plain_sessions() {
        let name = &session.name;
        let id = format!("corpus:{name}.mefd");
        let report = output(client(server.address, &["info", &id, "--json"]));
        let report: Value = serde_json::from_str(&report).unwrap();
        let channels = report["channels"].as_array().unwrap();
        let expected = session.facts["channels"].as_object().unwrap();
        assert_eq!(channels.len(), expected.len(), "{name}");
        for channel in channels {
            let fact = &expected[channel["name"].as_str().unwrap()];
            for (ours, theirs) in [
                ("sampling_frequency_hz", "sampling_frequency"),
                ("unit", "units_description"),
                ("units_conversion_factor", "units_conversion_factor"),
                ("start_uutc", "start_uutc"),
                ("end_uutc", "end_uutc"),
                ("segments", "number_of_segments"),
                ("stored_samples", "number_of_samples"),
            ] {
                assert_eq!(
                    channel[ours], fact[theirs],
                    "{name} {} {ours}",
                    channel["name"]
                );
            }
            assert_eq!(
                channel["gaps"]["count"], fact["gaps"],
                "{name} {}",
                channel["name"]
            );
        }
    }
}

#[test]
fn the_table_of_a_recording_is_that_of_the_local_command() {
    let server = serve_corpus();
    let table = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with("CHANNEL"));
        lines
            .take_while(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    for name in ["mixed_rates", "gaps_short_long", "staggered_channels"] {
        let id = format!("corpus:{name}.mefd");
        let remote = output(client(server.address, &["info", &id]));
        let path = folder().join(format!("{name}.mefd"));
        let local = output(Launch::command(["info", text(&path)]));
        assert!(table(&local).len() > 2);
        assert_eq!(table(&remote), table(&local), "{name}");
    }
    // A name may be of any script.
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("Nächte 5 µV.mefd");
    copy_folder(&folder().join("plain_single.mefd"), &path);
    let anywhere = Launch::new().start();
    let shown = output(client(anywhere.address, &["info", text(&path)]));
    assert!(shown.contains("Nächte 5 µV"), "{shown}");
    // What cannot be read is told, with its reason.
    let id = "corpus:hostile/middle_segment_index_lost.mefd";
    let shown = output(client(server.address, &["info", id]));
    assert!(
        shown.contains("channel bad, segment bad-000001 cannot be read: "),
        "{shown}"
    );
    let nowhere = client(server.address, &["info", "corpus:nowhere.mefd"]).run();
    failure(
        &nowhere,
        1,
        &[
            ": NOT_FOUND: ",
            "reason: RECORDING_NOT_FOUND",
            "field: recording",
        ],
    );
}

#[test]
fn figures_are_those_of_the_server() {
    let server = Launch::new().arg("--cache-mb").arg("64").start();
    let workers = server.workers_up(2);
    let shown = output(client(server.address, &["stats", "--json"]));
    let stats: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(stats["cache"]["capacity_bytes"], 64 << 20);
    assert_eq!(stats["degraded"], false);
    assert_eq!(
        (&stats["calls"], &stats["connections"]),
        (&1.into(), &1.into())
    );
    for (worker, slot) in stats["workers"].as_array().unwrap().iter().zip(0..) {
        assert_eq!(worker["slot"], slot);
        if worker["pid"] != 0 {
            assert!(workers.iter().any(|known| worker["pid"] == known.pid));
            assert!(
                worker["memory_bytes"].as_u64().unwrap() > 100_000,
                "{worker}"
            );
        }
    }
    let shown = output(client(server.address, &["stats"]));
    assert!(
        shown.contains("Cache     0 B of 67 MB in 0 pages\n"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("  {}  ready  ", workers[0].pid)),
        "{shown}"
    );
}

#[test]
fn top_shows_the_workers_once_or_until_it_is_ended() {
    let server = Launch::new().start();
    let workers = server.workers_up(2);
    let shown = output(client(server.address, &["top", "--once"]));
    assert!(!shown.contains('\x1b'), "{shown}");
    for worker in &workers {
        assert!(
            shown.contains(&format!("  {}  ready  ", worker.pid)),
            "{shown}"
        );
    }
    // Into a pipe: blocks of plain lines, again and again.
    let mut top = Command::new(env!("CARGO_BIN_EXE_mef3-server"))
        .args([
            "client",
            &server.address.to_string(),
            "top",
            "--interval",
            "0.1",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let lines = lines.map(Result::unwrap);
    let blocks = lines
        .filter(|line| line.starts_with("Address"))
        .take(3)
        .count();
    assert_eq!(blocks, 3);
    // The server is gone: it is said, and it ends.
    drop(server);
    let mut status = None;
    until("top ends", LIMIT, || {
        status = top.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
    let ended = client("127.0.0.1:1", &["top", "--interval", "0"]).run();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
}
