//! Makes plans of sessions from options.

use std::path::Path;

use fastrand::Rng;

use super::options::{Choices, WRITERS, Writer};
use super::plan::{
    Call, Channel, Plan, Precision, Record, Samples, Subject, beside, tick, usual_block_samples,
};
use super::reconcile::{forget_without_effect, reconcile};
use super::signal::{self, FLOAT_LIMIT};

const START: i64 = 1_600_000_000_000_000;
const DAY: i64 = 86_400_000_000;

/// Units per count of decimal numbers that are multiples of something.
const STEP: f64 = 0.195;

/// Names that some program once took for something else.
const NAMES: [&str; 12] = [
    "EEG Fp1-Ref",
    "a.b.c",
    "µ électrode",
    "脳波 1",
    "x-000000",
    "$A1",
    "with  two spaces",
    "100%",
    "#7",
    "-dash",
    "Straße 9",
    "a name that has sixty-three characters, the most that there are",
];

/// Session number `number`. The writers take turns.
pub fn plan(seed: u64, number: u64, folder: &Path) -> Plan {
    let writer = WRITERS[(number % 3) as usize];
    let mut choices = Choices::draw(seed, writer, number / 3);
    let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003) ^ number);
    reconcile(&mut choices, writer);
    let unusual = choices.is("names", "unusual");
    let name = match unusual {
        true => format!("{number} Näme of 1.5 sessions.mefd"),
        false => format!("{number}.mefd"),
    };
    let mut plan = Plan {
        number,
        writer,
        input: choices.of("input"),
        path: folder.join(name),
        passwords: match choices.of("passwords") {
            "both" => Some(["level-one", "level-two"]),
            // Beyond ASCII, the bytes of a password are those of Latin-1.
            "latin" => Some(["é", "naïve-pass"]),
            _ => None,
        },
        subject: choices.is("subject", "some").then(|| subject(&mut rng)),
        offset: match choices.is("offset", "some") {
            true => START - DAY * rng.i64(1..900),
            false => 0,
        },
        unit: choices.of("unit"),
        block_samples: match choices.of("blocks") {
            "one" => Some(1),
            "small" => Some(rng.u32(2..8)),
            "odd" => Some([13, 37, 101][rng.usize(..3)]),
            "large" => Some(5000),
            _ => None,
        },
        lossy: choices.is("compression", "lossy"),
        zeros: choices.is("nan runs", "zeros"),
        channels: Vec::new(),
        second: second(writer, &choices, &mut rng),
        records: Vec::new(),
        archive: match choices.of("archive") {
            "none" | "" => None,
            archive => Some(archive),
        },
        generate: Vec::new(),
        choices,
    };
    if plan.input == "generate" {
        generate(&mut plan, &mut rng);
    } else {
        let channels: usize = plan.choices.of("channels").parse().unwrap();
        let rate = rate(&plan.choices, &mut rng);
        for number in 0..channels {
            let channel = channel(&plan, number, rate, folder, &mut rng);
            plan.channels.push(channel);
        }
        plan.records = records(&plan, &mut rng);
    }
    // mef3io's archiver has no way to write a path that is too long for ustar.
    let long = |channel: &Channel| channel.name.len() > 40;
    if plan.archive == Some("mef3io") && plan.channels.iter().any(long) {
        plan.archive = Some("tar");
        plan.choices.set("archive", "tar");
    }
    forget_without_effect(&mut plan);
    plan
}

fn subject(rng: &mut Rng) -> Subject {
    Subject {
        name_1: "Zoë".into(),
        name_2: "Muster".into(),
        id: format!("S-{}", rng.u32(..1000)),
        location: "Room 12".into(),
        gmt_offset: [-21_600, 3600, 20_700][rng.usize(..3)],
    }
}

fn second(writer: Writer, choices: &Choices, rng: &mut Rng) -> Option<Writer> {
    match choices.of("append") {
        "reopened" => Some(writer),
        "other" => {
            let mut others = WRITERS.to_vec();
            others.retain(|&other| other != writer);
            // mef3io takes no negative factor.
            if choices.is("factor", "negative") {
                others.retain(|&other| other != Writer::Mef3io);
            }
            Some(others[rng.usize(..others.len())])
        }
        _ => None,
    }
}

fn rate(choices: &Choices, rng: &mut Rng) -> f64 {
    let rates: &[f64] = match choices.of("rate") {
        "integer" => &[250.0, 256.0, 500.0, 1000.0, 100.0],
        "fractional" => &[249.7, 1000.0 / 3.0, 512.5, 62.5, 31.25],
        "below 1 Hz" => &[0.5, 0.1, 0.25, 0.7],
        "1 Hz" => &[1.0],
        _ => &[5000.0, 32_000.0, 20_000.0, 24_414.062_5],
    };
    rates[rng.usize(..rates.len())]
}

fn channel(plan: &Plan, number: usize, rate: f64, folder: &Path, rng: &mut Rng) -> Channel {
    let choices = &plan.choices;
    let rate = match choices.is("rates", "mixed") && number > 0 {
        // mef_tools has blocks of ten seconds, and crashes where that is no sample.
        true => (rate * [0.5, 2.0, 1.0, 1.25][rng.usize(..4)]).max(0.1),
        false => rate,
    };
    let name = match choices.is("names", "unusual") {
        // No name twice: one stands every third place from another.
        true => NAMES[(plan.number as usize + number * 3) % NAMES.len()].to_owned(),
        false => format!("ch{number}"),
    };
    let period = 1e6 / rate;
    let start = plan_start(plan.number)
        + match choices.is("starts", "staggered") {
            true => (period * f64::from(rng.u32(..400)) * rng.f64()) as i64,
            false => 0,
        };
    let block = plan
        .block_samples
        .unwrap_or_else(|| usual_block_samples(rate));
    let calls = calls(plan, rate, start, block as usize, rng);
    let samples = calls.iter().map(|call| call.samples).sum();
    let float = plan.input == "float";
    let precision = choices.of("precision").parse().ok();
    let limit = match float {
        // mef_tools infers a precision at which large numbers leave the range of
        // counts (section 12).
        true if precision.is_none() => 1000,
        true => FLOAT_LIMIT,
        false => i32::MAX,
    };
    let counts = signal::counts(choices.of("signal"), rng, rate, samples, limit);
    let samples = match float {
        false => Samples::Counts(counts),
        true => {
            let values = match choices.is("precision", "step") {
                true => counts
                    .iter()
                    .map(|&count| f64::from(count) * STEP)
                    .collect(),
                false => signal::float(rng, &counts, precision.unwrap_or(2)),
            };
            Samples::Float(with_gaps(values, &calls))
        }
    };
    Channel {
        data: beside(folder, plan.number, &format!("{number}.raw")),
        name,
        rate,
        factor: match choices.of("factor") {
            "tenth" => 0.1,
            "tiny" => 3.25e-9,
            "large" => 1.5e6,
            "negative" => -0.25,
            _ => 1.0,
        },
        precision: match choices.is("precision", "step") {
            true => Some(Precision::Step("step")),
            false => precision.map(Precision::Places),
        },
        calls,
        samples,
    }
}

fn plan_start(number: u64) -> i64 {
    // Not all recordings begin with a whole second.
    START + (number as i64 % 7) * 3_600_123_457
}

fn with_gaps(mut values: Vec<f64>, calls: &[Call]) -> Vec<f64> {
    for call in calls {
        let ends = call.runs.iter().map(|&(first, samples)| first + samples);
        let next = call.runs.iter().skip(1).map(|&(first, _)| first);
        for (gap, end) in ends.zip(next) {
            values[call.first + gap..call.first + end].fill(f64::NAN);
        }
    }
    values
}

/// Parts of a channel: segments, and in them what is written at once.
fn calls(plan: &Plan, rate: f64, start: i64, block: usize, rng: &mut Rng) -> Vec<Call> {
    let choices = &plan.choices;
    let period = 1e6 / rate;
    let segments = match choices.of("segments") {
        "one" => 1,
        _ => rng.u32(2..5),
    };
    let mut calls: Vec<Call> = Vec::new();
    let (mut time, mut first) = (start, 0);
    for segment in 0..segments {
        let parts = match choices.of("append") {
            "none" => 1,
            _ => rng.usize(2..4),
        };
        for part in 0..parts {
            if !calls.is_empty() {
                let apart = part == 0 && choices.is("segments", "apart");
                time += match choices.of("gaps") {
                    _ if apart => (period * (1.0 + 300.0 * rng.f64())) as i64,
                    "off grid" => (period * (1.0 + 40.0 * rng.f64())) as i64,
                    // mef_tools refuses what begins before the end.
                    "jitter" if plan.input == "float" => (period * 0.4 * rng.f64()) as i64,
                    _ => 0,
                };
            }
            let jitter = match choices.of("gaps") {
                // Others take what begins less than half a sample early.
                "jitter" if plan.input != "float" => (period * (0.48 * rng.f64() - 0.24)) as i64,
                _ => 0,
            };
            let samples = match choices.of("signal") {
                "single" => 1,
                _ if rng.u8(..12) == 0 => 1,
                _ => rng.usize(2..500),
            };
            let mut runs = runs(choices.of("gaps"), samples, block, rng);
            if plan.lossy && part == 0 && runs[0].1 % block == 1 {
                // No lossy block of one sample.
                runs[0].1 += 1;
                runs[1..].iter_mut().for_each(|(first, _)| *first += 1);
            }
            let (last, length) = runs[runs.len() - 1];
            let samples = last + length;
            let call = Call {
                start: time + jitter,
                first,
                samples,
                runs,
                segment,
                begins_segment: part == 0,
                opening: 0,
            };
            first += samples;
            time = tick(time, samples, rate);
            calls.push(call);
        }
    }
    if plan.second.is_some() && calls.len() > 1 {
        let from = rng.usize(1..calls.len());
        calls[from..].iter_mut().for_each(|call| call.opening = 1);
    }
    calls
}

/// Where a call has samples, by the kind of its gaps. About as many as `samples`.
fn runs(gaps: &str, samples: usize, block: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let cut = |at: usize, gap: usize| match at {
        0 => vec![(0, samples)],
        at if at >= samples => vec![(0, samples)],
        at => vec![(0, at), (at + gap, samples - at)],
    };
    match gaps {
        "one sample" => cut(rng.usize(..samples), 1),
        "short" => cut(rng.usize(..samples), rng.usize(2..20)),
        "long" => cut(rng.usize(..samples), rng.usize(300..3000)),
        "at border" => {
            let blocks = samples.div_ceil(block).max(2);
            let gap = [1, block, rng.usize(1..50)][rng.usize(..3)];
            cut(block * rng.usize(1..blocks), gap)
        }
        "many" => {
            let mut runs = Vec::new();
            let mut first = 0;
            while first < samples {
                let length = rng.usize(1..30);
                runs.push((first, length));
                first += length + rng.usize(1..12);
            }
            runs
        }
        _ => vec![(0, samples)],
    }
}

fn records(plan: &Plan, rng: &mut Rng) -> Vec<Record> {
    let channel = &plan.channels[rng.usize(..plan.channels.len())];
    let (start, end) = (channel.calls[0].start, channel.calls.last().unwrap().start);
    let mut records = Vec::new();
    let wanted = plan.choices.of("records");
    let every = [
        "Note", "SyLg", "EDFA", "LNTP", "CSti", "ESti", "Seiz", "Curs", "Epoc",
    ];
    let kinds: &[&str] = match wanted {
        "none" | "" => &[],
        "every type" => &every,
        _ => &every[..3],
    };
    // pymef takes the length of a text in characters for that in bytes (README of
    // the corpus, "Writer behaviour"), which its script can put right, mef_tools'
    // not.
    let ascii = plan.writer == Writer::Pymef && plan.input == "float";
    for (number, &kind) in (0..).zip(kinds.iter().cycle().take(kinds.len() * 2)) {
        let text = match ascii {
            true => format!("event {number}"),
            false => format!("ünïcode – {number}"),
        };
        let level = match wanted {
            "every type" | "both" => ["session", "channel", "segment"][rng.usize(..3)],
            level => level,
        };
        let of_channel = level != "session";
        let of_segment = level == "segment" && plan.writer == Writer::Pymef;
        // Those who write anew what is there are left to one opening.
        let appendable = plan.writer != Writer::Pymef && plan.second == Some(plan.writer);
        records.push(Record {
            kind,
            time: start + rng.i64(0..=(end - start).max(1)),
            text,
            duration: rng.i64(0..1_000_000),
            channel: of_channel.then(|| channel.name.clone()),
            segment: of_segment.then_some(0),
            opening: u32::from(appendable && rng.bool()),
        });
    }
    records
}

/// A session of the command-line program.
fn generate(plan: &mut Plan, rng: &mut Rng) {
    let choices = &plan.choices;
    let rate = rate(choices, rng);
    let second = match choices.is("rates", "mixed") {
        true => format!(",{}", rate * 1.25),
        false => String::new(),
    };
    let samples = rng.usize(200..1500);
    let seconds = samples as f64 / rate;
    let mut course = format!(" --seed {}", rng.u32(..));
    if choices.is("gaps", "long") {
        let gap = seconds / 10.0;
        course += &format!(" --gaps {} --gap-seconds {gap}", rng.u32(1..4));
    }
    if !choices.is("segments", "one") {
        course += &format!(" --segments {}", rng.u32(2..5));
    }
    if choices.is("records", "session") {
        course += &format!(" --records {}", rng.u32(1..9));
    }
    let mut first = format!(
        "--channels {} --rate {rate}{second} --seconds {seconds} --start {}{course}",
        choices.of("channels"),
        plan_start(plan.number)
    );
    if let Some(samples) = plan.block_samples {
        first += &format!(" --block-samples {samples}");
    }
    if plan.passwords.is_some() {
        first += " --encrypt";
    }
    plan.generate.push(first);
    if choices.is("append", "reopened") {
        let more = format!("--append --seconds {}{course}", seconds / 3.0);
        plan.generate.push(more);
    }
}
