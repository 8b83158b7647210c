//! The options of a session, and how they are spread over the sessions: each value
//! comes with each writer that can do it, in an order of its own for each option,
//! so that any two of them meet sooner or later.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Writer {
    Mef3io,
    Pymef,
    Ours,
}

pub const WRITERS: [Writer; 3] = [Writer::Mef3io, Writer::Pymef, Writer::Ours];

/// The values of an option that a writer has.
type Options = Vec<(&'static str, &'static [&'static str])>;

/// What a writer can do. `generate` is the command-line program, which has few
/// options of its own.
pub fn options(writer: Writer) -> Options {
    let mut options: Options = vec![
        (
            "rate",
            &["integer", "fractional", "below 1 Hz", "1 Hz", "high"],
        ),
        ("rates", &["same", "mixed"]),
        ("channels", &["1", "2", "3", "4"]),
        ("blocks", &["default", "one", "small", "odd", "large"]),
        ("segments", &["one", "contiguous", "apart"]),
        (
            "gaps",
            &[
                "none",
                "one sample",
                "short",
                "long",
                "at border",
                "many",
                "off grid",
                "jitter",
            ],
        ),
        ("starts", &["together", "staggered"]),
        ("unit", &["uV", "µV", "mV", "", "count"]),
        ("passwords", &["none", "both", "latin"]),
        ("append", &["none", "same", "reopened", "other"]),
        ("subject", &["none", "some"]),
        ("archive", &["none", "mef3io", "tar"]),
        ("names", &["plain", "unusual"]),
    ];
    match writer {
        Writer::Mef3io => options.extend([
            ("input", &["counts", "float"] as &[_]),
            ("precision", &["inferred", "step", "0", "2", "3", "6"]),
            ("records", &["none", "session", "channel", "both"]),
            ("factor", &["one", "tenth", "tiny", "large"]),
            ("signal", SIGNALS),
        ]),
        Writer::Pymef => options.extend([
            ("input", &["counts", "float"] as &[_]),
            ("precision", &["inferred", "0", "2", "3", "6"]),
            (
                "records",
                &["none", "session", "channel", "segment", "every type"],
            ),
            ("factor", &["one", "tenth", "tiny", "large", "negative"]),
            ("signal", SIGNALS),
            ("offset", &["none", "some"]),
            ("compression", &["lossless", "lossy"]),
            ("nan runs", &["gaps", "zeros"]),
        ]),
        Writer::Ours => options.extend([
            ("input", &["counts", "counts", "counts", "generate"] as &[_]),
            ("records", &["none", "session", "channel", "every type"]),
            ("factor", &["one", "tenth", "tiny", "large", "negative"]),
            ("signal", SIGNALS),
            ("offset", &["none", "some"]),
        ]),
    }
    options
}

const SIGNALS: &[&str] = &[
    "constant", "extreme", "noise", "ieeg", "ramp", "null", "single",
];

/// The options that a session has: those that have an effect.
#[derive(Clone, Debug, Default)]
pub struct Choices(BTreeMap<&'static str, &'static str>);

impl Choices {
    /// Draws the options of session number `turn` of a writer. Each option has a
    /// deck of its own, shuffled anew when it is used up.
    pub fn draw(seed: u64, writer: Writer, turn: u64) -> Self {
        let draw = |(number, (option, values)): (u64, (&'static str, &[&'static str]))| {
            let length = values.len() as u64;
            let deck = [seed, writer as u64, number, turn / length];
            let deck = deck
                .iter()
                .fold(17, |hash: u64, part| hash.wrapping_mul(1_000_003) ^ part);
            let mut order: Vec<usize> = (0..values.len()).collect();
            fastrand::Rng::with_seed(deck).shuffle(&mut order);
            (option, values[order[(turn % length) as usize]])
        };
        Self((0..).zip(options(writer)).map(draw).collect())
    }

    /// The value of an option; of one that the session has not, the empty text.
    pub fn of(&self, option: &str) -> &'static str {
        self.0.get(option).copied().unwrap_or_default()
    }

    pub fn is(&self, option: &str, value: &str) -> bool {
        self.0.get(option) == Some(&value)
    }

    /// Replaces the value of an option that the session cannot have with others.
    pub fn set(&mut self, option: &'static str, value: &'static str) {
        self.0.insert(option, value);
    }

    /// Leaves out options that have no effect.
    pub fn forget(&mut self, options: &[&str]) {
        self.0.retain(|option, _| !options.contains(option));
    }

    /// Keeps only these options.
    pub fn keep(&mut self, options: &[&str]) {
        self.0.retain(|option, _| options.contains(option));
    }
}

type Value = (&'static str, &'static str);

/// The number of pairs of values of different options, of all writers.
fn pairs() -> usize {
    let of_writer = |writer| {
        let options = options(writer).into_iter();
        let numbers = options.map(|(_, values)| values.iter().collect::<BTreeSet<_>>().len());
        let numbers: Vec<usize> = numbers.collect();
        let all: usize = numbers.iter().sum();
        numbers.iter().map(|n| n * (all - n)).sum::<usize>() / 2
    };
    WRITERS.into_iter().map(of_writer).sum()
}

/// How often each value of each option was there, and which pairs of them.
#[derive(Default)]
pub struct Coverage {
    single: BTreeMap<(Writer, Value), u64>,
    pairs: BTreeSet<(Writer, Value, Value)>,
}

impl Coverage {
    pub fn add(&mut self, writer: Writer, choices: &Choices) {
        for (&option, &value) in &choices.0 {
            let first = (option, value);
            *self.single.entry((writer, first)).or_default() += 1;
            for (&option, &value) in choices.0.range(option..).skip(1) {
                self.pairs.insert((writer, first, (option, value)));
            }
        }
    }

    /// Prints a table of values and their counts by writer, and gives those that
    /// were not there.
    pub fn report(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut all: BTreeMap<Value, [Option<u64>; 3]> = BTreeMap::new();
        for writer in WRITERS {
            for (option, values) in options(writer) {
                for &value in values {
                    let count = self.single.get(&(writer, (option, value)));
                    let count = count.copied().unwrap_or(0);
                    all.entry((option, value)).or_default()[writer as usize] = Some(count);
                    if count == 0 {
                        missing.push(format!("{writer:?}, {option} {value:?}"));
                    }
                }
            }
        }
        println!(
            "{:24} {:>7} {:>7} {:>7}",
            "option", "mef3io", "pymef", "ours"
        );
        for ((option, value), counts) in all {
            let counts = counts.map(|count| count.map_or("-".into(), |count| count.to_string()));
            let [mef3io, pymef, ours] = counts;
            println!(
                "{:24} {mef3io:>7} {pymef:>7} {ours:>7}",
                format!("{option} {value:?}")
            );
        }
        println!("pairs of values: {} of {}", self.pairs.len(), pairs());
        missing
    }

    /// The share of pairs of values that were there. Some exclude each other.
    pub fn share_of_pairs(&self) -> f64 {
        self.pairs.len() as f64 / pairs() as f64
    }
}
