//! Windows of recordings as files, against what other readers of MEF 3.0 read.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::corpus::{Session, Window, folder, sessions};
use super::common::process::{Launch, Server, entries};
use super::common::run_python;
use super::{client, failure, output, serve_corpus, text};

const FORMATS: [&str; 3] = ["csv", "npy", "arrow"];
const TYPES: [&str; 2] = ["f64", "f32"];
/// A format and the type of its samples.
type Form<'a> = (&'a str, &'a str);
/// Windows of a session that are read.
const WINDOWS: usize = 6;

/// What a file must hold.
struct Truth<'a> {
    what: String,
    channels: Vec<&'a str>,
    /// Samples a second.
    rate: f64,
    start_uutc: i64,
    /// Channel after channel; NaN is no sample.
    values: Vec<f64>,
}

/// Files that were read, with what must be in them.
struct Files {
    folder: TempDir,
    reads: Vec<Value>,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            reads: Vec::new(),
        }
    }

    /// Reads the channels of some windows, which are one window, into a file.
    fn read(&mut self, server: &Server, session: &Session, windows: &[&Window], form: Form) {
        let id = format!("corpus:{}", session.path.file_name().unwrap().display());
        let path = self.folder.path().join(self.reads.len().to_string());
        let first = windows[0];
        let (from, to) = (first.start_uutc.to_string(), first.end_uutc.to_string());
        let (format, value_type) = form;
        let mut arguments = vec!["read", &id, "--from", &from, "--to", &to];
        arguments.extend([
            "--format",
            format,
            "--type",
            value_type,
            "--output",
            text(&path),
        ]);
        for window in windows {
            arguments.extend(["--channel", &window.channel]);
        }
        let mut launch = client(server.address, &arguments);
        if let Some(password) = &session.password_level_2 {
            launch = launch.env("MEF3_PASSWORD", password);
        }
        assert_eq!(output(launch), "", "{}", session.name);
        let rate = &session.facts["channels"][&first.channel]["sampling_frequency"];
        let values = windows.iter().flat_map(|window| &window.mef3io);
        let truth = Truth {
            what: format!("{}, {}, {format}", session.name, first.kind),
            channels: windows
                .iter()
                .map(|window| window.channel.as_str())
                .collect(),
            rate: rate.as_f64().unwrap(),
            start_uutc: first.start_uutc,
            values: values.copied().collect(),
        };
        self.expect(&path, form, &truth);
    }

    /// Notes what a file must hold.
    fn expect(&mut self, path: &Path, (format, value_type): Form, truth: &Truth) {
        let values = path.with_extension("truth");
        let bytes: Vec<u8> = truth
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        fs::write(&values, bytes).unwrap();
        self.reads.push(json!({
            "what": truth.what,
            "path": path,
            "truth": values,
            "format": format,
            "type": value_type,
            "channels": truth.channels,
            "rate": truth.rate,
            "start": truth.start_uutc,
        }));
    }

    /// Has readers that know nothing of us compare the files with the truth.
    fn compare(&self) {
        let list = self.folder.path().join("reads.json");
        fs::write(&list, serde_json::to_vec(&self.reads).unwrap()).unwrap();
        let compared = run_python("client_files.py", [&list]);
        assert_eq!(compared.trim(), format!("{} files", self.reads.len()));
    }
}

#[test]
fn files_of_every_format_have_what_the_references_read() {
    let server = serve_corpus();
    let mut files = Files::new();
    for session in sessions() {
        let windows = session.windows();
        let step = windows.len().div_ceil(WINDOWS);
        for window in windows.iter().step_by(step) {
            let number = files.reads.len();
            let form = (FORMATS[number % 3], TYPES[number / 3 % 2]);
            files.read(&server, &session, &[window], form);
        }
    }
    // All channels in one file, and some in another order.
    let session = Session::load(&folder(), "eight_channels");
    let windows = session.windows();
    let full: Vec<&Window> = windows
        .iter()
        .filter(|window| window.kind == "full")
        .collect();
    assert_eq!(full.len(), 8);
    let reversed: Vec<&Window> = full.iter().rev().step_by(3).copied().collect();
    for form in FORMATS {
        files.read(&server, &session, &full, (form, "f64"));
        files.read(&server, &session, &reversed, (form, "f64"));
    }
    assert!(files.reads.len() >= 100, "only {} files", files.reads.len());
    files.compare();
}

#[test]
fn without_a_window_or_channels_all_is_read() {
    let server = serve_corpus();
    let id = "corpus:eight_channels.mefd";
    let session = Session::load(&folder(), "eight_channels");
    let windows = session.windows();
    let full: Vec<&Window> = windows
        .iter()
        .filter(|window| window.kind == "full")
        .collect();
    let whole = output(client(server.address, &["read", id]));
    let lines: Vec<&str> = whole.lines().collect();
    let names: Vec<&str> = full.iter().map(|window| window.channel.as_str()).collect();
    assert_eq!(lines[0], format!("time_uutc,{}", names.join(",")));
    assert_eq!(lines.len(), full[0].mef3io.len() + 1);
    for flags in [
        &["--output", "-"][..],
        &["--start", "1591000000000000"],
        &["--compress"],
    ] {
        let same = output(client(server.address, &[&["read", id], flags].concat()));
        assert!(same == whole, "{flags:?}");
    }
    // The values are those that the local command writes.
    let path = folder().join("eight_channels.mefd");
    let local = output(Launch::command([
        "read",
        text(&path),
        "--channel",
        names[0],
    ]));
    let ours = output(client(server.address, &["read", id, "--channel", names[0]]));
    let rest = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(rest(&local), rest(&ours));
}

#[test]
fn what_does_not_fit_one_file_or_is_not_there_is_told() {
    let server = serve_corpus();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let read = |id: &str, flags: &[&str]| {
        let arguments = [&["read", id, "--output", text(&file)], flags].concat();
        let ended = client(server.address, &arguments).run();
        assert_eq!(entries(folder.path()), [""; 0]);
        ended
    };
    for format in FORMATS {
        let ended = read("corpus:mixed_rates.mefd", &["--format", format]);
        failure(&ended, 1, &["different rates", " Hz of ", "--channel"]);
    }
    let id = "corpus:eight_channels.mefd";
    let ended = read(id, &["--channel", "nobody"]);
    failure(&ended, 1, &["no channel \"nobody\"", "LAH1"]);
    let ended = read(id, &["--channel", "nobody", "--from", "1", "--to", "2"]);
    failure(
        &ended,
        1,
        &[
            "NOT_FOUND",
            "reason: CHANNEL_NOT_FOUND",
            "field: channels",
            "channel: nobody",
        ],
    );
    let ended = read(id, &["--channel", "LAH1", "--channel", "LAH1"]);
    failure(&ended, 2, &["twice"]);
    let ended = read(id, &["--from", "2", "--to", "1"]);
    failure(&ended, 1, &["INVALID_ARGUMENT", "reason: WINDOW_EMPTY"]);
    let ended = read(id, &["--from", "0", "--to", "9000000000000000"]);
    failure(
        &ended,
        1,
        &["RESOURCE_EXHAUSTED", "limit: limits.request_mb = "],
    );
    let ended = read("corpus:encrypted_mef3io.mefd", &[]);
    failure(
        &ended,
        1,
        &["FAILED_PRECONDITION", "reason: PASSWORD_REQUIRED"],
    );
    let nowhere = folder.path().join("nowhere/file");
    let ended = client(server.address, &["read", id, "--output", text(&nowhere)]).run();
    failure(&ended, 1, &[text(&nowhere)]);
}

/// What the local command reads of the damaged channel of a session.
fn read_locally(path: &Path, channel: &str, to: &Path) -> Vec<f64> {
    let file = to.join("local");
    let arguments = [
        "read",
        text(path),
        "--channel",
        channel,
        "--on-damage",
        "mask",
    ];
    let ended = Launch::command(arguments)
        .arg("--format")
        .arg("f64")
        .arg("--output")
        .arg(&file)
        .run();
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let (values, _) = bytes.as_chunks();
    values.iter().copied().map(f64::from_le_bytes).collect()
}

#[test]
fn a_channel_that_cannot_be_read_is_told_also_where_none_is_named() {
    let server = serve_corpus();
    for name in ["tmet_zero_length", "tdat_missing", "fs_nan"] {
        let id = format!("corpus:hostile/{name}.mefd");
        let info = output(client(server.address, &["info", &id, "--json"]));
        let info: Value = serde_json::from_str(&info).unwrap();
        let reason = info["unreadable_channels"][0]["error"].as_str().unwrap();
        let good = info["channels"][0]["name"].as_str().unwrap();
        let time = |name: &str| info["span"][name].to_string();
        let (from, to) = (time("start_uutc"), time("end_uutc"));
        for window in [&[][..], &["--from", &from, "--to", &to]] {
            let read = || client(server.address, &[&["read", &id], window].concat());
            let ended = read().run();
            failure(
                &ended,
                1,
                &[&format!("channel bad cannot be read: {reason}")],
            );
            assert_eq!(ended.stdout, "");
            let ended = read().arg("--on-damage").arg("mask").run();
            let told = format!("masked: channel bad: {reason}\n");
            failure(&ended, 3, &[&told, &format!("{id}: masked: 1 channel\n")]);
            let heading = ended.stdout.lines().next().unwrap();
            assert_eq!(heading, format!("time_uutc,{good}"));
            assert!(ended.stdout.lines().count() > 2);
        }
    }
}

#[test]
fn damage_ends_a_read_or_is_left_out_and_listed() {
    let server = serve_corpus();
    let folder_of_files = tempfile::tempdir().unwrap();
    let file = folder_of_files.path().join("file");
    let mut files = Files::new();
    for (name, place) in [
        (
            "block_payload_flip",
            "masked: channel bad, segment bad-000000, block 2 at byte ",
        ),
        (
            "middle_segment_index_lost",
            "masked: channel bad, segment bad-000001",
        ),
    ] {
        let id = format!("corpus:hostile/{name}.mefd");
        let path: PathBuf = folder().join(format!("hostile/{name}.mefd"));
        let values = read_locally(&path, "bad", folder_of_files.path());
        assert!(values.iter().any(|value| value.is_nan()));
        let info = output(client(server.address, &["info", &id, "--json"]));
        let info: Value = serde_json::from_str(&info).unwrap();
        let channels = info["channels"].as_array().unwrap();
        let bad = channels
            .iter()
            .find(|channel| channel["name"] == "bad")
            .unwrap();
        for format in FORMATS {
            let read = [
                "read",
                &id,
                "--channel",
                "bad",
                "--format",
                format,
                "--output",
            ];
            let ended = client(server.address, &read).arg(&file).run();
            failure(
                &ended,
                1,
                &[
                    "DATA_LOSS",
                    "reason: ",
                    "damage: channel bad, segment bad-00000",
                ],
            );
            assert_eq!(entries(folder_of_files.path()), [""; 0]);

            let kept = files.folder.path().join(format!("{name}.{format}"));
            let read = client(server.address, &read).arg(&kept);
            let ended = read.arg("--on-damage").arg("mask").run();
            failure(&ended, 3, &[place, &format!("{id}: masked: 1 ")]);
            assert_eq!(ended.stderr.matches(place).count(), 1, "{}", ended.stderr);
            let truth = Truth {
                what: format!("{name}, {format}"),
                channels: vec!["bad"],
                rate: bad["sampling_frequency_hz"].as_f64().unwrap(),
                start_uutc: bad["start_uutc"].as_i64().unwrap(),
                values: values.clone(),
            };
            files.expect(&kept, (format, "f64"), &truth);
        }
    }
    files.compare();
}
