//! Fewer values that stay true to a signal: pure functions over samples.
//!
//! Both reductions cut a row of samples evenly by their number: bucket `k` of `n` over
//! `m` samples goes from sample `k*m/n` to `(k+1)*m/n`, rounded down. Gaps are NaN, take
//! no part, and a bucket of nothing else is NaN. Rows are fed piece by piece, as they
//! are decoded; what is kept is a few numbers for each bucket.

mod lttb;
mod ordered;
#[cfg(test)]
mod vectors;

pub(crate) use lttb::LttbRow;
pub(crate) use ordered::OrderedRow;

/// An even division of samples into buckets.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    samples: u64,
    buckets: u64,
}

impl Buckets {
    /// The first sample of a bucket; of the one after the last, the number of samples.
    fn start(&self, bucket: u64) -> u64 {
        let product = u128::from(bucket) * u128::from(self.samples);
        let start = product / u128::from(self.buckets.max(1));
        // At most the number of samples, as long as the bucket exists.
        u64::try_from(start).unwrap_or(u64::MAX)
    }

    /// The bucket of a sample.
    fn of(&self, sample: u64) -> u64 {
        // The last bucket that begins at it or before: its start is the rounded-down
        // inverse of the division.
        let product = (u128::from(sample) + 1) * u128::from(self.buckets);
        let bucket = product.div_ceil(u128::from(self.samples.max(1))) - 1;
        u64::try_from(bucket).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_the_bucket_between_whose_ends_it_lies() {
        for samples in 1..40 {
            for buckets in 1..60 {
                let division = Buckets { samples, buckets };
                assert_eq!(division.start(0), 0);
                assert_eq!(division.start(buckets), samples);
                for sample in 0..samples {
                    let bucket = division.of(sample);
                    let range = division.start(bucket)..division.start(bucket + 1);
                    assert!(range.contains(&sample), "{sample} of {division:?}");
                }
            }
        }
    }
}
