//! Every case of the corpus's `hostile/manifest.json`, through the library's
//! engine, the command line and gRPC: the damaged channel answers what the
//! manifest allows, the healthy one is as it was, and neither takes long.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::corpus::{Session, Window, folder};
use common::peers_python;
use common::process::children;
use common::server::Server;
use common::wire::Client;
use mef3_server::config::OnDamage;
use mef3_server::mef::{OpenOptions, Password, Rule};
use mef3_server::{Engine, ReadRequest};
use serde_json::Value;
use tempfile::TempDir;

procspawn::enable_test_support!();

/// Longest answer to one case.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Most memory of a process, in KiB.
const MEMORY_LIMIT_KIB: u64 = 256 * 1024;

struct Case {
    name: String,
    path: PathBuf,
    password: Option<String>,
    opens: bool,
    /// What may be answered for each channel, in the manifest's words.
    channels: BTreeMap<String, String>,
    /// File that an error must name.
    file: Option<String>,
    base: Session,
}

/// What a reader made of a channel's whole window.
type Answer = Result<Vec<f64>, String>;

impl Case {
    fn full_window(&self, channel: &str) -> Window {
        let windows = self.base.windows().into_iter();
        let mut full = windows.filter(|window| window.kind == "full" && window.channel == channel);
        full.next().unwrap()
    }

    /// Holds an answer against what the manifest allows. `gaps_told` says that
    /// the reader has told of damage in place of the samples that are missing.
    fn judge(&self, channel: &str, answer: &Answer, gaps_told: bool) {
        let expected = self.channels[channel].as_str();
        let truth = self.full_window(channel).mef3io;
        let what = format!("{}, channel {channel}, {expected}", self.name);
        let samples = match answer {
            Err(error) => {
                assert_ne!(expected, "equal", "{what}: {error}");
                assert_eq!(error.lines().count(), 1, "{what}: {error}");
                if let (Some(file), true) = (&self.file, self.opens) {
                    let named = error.contains(file.as_str());
                    // A block's error names the data file, whose index is at fault.
                    let beside = error.contains(&file.replace(".tidx", ".tdat"));
                    assert!(named || beside, "{what}: {error} does not name {file}");
                }
                return;
            }
            Ok(samples) => samples,
        };
        let equal = |found: &f64, truth: &f64| found == truth || found.is_nan() && truth.is_nan();
        let lost = |found: &f64, truth: &f64| found.is_nan() && !truth.is_nan() && gaps_told;
        let pairs = || samples.iter().zip(&truth);
        assert_eq!(samples.len(), truth.len(), "{what}");
        let ok = match expected {
            "equal" | "error_or_equal" => pairs().all(|(f, t)| equal(f, t)),
            "error_or_gap" => pairs().all(|(f, t)| equal(f, t) || lost(f, t)),
            "error_or_unscaled" => panic!("{what}: a factor that is no number is refused"),
            "error" => gaps_told && pairs().all(|(f, t)| equal(f, t) || lost(f, t)),
            "not_checked" => true,
            other => panic!("{other} is not a word of the manifest"),
        };
        assert!(ok, "{what}: other samples than the truth's");
    }
}

/// Copies all cases, with what a checkout cannot hold.
fn cases() -> (TempDir, Vec<Case>) {
    let copies = tempfile::tempdir().unwrap();
    let hostile = folder().join("hostile");
    let prepared = Command::new(peers_python())
        .arg(folder().join("prepare_hostile.py"))
        .args([hostile.as_path(), copies.path()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(prepared.success());
    let manifest = fs::read(hostile.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let privileged = rustix::process::geteuid().is_root();
    let cases = manifest["cases"].as_array().unwrap().iter().map(|case| {
        let channels = case["expect"]["channels"].as_object().unwrap();
        let mut channels: BTreeMap<_, _> = channels
            .iter()
            .map(|(name, word)| (name.clone(), text(word).unwrap()))
            .collect();
        if privileged && case["needs_unprivileged_reader"] == true {
            // Permissions mean nothing to the superuser.
            channels.insert("bad".into(), "equal".into());
        }
        Case {
            name: text(&case["name"]).unwrap(),
            path: copies.path().join(text(&case["path"]).unwrap()),
            password: text(&case["password"]),
            opens: case["expect"]["open"] == "ok",
            channels,
            file: text(&case["expect"]["message_names"]),
            base: Session::load(&hostile.join("bases"), &text(&case["base"]).unwrap()),
        }
    });
    let cases: Vec<Case> = cases.collect();
    assert!(cases.len() >= 36, "only {} cases", cases.len());
    (copies, cases)
}

async fn read_with_engine(
    engine: &Engine,
    case: &Case,
    channel: &str,
    mask: OnDamage,
) -> (Answer, bool) {
    let options = OpenOptions {
        password: case.password.as_deref().and_then(Password::new),
    };
    let recording = match engine.open_with(&case.path, options).await {
        Ok(recording) => recording,
        Err(error) => return (Err(error.to_string()), false),
    };
    let window = case.full_window(channel);
    let request = ReadRequest::new(&recording, window.start_uutc, window.end_uutc)
        .channels([channel])
        .rule(Rule::Mef3io)
        .on_damage(mask);
    let mut windows = match engine.read::<f64>(&request) {
        Ok(windows) => windows,
        Err(error) => return (Err(error.to_string()), false),
    };
    let (mut samples, mut told) = (Vec::new(), false);
    while let Some(window) = windows.next().await {
        match window {
            Ok(window) => {
                told |= !window.masked.is_empty();
                samples.extend(window.samples);
            }
            Err(error) => return (Err(error.to_string()), told),
        }
    }
    (Ok(samples), told)
}

#[tokio::test]
async fn through_the_engine() {
    mef3_server::worker::init();
    let (_copies, cases) = cases();
    let engine = Engine::builder().workers(1).start().unwrap();
    // The first answer waits for the worker.
    let _ = read_with_engine(&engine, &cases[0], "good", OnDamage::Fail).await;
    for case in &cases {
        for channel in case.channels.keys() {
            for mask in [OnDamage::Fail, OnDamage::Mask] {
                let begun = Instant::now();
                let (answer, told) = read_with_engine(&engine, case, channel, mask).await;
                assert!(begun.elapsed() < TIME_LIMIT, "{}", case.name);
                assert!(!told || mask == OnDamage::Mask);
                case.judge(channel, &answer, told);
            }
        }
    }
    let statistics = engine.statistics().await.unwrap();
    assert_eq!(statistics.coordinator.lost_jobs, 0);
    assert!(statistics.masked_blocks > 0);
    for worker in &statistics.supervisor.workers {
        let pid = worker.pid.unwrap();
        assert!(peak_memory_kib(pid) < MEMORY_LIMIT_KIB, "worker {pid}");
    }
    engine.shutdown().await;
}

/// Runs a command of the program on a case, within the limits, and gives its exit
/// status, output and complaint.
fn run(case: &Case, command: &str, arguments: &[String]) -> (i32, Vec<u8>, String) {
    let begun = Instant::now();
    // With an address space that a careless allocation does not fit in.
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -v 400000 && exec "$0" "$@""#])
        .arg(env!("CARGO_BIN_EXE_mef3-server"))
        .arg(command)
        .arg(&case.path)
        .args(arguments)
        .env_remove("MEF3_PASSWORD")
        .envs(case.password.as_ref().map(|text| ("MEF3_PASSWORD", text)))
        .output()
        .unwrap();
    let what = format!("{}: {command} {arguments:?}", case.name);
    assert!(begun.elapsed() < TIME_LIMIT, "{what}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    // A signal leaves no status.
    let status = output.status.code();
    let status = status.unwrap_or_else(|| panic!("{what}: {complaint}"));
    (status, output.stdout, complaint)
}

#[test]
fn through_the_command_line() {
    let (_copies, cases) = cases();
    for case in &cases {
        for channel in case.channels.keys() {
            let window = case.full_window(channel);
            let arguments = [
                format!("--channel={channel}"),
                "--format=f64".into(),
                format!("--start={}", window.start_uutc),
                format!("--end={}", window.end_uutc),
            ];
            let (status, output, complaint) = run(case, "read", &arguments);
            let answer = match status {
                0 => {
                    let (numbers, _) = output.as_chunks::<8>();
                    Ok(numbers
                        .iter()
                        .map(|&bytes| f64::from_le_bytes(bytes))
                        .collect())
                }
                1 => Err(complaint.trim_end().to_owned()),
                _ => panic!("{}: exit status {status}: {complaint}", case.name),
            };
            case.judge(channel, &answer, false);
        }
    }
}

#[test]
fn through_the_commands_that_look_at_all_of_it() {
    let (_copies, cases) = cases();
    for case in &cases {
        let damaged = case.channels.values().any(|word| word == "error");
        for (command, flags) in [
            ("info", &[][..]),
            ("info", &["--deep"]),
            ("info", &["--deep", "--json"]),
            ("check", &[]),
            ("check", &["--deep"]),
        ] {
            let flags: Vec<String> = flags.iter().map(|&flag| flag.into()).collect();
            let (status, _, complaint) = run(case, command, &flags);
            let what = format!("{}: {command} {flags:?}: {status}, {complaint}", case.name);
            assert!(complaint.lines().count() <= 1, "{what}");
            assert_eq!(status == 0, complaint.is_empty(), "{what}");
            match status {
                0 => {
                    // Without --deep, nobody looks at blocks.
                    let all = flags.iter().any(|flag| flag == "--deep");
                    assert!(case.opens && !(damaged && all), "{what}");
                }
                1 => {}
                2 => assert!(command == "check" && !case.opens, "{what}"),
                _ => panic!("{what}"),
            }
        }
    }
}

#[tokio::test]
async fn through_grpc() {
    let (_copies, cases) = cases();
    let mut servers: BTreeMap<Option<String>, Server> = BTreeMap::new();
    for case in &cases {
        if !servers.contains_key(&case.password) {
            let server = Server::start_with(|serve| {
                serve.args(["--workers", "1"]);
                serve.envs(case.password.as_ref().map(|text| ("MEF3_PASSWORD", text)));
            });
            // The first answer waits for the worker.
            let _ = Client::try_open(&server, &case.base.path).await;
            servers.insert(case.password.clone(), server);
        }
        let server = &servers[&case.password];
        let begun = Instant::now();
        let client = Client::try_open(server, &case.path).await;
        let opened_in = begun.elapsed();
        assert!(opened_in < TIME_LIMIT, "{}", case.name);
        let mut client = match client {
            Ok(client) => client,
            Err(error) => {
                assert!(!case.opens, "{}: {error}", case.name);
                assert!(error.contains("password"), "{}: {error}", case.name);
                continue;
            }
        };
        assert!(case.opens, "{}", case.name);
        for channel in case.channels.keys() {
            let window = case.full_window(channel);
            let begun = Instant::now();
            let span = (window.start_uutc, window.end_uutc);
            let answer = client.range(std::slice::from_ref(channel), span).await;
            assert!(opened_in + begun.elapsed() < TIME_LIMIT, "{}", case.name);
            // This call answers in 32-bit floats.
            let exact = |(found, truth): (&f32, &f64)| match *found == *truth as f32 {
                true => *truth,
                false => f64::from(*found),
            };
            let answer = answer.map(|matrix| {
                let truth = case.full_window(channel).mef3io;
                matrix.rows[0].iter().zip(&truth).map(exact).collect()
            });
            case.judge(channel, &answer, false);
        }
    }
    for server in servers.values() {
        assert!(peak_memory_kib(server.pid()) < MEMORY_LIMIT_KIB);
        // Workers are where files are parsed; one that was replaced took its peak
        // with it.
        let log = server.log();
        assert_eq!(log.matches("worker is up").count(), 1, "{log}");
        let workers = children(server.pid());
        assert_eq!(workers.len(), 1, "{workers:?}");
        for worker in workers {
            let peak = peak_memory_kib(worker.pid);
            assert!(peak < MEMORY_LIMIT_KIB, "worker: {peak} KiB");
        }
    }
}

/// The most memory that a process has had, in KiB.
fn peak_memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.trim().parse().unwrap()
}
