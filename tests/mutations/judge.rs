//! Asks for everything in a session, and holds the answers against the truth.

use std::path::Path;

use mef3_server::config::OnDamage;
use mef3_server::mef::{
    Channel, ChannelReader, Grid, PlacedRecord, RecordBody, RecordError, RecordQuery, Recording,
    Rule, check_session, open_session,
};
use mef3_server::{Engine, Masked, ReadRequest};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use tokio::runtime::Runtime;

use crate::base::{Base, Truth};
use crate::held::Held;
use crate::mutate::{Kind, Mutation};

/// One in so many mutants is also read through an engine.
const ENGINE_EVERY: u64 = 5;
/// Any user who is not the superuser.
const NOBODY: u32 = 65534;
/// Most columns that are looked at of a window that is longer than it was.
const MOST_COLUMNS: u64 = 1 << 18;

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every answer is the undamaged truth.
    Equal,
    /// Something was refused, all the rest is the undamaged truth.
    Refused,
    /// Something was masked and reported, all the rest is the undamaged truth.
    Masked,
    /// The checksums vouch for other content, and every sample is in the files where
    /// it was read.
    AsWritten,
}

type Answer = Result<Verdict, String>;

pub struct Judge {
    runtime: Runtime,
    engine: Engine,
}

impl Judge {
    pub fn new() -> Self {
        mef3_server::worker::init();
        let runtime = Runtime::new().unwrap();
        let engine = runtime.block_on(async { Engine::builder().workers(1).start().unwrap() });
        Self { runtime, engine }
    }

    /// The base itself is read right.
    pub fn undamaged(&mut self, base: &Base) {
        assert_eq!(in_files(base, None), Ok(Verdict::Equal), "{}", base.name);
        let answer = self.through_engine(base, None);
        assert_eq!(answer, Ok(Verdict::Equal), "{}", base.name);
        assert_eq!(findings(base), Some(0), "{}", base.name);
    }

    pub fn judge(&mut self, base: &Base, mutation: &Mutation, number: u64) -> Answer {
        if mutation.kind == Kind::NoPermission {
            return without_rights(|| in_files(base, Some(mutation)));
        }
        let answer = caught(|| in_files(base, Some(mutation)))?;
        if mutation.covered && findings(base) == Some(0) {
            return Err("a check finds nothing".into());
        }
        if !number.is_multiple_of(ENGINE_EVERY) {
            return Ok(answer);
        }
        let through_engine = caught(|| self.through_engine(base, Some(mutation)))?;
        Ok(answer.max(through_engine))
    }

    /// No worker has died of anything.
    pub fn finish(self) {
        self.runtime.block_on(async {
            let statistics = self.engine.statistics().await.unwrap();
            let workers = statistics.supervisor.workers;
            assert!(
                workers.iter().all(|worker| worker.restarts == 0),
                "{workers:?}"
            );
            self.engine.shutdown().await;
        });
    }

    /// Every channel, refusing damage and masking it.
    fn through_engine(&self, base: &Base, mutation: Option<&Mutation>) -> Answer {
        self.runtime.block_on(async {
            let opened = self.engine.open_with(&base.path, base.options.clone());
            let answer = match opened.await {
                Ok(recording) => self.channels(base, &recording, mutation).await,
                Err(error) => refused(base, mutation, &error.to_string()),
            };
            // The next mutant stands under the same name.
            self.engine.close(&base.path).await.unwrap();
            answer
        })
    }

    async fn channels(
        &self,
        base: &Base,
        recording: &mef3_server::Recording,
        mutation: Option<&Mutation>,
    ) -> Answer {
        let mut verdict = Verdict::Equal;
        for truth in &base.channels {
            for on_damage in [OnDamage::Fail, OnDamage::Mask] {
                let request = ReadRequest::new(recording, truth.start_uutc, truth.end_uutc)
                    .channels([truth.channel.as_str()])
                    .on_damage(on_damage);
                let answer = self.read(&request, recording, truth, mutation);
                let answer = answer
                    .await
                    .and_then(|answer| healthy(truth, mutation, answer));
                let answer = answer.map_err(|error| format!("engine, {on_damage:?}: {error}"));
                verdict = verdict.max(answer?);
            }
        }
        Ok(verdict)
    }

    async fn read(
        &self,
        request: &ReadRequest,
        recording: &mef3_server::Recording,
        truth: &Truth,
        mutation: Option<&Mutation>,
    ) -> Answer {
        let Ok(mut windows) = self.engine.read::<f64>(request) else {
            return Ok(Verdict::Refused);
        };
        let (mut found, mut masked) = (Vec::new(), Vec::new());
        while let Some(window) = windows.next().await {
            let Ok(window) = window else {
                return Ok(Verdict::Refused);
            };
            found.extend(window.samples);
            masked.extend(window.masked);
        }
        let info = recording.info();
        let position = info.channel_position(&truth.channel);
        let channel = position.map(|position| &info.channels[position]);
        let written = channel.and_then(|channel| written(info, channel, mutation));
        let question = Question {
            truth,
            expected: &truth.mef3io,
            grid: *windows.grid(),
            written,
        };
        question.compare(&found, &masked)
    }
}

/// Every channel by both rules, and all records, straight from the files.
fn in_files(base: &Base, mutation: Option<&Mutation>) -> Answer {
    let recording = match open_session(&base.path, &base.options) {
        Ok(recording) => recording,
        Err(error) => return refused(base, mutation, &error.to_string()),
    };
    let mut verdict = Verdict::Equal;
    for truth in &base.channels {
        let rules = [
            (Rule::Mef3io, Some(&truth.mef3io)),
            (Rule::Pymef, truth.pymef.as_ref()),
        ];
        for (rule, expected) in rules {
            let Some(expected) = expected else { continue };
            let answer = channel(&recording, truth, rule, expected, mutation)
                .and_then(|answer| healthy(truth, mutation, answer));
            verdict = verdict.max(answer.map_err(|error| format!("{rule:?}: {error}"))?);
        }
    }
    let spoilt = mutation.is_some_and(Mutation::spoils_records);
    Ok(verdict.max(records(base, &recording, spoilt)?))
}

/// A session may be refused as a whole only where no channel of it is as it was.
fn refused(base: &Base, mutation: Option<&Mutation>, error: &str) -> Answer {
    let spared = |truth: &&Truth| mutation.is_none_or(|mutation| mutation.spares(&truth.channel));
    match base.channels.iter().find(spared) {
        None => Ok(Verdict::Refused),
        Some(truth) => Err(format!(
            "the session is refused, and with it {}: {error}",
            truth.channel
        )),
    }
}

/// A channel that was not touched reads as ever.
fn healthy(truth: &Truth, mutation: Option<&Mutation>, answer: Verdict) -> Answer {
    let spared = mutation.is_none_or(|mutation| mutation.spares(&truth.channel));
    if spared && answer != Verdict::Equal {
        return Err(format!("{answer:?}, and {} is healthy", truth.channel));
    }
    Ok(answer)
}

/// What the files hold, where checksums vouch for it.
fn written(recording: &Recording, channel: &Channel, mutation: Option<&Mutation>) -> Option<Held> {
    let mutation = mutation?;
    // Nobody can tell that there was another segment.
    let vouched = mutation.kind.repaired() || mutation.no_segment;
    let touched = vouched && !mutation.spares(&channel.name);
    touched.then(|| Held::by(recording, channel))
}

fn channel(
    recording: &Recording,
    truth: &Truth,
    rule: Rule,
    expected: &[f64],
    mutation: Option<&Mutation>,
) -> Answer {
    let name = &truth.channel;
    let Some(position) = recording.channel_position(name) else {
        let folder = recording.path.join(format!("{name}.timd"));
        let told = recording
            .unreadable
            .iter()
            .any(|channel| channel.name == *name);
        // One that has another name, or whose segments have, is another channel.
        let gone = recording.path.is_dir() && !has_segments(&folder, name);
        return if told || gone {
            Ok(Verdict::Refused)
        } else {
            Err(format!("channel {name} is passed over"))
        };
    };
    let channel = &recording.channels[position];
    let (start, end) = (truth.start_uutc, truth.end_uutc);
    let Ok(grid) = Grid::new(rule, start, end, channel.sampling_frequency) else {
        return Ok(Verdict::Refused);
    };
    let written = written(recording, channel, mutation);
    if grid.columns() != expected.len() as u64 && written.is_none() {
        return Err(format!("{} columns", grid.columns()));
    }
    // A rate that is another may be any.
    let mut found = vec![0.0; grid.columns().min(MOST_COLUMNS) as usize];
    let read = ChannelReader::new(recording, channel, grid)
        .and_then(|mut reader| reader.read(0, &mut found));
    match read {
        Err(_) => Ok(Verdict::Refused),
        Ok(()) => {
            let question = Question {
                truth,
                expected,
                grid,
                written,
            };
            question.compare(&found, &[])
        }
    }
}

/// Whether a channel has a folder with a segment in it.
fn has_segments(folder: &Path, channel: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name
            .strip_suffix(".segd")
            .and_then(|stem| stem.rsplit_once('-'));
        number.is_some_and(|(stem, number)| stem == channel && number.parse::<u64>().is_ok())
    })
}

/// What is held against what.
struct Question<'a> {
    truth: &'a Truth,
    expected: &'a [f64],
    grid: Grid,
    /// What else than the truth may be read; nothing else, where it is empty.
    written: Option<Held>,
}

impl Question<'_> {
    /// Samples are those of the truth, but for what is told to be lost, and for what
    /// the files themselves say.
    fn compare(&self, found: &[f64], masked: &[Masked]) -> Answer {
        let length = 1e6 / self.grid.sampling_frequency();
        let lost: Vec<(i64, i64)> = masked.iter().map(|masked| span(masked, length)).collect();
        let slack = length as i64 + 1;
        let told = |time: i64| {
            lost.iter().any(|&(from, until)| {
                from.saturating_sub(slack) <= time && time <= until.saturating_add(slack)
            })
        };
        // Columns of another grid stand for other times.
        let same_grid = self.grid.columns() == self.expected.len() as u64;
        let mut verdict = match masked {
            [] => Verdict::Equal,
            _ => Verdict::Masked,
        };
        if !same_grid {
            verdict = Verdict::AsWritten;
        } else if found.len() != self.expected.len() {
            return Err(format!("{} samples", found.len()));
        }
        for (column, value) in found.iter().enumerate() {
            let expected = self.expected.get(column).filter(|_| same_grid);
            if expected.is_some_and(|expected| same(*value, *expected)) {
                continue;
            }
            let time = self.truth.start_uutc + (column as f64 * length) as i64;
            if value.is_nan() && told(time) {
                verdict = verdict.max(Verdict::Masked);
            } else if self.is_written(column, *value) {
                verdict = Verdict::AsWritten;
            } else {
                return Err(format!(
                    "channel {}, column {column} is {value}, not {expected:?}; masked: {masked:?}",
                    self.truth.channel
                ));
            }
        }
        Ok(verdict)
    }

    /// Whether the files hold what was read, or, where nothing was, nothing.
    fn is_written(&self, column: usize, value: f64) -> bool {
        let Some(held) = &self.written else {
            return false;
        };
        let (start, rate) = (self.grid.start_uutc(), self.grid.sampling_frequency());
        if !value.is_nan() {
            return held.has(start, column, rate, value);
        }
        // By pymef's rule, spans in headers and metadata decide what is shown.
        self.grid.rule() == Rule::Pymef || !held.covers(start, column, rate)
    }
}

/// Bit for bit the same; one NaN is as good as another.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// The time that something masked takes.
fn span(masked: &Masked, sample_us: f64) -> (i64, i64) {
    match masked {
        Masked::Block(block) => {
            let duration = (f64::from(block.damage.samples) * sample_us) as i64;
            (block.start_uutc, block.start_uutc.saturating_add(duration))
        }
        Masked::Segment { segment, .. } => (
            segment.not_before.unwrap_or(i64::MIN),
            segment.not_after.unwrap_or(i64::MAX),
        ),
        other => panic!("{other:?} has no span"),
    }
}

/// Records are those of the truth, and where some are missing, damage is told of.
fn records(base: &Base, recording: &Recording, repaired: bool) -> Answer {
    let query = RecordQuery {
        limit: 1000,
        ..RecordQuery::default()
    };
    let Ok(page) = recording.records(&query) else {
        return Ok(Verdict::Refused);
    };
    let told = !page.damaged.is_empty();
    let times_unresolved = page
        .damaged
        .iter()
        .any(|damaged| damaged.error == RecordError::UnresolvedTimes);
    let others = |these: &[PlacedRecord], those: &[PlacedRecord]| {
        let missing = |this: &&PlacedRecord| !those.iter().any(|that| is_same(this, that));
        these.iter().filter(missing).count()
    };
    let missing = others(&base.records, &page.records);
    // A damaged header may lock what a password has opened.
    let locked = |placed: &PlacedRecord| placed.record.body == RecordBody::Locked;
    let (_, open): (Vec<_>, Vec<_>) = page.records.iter().cloned().partition(locked);
    let foreign = others(&open, &base.records);
    match (missing, foreign) {
        (0, 0) if told => Ok(Verdict::Refused),
        (0, 0) => Ok(Verdict::Equal),
        _ if repaired => Ok(Verdict::AsWritten),
        (_, 0) if told => Ok(Verdict::Refused),
        // Channels that cannot be read do not say how their records' times are stored.
        (lost, others) if lost >= others && times_unresolved => Ok(Verdict::Refused),
        _ => Err(format!(
            "{missing} records are missing, {foreign} are others; {:?}",
            page.damaged
        )),
    }
}

/// Wherever they stand in their file.
fn is_same(one: &PlacedRecord, other: &PlacedRecord) -> bool {
    let mut one = one.clone();
    one.record.file_offset = other.record.file_offset;
    one == *other
}

/// Number of findings; nothing, where the session cannot be looked into.
fn findings(base: &Base) -> Option<u64> {
    let mut findings = 0;
    let checked = check_session(&base.path, &base.options, true, &mut |_| findings += 1);
    checked.is_ok().then_some(findings)
}

/// A panic is a failure like any other, with the mutant's number.
fn caught(ask: impl FnOnce() -> Answer) -> Answer {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask));
    outcome.unwrap_or_else(|_| Err("panics".into()))
}

/// Asks as a user whom permissions concern. Linux has rights by thread.
fn without_rights(ask: impl FnOnce() -> Answer + Send) -> Answer {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            if geteuid().is_root() {
                let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
                set_thread_res_gid(gid, gid, gid).unwrap();
                set_thread_res_uid(uid, uid, uid).unwrap();
            }
            caught(ask)
        });
        asking.join().unwrap()
    })
}

/// Where checksums are right, neither garbage nor a silent gap passes.
#[test]
fn the_judge_sees_what_no_file_holds() {
    let bases = Base::all();
    let base = bases.iter().find(|base| base.name == "multi_segment");
    let base = base.unwrap();
    let truth = &base.channels[0];
    let recording = open_session(&base.path, &base.options).unwrap();
    let channel = &recording.channels[0];
    let (start, end) = (truth.start_uutc, truth.end_uutc);
    let grid = Grid::new(Rule::Mef3io, start, end, channel.sampling_frequency).unwrap();
    let question = Question {
        truth,
        expected: &truth.mef3io,
        grid,
        written: Some(Held::by(&recording, channel)),
    };
    assert_eq!(question.compare(&truth.mef3io, &[]), Ok(Verdict::Equal));
    for wrong in [1e9, f64::NAN] {
        let mut found = truth.mef3io.clone();
        found[100] = wrong;
        assert!(question.compare(&found, &[]).is_err(), "{wrong}");
    }
    // What the files hold is no garbage, whatever the truth is.
    let mut expected = truth.mef3io.clone();
    expected[100] = 1e9;
    let question = Question {
        expected: &expected,
        ..question
    };
    let answer = question.compare(&truth.mef3io, &[]);
    assert_eq!(answer, Ok(Verdict::AsWritten));

    // Nobody may refuse what was not touched.
    assert!(healthy(truth, None, Verdict::Refused).is_err());
    assert!(refused(base, None, "").is_err());
}
