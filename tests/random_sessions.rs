//! Sessions of random plans, by both Python writers and by ours, read in random
//! windows by both Python readers and by ours: no difference.
//!
//! 60 sessions by default. The full run:
//! `MEF3_SESSIONS=1000 cargo test --release --test random_sessions -- --nocapture`.
//! One of them again: `MEF3_SESSION=<number>`, and `MEF3_SESSION_SEED=<seed>` for
//! other sessions. `MEF3_SESSION_FOLDER=<folder>` keeps the files.

mod common;
#[path = "random_sessions/compare.rs"]
mod compare;
#[path = "random_sessions/generate.rs"]
mod generate;
#[path = "random_sessions/options.rs"]
mod options;
#[path = "random_sessions/ours.rs"]
mod ours;
#[path = "random_sessions/peers.rs"]
mod peers;
#[path = "random_sessions/plan.rs"]
mod plan;
#[path = "random_sessions/read.rs"]
mod read;
#[path = "random_sessions/reconcile.rs"]
mod reconcile;
#[path = "random_sessions/records.rs"]
mod records;
#[path = "random_sessions/signal.rs"]
mod signal;
#[path = "random_sessions/windows.rs"]
mod windows;
#[path = "random_sessions/written.rs"]
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compare::{Case, Tally};
use fastrand::Rng;
use mef3_server::Engine;
use mef3_server::mef::open_session;
use options::{Coverage, Writer};
use plan::Plan;
use windows::{KINDS, Window};

procspawn::enable_test_support!();

/// Sessions that are written and read in one go.
const BATCH: usize = 100;
/// One session of so many is read through an engine, too, and one through the
/// command line.
const ENGINE_SHARE: u64 = 4;
const COMMAND_LINE_SHARE: u64 = 10;
/// From so many sessions on, each value of each option must have been there, and
/// most pairs of them.
const FULL: u64 = 300;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Where the sessions are written.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new() -> Self {
        match std::env::var_os("MEF3_SESSION_FOLDER") {
            Some(path) => Self::Kept(path.into()),
            None => Self::Temporary(tempfile::tempdir().unwrap()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// All that comes of a run.
#[derive(Default)]
struct Run {
    tally: Tally,
    coverage: Coverage,
    failures: Vec<String>,
}

#[tokio::test]
async fn random_sessions_are_read_as_both_peers_read_them() {
    mef3_server::worker::init();
    let seed = setting("MEF3_SESSION_SEED").unwrap_or(1);
    let only = setting("MEF3_SESSION");
    let sessions = setting("MEF3_SESSIONS").unwrap_or(60);
    let numbers: Vec<u64> = only.map_or(0..sessions, |only| only..only + 1).collect();
    let engine = Engine::builder().workers(2).cache_mb(16).start().unwrap();
    let mut run = Run::default();
    for numbers in numbers.chunks(BATCH) {
        run.batch(seed, numbers, &engine).await;
    }
    engine.shutdown().await;
    run.report(only.is_none().then_some(sessions));
}

impl Run {
    async fn batch(&mut self, seed: u64, numbers: &[u64], engine: &Engine) {
        let folder = Folder::new();
        let plans = numbers
            .iter()
            .map(|&number| generate::plan(seed, number, folder.path()));
        let plans: Vec<Plan> = plans.collect();
        let ours = |writer: Writer| writer == Writer::Ours;
        let mut failed = BTreeMap::new();
        for plan in plans.iter().filter(|plan| ours(plan.writer)) {
            failed.extend(ours::write(plan).err().map(|reason| (plan.number, reason)));
        }
        failed.extend(peers::write(&plans, folder.path()));
        for plan in &plans {
            let goes_on = !ours(plan.writer) && plan.second.is_some_and(ours);
            if goes_on && !failed.contains_key(&plan.number) {
                failed.extend(ours::go_on(plan).err().map(|reason| (plan.number, reason)));
            }
        }
        let mut sessions = Vec::new();
        for plan in &plans {
            if let Some(reason) = failed.get(&plan.number) {
                self.fail(seed, plan, format!("cannot be written: {reason}"));
                continue;
            }
            sessions.push((plan, choose_windows(seed, plan)));
        }
        let answers = peers::read(&sessions, folder.path());
        for ((plan, windows), read) in sessions.into_iter().zip(answers) {
            self.tally.crashes += read.crashes;
            let outcome = match (&read.mef3io, &read.pymef) {
                (Ok(mef3io), Ok(pymef)) => match Case::new(plan, mef3io, pymef) {
                    Ok(case) => self.compare(&case, &windows, engine).await,
                    Err(reason) => Err(reason),
                },
                (Err(reason), _) => Err(format!("mef3io: {reason}")),
                (_, Err(reason)) => Err(format!("pymef: {reason}")),
            };
            match outcome {
                Ok(()) => {
                    self.tally.sessions += 1;
                    self.coverage.add(plan.writer, &plan.choices);
                }
                Err(reason) => self.fail(seed, plan, reason),
            }
        }
    }

    async fn compare(
        &mut self,
        case: &Case<'_>,
        windows: &[Window],
        engine: &Engine,
    ) -> Result<(), String> {
        let tally = &mut self.tally;
        case.compare_facts(tally)?;
        if !case.compare_with_library(windows, tally)? {
            return Ok(());
        }
        case.compare_passwords(windows)?;
        // The writers take turns, and so do the ways of reading.
        let turn = case.plan.number / 3;
        if turn.is_multiple_of(ENGINE_SHARE) {
            let (read, records) = read::engine(engine, case.plan, windows).await;
            case.compare_record_page(&records)
                .map_err(|reason| format!("engine: {reason}"))?;
            for (number, (window, ours)) in windows.iter().zip(read).enumerate() {
                case.compare_window(number, window, &ours, tally)
                    .map_err(|reason| format!("engine: {reason}"))?;
                *tally.reads.entry("engine").or_default() += 1;
            }
        }
        if turn % COMMAND_LINE_SHARE == 1 {
            let mut rng = Rng::with_seed(case.plan.number);
            for number in [rng.usize(..windows.len()), 0] {
                let window = &windows[number];
                let ours = read::command_line(case.plan, window);
                case.compare_window(number, window, &ours, tally)
                    .map_err(|reason| format!("command line: {reason}"))?;
                *tally.reads.entry("command line").or_default() += 1;
            }
        }
        Ok(())
    }

    fn fail(&mut self, seed: u64, plan: &Plan, reason: String) {
        let number = plan.number;
        let choices = &plan.choices;
        self.failures.push(format!(
            "MEF3_SESSION_SEED={seed} MEF3_SESSION={number}: {:?}, {choices:?}: {reason}",
            plan.writer
        ));
    }

    /// Prints what was done, and fails where anything differed or was left out.
    /// `sessions` is the number of a run of all.
    fn report(&self, sessions: Option<u64>) {
        let Tally {
            sessions: compared,
            windows,
            reads,
            values,
            known,
            records,
            outside,
            null_samples,
            refused,
            crashes,
        } = &self.tally;
        let missing = self.coverage.report();
        println!("windows by kind: {windows:?}");
        println!("reads by our readers: {reads:?}");
        println!(
            "{compared} sessions, {} windows, {values} values compared, {known} of them known, \
             {records} records; {outside} windows outside of recordings, {null_samples} with \
             samples that are -2^31, {refused} refused, {crashes} crashes of pymef",
            windows.values().sum::<u64>()
        );
        // None is expected: overlapping blocks can make it write beyond its memory
        // (section 17).
        let windows_read = windows.values().sum::<u64>();
        assert!(
            crashes * 500 <= windows_read,
            "pymef crashed {crashes} times"
        );
        // A session that is read alone may be the one that has such blocks.
        let most_refused = windows_read / 100 + 40;
        assert!(*refused <= most_refused, "{refused} windows are refused");
        assert!(
            self.failures.is_empty(),
            "{} sessions:\n{}",
            self.failures.len(),
            self.failures[..self.failures.len().min(20)].join("\n")
        );
        if let Some(sessions) = sessions.filter(|&sessions| sessions >= FULL) {
            assert!(missing.is_empty(), "never there: {missing:#?}");
            let share = self.coverage.share_of_pairs();
            assert!(share > 0.85, "{share} of the pairs of values");
            for kind in KINDS {
                let windows = windows.get(kind).copied().unwrap_or(0);
                assert!(windows >= sessions / 10, "{kind}: {windows} windows");
            }
        }
    }
}

/// Windows of all channels.
fn choose_windows(seed: u64, plan: &Plan) -> Vec<Window> {
    let mut rng = Rng::with_seed(seed.wrapping_mul(7_919) ^ plan.number);
    let recording = open_session(&plan.path, &ours::open_options(plan)).unwrap();
    let channels = recording.channels.iter();
    channels
        .flat_map(|channel| windows::windows(channel, &mut rng))
        .collect()
}
