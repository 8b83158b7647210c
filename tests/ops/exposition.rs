//! The form of `/metrics`, judged as strictly as OpenMetrics 1.0 has it, and the names
//! as `promtool check metrics` does.

use std::collections::{BTreeMap, BTreeSet};

/// Units that names may have: the base units of Prometheus.
const UNITS: [&str; 2] = ["seconds", "bytes"];
/// Parts of names that say a unit in another way.
const NO_UNITS: [&str; 24] = [
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "secs",
    "b",
    "kb",
    "mb",
    "gb",
    "tb",
    "kib",
    "mib",
    "gib",
    "m",
    "h",
    "d",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "kilobytes",
    "megabytes",
];
const TYPES: [&str; 3] = ["counter", "gauge", "histogram"];

/// A family as it is described.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: Option<String>,
    unit: Option<String>,
    samples: usize,
}

/// One sample: the family's name with its suffix, and the labels in their order.
type Series = (String, Vec<(String, String)>);

/// All samples of an answer.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
    samples: BTreeMap<Series, f64>,
    /// The samples as they were written, so that a test can name one.
    lines: BTreeMap<String, f64>,
}

impl Exposition {
    /// Reads a whole answer. The error says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("the end is missing")?;
        let mut all = Self::default();
        let mut current: Option<String> = None;
        for line in body.split_inclusive('\n') {
            let line = line.strip_suffix('\n').ok_or("a line has no end")?;
            let at = |what: &str| format!("{what}: {line}");
            if let Some(rest) = line.strip_prefix("# ") {
                let mut parts = rest.splitn(3, ' ');
                let (Some(word), Some(name), Some(value)) =
                    (parts.next(), parts.next(), parts.next())
                else {
                    return Err(at("no description"));
                };
                if current.as_deref() != Some(name) {
                    if all.families.contains_key(name) {
                        return Err(at("the family was left, and comes again"));
                    }
                    all.families.insert(name.into(), Family::default());
                    current = Some(name.into());
                }
                let family = all.families.get_mut(name).ok_or_else(|| at("family"))?;
                family.describe(word, value).map_err(|what| at(&what))?;
                continue;
            }
            let ((name, labels), value) = sample(line).map_err(|what| at(&what))?;
            let family_name = current.as_deref().ok_or_else(|| at("no family"))?;
            let suffix = name.strip_prefix(family_name);
            let suffix = suffix.ok_or_else(|| at("a sample of another family"))?;
            let family = all.families.get_mut(family_name);
            let family = family.ok_or_else(|| at("family"))?;
            family.samples += 1;
            let may_be: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => return Err(at("no TYPE before the sample")),
            };
            if !may_be.contains(&suffix) {
                return Err(at("suffix"));
            }
            if family.kind != "gauge" && (value.is_nan() || value < 0.0) {
                return Err(at("what only grows is less than nothing"));
            }
            let has = |label: &str| labels.iter().any(|(name, _)| name == label);
            if has("le") != (suffix == "_bucket") || has("quantile") {
                return Err(at("labels that other types have"));
            }
            if all.samples.insert((name, labels), value).is_some() {
                return Err(at("the series comes twice"));
            }
            let written = line.rsplit_once(' ').map_or(line, |(written, _)| written);
            all.lines.insert(written.into(), value);
        }
        all.lint()?;
        all.check_histograms()?;
        Ok(all)
    }

    /// A sample as it is written, `name{label="value"}`; 0 where there is none.
    pub fn get(&self, written: &str) -> f64 {
        self.lines.get(written).copied().unwrap_or_default()
    }

    /// The samples that only grow.
    fn growing(&self) -> impl Iterator<Item = (&Series, f64)> {
        let grows = |(name, _): &Series| {
            ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
        };
        let samples = self.samples.iter();
        let samples = samples.map(|(series, value)| (series, *value));
        samples.filter(move |(series, _)| grows(series))
    }

    /// Says what has become less, or has gone, since an earlier answer.
    pub fn shrunk_since(&self, earlier: &Self) -> Option<String> {
        earlier.growing().find_map(|(series, before)| {
            let now = self.samples.get(series).copied();
            let grew = now.is_some_and(|now| now >= before);
            (!grew).then(|| format!("{series:?}: {now:?} after {before}"))
        })
    }

    /// The sum of the samples of a name whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |found: &[(String, String)]| {
            labels.iter().all(|(label, value)| {
                let mut found = found.iter();
                found.any(|(name, it)| name == label && it == value)
            })
        };
        let samples = self.samples.iter();
        let chosen = samples.filter(|((it, found), _)| it == name && has(found));
        chosen.map(|(_, value)| value).sum()
    }

    /// Values of one label of a name.
    pub fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.samples.keys().filter(|(it, _)| it == name);
        let labels = samples.flat_map(|(_, labels)| labels);
        let chosen = labels.filter(|(name, _)| name == label);
        chosen.map(|(_, value)| value.clone()).collect()
    }

    /// What `promtool check metrics` says of names and descriptions.
    fn lint(&self) -> Result<(), String> {
        for (name, family) in &self.families {
            let wrong = |what: &str| Err(format!("{what}: {name}"));
            if !TYPES.contains(&family.kind.as_str()) {
                return wrong("type");
            }
            if family
                .help
                .as_ref()
                .is_none_or(|help| help.trim().is_empty())
            {
                return wrong("no help");
            }
            if !is_snake_case(name) {
                return wrong("no snake_case, or a colon");
            }
            let ending = ["_total", "_count", "_sum", "_bucket", "_created", "_info"];
            if ending.iter().any(|ending| name.ends_with(ending)) {
                return wrong("a suffix that samples have");
            }
            let parts: Vec<&str> = name.split('_').collect();
            if parts.iter().any(|part| TYPES.contains(part)) {
                return wrong("the type is in the name");
            }
            if parts.iter().any(|part| NO_UNITS.contains(part)) {
                return wrong("no base unit");
            }
            let in_name = parts.last().filter(|last| UNITS.contains(last));
            if in_name.copied() != family.unit.as_deref() {
                return wrong("the unit is not the end of the name");
            }
        }
        Ok(())
    }

    fn check_histograms(&self) -> Result<(), String> {
        let histograms = self.families.iter();
        for (name, _) in histograms.filter(|(_, family)| family.kind == "histogram") {
            let mut buckets: BTreeMap<Vec<_>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((series, labels), &count) in &self.samples {
                if *series != format!("{name}_bucket") {
                    continue;
                }
                let (bound, others): (Vec<_>, Vec<_>) =
                    labels.iter().cloned().partition(|(label, _)| label == "le");
                let bound = bound_of(&bound[0].1)?;
                buckets.entry(others).or_default().push((bound, count));
            }
            let of = |suffix: &str, labels: &[(String, String)]| {
                let series = (format!("{name}_{suffix}"), labels.to_vec());
                let found = self.samples.get(&series).copied();
                found.ok_or_else(|| format!("no {series:?}"))
            };
            let counts = self.samples.keys();
            let counts = counts.filter(|(series, _)| *series == format!("{name}_count"));
            if counts.count() != buckets.len() {
                return Err(format!("{name}: counts without buckets"));
            }
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                if !buckets.is_sorted_by(|one, other| one.1 <= other.1) {
                    return Err(format!("{name}{labels:?}: buckets are not cumulative"));
                }
                let last = buckets.last().copied();
                let count = of("count", &labels)?;
                if last != Some((f64::INFINITY, count)) {
                    return Err(format!("{name}{labels:?}: {last:?} is not all, {count}"));
                }
                let sum = of("sum", &labels)?;
                if count == 0.0 && sum != 0.0 {
                    return Err(format!("{name}{labels:?}: a sum of nothing"));
                }
            }
        }
        Ok(())
    }
}

impl Family {
    fn describe(&mut self, word: &str, value: &str) -> Result<(), String> {
        if self.samples > 0 {
            return Err("described after its samples".into());
        }
        let again = match word {
            "HELP" => {
                unescape(value, false)?;
                self.help.replace(value.into()).is_some()
            }
            "UNIT" => self.unit.replace(value.into()).is_some(),
            "TYPE" => !std::mem::replace(&mut self.kind, value.into()).is_empty(),
            _ => return Err("no description".into()),
        };
        match again {
            true => Err("described twice".into()),
            false => Ok(()),
        }
    }
}

/// `name{label="value",...} number`.
fn sample(line: &str) -> Result<(Series, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_snake_case(name) {
        return Err("name".into());
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"").ok_or("label")?;
            if !is_snake_case(label) || labels.iter().any(|(it, _)| it == label) {
                return Err(format!("label {label}"));
            }
            let end = closing_quote(value).ok_or("a label is not closed")?;
            labels.push((label.into(), unescape(&value[..end], true)?));
            rest = &value[end + 1..];
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    let number: f64 = value.parse().map_err(|_| "no number")?;
    // What Rust takes and OpenMetrics does not.
    if value.starts_with("inf") || value.contains("infinity") || value.contains("nan") {
        return Err("number".into());
    }
    Ok(((name.into(), labels), number))
}

/// Where the quote that closes a value is.
fn closing_quote(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str, quoted: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match (letter, quoted) {
            ('\\', _) => match letters.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') => '"',
                other => return Err(format!("escape {other:?}")),
            },
            ('"', true) => return Err("a quote that is not escaped".into()),
            (letter, _) => letter,
        });
    }
    Ok(plain)
}

/// The bound of a bucket, which has to be written in the one way that there is.
fn bound_of(text: &str) -> Result<f64, String> {
    let bound = match text {
        "+Inf" => return Ok(f64::INFINITY),
        text => text.parse::<f64>().map_err(|_| format!("le={text}"))?,
    };
    match bound.is_finite() && format!("{bound:?}") == text {
        true => Ok(bound),
        false => Err(format!("le={text} is not written as it should be")),
    }
}

fn is_snake_case(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(fits)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# HELP mef3_calls Calls.
# TYPE mef3_calls counter
mef3_calls_total{rpc=\"a\\\"\\\\\\n\",code=\"OK\"} 3
mef3_calls_total{rpc=\"b\",code=\"OK\"} 1
# HELP mef3_took_seconds Time.
# TYPE mef3_took_seconds histogram
# UNIT mef3_took_seconds seconds
mef3_took_seconds_sum 1.5
mef3_took_seconds_count 2
mef3_took_seconds_bucket{le=\"0.5\"} 1
mef3_took_seconds_bucket{le=\"10.0\"} 2
mef3_took_seconds_bucket{le=\"+Inf\"} 2
# HELP mef3_ready Whether.
# TYPE mef3_ready gauge
mef3_ready 1
# EOF
";

    #[test]
    fn what_is_right_is_taken() {
        let all = Exposition::parse(GOOD).unwrap();
        assert_eq!(all.get("mef3_ready"), 1.0);
        assert_eq!(all.sum("mef3_calls_total", &[("code", "OK")]), 4.0);
        let rpcs = all.values("mef3_calls_total", "rpc");
        assert!(rpcs.contains("a\"\\\n"), "{rpcs:?}");
        let later = GOOD.replace("code=\"OK\"} 3", "code=\"OK\"} 4");
        let later = Exposition::parse(&later).unwrap();
        assert_eq!(later.shrunk_since(&all), None);
        assert!(
            all.shrunk_since(&later)
                .unwrap()
                .contains("mef3_calls_total")
        );
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (right, wrong) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF\n\n"),
            ("# TYPE mef3_ready gauge\n", ""),
            ("# HELP mef3_ready Whether.\n", ""),
            ("mef3_ready 1\n", "mef3_ready 1\nmef3_ready 1\n"),
            ("mef3_ready 1\n", "mef3_ready 1\n\n"),
            ("mef3_ready 1\n", "mef3_ready one\n"),
            ("mef3_ready 1\n", "mef3_ready inf\n"),
            ("mef3_ready 1\n", "mef3_ready 1\n# TYPE mef3_ready gauge\n"),
            ("mef3_calls_total{rpc=\"b\"", "mef3_calls{rpc=\"b\""),
            (
                "mef3_calls_total{rpc=\"b\"",
                "mef3_calls_total{rpc=\"b\",rpc=\"c\"",
            ),
            ("rpc=\"b\",code", "rpc=\"b\"code"),
            ("{rpc=\"b\",code=\"OK\"} 1", "{rpc=\"b\",code=\"OK\"} -1"),
            ("\\\\\\n", "\\t"),
            ("mef3_calls_total{rpc=\"b\"", "mef3_calls_total{le=\"1.0\""),
            ("bucket{le=\"0.5\"} 1", "bucket{le=\"0.5\"} 3"),
            ("bucket{le=\"+Inf\"} 2", "bucket{le=\"+Inf\"} 3"),
            ("mef3_took_seconds_bucket{le=\"+Inf\"} 2\n", ""),
            ("le=\"10.0\"", "le=\"10\""),
            ("mef3_took_seconds_sum 1.5\n", ""),
            ("# UNIT mef3_took_seconds seconds\n", ""),
            (
                "# UNIT mef3_took_seconds seconds",
                "# UNIT mef3_took_seconds bytes",
            ),
            ("mef3_ready", "mef3_ready_ms"),
            ("mef3_ready", "mef3_readyNow"),
            ("mef3_ready", "mef3:ready"),
            ("mef3_ready", "mef3_ready_total"),
            ("mef3_ready", "mef3_ready_gauge"),
        ] {
            let text = GOOD.replace(right, wrong);
            assert_ne!(text, GOOD, "{right}");
            assert!(Exposition::parse(&text).is_err(), "{wrong} for {right}");
        }
    }
}
