//! The program as its users meet it: output, exit status, and the one line that
//! says what is wrong.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::corpus::{Session, copy_folder, folder, plain_sessions};
use serde_json::Value;

/// What a run of the program ended with.
struct Outcome {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Outcome {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }

    /// The line on standard error, of which there must be one.
    fn failure(&self) -> &str {
        assert_eq!(self.status, 1, "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "more than a line: {line}");
        line
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mef3-server"))
}

fn run(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn info(path: &Path, flags: &[&str]) -> Outcome {
    run(program().arg("info").arg(path).args(flags))
}

fn read(path: &Path, channel: &str, flags: &[&str]) -> Outcome {
    run(program()
        .arg("read")
        .arg(path)
        .args(["--channel", channel])
        .args(flags))
}

fn session(name: &str) -> PathBuf {
    folder().join(format!("{name}.mefd"))
}

fn hostile(name: &str) -> PathBuf {
    folder().join(format!("hostile/{name}.mefd"))
}

#[test]
fn info_knows_what_the_references_know() {
    for Session {
        name, path, facts, ..
    } in plain_sessions()
    {
        let outcome = info(&path, &["--json", "--deep"]);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{name}");
        let report = outcome.json();
        let channels = report["channels"].as_array().unwrap();
        let expected = facts["channels"].as_object().unwrap();
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
                ("blocks", "number_of_blocks"),
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
        let samples: u64 = channels
            .iter()
            .map(|c| c["stored_samples"].as_u64().unwrap())
            .sum();
        assert_eq!(report["checked"]["decoded_samples"], samples, "{name}");
    }
}

#[test]
fn info_without_a_session_tells_what_workers_are_confined_to() {
    let shown = run(program().arg("info"));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    let text = shown.text();
    for part in [
        "mef3-server ",
        "workers, files: ",
        "workers, system calls: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let told = run(program().args(["info", "--json"])).json();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    let confined = ["files", "system_calls"].map(|part| told["workers"][part] == "confined");
    assert_eq!(told["workers"]["whole"], confined == [true, true], "{told}");
}

#[test]
fn info_json_lists_the_gaps() {
    let report = info(&session("gaps_short_long_mef3io"), &["--json"]).json();
    assert_eq!(report["session"], "gaps_short_long_mef3io");
    assert_eq!(report["span"]["start_utc"], "2020-06-01T08:26:40.000000Z");
    assert_eq!(report["checked"], Value::Null);
    assert_eq!(report["unreadable_channels"], Value::Array(Vec::new()));
    let gaps = &report["channels"][0]["gaps"];
    assert_eq!(gaps["list"].as_array().unwrap().len(), 5);
    // The first block has 700 samples at 200 Hz.
    assert_eq!(gaps["list"][0]["start_uutc"], 1_591_000_003_500_000_i64);
    assert_eq!(gaps["list"][0]["end_uutc"], 1_591_000_003_515_000_i64);
    assert_eq!(gaps["list"][0]["duration_us"], 15_000);
    let total = gaps["list"].as_array().unwrap().iter();
    let total: i64 = total.map(|gap| gap["duration_us"].as_i64().unwrap()).sum();
    assert_eq!(gaps["total_us"], total);
}

#[test]
fn info_is_a_table_that_fits_a_terminal() {
    let outcome = info(&session("gaps_short_long"), &[]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let text = outcome.text();
    assert!(text.contains("2020-06-01T08:26:40.000000Z"));
    assert!(text.contains("\ndefault    200 Hz   +0 s  +30 s      30 s     1, 4 s\n"));
    assert!(text.contains("Blocks were not decoded"));
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );

    let text = info(&session("video_pymef"), &[]);
    assert!(text.text().contains("Video     cam, 2 clips\n"));
}

#[test]
fn info_never_shows_the_subject() {
    let path = session("time_offset_pymef");
    let metadata = path.join("off.timd/off-000000.segd/off-000000.tmet");
    let stored = fs::read(metadata).unwrap();
    assert!(
        stored.windows(5).any(|bytes| bytes == b"OFF-1"),
        "the subject has no such name"
    );
    for flags in [&[][..], &["--json"], &["--deep"]] {
        let outcome = info(&path, flags);
        assert_eq!(outcome.status, 0);
        assert!(!outcome.text().contains("OFF-1"));
    }
}

#[test]
fn csv_has_empty_values_in_gaps() {
    // Two samples before the first gap, the gap of three, two samples after it.
    let window = ["--start", "1591000003490000", "--end", "1591000003525000"];
    let outcome = read(&session("gaps_short_long_mef3io"), "g", &window);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines[0], "time_uutc,value");
    let (times, values): (Vec<&str>, Vec<&str>) = lines[1..]
        .iter()
        .map(|line| line.split_once(',').unwrap())
        .unzip();
    let expected: Vec<String> = (0..7)
        .map(|column| (1_591_000_003_490_000_i64 + column * 5000).to_string())
        .collect();
    assert_eq!(times, expected);
    let empty: Vec<bool> = values.iter().map(|value| value.is_empty()).collect();
    assert_eq!(empty, [false, false, true, true, true, false, false]);

    // The text says the same as the raw numbers, to the last bit.
    let raw = read(
        &session("gaps_short_long_mef3io"),
        "g",
        &[&window[..], &["-f", "f64"]].concat(),
    );
    let (raw, rest) = raw.stdout.as_chunks::<8>();
    assert!(rest.is_empty());
    for (text, &bytes) in values.iter().zip(raw) {
        let value = f64::from_le_bytes(bytes);
        let number: Option<f64> = text.parse().ok();
        assert_eq!(
            number.map(f64::to_bits),
            (!value.is_nan()).then_some(value.to_bits())
        );
    }
}

#[test]
fn the_default_window_is_the_channel() {
    let path = session("gaps_short_long_mef3io");
    let whole = read(&path, "g", &["-f", "f64"]).stdout;
    assert_eq!(whole.len(), 6000 * 8);
    let from = read(&path, "g", &["-f", "f64", "--start", "1591000020000000"]).stdout;
    assert_eq!(from, whole[4000 * 8..]);
    let until = read(&path, "g", &["-f", "f64", "--end", "1591000020000000"]).stdout;
    assert_eq!(until, whole[..4000 * 8]);
    let single = read(&path, "g", &["-f", "f32"]).stdout;
    assert_eq!(single.len(), 6000 * 4);
    let (single, _) = single.as_chunks::<4>();
    let (double, _) = whole.as_chunks::<8>();
    for (&single, &double) in single.iter().zip(double) {
        let (single, double) = (
            f32::from_le_bytes(single),
            f64::from_le_bytes(double) as f32,
        );
        assert!(single == double || single.is_nan() && double.is_nan());
    }
}

#[test]
fn a_window_longer_than_a_chunk_is_read_in_order() {
    // Gap, 30 s of samples across the border of the first chunk, gap.
    let (start, rate) = (1_591_000_000_000_000_i64 - 5_242_865_000_000 / 1000, 200);
    let end = start + 10_000_000_000;
    let path = session("gaps_short_long_mef3io");
    let (start, end) = (start.to_string(), end.to_string());
    let outcome = read(&path, "g", &["-f", "i32", "--start", &start, "--end", &end]);
    assert_eq!(outcome.stderr, "");
    let whole = read(&path, "g", &["-f", "i32"]).stdout;
    let first = 5_242_865 * rate / 1000 * 4;
    assert_eq!(outcome.stdout.len(), 10_000 * rate * 4);
    assert_eq!(outcome.stdout[first..first + whole.len()], whole);
    let (before, after) = (
        &outcome.stdout[..first],
        &outcome.stdout[first + whole.len()..],
    );
    let gap = i32::MIN.to_le_bytes();
    assert!(before.as_chunks().0.iter().all(|count| *count == gap));
    assert!(after.as_chunks().0.iter().all(|count| *count == gap));
}

#[test]
fn paths_that_are_no_session_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let bare = empty.path().join("bare.mefd");
    fs::create_dir(&bare).unwrap();
    let file = empty.path().join("file.mefd");
    fs::write(&file, "text").unwrap();
    for (path, reason) in [
        (
            empty.path().join("nowhere.mefd"),
            "no such file or directory",
        ),
        (
            empty.path().to_owned(),
            "session directory must end with .mefd",
        ),
        (bare, "no time-series channel in the session directory"),
        (file, "not a session directory"),
    ] {
        let expected = format!("mef3-server: {}: {reason}", path.display());
        assert_eq!(info(&path, &[]).failure(), expected);
        assert_eq!(info(&path, &["--json", "--deep"]).failure(), expected);
        let outcome = read(&path, "any", &[]);
        assert_eq!(outcome.failure(), expected);
        assert!(outcome.stdout.is_empty());
    }
}

#[test]
fn encrypted_sessions_say_so() {
    for name in ["encrypted_pymef", "encrypted_mef3io", "encrypted_blocks"] {
        for outcome in [info(&session(name), &[]), read(&session(name), "e1", &[])] {
            let line = outcome.failure();
            assert!(
                line.contains(".tmet: ") && line.contains("encrypted"),
                "{line}"
            );
            assert!(outcome.stdout.is_empty());
        }
    }
}

#[test]
fn an_unknown_channel_gets_the_known_ones() {
    let path = session("gaps_short_long");
    let expected = format!(
        "mef3-server: {}: no channel \"Default\", the session has default, every_gap",
        path.display()
    );
    assert_eq!(read(&path, "Default", &[]).failure(), expected);
}

#[test]
fn windows_without_a_column_are_refused() {
    let path = session("gaps_short_long");
    for (start, end, reason) in [
        ("5", "5", "end_uutc must be greater than start_uutc"),
        ("5", "-5", "end_uutc must be greater than start_uutc"),
        ("5", "6", "shorter than one sample"),
        ("-9223372036854775808", "9223372036854775807", "too long"),
    ] {
        let outcome = read(&path, "default", &["--start", start, "--end", end]);
        let line = outcome.failure();
        assert!(
            line.contains("channel default") && line.contains(reason),
            "{line}"
        );
    }
}

#[test]
fn misuse_is_exit_status_2() {
    let path = session("gaps_short_long");
    let path = path.to_str().unwrap();
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["info", "--deep"],
        &["info", "--records"],
        &["info", path, "--depth"],
        &["read", path],
        &["read", path, "-c", "default", "--format", "f16"],
        &["read", path, "-c", "default", "--rule", "none"],
        &["read", path, "-c", "default", "--start", "yesterday"],
    ] {
        let outcome = run(program().args(arguments));
        assert_eq!(outcome.status, 2, "{arguments:?}");
        assert!(
            outcome.stdout.is_empty() && outcome.stderr.contains("--help"),
            "{arguments:?}"
        );
    }
    for arguments in [&["--help"][..], &["info", "--help"], &["read", "--help"]] {
        let outcome = run(program().args(arguments));
        assert_eq!(outcome.status, 0);
        assert!(outcome.text().contains("Examples:"), "{arguments:?}");
    }
}

/// The healthy channel beside a damaged one reads as in the undamaged session.
fn assert_good_channel_is_whole(path: &Path) {
    let base = Session::load(&folder().join("hostile/bases"), "base_two");
    let window = base
        .windows()
        .into_iter()
        .find(|w| w.channel == "good" && w.kind == "full");
    let window = window.unwrap();
    let (start, end) = (window.start_uutc.to_string(), window.end_uutc.to_string());
    let outcome = read(
        path,
        "good",
        &["-f", "f64", "--start", &start, "--end", &end],
    );
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let truth: Vec<u8> = window
        .mef3io
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert!(outcome.stdout == truth, "{}", path.display());
}

#[test]
fn a_damaged_block_is_named_and_costs_only_its_samples() {
    let path = hostile("block_payload_flip");
    assert_good_channel_is_whole(&path);

    let file = path.join("bad.timd/bad-000000.segd/bad-000000.tdat");
    let named = format!(
        "mef3-server: {}: channel bad, segment bad-000000, block 2 (",
        file.display()
    );
    let outcome = read(&path, "bad", &["-f", "f64"]);
    let line = outcome.failure();
    assert!(
        line.starts_with(&named) && line.contains("CRC mismatch"),
        "{line}"
    );

    // Before and after the damaged block, the channel is as it was.
    let base = folder().join("hostile/bases/base_two.mefd");
    for window in [
        ["--end", "1577000001500000"],
        ["--start", "1577000002250000"],
    ] {
        let outcome = read(&path, "bad", &window);
        assert_eq!(outcome.stderr, "");
        assert!(outcome.stdout == read(&base, "bad", &window).stdout);
    }

    // Metadata and index are fine, so that only decoding can tell.
    assert_eq!(info(&path, &[]).status, 0);
    let outcome = info(&path, &["--deep", "--json"]);
    let expected = format!("mef3-server: {}: damaged: 1 block", path.display());
    assert_eq!(outcome.failure(), expected);
    let damaged = &outcome.json()["checked"]["damaged_blocks"];
    assert_eq!(damaged.as_array().unwrap().len(), 1);
    assert_eq!(damaged[0]["channel"], "bad");
    assert_eq!(damaged[0]["segment"], "bad-000000");
    assert_eq!(damaged[0]["block"], 2);
    assert_eq!(damaged[0]["file"], file.to_str().unwrap());
    assert_eq!(damaged[0]["start_uutc"], 1_577_000_001_500_000_i64);
    assert_eq!(damaged[0]["lost_samples"], 150);
    assert!(damaged[0]["file_offset"].as_u64().unwrap() >= 1024);
    let outcome = info(&path, &["--deep"]);
    assert!(
        outcome
            .text()
            .contains("channel bad, segment bad-000000, block 2 at byte ")
    );
    assert!(
        outcome
            .text()
            .contains("1 of 12 blocks damaged, 1650 samples decoded.")
    );
}

#[test]
fn an_unreadable_channel_is_named_and_costs_no_other() {
    for (case, extension, reason) in [
        ("tmet_body_flip", "tmet", "body CRC mismatch"),
        ("tidx_missing", "tidx", "no such file"),
    ] {
        let path = hostile(case);
        assert_good_channel_is_whole(&path);

        let file = path.join(format!("bad.timd/bad-000000.segd/bad-000000.{extension}"));
        let outcome = read(&path, "bad", &[]);
        let line = outcome.failure();
        let named = format!("channel bad cannot be read: {}: ", file.display());
        assert!(line.contains(&named) && line.contains(reason), "{line}");
        assert!(outcome.stdout.is_empty());

        let outcome = info(&path, &["--json"]);
        assert_eq!(outcome.status, 0);
        let unreadable = &outcome.json()["unreadable_channels"];
        assert_eq!(unreadable[0]["name"], "bad");
        assert!(unreadable[0]["error"].as_str().unwrap().contains(reason));
        let outcome = info(&path, &["--deep"]);
        assert!(outcome.failure().ends_with("damaged: 1 channel"));
        assert!(outcome.text().contains(&named));
    }
}

#[test]
fn damage_beside_the_blocks_is_listed_too() {
    let outcome = info(&hostile("middle_segment_index_lost"), &["--deep"]);
    assert!(outcome.failure().ends_with("damaged: 1 segment"));
    assert!(
        outcome
            .text()
            .contains("channel bad, segment bad-000001 cannot be read: ")
    );

    let outcome = info(&hostile("tidx_truncated_mid_entry"), &["--deep"]);
    assert!(outcome.failure().ends_with("damaged: 1 index"));
    assert!(
        outcome
            .text()
            .contains(": 20 bytes after the last whole entry of the index")
    );

    // The data file has what the index has lost.
    let whole = read(&hostile("bases/base_two"), "bad", &[]);
    let outcome = read(&hostile("tidx_truncated_mid_entry"), "bad", &[]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.stdout, whole.stdout);

    let folder = tempfile::tempdir().unwrap();
    let torn = folder.path().join("torn.mefd");
    copy_folder(&hostile("tidx_truncated_mid_entry"), &torn);
    let data = torn.join("bad.timd/bad-000000.segd/bad-000000.tdat");
    let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
    file.set_len(file.metadata().unwrap().len() - 8).unwrap();
    let outcome = read(&torn, "bad", &[]);
    let warning =
        " bytes after the last whole block, blocks from 1577000003750000 on may be missing\n";
    assert!(outcome.stderr.ends_with(warning), "{}", outcome.stderr);

    let outcome = info(&hostile("ufact_nan"), &["--deep"]);
    assert!(outcome.failure().ends_with("damaged: 1 conversion factor"));
    assert!(
        read(&hostile("ufact_nan"), "bad", &[])
            .failure()
            .contains("conversion factor NaN")
    );
    assert_eq!(
        read(&hostile("ufact_nan"), "bad", &["-f", "i32"])
            .stdout
            .len(),
        900 * 4
    );
}

#[test]
fn no_session_of_the_hostile_ones_crashes_info() {
    let mut cases = 0;
    for entry in fs::read_dir(folder().join("hostile")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "mefd")
        {
            for flags in [&["--deep"][..], &["--deep", "--json"]] {
                let outcome = info(&path, flags);
                assert!([0, 1].contains(&outcome.status), "{}", path.display());
                assert!(outcome.stderr.lines().count() <= 1, "{}", outcome.stderr);
            }
            cases += 1;
        }
    }
    assert!(cases >= 30);
}

#[test]
fn a_failed_read_leaves_the_output_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.f64");
    let flags = ["-f", "f64", "-o", file.to_str().unwrap()];
    let files = || fs::read_dir(folder.path()).unwrap().count();

    read(&hostile("block_payload_flip"), "bad", &flags).failure();
    assert_eq!(files(), 0);

    let outcome = read(&hostile("block_payload_flip"), "good", &flags);
    assert_eq!(
        (
            outcome.status,
            outcome.stderr.as_str(),
            outcome.stdout.len()
        ),
        (0, "", 0)
    );
    let good = fs::read(&file).unwrap();
    assert_eq!(good.len(), 900 * 8);

    read(&hostile("block_payload_flip"), "bad", &flags).failure();
    assert!(fs::read(&file).unwrap() == good);
    assert_eq!(files(), 1);

    let nowhere = folder.path().join("no/out");
    let outcome = read(
        &session("gaps_short_long"),
        "default",
        &["-o", nowhere.to_str().unwrap()],
    );
    assert!(outcome.failure().contains(nowhere.to_str().unwrap()));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    // A year, of which 30 s hold samples: it never ends unless the pipe does.
    let mut child = program()
        .arg("read")
        .arg(session("gaps_short_long"))
        .args(["-c", "default", "--end", "1622536000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "time_uutc,value");
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_channel_may_have_more_segments_than_files_may_be_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.mefd");
    let segment = session("plain_single");
    let base = info(&segment, &["--json"]).json()["channels"][0].clone();
    let channel = base["name"].as_str().unwrap();
    let segment = segment.join(format!("{channel}.timd/{channel}-000000.segd"));
    for number in 0..100 {
        let stem = format!("{channel}-{number:06}");
        let copy = path.join(format!("{channel}.timd/{stem}.segd"));
        fs::create_dir_all(&copy).unwrap();
        for extension in ["tmet", "tidx", "tdat"] {
            let original = segment.join(format!("{channel}-000000.{extension}"));
            fs::copy(original, copy.join(format!("{stem}.{extension}"))).unwrap();
        }
    }
    let limited = run(Command::new("sh")
        .args([
            "-c",
            "ulimit -n 32 && exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_mef3-server"),
        ])
        .arg("read")
        .arg(&path)
        .args(["--channel", channel, "--format", "f64"]));
    assert_eq!((limited.status, limited.stderr.as_str()), (0, ""));
    assert!(limited.stdout == read(&session("plain_single"), channel, &["-f", "f64"]).stdout);
}
