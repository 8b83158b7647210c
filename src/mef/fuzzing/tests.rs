//! The fuzz targets over the seeds, mutants of them, and old findings.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::{Seed, TARGETS, Target, seeds};

/// Mutants of each target.
const MUTANTS: usize = 2000;

fn corpus() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-corpus");
    assert!(
        folder.is_dir(),
        "the reference corpus is missing: expected it at {}",
        folder.display()
    );
    folder
}

/// Runs an input; a finding is shown with the bytes that it takes to repeat it.
fn run(name: &str, target: Target, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{name} does not stand {}", hex(input));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mutant(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    const INTERESTING: [i64; 8] = [0, -1, 1, i64::MIN, i64::MAX, 1 << 31, 1 << 24, 1024];
    let mut bytes = seed.to_vec();
    for _ in 0..rng.usize(1..8) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u8(..5) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes[at] ^= 1 << rng.u8(..8),
            2 => bytes.truncate(at),
            3 => {
                let value = INTERESTING[rng.usize(..INTERESTING.len())].to_le_bytes();
                let length = [1, 2, 4, 8][rng.usize(..4)].min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&value[..length]);
            }
            _ => {
                let part = bytes[at..].iter().copied().take(rng.usize(..64)).collect();
                let part: Vec<u8> = part;
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

#[test]
fn seeds_and_mutants_of_them_keep_every_promise() {
    let seeds = seeds(&corpus()).unwrap();
    let mut rng = Rng::with_seed(1);
    for (name, target) in TARGETS {
        let own: Vec<&Seed> = seeds.iter().filter(|seed| seed.target == name).collect();
        assert!(!own.is_empty(), "{name} has no seeds");
        for seed in &own {
            run(name, target, &seed.input);
        }
        for _ in 0..MUTANTS {
            let seed = own[rng.usize(..own.len())];
            run(name, target, &mutant(&seed.input, &mut rng));
        }
    }
}

/// Every input that was a finding of the fuzzer, in a folder of its target.
#[test]
fn old_findings_are_none_any_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    for (name, target) in TARGETS {
        // Most targets have never had one.
        let Ok(items) = fs::read_dir(folder.join(name)) else {
            continue;
        };
        for item in items {
            run(name, target, &fs::read(item.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut programs: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(name, _)| format!("{name}.rs")));
}
