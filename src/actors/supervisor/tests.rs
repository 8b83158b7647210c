//! Workers that cannot be killed, which takes a kernel that is stuck: their bridges
//! never report again.

use actix::{Context, System};

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::watch::ABANDON_LIMIT;
use super::*;
use crate::worker::protocol::Work;

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

#[test]
fn no_more_are_started_while_too_many_abandoned_ones_are_there() {
    System::new().block_on(async {
        let mut supervisor = with_killed_worker(ABANDON_LIMIT + TICK);
        supervisor.settings.most_stuck = 1;
        let mut context = Context::new();
        supervisor.tick(&mut context);
        assert_eq!(supervisor.stuck, 1);
        supervisor.start_next(0, &mut context);
        assert_eq!(supervisor.slots[0].state, WorkerState::Resting);
        let down = Event::Down {
            cause: Cause::Stopped,
            during: None,
        };
        supervisor.handle(report(7, down), &mut context);
        assert_eq!((supervisor.stuck, supervisor.abandoned), (0, 1));
    });
}

/// A supervisor with workers that are there and do nothing by themselves.
fn with_ready_workers(count: usize) -> (WorkerSupervisor, Vec<Receiver<Command>>) {
    let settings = Settings {
        workers: 0,
        ..Settings::default()
    };
    let coordinator = Context::<Coordinator>::new().address();
    let mut supervisor = WorkerSupervisor::new(&settings, coordinator);
    let mailboxes = (0..count).map(|_| {
        let (commands, mailbox) = sync_channel(8);
        let mut slot = Slot::new(&settings);
        slot.up(None);
        slot.commands = Some(commands);
        supervisor.slots.push(slot);
        mailbox
    });
    let mailboxes = mailboxes.collect();
    (supervisor, mailboxes)
}

fn run(id: JobId, apart: bool) -> RunJob {
    RunJob {
        job: Arc::new(Job::new(id, Work::Decode(Vec::new()))),
        suspect: false,
        lane: None,
        apart,
    }
}

fn jobs(supervisor: &WorkerSupervisor) -> Vec<Vec<JobId>> {
    let slots = supervisor.slots.iter();
    slots.map(|slot| slot.jobs.clone()).collect()
}

#[test]
fn nothing_waits_behind_a_job_that_may_take_long() {
    System::new().block_on(async {
        let (mut supervisor, _mailboxes) = with_ready_workers(2);
        let mut context = Context::new();
        supervisor.handle(run(1, true), &mut context);
        for id in 2..5 {
            supervisor.handle(run(id, false), &mut context);
        }
        // The last one has gone back.
        assert_eq!(jobs(&supervisor), [vec![1], vec![2, 3]]);
        // A second one waits for a worker to itself, and is the next to get one.
        supervisor.handle(run(5, true), &mut context);
        let announced = |supervisor: &WorkerSupervisor| supervisor.announced.unwrap().jobs;
        assert_eq!(announced(&supervisor), 4);
        let source = Source::Worker {
            slot: 1,
            generation: 0,
        };
        let done = |job| WorkerReport {
            source,
            event: Event::Job(job, JobEvent::Done),
        };
        supervisor.handle(done(2), &mut context);
        assert_eq!(jobs(&supervisor), [vec![1], vec![3]]);
        assert_eq!(announced(&supervisor), 3);
        supervisor.handle(done(3), &mut context);
        assert_eq!(jobs(&supervisor), [vec![1], vec![5]]);
        supervisor.handle(done(5), &mut context);
        assert_eq!(jobs(&supervisor), [vec![1], vec![]]);
        assert_eq!(announced(&supervisor), 3);
    });
}

#[test]
fn threads_that_come_back_late_take_no_room_from_workers() {
    System::new().block_on(async {
        let (mut supervisor, _mailboxes) = with_ready_workers(1);
        let mut context = Context::new();
        supervisor.start_threads(&mut context);
        supervisor.threads[0].job = Some(9);
        supervisor.announce_capacity(&mut context);
        assert_eq!(supervisor.announced.unwrap().jobs, 3);
    });
}

#[test]
fn a_job_that_went_elsewhere_is_watched_until_its_worker_is_done_with_it() {
    System::new().block_on(async {
        let (mut supervisor, _mailboxes) = with_ready_workers(1);
        supervisor.settings.shrink_idle = Duration::ZERO;
        let mut context = Context::new();
        supervisor.handle(run(1, false), &mut context);
        supervisor.handle(run(2, false), &mut context);
        assert_eq!(supervisor.slots[0].give_back(), [2]);
        let source = Source::Worker {
            slot: 0,
            generation: 0,
        };
        let event = Event::Job(1, JobEvent::Done);
        supervisor.handle(WorkerReport { source, event }, &mut context);
        let long_ago = supervisor.settings.stall_limit + TICK;
        let slot = &mut supervisor.slots[0];
        assert!(slot.jobs.is_empty() && !slot.is_idle());
        slot.last_progress = Instant::now().checked_sub(long_ago).unwrap();
        supervisor.tick(&mut context);
        assert_eq!((supervisor.stalled, supervisor.shrunk), (1, 0));
        assert_eq!(supervisor.slots[0].state, WorkerState::Ending);
    });
}
