//! How long a reply that was cut is tried again.

use std::time::{Duration, Instant};

/// Pauses before a reply goes on: the first, the longest of ours, and the longest that
/// the server may ask for.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
const LONGEST_WANTED: Duration = Duration::from_secs(30);

/// What is left to wait for a server that does not go on.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// The first failure since the last part.
    since: Option<Instant>,
    attempts: u32,
}

impl Patience {
    /// So long is tried without a part in between; zero is never.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            attempts: 0,
        }
    }

    /// How long that is.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A part has come: all the time is there again.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// The pause before the next attempt, after a failure at `now`. The server wants
    /// `wanted` at least. `None` where there is no attempt any more.
    pub(super) fn pause(&mut self, now: Instant, wanted: Duration) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let left = self.limit.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            return None;
        }
        let ours = FIRST.saturating_mul(1 << self.attempts.min(16));
        self.attempts += 1;
        // The last attempt is at the very end.
        Some(ours.min(LONGEST).max(wanted.min(LONGEST_WANTED)).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of a server that never comes back.
    fn pauses(patience: &mut Patience, wanted: Duration) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while let Some(pause) = patience.pause(now, wanted) {
            pauses.push(pause);
            now += pause;
        }
        pauses
    }

    #[test]
    fn attempts_go_on_to_the_end_of_the_limit_and_anew_after_a_part() {
        let limit = Duration::from_secs(60);
        let mut patience = Patience::new(limit);
        for _ in 0..2 {
            let pauses = pauses(&mut patience, Duration::ZERO);
            assert_eq!(pauses.iter().sum::<Duration>(), limit);
            assert_eq!(pauses[..2], [FIRST, 2 * FIRST]);
            assert!(pauses.iter().all(|pause| *pause <= LONGEST));
            assert!((12..30).contains(&pauses.len()), "{pauses:?}");
            patience.renew();
        }
        assert_eq!(pauses(&mut Patience::new(Duration::ZERO), FIRST), []);
    }

    #[test]
    fn the_server_may_ask_for_longer_pauses_but_not_for_any() {
        let mut patience = Patience::new(Duration::from_secs(70));
        let seconds =
            |pauses: Vec<Duration>| -> Vec<u64> { pauses.iter().map(Duration::as_secs).collect() };
        let asked = seconds(pauses(&mut patience, Duration::from_secs(3600)));
        assert_eq!(asked, [30, 30, 10]);
    }
}
