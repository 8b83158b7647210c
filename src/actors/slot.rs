//! One worker slot: its state, and when its next worker is started.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::settings::Settings;
use crate::worker::WorkerRef;
use crate::worker::bridge::{Command, JOBS_PER_WORKER};
use crate::worker::protocol::JobId;

/// Starts that fail in a row before the slot rests.
const FAILED_STARTS: u32 = 3;
/// A worker that lived this long ends the series of its slot's restarts.
const STABLE: Duration = Duration::from_secs(1);

/// State of one worker slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Number of the slot.
    pub slot: usize,
    /// Process id, while there is a process.
    pub pid: Option<u32>,
    /// What the slot is doing.
    pub state: WorkerState,
    /// Jobs that the worker has.
    pub jobs: usize,
    /// How often the slot's worker was replaced.
    pub restarts: u64,
}

impl WorkerStatus {
    /// Bytes of the worker's process that are in memory, while there is one.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.pid.and_then(memory_bytes)
    }
}

/// Resident memory of a process in bytes, while there is one.
fn memory_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What a worker slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// A process is being started.
    Starting,
    /// The worker takes jobs.
    Ready,
    /// The worker was killed and is not reaped yet.
    Ending,
    /// The slot waits before the next start.
    Waiting,
    /// The slot has spent its restarts and rests.
    Resting,
    /// No worker is started: the slot is a spare one, or the end has come.
    Off,
}

impl WorkerState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Ready,
        Self::Ending,
        Self::Waiting,
        Self::Resting,
        Self::Off,
    ];

    /// The state in one word, for those who count or show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Ending => "ending",
            Self::Waiting => "waiting",
            Self::Resting => "resting",
            Self::Off => "off",
        }
    }
}

/// How a slot has lost its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It did not start.
    FailedStart,
    /// Somebody outside killed it, which says nothing against what it did.
    Killed,
    /// In any other way.
    Died,
}

/// A slot of the supervisor.
pub(super) struct Slot {
    /// Tells the reports of the present bridge from those of earlier ones.
    pub(super) generation: u64,
    pub(super) state: WorkerState,
    /// When the state was entered.
    pub(super) since: Instant,
    /// The worker process, while there is one.
    pub(super) worker: Option<WorkerRef>,
    /// The mailbox of the bridge, while there is one.
    pub(super) commands: Option<SyncSender<Command>>,
    pub(super) jobs: Vec<JobId>,
    /// Jobs that went to others while the worker did not get to them. It still has
    /// them, and what it says of them is of no use.
    pub(super) taken_back: Vec<JobId>,
    pub(super) last_progress: Instant,
    /// It has said nothing of its job for a while, and gets no other.
    pub(super) slow: bool,
    /// Its job may take long to do or to hand over, and gets no other behind it.
    pub(super) apart: bool,
    /// It was killed because it said nothing of its job for too long.
    pub(super) stalled: bool,
    /// Nothing was left to do for the worker, and it is sent home.
    pub(super) retired: bool,
    /// When the worker reported for duty.
    up_at: Option<Instant>,
    backoff: Duration,
    failed_starts: u32,
    recent_restarts: VecDeque<Instant>,
    restarts: u64,
}

impl Slot {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            generation: 0,
            state: WorkerState::Waiting,
            since: Instant::now(),
            worker: None,
            commands: None,
            jobs: Vec::new(),
            taken_back: Vec::new(),
            slow: false,
            apart: false,
            stalled: false,
            last_progress: Instant::now(),
            retired: false,
            up_at: None,
            backoff: settings.restart_backoff_min,
            failed_starts: 0,
            recent_restarts: VecDeque::new(),
            restarts: 0,
        }
    }

    /// The process id of the worker, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.worker.as_ref().map(WorkerRef::pid)
    }

    pub(super) fn enter(&mut self, state: WorkerState) {
        self.state = state;
        self.since = Instant::now();
    }

    /// The worker has nothing to do, as far as anybody knows.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.taken_back.is_empty()
    }

    /// The worker has something to do, and has said nothing of it for so long.
    pub(super) fn is_silent_for(&self, time: Duration) -> bool {
        !self.is_idle() && self.last_progress.elapsed() > time
    }

    /// Gives the worker a job, of which `apart` says that nothing is to wait behind it.
    pub(super) fn begin(&mut self, job: JobId, apart: bool) {
        if self.is_idle() {
            self.last_progress = Instant::now();
        }
        self.jobs.push(job);
        self.apart = apart;
    }

    /// Jobs that the worker can have beside those that it has.
    pub(super) fn room(&self) -> usize {
        if self.state != WorkerState::Ready || self.slow || self.apart {
            return 0;
        }
        JOBS_PER_WORKER.saturating_sub(self.jobs.len() + self.taken_back.len())
    }

    /// The worker has said something; `true` if nobody expected it any more.
    pub(super) fn progress(&mut self) -> bool {
        self.last_progress = Instant::now();
        std::mem::take(&mut self.slow)
    }

    /// A job of the worker is over; `true` if it had gone elsewhere.
    pub(super) fn end(&mut self, job: JobId) -> bool {
        self.jobs.retain(|&id| id != job);
        let had_gone = self.taken_back.len();
        self.taken_back.retain(|&id| id != job);
        self.apart &= !self.is_idle();
        self.taken_back.len() < had_gone
    }

    /// Notes that the worker is slow; the jobs that it has not got to go elsewhere.
    pub(super) fn give_back(&mut self) -> &[JobId] {
        self.slow = true;
        let first = self.taken_back.len();
        self.taken_back
            .extend(self.jobs.split_off(1.min(self.jobs.len())));
        self.taken_back.get(first..).unwrap_or_default()
    }

    /// The worker reports for duty.
    pub(super) fn up(&mut self, worker: Option<WorkerRef>) {
        self.worker = worker;
        self.failed_starts = 0;
        self.last_progress = Instant::now();
        self.up_at = Some(self.last_progress);
        self.enter(WorkerState::Ready);
    }

    /// The worker that was sent home is gone.
    pub(super) fn off(&mut self) {
        self.forget_worker();
        self.enter(WorkerState::Off);
    }

    /// Forgets all that concerned the worker, except for its jobs.
    fn forget_worker(&mut self) {
        self.worker = None;
        self.commands = None;
        self.taken_back.clear();
        self.slow = false;
        self.apart = false;
        self.stalled = false;
        self.retired = false;
    }

    /// The worker is gone, or was never there.
    pub(super) fn down(&mut self, loss: Loss, settings: &Settings) {
        self.forget_worker();
        let lived = self.up_at.take().map(|since| since.elapsed());
        match loss {
            Loss::FailedStart => self.failed_starts += 1,
            Loss::Died if lived.is_none_or(|time| time <= STABLE) => {}
            // Pauses are for what would die again at once.
            Loss::Died | Loss::Killed => self.backoff = settings.restart_backoff_min,
        }
    }

    /// Decides how long to wait before the next start, and enters the state of
    /// waiting or of rest.
    pub(super) fn plan_restart(&mut self, settings: &Settings, now: Instant) -> Duration {
        self.restarts += 1;
        self.recent_restarts.push_back(now);
        self.recent_restarts
            .retain(|&at| now - at <= settings.restart_window);
        let spent = self.recent_restarts.len() > settings.restart_budget
            || self.failed_starts >= FAILED_STARTS;
        if spent {
            self.recent_restarts.clear();
            self.failed_starts = 0;
            self.enter(WorkerState::Resting);
            return settings.rest;
        }
        self.enter(WorkerState::Waiting);
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(settings.restart_backoff_max);
        pause
    }

    pub(super) fn status(&self, number: usize) -> WorkerStatus {
        WorkerStatus {
            slot: number,
            pid: self.pid(),
            state: self.state,
            jobs: self.jobs.len(),
            restarts: self.restarts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            restart_backoff_min: Duration::from_millis(20),
            restart_backoff_max: Duration::from_millis(100),
            restart_budget: 6,
            restart_window: Duration::from_secs(10),
            rest: Duration::from_secs(30),
            ..Settings::default()
        }
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(memory_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(memory_bytes(u32::MAX), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_the_budget_ends_in_rest() {
        let settings = settings();
        let mut slot = Slot::new(&settings);
        let now = Instant::now();
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                slot.up(None);
                slot.down(Loss::Died, &settings);
                slot.plan_restart(&settings, now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [20, 40, 80, 100, 100, 100, 30_000]);
        assert_eq!(slot.state, WorkerState::Resting);
        // After the rest it has a new budget.
        assert_eq!(slot.plan_restart(&settings, now).as_millis(), 100);
    }

    #[test]
    fn workers_that_are_killed_from_outside_are_replaced_without_a_longer_pause() {
        let settings = settings();
        let mut slot = Slot::new(&settings);
        let now = Instant::now();
        for _ in 0..settings.restart_budget {
            slot.up(None);
            slot.down(Loss::Killed, &settings);
            assert_eq!(slot.plan_restart(&settings, now).as_millis(), 20);
        }
        // The budget holds for them, too.
        assert_eq!(slot.plan_restart(&settings, now), settings.rest);
    }

    #[test]
    fn restarts_outside_the_window_are_forgiven() {
        let settings = settings();
        let mut slot = Slot::new(&settings);
        let start = Instant::now();
        for number in 0..50 {
            slot.plan_restart(&settings, start + Duration::from_secs(3 * number));
            assert_eq!(slot.state, WorkerState::Waiting);
        }
    }

    #[test]
    fn starts_that_fail_in_a_row_end_in_rest_early() {
        let settings = settings();
        let mut slot = Slot::new(&settings);
        for expected in [
            WorkerState::Waiting,
            WorkerState::Waiting,
            WorkerState::Resting,
        ] {
            slot.down(Loss::FailedStart, &settings);
            slot.plan_restart(&settings, Instant::now());
            assert_eq!(slot.state, expected);
        }
    }
}
