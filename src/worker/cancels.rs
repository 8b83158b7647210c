//! Which of its jobs a worker need not go on with.

use std::time::{Duration, Instant};

use super::protocol::JobId;

/// How long after a look the next one is worth its cost. Below the time that
/// anybody would notice, above that of a page.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// Notes of cancelled jobs, as far as they are still to come.
#[derive(Default)]
pub(super) struct Cancels {
    jobs: Vec<JobId>,
    last_look: Option<(JobId, Instant)>,
}

impl Cancels {
    /// Whether the job that is being done was cancelled. `next` takes a note from
    /// the channel; it is asked at the start of each job and at most once in a
    /// while after that.
    pub(super) fn contain(&mut self, job: JobId, mut next: impl FnMut() -> Option<JobId>) -> bool {
        let fresh = |&(looked, at): &(JobId, Instant)| looked == job && at.elapsed() < LOOK_PAUSE;
        if self.last_look.as_ref().is_none_or(|look| !fresh(look)) {
            self.last_look = Some((job, Instant::now()));
            // Jobs come in the order of their numbers, but for those that waited for a
            // worker to themselves, beside which there is no other.
            self.jobs.retain(|&cancelled| cancelled >= job);
            while let Some(cancelled) = next() {
                if cancelled >= job {
                    self.jobs.push(cancelled);
                }
            }
        }
        self.jobs.contains(&job)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn notes_are_kept_for_jobs_to_come_and_no_longer() {
        let mut notes = VecDeque::from([3, 5, 4]);
        let mut cancels = Cancels::default();
        assert!(!cancels.contain(2, || notes.pop_front()));
        assert_eq!(notes.len(), 0);
        assert!(cancels.contain(3, || None));
        assert!(cancels.contain(4, || None));
        assert!(cancels.contain(5, || None));
        assert!(!cancels.contain(6, || None));
        assert_eq!(cancels.jobs, [0; 0]);
        // A note that comes after the end of its job.
        assert!(!cancels.contain(7, || notes.pop_front().or(None)));
    }

    #[test]
    fn a_job_under_way_is_looked_for_now_and_then() {
        let mut cancels = Cancels::default();
        assert!(!cancels.contain(1, || None));
        let mut looks = 0;
        let begun = Instant::now();
        let mut notes = vec![1];
        while !cancels.contain(1, || {
            looks += 1;
            notes.pop()
        }) {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        assert!(begun.elapsed() >= LOOK_PAUSE / 2);
        // The note, and then nothing.
        assert_eq!(looks, 2);
    }
}
