//! A synthetic signal that looks like intracranial EEG, for tests, benchmarks
//! and demonstrations.
//!
//! Counts of 0.1 uV: noise whose power falls with frequency, mains hum, a slow
//! drift, and now and then a sharp spike. The noise is a sum of leaky
//! integrators with spaced corner frequencies, each fed with one byte of a
//! random word a sample. Only additions and multiplications make the samples,
//! so a seed gives the same signal on every machine.

use fastrand::Rng;

/// Units per count of the signal.
pub const UNITS_CONVERSION_FACTOR: f64 = 0.1;
/// The unit of [`UNITS_CONVERSION_FACTOR`].
pub const UNITS_DESCRIPTION: &str = "uV";

/// Corner frequencies of the integrators in Hz.
const CORNERS: [f64; 8] = [0.1, 0.32, 1.0, 3.2, 10.0, 32.0, 100.0, 320.0];
/// What each integrator adds, as standard deviation in counts.
const DEVIATIONS: [f64; 8] = [160.0, 140.0, 120.0, 80.0, 45.0, 20.0, 8.0, 4.0];
/// Standard deviation of a uniformly distributed byte.
const BYTE_DEVIATION: f64 = 73.9;

const HUM_HZ: f64 = 60.0;
const HUM_COUNTS: f32 = 12.0;
const DRIFT_HZ: f64 = 0.02;
const DRIFT_COUNTS: f32 = 150.0;

/// Rise and fall of a spike in seconds.
const SPIKE_RISE: f64 = 0.004;
const SPIKE_FALL: f64 = 0.025;
const SPIKE_COUNTS: f32 = 1200.0;
/// Least and most seconds between spikes.
const SPIKE_PAUSE: (f64, f64) = (0.3, 8.0);

/// Samples that are made at a time.
const STRETCH: usize = 256;
/// Steps of a phase accumulator in a full turn.
const FULL_TURN: f64 = 4_294_967_296.0;

/// The endless signal of one channel.
pub struct Synth {
    sampling_frequency: f64,
    noise_rng: Rng,
    noise: [f32; 8],
    decay: [f32; 8],
    gain: [f32; 8],
    hum_phase: u32,
    hum_step: u32,
    drift_phase: u32,
    drift_step: u32,
    /// Apart from the noise's, so that neither waits for the other.
    spike_rng: Rng,
    /// A spike is the difference of two decays.
    spike_fall: f32,
    spike_rise: f32,
    fall_decay: f32,
    rise_decay: f32,
    until_spike: u32,
    pause: (u32, u32),
}

impl Synth {
    /// The signal of channel `channel_index` at `sampling_frequency` Hz; every
    /// channel of a seed is different.
    pub fn new(seed: u64, channel_index: u32, sampling_frequency: f64) -> Self {
        // Unrelated to the seed's own stream, even for neighbouring indices.
        let mut rng = Rng::with_seed(seed);
        let mixed = rng.u64(..) ^ Rng::with_seed(u64::from(channel_index)).u64(..);
        rng.seed(mixed);
        let decay = CORNERS.map(|corner| decay(sampling_frequency, seconds(corner)));
        let pause_samples = |seconds: f64| (seconds * sampling_frequency) as u32;
        let least = pause_samples(SPIKE_PAUSE.0).max(1);
        let pause = (least, pause_samples(SPIKE_PAUSE.1).max(least));
        Self {
            sampling_frequency,
            noise: [0.0; 8],
            decay: decay.map(|decay| decay as f32),
            gain: std::array::from_fn(|lane| gain(decay[lane], DEVIATIONS[lane])),
            hum_phase: rng.u32(..),
            hum_step: phase_step(HUM_HZ, sampling_frequency),
            drift_phase: rng.u32(..),
            drift_step: phase_step(DRIFT_HZ, sampling_frequency),
            spike_fall: 0.0,
            spike_rise: 0.0,
            fall_decay: decay_f32(sampling_frequency, SPIKE_FALL),
            rise_decay: decay_f32(sampling_frequency, SPIKE_RISE),
            until_spike: rng.u32(pause.0..=pause.1),
            pause,
            spike_rng: rng.fork(),
            noise_rng: rng,
        }
    }

    /// The same signal with a mains hum of another frequency, in Hz.
    pub fn with_line_frequency(mut self, frequency: f64) -> Self {
        self.hum_step = phase_step(frequency, self.sampling_frequency);
        self
    }

    /// Writes the next counts of the signal to all of `out`. How the signal is
    /// cut into calls does not change it.
    pub fn fill(&mut self, out: &mut [i32]) {
        // Source by source over a stretch that stays in the nearest cache: each
        // loop keeps its few state variables in registers.
        for stretch in out.chunks_mut(STRETCH) {
            let mut room = [0.0; STRETCH];
            let (values, _) = room.split_at_mut(stretch.len());
            self.add_noise(values);
            self.add_hum_and_drift(values);
            self.add_spikes(values);
            for (sample, value) in stretch.iter_mut().zip(values) {
                *sample = *value as i32;
            }
        }
    }

    fn add_noise(&mut self, values: &mut [f32]) {
        let (mut noise, decay, gain) = (self.noise, self.decay, self.gain);
        for value in values {
            let bytes = self.noise_rng.u64(..).to_le_bytes();
            // Half a step up, so that the mean is zero.
            let white = bytes.map(|byte| f32::from(byte as i8) + 0.5);
            for lane in 0..8 {
                noise[lane] = noise[lane] * decay[lane] + white[lane] * gain[lane];
            }
            let [a, b, c, d, e, f, g, h] = noise;
            *value += ((a + e) + (b + f)) + ((c + g) + (d + h));
        }
        self.noise = noise;
    }

    fn add_hum_and_drift(&mut self, values: &mut [f32]) {
        for value in values {
            self.hum_phase = self.hum_phase.wrapping_add(self.hum_step);
            self.drift_phase = self.drift_phase.wrapping_add(self.drift_step);
            *value += HUM_COUNTS * wave(self.hum_phase) + DRIFT_COUNTS * wave(self.drift_phase);
        }
    }

    fn add_spikes(&mut self, values: &mut [f32]) {
        let (mut fall, mut rise) = (self.spike_fall, self.spike_rise);
        for value in values {
            self.until_spike -= 1;
            if self.until_spike == 0 {
                self.until_spike = self.spike_rng.u32(self.pause.0..=self.pause.1);
                let height = SPIKE_COUNTS * (0.5 + self.spike_rng.f32());
                fall -= height;
                rise -= height;
            }
            fall = fade(fall, self.fall_decay);
            rise = fade(rise, self.rise_decay);
            *value += fall - rise;
        }
        self.spike_fall = fall;
        self.spike_rise = rise;
    }
}

/// Time constant of a corner frequency.
fn seconds(corner: f64) -> f64 {
    1.0 / (std::f64::consts::TAU * corner)
}

/// What remains of a leaky integrator's value one sample later.
fn decay(sampling_frequency: f64, time_constant: f64) -> f64 {
    1.0 / (1.0 + 1.0 / (time_constant * sampling_frequency))
}

fn decay_f32(sampling_frequency: f64, time_constant: f64) -> f32 {
    decay(sampling_frequency, time_constant) as f32
}

/// The input gain that gives an integrator of random bytes the deviation.
fn gain(decay: f64, deviation: f64) -> f32 {
    (deviation * (1.0 - decay * decay).sqrt() / BYTE_DEVIATION) as f32
}

/// One step of a spike's decay. It ends at zero, since numbers too small for the
/// normal form would be slow.
fn fade(value: f32, decay: f32) -> f32 {
    let next = value * decay;
    if next < -0.01 { next } else { 0.0 }
}

/// Phase per sample; a frequency above the sampling frequency folds back.
fn phase_step(frequency: f64, sampling_frequency: f64) -> u32 {
    ((frequency / sampling_frequency).fract() * FULL_TURN) as u32
}

/// A sine in all but name: two parabolas, within 6 % of it.
fn wave(phase: u32) -> f32 {
    let turn = phase as i32 as f32 / (FULL_TURN / 2.0) as f32;
    4.0 * turn * (1.0 - turn.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(seed: u64, channel: u32, fs: f64, length: usize) -> Vec<i32> {
        let mut out = vec![0; length];
        Synth::new(seed, channel, fs).fill(&mut out);
        out
    }

    #[test]
    fn a_seed_gives_one_signal_however_it_is_cut() {
        let whole = signal(1, 2, 250.0, 10_000);
        let mut parts = vec![0; 10_000];
        let mut synth = Synth::new(1, 2, 250.0);
        for part in parts.chunks_mut(333) {
            synth.fill(part);
        }
        assert_eq!(parts, whole);
        assert_ne!(signal(2, 2, 250.0, 10_000), whole);
        assert_ne!(signal(1, 3, 250.0, 10_000), whole);
    }

    #[test]
    fn amplitude_and_steps_are_those_of_a_recording() {
        for fs in [256.0, 5000.0, 32_000.0] {
            let samples = signal(7, 0, fs, (fs * 120.0) as usize);
            let square = |value: i32| f64::from(value).powi(2);
            let count = samples.len() as f64;
            let deviation = (samples.iter().map(|&s| square(s)).sum::<f64>() / count).sqrt();
            let steps = samples.windows(2).map(|pair| square(pair[1] - pair[0]));
            let step = (steps.sum::<f64>() / count).sqrt();
            println!("{fs} Hz: deviation {deviation:.0}, step {step:.1}");
            assert!((150.0..600.0).contains(&deviation), "{fs}: {deviation}");
            assert!((2.0..80.0).contains(&step), "{fs}: {step}");
            assert!(samples.iter().all(|sample| sample.abs() < 5000));
        }
    }

    #[test]
    fn odd_sampling_frequencies_are_no_trouble() {
        for fs in [0.001, 0.5, 1.0, 59.9, 249.7, 1e6] {
            assert_eq!(signal(3, 1, fs, 1000).len(), 1000);
        }
    }
}
