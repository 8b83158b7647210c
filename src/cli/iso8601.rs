//! Times in ISO 8601. Two dozen lines of arithmetic save a dependency on a
//! calendar library: sessions know UTC only, and nothing is parsed.

const DAY_US: i64 = 86_400_000_000;
/// Days of 400 Gregorian years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// A time in uUTC as `2020-09-13T12:26:40.000000Z`.
pub(super) fn utc(uutc: i64) -> String {
    let (year, month, day) = civil(uutc.div_euclid(DAY_US));
    let microseconds = uutc.rem_euclid(DAY_US);
    let seconds = microseconds / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = microseconds % 1_000_000;
    // Years of more than four digits need a sign (ISO 8601, expanded form).
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+05}"),
    };
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day of the proleptic Gregorian calendar, from days since
/// 1970-01-01.
///
/// Years are counted from March, so that the leap day comes last. Months from
/// March on have 31, 30, 31, 30, 31 days, over and over: five months are 153
/// days, and `(153 * m + 2) / 5` days stand before month `m`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    // Leap days before this one: one in 4 years, but not in 100, but in 400.
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let january_or_february = month_from_march >= 10;
    let month = if january_or_february {
        month_from_march - 9
    } else {
        month_from_march + 3
    };
    let year = era * 400 + year_of_era + i64::from(january_or_february);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (uutc, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_600_000_000_000_000, "2020-09-13T12:26:40.000000Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_800_000_000, "+10000-01-01T00:00:00.000000Z"),
            (-62_167_219_200_000_001, "-0001-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(utc(uutc), text);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let length = |year: i64, month| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1600, 1, 1);
        for days in -135_140..-135_140 + 2 * ERA_DAYS {
            assert_eq!(civil(days), expected, "day {days}");
            let (year, month, day) = expected;
            expected = if day < length(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }

    #[test]
    fn the_ends_of_time_have_a_name() {
        assert!(utc(i64::MAX).starts_with("+294247-01-10T04:00:54.775807Z"));
        assert!(utc(i64::MIN).starts_with("-290308-12-21T19:59:05.224192Z"));
    }
}
