//! Order-preserving extrema: two values for each bucket, its least and its greatest
//! sample in the order in which they occur. The result is a signal at a lower rate in
//! which every spike survives, unlike one of which samples are left out.

use std::ops::Range;

use super::Buckets;

/// A row on its way through the reduction.
#[derive(Clone, Debug)]
pub(crate) struct OrderedRow {
    buckets: Buckets,
    /// The bucket after the last that is made.
    last: u64,
    /// The sample that comes next.
    next: u64,
    bucket: u64,
    /// The sample at which the bucket ends.
    end: u64,
    extrema: Option<Extrema>,
}

/// What was seen of a bucket: values, and the samples that have them first.
#[derive(Clone, Copy, Debug)]
struct Extrema {
    least: (f64, u64),
    greatest: (f64, u64),
}

impl OrderedRow {
    /// Makes `pairs` pairs, at least one, of `samples` samples.
    pub(crate) fn new(samples: u64, pairs: u64) -> Self {
        let buckets = Buckets {
            samples,
            buckets: pairs.max(1),
        };
        Self {
            buckets,
            last: buckets.buckets,
            next: 0,
            bucket: 0,
            end: buckets.start(1),
            extrema: None,
        }
    }

    /// The same, of which only some pairs are made, and only [their
    /// samples](Self::samples) are fed.
    pub(crate) fn between(mut self, pairs: Range<u64>) -> Self {
        self.bucket = pairs.start;
        self.last = pairs.end.min(self.last);
        self.next = self.buckets.start(pairs.start);
        self.end = self.buckets.start(pairs.start + 1);
        self
    }

    /// The samples that are still to be fed.
    pub(crate) fn samples(&self) -> Range<u64> {
        self.next..self.buckets.start(self.last)
    }

    /// Takes the next samples, and appends the pairs that are complete by them.
    pub(crate) fn feed(&mut self, samples: &[f64], pairs: &mut Vec<f32>) {
        for &sample in samples {
            self.close_until(self.next, pairs);
            if !sample.is_nan() {
                let here = (sample, self.next);
                let extrema = self.extrema.get_or_insert(Extrema {
                    least: here,
                    greatest: here,
                });
                if sample < extrema.least.0 {
                    extrema.least = here;
                }
                if sample > extrema.greatest.0 {
                    extrema.greatest = here;
                }
            }
            self.next += 1;
        }
        self.close_until(self.next, pairs);
    }

    /// Appends all pairs that are still to come: nothing more is fed.
    pub(crate) fn finish(&mut self, pairs: &mut Vec<f32>) {
        self.close_until(u64::MAX, pairs);
    }

    /// Ends the buckets before a sample.
    fn close_until(&mut self, sample: u64, pairs: &mut Vec<f32>) {
        while self.bucket < self.last && self.end <= sample {
            let (first, second) = match self.extrema.take() {
                None => (f64::NAN, f64::NAN),
                Some(Extrema { least, greatest }) if least.1 <= greatest.1 => (least.0, greatest.0),
                Some(Extrema { least, greatest }) => (greatest.0, least.0),
            };
            pairs.extend([first as f32, second as f32]);
            self.bucket += 1;
            self.end = self.buckets.start(self.bucket + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reduced(samples: &[f64], pairs: u64, piece: usize) -> Vec<f32> {
        let mut row = OrderedRow::new(samples.len() as u64, pairs);
        let mut reduced = Vec::new();
        for piece in samples.chunks(piece) {
            row.feed(piece, &mut reduced);
        }
        row.finish(&mut reduced);
        reduced
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn extrema_come_in_their_order() {
        let nan = f64::NAN;
        let samples = [1.0, 5.0, -2.0, 0.0, 7.0, -7.0, nan, nan, nan, nan, 3.0, nan];
        let expected = [5.0, -2.0, 7.0, -7.0, f32::NAN, f32::NAN, 3.0, 3.0];
        assert_eq!(bits(&reduced(&samples, 4, 5)), bits(&expected));
    }

    #[test]
    fn the_first_of_equal_samples_counts() {
        assert_eq!(reduced(&[2.0, 1.0, 2.0, 1.0], 1, 4), [2.0, 1.0]);
        assert_eq!(reduced(&[1.0, 2.0, 1.0], 1, 1), [1.0, 2.0]);
    }

    #[test]
    fn a_part_is_that_of_the_whole() {
        let samples: Vec<f64> = (0..50).map(|it| f64::from(it * 37 % 50)).collect();
        let whole = reduced(&samples, 7, 50);
        let mut row = OrderedRow::new(50, 7).between(2..5);
        let range = row.samples();
        assert_eq!(range, 14..35);
        let mut part = Vec::new();
        row.feed(
            &samples[range.start as usize..range.end as usize],
            &mut part,
        );
        assert_eq!(part, whole[4..10]);
        row.finish(&mut part);
        assert_eq!(part.len(), 6);
    }

    #[test]
    fn what_was_never_fed_is_a_gap() {
        let mut row = OrderedRow::new(4, 2);
        let mut pairs = Vec::new();
        row.feed(&[1.0], &mut pairs);
        assert!(pairs.is_empty());
        row.finish(&mut pairs);
        assert_eq!(bits(&pairs), bits(&[1.0, 1.0, f32::NAN, f32::NAN]));
        assert_eq!(bits(&reduced(&[], 2, 1)), bits(&[f32::NAN; 4]));
    }

    proptest! {
        /// Each pair is the least and the greatest of its bucket, whatever the pieces.
        #[test]
        fn pairs_are_the_extrema_of_their_buckets(
            samples in prop::collection::vec(-50i32..50, 1..300),
            pairs in 1u64..100,
            piece in 1usize..40,
        ) {
            let samples: Vec<f64> = samples.into_iter().map(|it| match it {
                40.. => f64::NAN,
                it => f64::from(it),
            }).collect();
            let found = reduced(&samples, pairs, piece);
            prop_assert_eq!(found.len() as u64, 2 * pairs);
            for (pair, bucket) in found.chunks(2).zip(0..) {
                let edge = |k: u64| (k * samples.len() as u64 / pairs) as usize;
                let real = samples[edge(bucket)..edge(bucket + 1)].iter().filter(|it| !it.is_nan());
                let real: Vec<f64> = real.copied().collect();
                let place = |value: f64| real.iter().position(|&it| it == value).unwrap();
                let least = real.iter().copied().reduce(f64::min);
                let greatest = real.iter().copied().reduce(f64::max);
                match least.zip(greatest) {
                    None => prop_assert!(pair.iter().all(|it| it.is_nan())),
                    Some((least, greatest)) if place(least) <= place(greatest) => {
                        prop_assert_eq!(pair, [least as f32, greatest as f32]);
                    }
                    Some((least, greatest)) => {
                        prop_assert_eq!(pair, [greatest as f32, least as f32]);
                    }
                }
            }
        }
    }
}
