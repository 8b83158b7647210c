//! The looks at workers that do not do what they should.

use std::thread;
use std::time::Duration;

use actix::Context;

use super::WorkerSupervisor;
use crate::actors::coordinator::JobNews;
use crate::actors::slot::{Loss, Slot, WorkerState};
use crate::worker::bridge::JobEvent;
use crate::worker::rescue;

/// How often limits are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A worker that says nothing of its job for so long gets no other, and those that it
/// has not got to go elsewhere: what is wrong with one page must not keep others
/// waiting until it is known.
const SLOW: Duration = Duration::from_millis(250);
/// A killed worker whose bridge does not report within this time is stuck in
/// the kernel: it is abandoned and replaced.
pub(super) const ABANDON_LIMIT: Duration = Duration::from_secs(2);

impl WorkerSupervisor {
    /// Kills what makes no progress, frees what is stuck, abandons what cannot
    /// be killed.
    pub(super) fn tick(&mut self, context: &mut Context<Self>) {
        self.release_starts();
        let mut abandoned = Vec::new();
        let mut slow_start = false;
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            match slot.state {
                WorkerState::Ready if slot.is_silent_for(self.settings.stall_limit) => {
                    tracing::warn!(slot = number, pid = slot.pid(), "worker makes no progress");
                    self.stalled += 1;
                    slot.enter(WorkerState::Ending);
                    slot.stalled = match &slot.worker {
                        Some(worker) => worker.kill_stalled(),
                        None => true,
                    };
                }
                WorkerState::Ready if !slot.slow && slot.is_silent_for(SLOW) => {
                    for &job in slot.give_back() {
                        let event = JobEvent::Returned;
                        self.coordinator.do_send(JobNews { job, event });
                    }
                }
                // The bridge has a limit of its own; beyond it, it is stuck.
                WorkerState::Starting
                    if slot.since.elapsed() > self.settings.spawn_limit + TICK =>
                {
                    slot.enter(WorkerState::Ending);
                    // Reads /proc, which an actor must not wait for.
                    thread::spawn(rescue::release_stuck_spawns);
                }
                WorkerState::Starting if slot.since.elapsed() > TICK => slow_start = true,
                WorkerState::Ending if slot.since.elapsed() > ABANDON_LIMIT => {
                    abandoned.push(number);
                }
                _ => {}
            }
        }
        if slow_start {
            // As above.
            thread::spawn(rescue::release_dead_spawns);
        }
        self.shrink();
        for number in abandoned {
            tracing::error!(slot = number, "worker cannot be ended and is abandoned");
            self.abandoned += 1;
            self.stuck += 1;
            let mut during = None;
            if let Some(slot) = self.slots.get_mut(number) {
                slot.generation += 1;
                // Its bridge cannot say; the worker does them in this order.
                during = slot.jobs.first().copied();
            }
            self.restart_later(number, Loss::Died, during, context);
        }
        self.hand_out(context);
    }

    /// While stopping, no start may hold the end up: a child that the same
    /// signal has ended would do so, and leave its socket behind.
    pub(super) fn release_starts(&self) {
        let starting = |slot: &Slot| slot.state == WorkerState::Starting;
        if self.stopping && self.slots.iter().any(starting) {
            // Reads /proc, which an actor must not wait for.
            thread::spawn(rescue::release_stuck_spawns);
        }
    }
}
