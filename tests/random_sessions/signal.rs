//! What is recorded.

use fastrand::Rng;
use mef3_server::mef::synth::Synth;

/// Least count of the signals that are given as decimal numbers: rounding must not
/// leave the range of counts.
pub const FLOAT_LIMIT: i32 = i32::MAX - 4096;

/// Counts of one of the signals of the options. `limit` is the largest magnitude.
pub fn counts(signal: &str, rng: &mut Rng, rate: f64, samples: usize, limit: i32) -> Vec<i32> {
    match signal {
        "constant" => vec![[0, 1, -1, 77, limit, -limit][rng.usize(..6)]; samples],
        "extreme" => extreme(rng, samples, limit),
        "noise" => (0..samples).map(|_| rng.i32(-1000..=1000)).collect(),
        "ramp" => {
            let step = [1, -1, 127, 128, -128, -129, 40_000][rng.usize(..7)];
            (0..samples as i32).map(|sample| sample * step).collect()
        }
        "null" => (0..samples)
            .map(|_| match rng.u8(..8) {
                0 => i32::MIN,
                _ => rng.i32(-50..50),
            })
            .collect(),
        _ => {
            let mut counts = vec![0; samples];
            Synth::new(rng.u64(..), rng.u32(..8), rate).fill(&mut counts);
            counts
        }
    }
}

fn extreme(rng: &mut Rng, samples: usize, limit: i32) -> Vec<i32> {
    let kind = rng.u8(..4);
    let impulse = rng.usize(..samples);
    let edges = [
        0, 127, 0, 128, 0, -127, 0, -128, 0, -129, 129, 32_767, -32_768,
    ];
    (0..samples)
        .map(|sample| match kind {
            0 if sample % 2 == 0 => limit,
            0 => -limit,
            1 => rng.i32(-limit..=limit),
            2 if sample == impulse => limit,
            2 => 0,
            _ => edges[sample % edges.len()],
        })
        .collect()
}

/// The counts as decimal numbers, none of which is half-way between two.
pub fn float(rng: &mut Rng, counts: &[i32], precision: u32) -> Vec<f64> {
    let scale = 10f64.powi(precision as i32);
    let values = counts
        .iter()
        .map(|&count| (f64::from(count) + 0.6 * rng.f64() - 0.3) / scale);
    values.collect()
}
