//! Which samples each pixel covers: pure functions over times and rates.

use crate::mef::Channel;

/// How often a rounded division is put right: it is off by one at most, as long as
/// times have numbers in f64.
const MOST_STEPS: usize = 4;

/// The samples of a channel by their numbers, counted from its start. A block's first
/// sample has the number that its time is nearest to, one right between two the lower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) start_uutc: i64,
    /// Samples a second, in Hz.
    pub(super) rate: f64,
}

impl Line {
    pub(super) fn of(channel: &Channel) -> Self {
        Self {
            start_uutc: channel.start_uutc,
            rate: channel.sampling_frequency,
        }
    }

    /// The time of a sample, uUTC, to the nearest microsecond.
    pub(super) fn time_of(&self, sample: i64) -> i64 {
        let distance = sample as f64 * 1e6 / self.rate;
        self.start_uutc.saturating_add(distance.round() as i64)
    }

    /// The sample that is nearest to a time, uUTC.
    pub(super) fn nearest(&self, uutc: i64) -> i64 {
        let distance = uutc.saturating_sub(self.start_uutc) as f64;
        ceil(distance * self.rate / 1e6 - 0.5)
    }

    /// The samples of a block, by its start in uUTC.
    pub(super) fn range_of(&self, start_uutc: i64, samples: u32) -> (i64, i64) {
        let first = self.nearest(start_uutc);
        (first, first.saturating_add(i64::from(samples)))
    }

    /// The first sample whose time is not earlier than one in uUTC.
    fn first_from(&self, uutc: i64) -> i64 {
        let distance = uutc.saturating_sub(self.start_uutc) as f64 - 0.5;
        let mut sample = ceil(distance * self.rate / 1e6);
        for _ in 0..MOST_STEPS {
            let before = sample.saturating_sub(1);
            if self.time_of(before) < uutc || before == sample {
                break;
            }
            sample = before;
        }
        for _ in 0..MOST_STEPS {
            if self.time_of(sample) >= uutc {
                break;
            }
            sample = sample.saturating_add(1);
        }
        sample
    }
}

/// The least whole number that is not below a value, or what is nearest to it: as
/// [`f64::ceil`], which is a call of a function where processors of the first 64-bit
/// generation are served, too.
fn ceil(value: f64) -> i64 {
    let whole = value as i64;
    whole.saturating_add(i64::from((whole as f64) < value))
}

/// A half-open span of time, uUTC, in so many pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) start_uutc: i64,
    pub(super) end_uutc: i64,
    pub(super) pixels: u32,
}

impl Division {
    /// The first microsecond that is not before a pixel's start.
    fn edge(&self, pixel: u32) -> i64 {
        let length = i128::from(self.end_uutc) - i128::from(self.start_uutc);
        let length = u128::try_from(length).unwrap_or(0);
        // At most 2^32 times 2^64.
        let distance = (u128::from(pixel) * length).div_ceil(u128::from(self.pixels.max(1)));
        let edge = i128::from(self.start_uutc) + i128::try_from(distance).unwrap_or(i128::MAX);
        i64::try_from(edge).unwrap_or(self.end_uutc)
    }
}

/// Consecutive pixels by the samples that they cover: each begins where the one before
/// it ends.
#[derive(Clone, Debug)]
pub(super) struct Pixels {
    line: Line,
    division: Division,
    first_pixel: u32,
    /// The first sample of each, and the end of the last.
    starts: Vec<i64>,
}

impl Pixels {
    /// So many pixels of a division, at most those that it has.
    pub(super) fn new(line: Line, division: Division, first_pixel: u32, pixels: u32) -> Self {
        let end = first_pixel.saturating_add(pixels).min(division.pixels);
        let mut last = i64::MIN;
        let starts = (first_pixel..=end).map(|pixel| {
            last = line.first_from(division.edge(pixel)).max(last);
            last
        });
        Self {
            line,
            division,
            first_pixel,
            starts: starts.collect(),
        }
    }

    /// Whether these are the pixels of such a division from one on.
    pub(super) fn is(&self, line: Line, division: Division, first_pixel: u32) -> bool {
        self.line == line && self.division == division && self.first_pixel == first_pixel
    }

    /// Number of pixels.
    pub(super) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The samples of all of them.
    pub(super) fn samples(&self) -> (i64, i64) {
        let first = self.starts.first().copied().unwrap_or(0);
        (first, self.starts.last().copied().unwrap_or(first))
    }

    /// The time that they cover, widened by two samples and two microseconds: a bound
    /// for a search by time.
    pub(super) fn time_bounds(&self) -> (i64, i64) {
        let (first, end) = self.samples();
        let from = self.line.time_of(first.saturating_sub(2));
        let until = self.line.time_of(end.saturating_add(2));
        (from.saturating_sub(2), until.saturating_add(2))
    }

    /// The end of a pixel, counted from the first of these.
    pub(super) fn end_of(&self, pixel: usize) -> i64 {
        self.starts.get(pixel + 1).copied().unwrap_or(i64::MAX)
    }

    /// The pixel of a sample that one of them covers; `hint` is one that may be near.
    pub(super) fn of(&self, sample: i64, hint: usize) -> usize {
        for pixel in hint..hint.saturating_add(3) {
            let edges = (self.starts.get(pixel), self.starts.get(pixel + 1));
            if let (Some(&start), Some(&end)) = edges
                && (start..end).contains(&sample)
            {
                return pixel;
            }
        }
        let after = self.starts.partition_point(|&start| start <= sample);
        after.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_700_000_000_000_000;

    proptest! {
        #[test]
        fn each_sample_is_in_the_pixel_of_its_time(
            rate in prop_oneof![Just(1000.0 / 3.0), Just(256.0), Just(32.0), 0.01f64..50_000.0],
            offset in -5_000_000i64..5_000_000,
            length in 1i64..20_000_000,
            pixels in 1u32..500,
            sample in -10_000i64..10_000,
        ) {
            let line = Line { start_uutc: START, rate };
            let (start_uutc, end_uutc) = (START + offset, START + offset + length);
            let division = Division { start_uutc, end_uutc, pixels };
            let all = Pixels::new(line, division, 0, u32::MAX);
            prop_assert_eq!(all.len(), pixels as usize);
            let time = line.time_of(sample);
            let (first, end) = all.samples();
            let is_inside = (start_uutc..end_uutc).contains(&time);
            prop_assert_eq!((first..end).contains(&sample), is_inside);
            if is_inside {
                let expected = i128::from(time - start_uutc) * i128::from(pixels) / i128::from(length);
                prop_assert_eq!(all.of(sample, 0) as i128, expected);
                prop_assert_eq!(all.of(sample, pixels as usize / 2) as i128, expected);
                let later = Pixels::new(line, division, expected as u32, 1);
                prop_assert_eq!((later.len(), later.of(sample, 7)), (1, 0));
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_those_of_the_library(value: f64, near in -1e6f64..1e6) {
            for value in [value, near, near.round(), near.round() + 0.5] {
                prop_assert_eq!(ceil(value), value.ceil() as i64);
            }
        }
    }

    #[test]
    fn times_without_a_number_are_no_trouble() {
        for (start_uutc, end_uutc) in [(i64::MIN, i64::MAX), (i64::MIN, 0), (0, i64::MAX)] {
            for rate in [1e-9, 1.0, 1e12] {
                let line = Line {
                    start_uutc: START,
                    rate,
                };
                let division = Division {
                    start_uutc,
                    end_uutc,
                    pixels: 7,
                };
                let pixels = Pixels::new(line, division, 0, 7);
                assert_eq!(pixels.len(), 7);
                let (first, end) = pixels.samples();
                assert!(first <= end);
                pixels.time_bounds();
                line.range_of(i64::MIN, u32::MAX);
                line.range_of(i64::MAX, u32::MAX);
            }
        }
    }
}
