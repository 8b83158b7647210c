//! Times: microseconds since 1970-01-01T00:00:00 UTC ("uUTC"), and their stored
//! form under a recording time offset (format section 5).

/// "No entry" for a time.
pub const NO_TIME: i64 = i64::MIN;

/// Converts a stored time to absolute uUTC.
///
/// A value of zero or more is absolute already; a negative one had the
/// recording's offset subtracted and was negated. `None` is "no entry".
/// Hostile values saturate.
pub fn absolute(stored: i64, offset: i64) -> Option<i64> {
    match stored {
        NO_TIME => None,
        0.. => Some(stored),
        _ => Some((-stored).saturating_add(offset_or_zero(offset))),
    }
}

/// Whether a stored time is relative to the recording's offset.
pub fn is_relative(stored: i64) -> bool {
    stored < 0 && stored != NO_TIME
}

/// Converts an absolute uUTC time to the stored form under an offset of zero,
/// which is what all current writers use.
pub fn stored(absolute: i64) -> i64 {
    if absolute > 0 { -absolute } else { absolute }
}

/// Converts an absolute uUTC time to the stored form under a recording's offset.
///
/// `None` for a time that would read back as another: one before 1970, and
/// under an offset one that is not after it.
pub fn stored_under(absolute: i64, offset: i64) -> Option<i64> {
    let offset = offset_or_zero(offset);
    let since_offset = absolute.checked_sub(offset)?;
    let fits = absolute >= 0 && (since_offset > 0 || offset == 0);
    fits.then(|| -since_offset)
}

fn offset_or_zero(offset: i64) -> i64 {
    if offset == NO_TIME { 0 } else { offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_section_18_4() {
        for (stored_time, offset, read_back) in [
            (-1_600_000_000_000_000, 0, Some(1_600_000_000_000_000)),
            (
                -1_000_000_000,
                1_599_999_000_000_000,
                Some(1_600_000_000_000_000),
            ),
            (-1_600_000_000_000_000, NO_TIME, Some(1_600_000_000_000_000)),
            (0, 0, Some(0)),
            (5, 10, Some(5)),
            // What a writer without the check of `stored_under` makes of 3.
            (7, 10, Some(7)),
            (NO_TIME, 7, None),
        ] {
            assert_eq!(absolute(stored_time, offset), read_back);
        }
        assert_eq!(stored(1_600_000_000_000_000), -1_600_000_000_000_000);
        assert_eq!(stored(NO_TIME), NO_TIME);
        assert_eq!(stored(0), 0);
    }

    #[test]
    fn a_time_is_stored_so_that_it_reads_back_or_not_at_all() {
        for (time, offset, stored_time) in [
            (
                1_600_000_000_000_000,
                1_599_999_000_000_000,
                Some(-1_000_000_000),
            ),
            (1_600_000_000_000_000, NO_TIME, Some(-1_600_000_000_000_000)),
            (0, 0, Some(0)),
            (-1, 0, None),
            // Trap 1 of section 5: they would be stored as 5 and as 7, which read back
            // as 5 and as 7.
            (5, 10, None),
            (3, 10, None),
            (10, 10, None),
            (11, 10, Some(-1)),
            (i64::MAX, 0, Some(-i64::MAX)),
            (i64::MAX, -1, None),
            (NO_TIME, 0, None),
        ] {
            assert_eq!(stored_under(time, offset), stored_time, "{time} {offset}");
            if let Some(stored_time) = stored_time {
                assert_eq!(absolute(stored_time, offset), Some(time));
            }
        }
    }

    #[test]
    fn hostile_times_saturate() {
        assert_eq!(absolute(i64::MIN + 1, i64::MAX), Some(i64::MAX));
    }
}
