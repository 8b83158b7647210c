//! How long something had to wait, counted by length.

use std::time::Duration;

/// Upper bounds in milliseconds; what is longer has a place of its own.
const BOUNDS_MS: [u32; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// How long pages have waited for a reader, counted by length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum_us: u64,
}

impl Delays {
    pub(crate) fn note(&mut self, delay: Duration) {
        let place = BOUNDS_MS.partition_point(|&bound| Duration::from_millis(bound.into()) < delay);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.sum_us = self.sum_us.saturating_add(delay_us);
    }

    /// Upper bounds in seconds, the last one infinite, each with the number of delays
    /// up to it and above the bound before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_MS.iter().map(|&bound| f64::from(bound) / 1000.0);
        bounds
            .chain([f64::INFINITY])
            .zip(self.counts.iter().copied())
    }

    /// Number of delays.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All delays together, in seconds.
    pub fn sum_s(&self) -> f64 {
        Duration::from_micros(self.sum_us).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_counts_below_its_bound() {
        let mut delays = Delays::default();
        for ms in [0, 1, 3, 5000, 60_000] {
            delays.note(Duration::from_millis(ms));
        }
        let buckets: Vec<(f64, u64)> = delays.buckets().filter(|(_, count)| *count > 0).collect();
        let expected = [(0.001, 2), (0.005, 1), (5.0, 1), (f64::INFINITY, 1)];
        assert_eq!(buckets, expected);
        assert_eq!((delays.count(), delays.sum_s()), (5, 65.004));
    }
}
