//! How a worker has ended: by itself, or because somebody outside killed it.
//!
//! A page can crash its worker, hang it, or use up the machine's memory. It cannot
//! send SIGKILL: a worker that was killed so, and neither by this server nor by the
//! system for want of memory, has not died of what it read.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

/// A process closes its channels a moment before it has ended.
const END_LIMIT: Duration = Duration::from_millis(500);
const END_PAUSE: Duration = Duration::from_millis(1);
/// How old the count of kills for want of memory may be.
const COUNT_AGE: Duration = Duration::from_secs(1);

/// Processes that the system has killed for want of memory, as counted while the
/// worker was well.
pub(super) struct MemoryKills {
    /// `None` where the system does not count.
    count: Option<u64>,
    at: Instant,
}

impl MemoryKills {
    pub(super) fn now() -> Self {
        Self {
            count: memory_kills(),
            at: Instant::now(),
        }
    }

    /// Counts again, unless that was done a short while ago.
    pub(super) fn renew(&mut self) {
        if self.at.elapsed() > COUNT_AGE {
            *self = Self::now();
        }
    }

    /// Whether there were none since. Where nobody counts, there may have been.
    fn are_none_since(&self) -> bool {
        self.count.is_some() && self.count == memory_kills()
    }
}

/// Whether a worker whose channels are closed was killed from outside. The process
/// stays to be reaped. The caller knows that it has not killed it itself.
pub(super) fn was_killed(worker: Pid, kills: &MemoryKills) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let deadline = Instant::now() + END_LIMIT;
    loop {
        match waitid(WaitId::Pid(worker), options) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal();
                return signal == Some(Signal::KILL.as_raw()) && kills.are_none_since();
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(END_PAUSE),
            // It has closed its channels and goes on, or cannot be waited for.
            Ok(None) | Err(_) => return false,
        }
    }
}

/// Whether a child is stopped by a signal now. Waits for nothing.
pub(super) fn is_stopped(child: Pid) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(child), options), Ok(Some(status)) if status.stopped())
}

fn memory_kills() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    let count = counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pid)
    }

    /// Sends a signal, and asks twice: asking must not reap.
    fn killed_by(signal: Signal, kills: &MemoryKills) -> bool {
        let (mut child, pid) = sleeper();
        rustix::process::kill_process(pid, signal).unwrap();
        let answers = [(); 2].map(|()| was_killed(pid, kills));
        assert_eq!(answers[0], answers[1]);
        child.wait().unwrap();
        answers[0]
    }

    #[test]
    fn only_a_kill_that_memory_does_not_explain_comes_from_outside() {
        // The system counts, or every kill counts against what was read.
        let kills = MemoryKills::now();
        assert_eq!(killed_by(Signal::KILL, &kills), kills.count.is_some());
        for crash in [Signal::ABORT, Signal::SEGV, Signal::TERM] {
            assert!(!killed_by(crash, &kills), "{crash:?}");
        }
        let memory_was_short = MemoryKills {
            count: kills.count.map(|count| count + 1),
            ..kills
        };
        assert!(!killed_by(Signal::KILL, &memory_was_short));
    }

    #[test]
    fn a_process_that_goes_on_was_neither_killed_nor_stopped() {
        let (mut child, pid) = sleeper();
        assert!(!was_killed(pid, &MemoryKills::now()));
        assert!(!is_stopped(pid));
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_stopped(pid) {
            assert!(Instant::now() < deadline);
            thread::sleep(END_PAUSE);
        }
        rustix::process::kill_process(pid, Signal::CONT).unwrap();
        while is_stopped(pid) {
            assert!(Instant::now() < deadline);
            thread::sleep(END_PAUSE);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
