//! Workers that cannot be killed, which takes a kernel that is stuck: their bridges
//! never report again.

use actix::{Context, System};

use std::time::Duration;

use super::watch::ABANDON_LIMIT;
use super::*;

/// A supervisor with one worker, which was killed so long ago and has two jobs.
fn with_killed_worker(ago: Duration) -> WorkerSupervisor {
    let settings = Settings {
        workers: 0,
        ..Settings::default()
    };
    // Nobody reads what is sent there.
    let coordinator = Context::<Coordinator>::new().address();
    let mut supervisor = WorkerSupervisor::new(&settings, coordinator);
    let mut slot = Slot::new(&settings);
    slot.generation = 7;
    slot.jobs = vec![1, 2];
    slot.enter(WorkerState::Ending);
    slot.since = Instant::now().checked_sub(ago).unwrap();
    supervisor.slots.push(slot);
    supervisor
}

fn report(generation: u64, event: Event) -> WorkerReport {
    let source = Source::Worker {
        slot: 0,
        generation,
    };
    WorkerReport { source, event }
}

#[test]
fn a_worker_that_cannot_be_killed_is_abandoned_counted_and_replaced() {
    System::new().block_on(async {
        let mut supervisor = with_killed_worker(ABANDON_LIMIT + TICK);
        let mut context = Context::new();
        supervisor.tick(&mut context);
        assert_eq!(supervisor.abandoned, 1);
        let slot = &supervisor.slots[0];
        assert!(slot.jobs.is_empty(), "its jobs go to others");
        // The next one is to be started after a pause.
        assert_eq!(slot.state, WorkerState::Waiting);
        assert_eq!(slot.generation, 8);

        // What the stuck one still says is nobody's.
        let down = Event::Down {
            cause: Cause::Stopped,
            during: Some(1),
        };
        let up = Event::Up(None, Sandbox::default());
        for late in [up, Event::Job(1, JobEvent::Done), down] {
            supervisor.handle(report(7, late), &mut context);
            assert_eq!(supervisor.slots[0].state, WorkerState::Waiting);
        }
        // And that of its successor is not.
        let up = Event::Up(None, Sandbox::default());
        supervisor.handle(report(8, up), &mut context);
        assert_eq!(supervisor.slots[0].state, WorkerState::Ready);
        supervisor.tick(&mut context);
        assert_eq!(supervisor.abandoned, 1);
    });
}

#[test]
fn a_worker_that_was_killed_gets_a_moment_to_end() {
    System::new().block_on(async {
        let mut supervisor = with_killed_worker(ABANDON_LIMIT - TICK);
        supervisor.tick(&mut Context::new());
        assert_eq!(supervisor.abandoned, 0);
        assert_eq!(supervisor.slots[0].jobs, [1, 2]);
    });
}
