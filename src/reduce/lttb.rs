//! One sample for each point of a drawn line, by MinMaxLTTB (Van Der Donckt et al.,
//! "MinMaxLTTB: Leveraging MinMax-Preselection to Scale LTTB", 2023), in the variant
//! of mef3io-server 3.1, whose clients expect its numbers.
//!
//! The candidates of a point are the least and the greatest sample of its bucket, at
//! the bucket's centre. The one is kept that is further from the line between the
//! point before and the middle of the next bucket's candidates. Then the greatest and
//! the least sample of the whole row are put back into their buckets, so that no
//! amplitude is understated.

use super::Buckets;

/// A row on its way through the reduction.
#[derive(Debug)]
pub(crate) struct LttbRow {
    buckets: Buckets,
    /// The sample that comes next.
    next: u64,
    /// Of each bucket, the least and the greatest sample; NaN where there is none.
    candidates: Vec<(f32, f32)>,
    /// The sample that was fed last.
    last: f32,
}

/// A bucket that has samples.
#[derive(Clone, Copy)]
struct Candidates {
    least: f64,
    greatest: f64,
}

impl Candidates {
    fn middle(self) -> f64 {
        (self.least + self.greatest) / 2.0
    }
}

impl LttbRow {
    /// Makes `points` points of `samples` samples. Where there are fewer samples than
    /// points, each sample is a point, and the points between them are gaps.
    pub(crate) fn new(samples: u64, points: usize) -> Self {
        Self {
            buckets: Buckets {
                samples,
                buckets: points as u64,
            },
            next: 0,
            candidates: vec![(f32::NAN, f32::NAN); points],
            last: f32::NAN,
        }
    }

    /// Takes the next samples.
    pub(crate) fn feed(&mut self, mut samples: &[f32]) {
        self.last = samples.last().copied().unwrap_or(self.last);
        while !samples.is_empty() {
            let bucket = self.buckets.of(self.next);
            let rest = self.buckets.start(bucket + 1).saturating_sub(self.next);
            let length = usize::try_from(rest).map_or(samples.len(), |it| it.min(samples.len()));
            let (here, behind) = samples.split_at(length.max(1));
            let Some((least, greatest)) = self.candidates.get_mut(bucket as usize) else {
                return;
            };
            for &sample in here {
                // A NaN on either side gives the other one.
                *least = least.min(sample);
                *greatest = greatest.max(sample);
            }
            self.next += here.len() as u64;
            samples = behind;
        }
    }

    fn bucket(&self, bucket: usize) -> Option<Candidates> {
        let &(least, greatest) = self.candidates.get(bucket)?;
        (!least.is_nan()).then_some(Candidates {
            least: f64::from(least),
            greatest: f64::from(greatest),
        })
    }

    /// The middle of a bucket, in samples.
    fn centre(&self, bucket: usize) -> f64 {
        let start = self.buckets.start(bucket as u64);
        let end = self.buckets.start(bucket as u64 + 1);
        (start as f64 + end as f64 - 1.0) / 2.0
    }

    /// Where a bucket's point is seen from the one before: its centre and its middle,
    /// or the end of the row behind the last bucket. NaN in a gap.
    fn ahead(&self, bucket: usize) -> (f64, f64) {
        if bucket < self.candidates.len() {
            let middle = self.bucket(bucket).map_or(f64::NAN, Candidates::middle);
            return (self.centre(bucket), middle);
        }
        (self.buckets.samples as f64 - 0.5, f64::from(self.last))
    }

    /// The points, when all samples were fed.
    pub(crate) fn points(&self) -> Vec<f32> {
        let all = 0..self.candidates.len();
        let mut points = vec![f32::NAN; self.candidates.len()];
        let first = all.clone().find(|&bucket| self.bucket(bucket).is_some());
        let mut anchor = self.ahead(first.unwrap_or(0));
        for (bucket, point) in all.zip(&mut points) {
            let Some(candidates) = self.bucket(bucket) else {
                continue;
            };
            let Candidates { least, greatest } = candidates;
            let here = self.centre(bucket);
            let (x, y) = self.ahead(bucket + 1);
            let y = if y.is_nan() { anchor.1 } else { y };
            let span = if x > anchor.0 { x - anchor.0 } else { 1.0 };
            let line = anchor.1 + (y - anchor.1) * (here - anchor.0) / span;
            let kept = if (greatest - line).abs() >= (least - line).abs() {
                greatest
            } else {
                least
            };
            *point = kept as f32;
            anchor = (here, kept);
        }
        self.put_extrema_back(&mut points);
        points
    }

    /// Puts the greatest and the least sample of the row into their buckets. Where
    /// both are in one, that which is further from the row's level stays.
    fn put_extrema_back(&self, points: &mut [f32]) {
        let buckets = (0..points.len()).filter_map(|it| Some((it, self.bucket(it)?)));
        let buckets: Vec<(usize, Candidates)> = buckets.collect();
        let Some(&first) = buckets.first() else {
            return;
        };
        let (mut least, mut greatest, mut sum) = (first, first, 0.0);
        for &(bucket, candidates) in &buckets {
            if candidates.least < least.1.least {
                least = (bucket, candidates);
            }
            if candidates.greatest > greatest.1.greatest {
                greatest = (bucket, candidates);
            }
            sum += candidates.middle();
        }
        let level = sum / buckets.len() as f64;
        let (least, greatest) = ((least.0, least.1.least), (greatest.0, greatest.1.greatest));
        let together = least.0 == greatest.0;
        let prefers_greatest = greatest.1 - level >= level - least.1;
        let mut put = |(bucket, value): (usize, f64)| {
            if let Some(point) = points.get_mut(bucket) {
                *point = value as f32;
            }
        };
        if !together || prefers_greatest {
            put(greatest);
        }
        if !together || !prefers_greatest {
            put(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::vectors::LTTB;
    use super::*;

    fn reduced(samples: &[f32], points: usize, piece: usize) -> Vec<f32> {
        let mut row = LttbRow::new(samples.len() as u64, points);
        for piece in samples.chunks(piece) {
            row.feed(piece);
        }
        row.points()
    }

    #[test]
    fn numbers_of_the_python_server() {
        // Which NaN it is does not matter.
        let shown = |values: &[f32]| -> Vec<String> {
            values.iter().map(|value| format!("{value:?}")).collect()
        };
        for (samples, points) in LTTB {
            assert_eq!(shown(&reduced(samples, points.len(), 3)), shown(points));
        }
    }

    #[test]
    fn fewer_samples_than_points_stand_where_they_are() {
        let found = reduced(&[1.0, -1.0], 5, 1);
        let real: Vec<f32> = found.iter().copied().filter(|it| !it.is_nan()).collect();
        assert_eq!(real, [1.0, -1.0]);
        assert_eq!(found.len(), 5);
        assert!(reduced(&[], 3, 1).iter().all(|it| it.is_nan()));
        assert!(reduced(&[f32::NAN; 9], 3, 2).iter().all(|it| it.is_nan()));
    }

    proptest! {
        /// Every point is a sample of its bucket, and the row's extrema are there.
        #[test]
        fn points_are_samples_and_none_is_greater(
            samples in prop::collection::vec(-50i32..50, 1..300),
            points in 1usize..100,
            piece in 1usize..40,
        ) {
            let samples: Vec<f32> = samples.into_iter().map(|it| match it {
                40.. => f32::NAN,
                it => it as f32,
            }).collect();
            let points = points.min(samples.len());
            let found = reduced(&samples, points, piece);
            for (&point, bucket) in found.iter().zip(0..) {
                let edge = |k: usize| k * samples.len() / points;
                let here = &samples[edge(bucket)..edge(bucket + 1)];
                if here.iter().all(|it| it.is_nan()) {
                    prop_assert!(point.is_nan());
                } else {
                    prop_assert!(here.contains(&point));
                }
            }
            let most = |values: &[f32]| values.iter().copied().fold(f32::NAN, f32::max);
            let least = |values: &[f32]| values.iter().copied().fold(f32::NAN, f32::min);
            let (a, b) = (most(&samples) == most(&found), least(&samples) == least(&found));
            // Both, unless they are in one bucket.
            let all_gaps = samples.iter().all(|it| it.is_nan());
            prop_assert!(all_gaps || a || b);
        }
    }
}
