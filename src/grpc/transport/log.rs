//! A log that clients cannot fill.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::locked;

/// Lines of one kind that may come within one period.
const LINES: u32 = 10;
/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets some lines of one kind pass in each period, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    begun: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Gate {
    /// Whether a line may be written now: then with the number of those that were
    /// not, since the last one.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut period = locked(&self.0);
        if period.begun.is_none_or(|begun| begun.elapsed() >= PERIOD) {
            period.begun = Some(Instant::now());
            period.lines = 0;
        }
        if period.lines == LINES {
            period.suppressed += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_pass_and_the_rest_is_counted() {
        let gate = Gate::default();
        assert!((0..LINES).all(|_| gate.pass() == Some(0)));
        assert_eq!((gate.pass(), gate.pass()), (None, None));
        locked(&gate.0).begun = Instant::now().checked_sub(PERIOD);
        assert_eq!((gate.pass(), gate.pass()), (Some(2), Some(0)));
    }
}
