//! Numbers and texts as people read them.

/// A duration in microseconds, in one or two units: `12.5 ms`, `3 min 20 s`.
pub(super) fn duration(microseconds: i64) -> String {
    let sign = if microseconds < 0 { "-" } else { "" };
    let us = microseconds.unsigned_abs();
    let seconds = us / 1_000_000;
    let text = match us {
        0 => "0 s".into(),
        1..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{} ms", fraction(us, 1_000)),
        1_000_000..60_000_000 => format!("{} s", fraction(us, 1_000_000)),
        60_000_000..3_600_000_000 => two(seconds, "s", 60, "min"),
        3_600_000_000..86_400_000_000 => two(seconds / 60, "min", 60, "h"),
        _ => two(seconds / 3600, "h", 24, "d"),
    };
    format!("{sign}{text}")
}

/// `whole` in units of `unit`, to three decimals at most.
fn fraction(whole: u64, unit: u64) -> String {
    let text = format!("{}.{:03}", whole / unit, whole % unit * 1000 / unit);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// A number of small units as large and small ones.
fn two(count: u64, small: &str, per_large: u64, large: &str) -> String {
    match (count / per_large, count % per_large) {
        (whole, 0) => format!("{whole} {large}"),
        (whole, rest) => format!("{whole} {large} {rest} {small}"),
    }
}

/// A size in bytes with a decimal prefix, to three digits.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A rate in Hz.
pub(super) fn rate(hertz: f64) -> String {
    if hertz < 10_000.0 {
        return format!("{} Hz", plain(hertz));
    }
    format!("{} kHz", plain(hertz / 1000.0))
}

/// A number with six significant digits at most, and without zeros at the end.
pub(super) fn plain(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let magnitude = number.abs().log10().floor();
    if !(-5.0..9.0).contains(&magnitude) {
        return format!("{number:e}");
    }
    let decimals = (5.0 - magnitude).max(0.0) as usize;
    let text = format!("{number:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').into()
}

fn scaled(mut number: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if number < 999.5 {
            break;
        }
        number /= 1000.0;
        unit = larger;
    }
    let decimals = if number < 9.995 && number.fract() != 0.0 {
        1
    } else {
        0
    };
    format!("{number:.decimals$} {unit}")
}

/// `1 block`, `2 blocks`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How many there are of some kinds, such as `1 segment, 2 blocks`; `None` where there is
/// nothing of any.
pub(super) fn counted_kinds(kinds: &[(usize, &str, &str)]) -> Option<String> {
    let there = kinds.iter().filter(|(count, ..)| *count > 0);
    let texts: Vec<String> = there
        .map(|(count, one, many)| counted(*count, one, many))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// A text from a file or a name, safe for a terminal: control characters could
/// move the cursor or break the line.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (microseconds, text) in [
            (0, "0 s"),
            (7, "7 us"),
            (12_500, "12.5 ms"),
            (999_999, "999.999 ms"),
            (1_000_000, "1 s"),
            (59_999_999, "59.999 s"),
            (200_000_000, "3 min 20 s"),
            (7_200_000_000, "2 h"),
            (90_000_000_000, "1 d 1 h"),
            (-5_000_000, "-5 s"),
            (i64::MIN, "-106751991 d 4 h"),
        ] {
            assert_eq!(duration(microseconds), text);
        }
    }

    #[test]
    fn sizes_rates_and_factors() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_536), "1.5 kB");
        assert_eq!(bytes(134_000_000), "134 MB");
        assert_eq!(bytes(999_600), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18 EB");
        assert_eq!(rate(249.7), "249.7 Hz");
        assert_eq!(rate(1000.0 / 3.0), "333.333 Hz");
        assert_eq!(rate(32_000.0), "32 kHz");
        assert_eq!(rate(0.5), "0.5 Hz");
        assert_eq!(plain(0.000_001), "1e-6");
        assert_eq!(plain(-0.195), "-0.195");
        assert_eq!(plain(f64::NAN), "NaN");
        assert_eq!(plain(100.0), "100");
    }

    #[test]
    fn control_characters_are_shown_as_unknown_ones() {
        assert_eq!(printable("a\x1b[2J\nb µ"), "a\u{fffd}[2J\u{fffd}b µ");
        assert_eq!(counted(1, "index", "indices"), "1 index");
        assert_eq!(counted(0, "index", "indices"), "0 indices");
    }
}
