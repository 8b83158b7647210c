//! As many workers as there is work for.

use std::time::Duration;

use actix::{Context, Handler, Message};

use super::WorkerSupervisor;
use crate::actors::slot::{Slot, WorkerState};

impl WorkerSupervisor {
    /// Starts a worker more, unless one is on its way.
    pub(super) fn grow(&mut self, delay: Duration, context: &mut Context<Self>) {
        let starting = |slot: &Slot| slot.state == WorkerState::Starting;
        if self.stopping || self.fallback || self.slots.iter().any(starting) {
            return;
        }
        if let Some(spare) = self.start_spare(context) {
            tracing::info!(slot = spare, ?delay, "requests wait: a worker more");
        }
    }

    /// Starts a worker in a slot that has none, if there is such a slot.
    pub(super) fn start_spare(&mut self, context: &mut Context<Self>) -> Option<usize> {
        if self.stuck >= self.settings.most_stuck {
            return None;
        }
        let off = |slot: &Slot| slot.state == WorkerState::Off;
        let spare = self.slots.iter().position(off)?;
        self.grown += 1;
        self.start_worker(spare, context);
        Some(spare)
    }

    /// Sends a worker home that has had nothing to do for long, where there are
    /// more than there must be.
    pub(super) fn shrink(&mut self) {
        let least = self.settings.workers;
        let limit = self.settings.shrink_idle;
        let ready = |slot: &&Slot| slot.state == WorkerState::Ready;
        if self.slots.iter().filter(ready).count() <= least {
            return;
        }
        let spare = self.slots.iter_mut().enumerate().skip(least).rev();
        let mut idle = spare.filter(|(_, slot)| {
            slot.state == WorkerState::Ready
                && slot.is_idle()
                && slot.last_progress.elapsed() > limit
        });
        if let Some((number, slot)) = idle.next() {
            tracing::info!(slot = number, pid = slot.pid(), "worker is not needed");
            slot.retired = true;
            // Its bridge sees the closed mailbox and ends it.
            slot.commands = None;
            slot.enter(WorkerState::Ending);
            self.shrunk += 1;
        }
    }
}

/// Says how long requests have waited for a reader.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct QueueDelay(pub(crate) Duration);

impl Handler<QueueDelay> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, QueueDelay(delay): QueueDelay, context: &mut Self::Context) {
        self.grow(delay, context);
    }
}
