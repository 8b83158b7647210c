//! Spoils sessions in every way that we could think of, and holds what is answered
//! against the truth: equal, or a typed error, or a reported mask. No panic, no
//! abort, no hang, no silent NaN.
//!
//! 2,000 mutants by default. The full run:
//! `MEF3_MUTANTS=20000 cargo test --release --test mutations -- --nocapture`.
//! One of them again: `MEF3_MUTANT=<number>`, and `MEF3_MUTATION_SEED=<seed>` for
//! other mutants.

#[path = "mutations/base.rs"]
mod base;
mod common;
#[path = "mutations/held.rs"]
mod held;
#[path = "mutations/judge.rs"]
mod judge;
#[path = "mutations/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Base;
use judge::{Judge, Verdict};
use mutate::{KINDS, Mutation};

procspawn::enable_test_support!();

/// Longest time for all questions about one mutant.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Most memory of this process at any time, in KiB.
const MEMORY_LIMIT_KIB: u64 = 512 * 1024;

/// The mutant at hand, for the watch.
static AT_HAND: AtomicU64 = AtomicU64::new(0);
static DESCRIPTION: Mutex<String> = Mutex::new(String::new());

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Ends the process where one mutant takes too long: a hang cannot be caught.
fn watch() {
    std::thread::spawn(|| {
        let mut seen = u64::MAX;
        loop {
            std::thread::sleep(TIME_LIMIT);
            let number = AT_HAND.load(Ordering::SeqCst);
            if number == seen {
                eprintln!("mutant {number} hangs: {}", DESCRIPTION.lock().unwrap());
                std::process::abort();
            }
            seen = number;
        }
    });
}

/// What became of the mutants of one kind.
#[derive(Default)]
struct Tally {
    verdicts: BTreeMap<Verdict, u64>,
}

#[test]
fn mutants_are_answered_truly_or_refused() {
    let seed = setting("MEF3_MUTATION_SEED").unwrap_or(1);
    let only = setting("MEF3_MUTANT");
    let mutants = setting("MEF3_MUTANTS").unwrap_or(2000);
    let bases = Base::all();
    let mut judge = Judge::new();
    for base in &bases {
        judge.undamaged(base);
    }
    watch();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut made = 0;
    for number in only.unwrap_or(0).. {
        if made == only.map_or(mutants, |_| 1) {
            break;
        }
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003) ^ number);
        // Each kind in turn, each base for each of them.
        let kind = KINDS[(number % KINDS.len() as u64) as usize];
        let base = &bases[(number / KINDS.len() as u64) as usize % bases.len()];
        let Some(mutation) = Mutation::apply(kind, base, &mut rng) else {
            assert!(only.is_none(), "there is no such mutant");
            continue;
        };
        made += 1;
        *DESCRIPTION.lock().unwrap() = format!("{}: {}", base.name, mutation.description);
        AT_HAND.store(number + 1, Ordering::SeqCst);
        let outcome = judge.judge(base, &mutation, number);
        let description = mutation.description.clone();
        mutation.undo();
        match outcome {
            Ok(verdict) => {
                let tally = tallies.entry(kind.name()).or_default();
                *tally.verdicts.entry(verdict).or_default() += 1;
            }
            Err(reason) => failures.push(format!(
                "MEF3_MUTATION_SEED={seed} MEF3_MUTANT={number}: {}, {}: {reason}",
                base.name, description
            )),
        }
    }
    judge.finish();
    report(&tallies);
    assert!(
        failures.is_empty(),
        "{} of {mutants} mutants:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    let peak = peak_kib();
    println!("peak memory: {} MiB", peak / 1024);
    assert!(peak < MEMORY_LIMIT_KIB, "{peak} KiB");
    if only.is_none() {
        for kind in KINDS {
            let tally = tallies.get(kind.name());
            let verdicts = tally.map(|tally| &tally.verdicts);
            // One that never does harm is none.
            let harmed = verdicts.is_some_and(|v| v.keys().any(|&v| v != Verdict::Equal));
            assert!(harmed || mutants < 1000, "no effect: {}", kind.name());
        }
    }
}

fn report(tallies: &BTreeMap<&str, Tally>) {
    let mut all: BTreeMap<Verdict, u64> = BTreeMap::new();
    for (kind, tally) in tallies {
        println!("{kind:24} {:?}", tally.verdicts);
        for (&verdict, count) in &tally.verdicts {
            *all.entry(verdict).or_default() += count;
        }
    }
    println!(
        "{:24} {all:?}, {} mutants",
        "all",
        all.values().sum::<u64>()
    );
}

/// Most memory that the process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
