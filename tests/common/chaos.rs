//! What tests share that make trouble for a long time, or measure.

use std::time::Duration;

/// Whether the long forms are asked for, by `MEF3_LONG=1`.
///
/// # Panics
/// Where the variable says anything else than 0 or 1.
pub fn is_long() -> bool {
    match std::env::var("MEF3_LONG").as_deref() {
        Ok("1") => true,
        Ok("0") | Err(_) => false,
        Ok(other) => panic!("MEF3_LONG is 0 or 1, not {other:?}"),
    }
}

/// The time that so many in a hundred do not exceed.
///
/// # Panics
/// Where there are no times.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times[rank - 1]
}
