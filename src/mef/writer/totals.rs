//! What the metadata declare of all blocks of a segment together
//! (format section 6.3).

use zerocopy::little_endian::{F64, I64, U32};

use crate::mef::index::duration_us;
use crate::mef::layout::{FLAG_DISCONTINUITY, IndexEntry, Section2};
use crate::mef::red::NAN;
use crate::mef::time;

/// Difference bytes that a sample takes at most.
const DIFFERENCE_BYTES_PER_SAMPLE: u32 = 5;

/// Sums over the blocks of a segment, kept up block by block. Readers size their
/// buffers by what they declare, so they are exact.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) samples: u64,
    pub(super) blocks: u64,
    /// Earliest start and latest end of a block, absolute uUTC.
    pub(super) span: Option<(i64, i64)>,
    pub(super) maximum_block_bytes: u32,
    maximum_block_samples: u32,
    maximum_difference_bytes: u32,
    discontinuities: i64,
    /// The blocks since the last discontinuity.
    run: Stretch,
    /// The most of each between two discontinuities.
    longest: Stretch,
    /// Least and greatest count; `None` if all samples are NaN.
    extremes: Option<(i32, i32)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stretch {
    blocks: i64,
    bytes: i64,
    samples: i64,
}

impl Totals {
    /// Adds the block that is next in the index. `difference_bytes` is its
    /// header's, and the most that it can be where that is not at hand.
    pub(super) fn add(
        &mut self,
        entry: &IndexEntry,
        difference_bytes: Option<u32>,
        sampling_frequency: f64,
        recording_time_offset: i64,
    ) {
        let samples = entry.number_of_samples.get();
        let bytes = entry.block_bytes.get();
        if let Some(start) = time::absolute(entry.start_time.get(), recording_time_offset) {
            let end = start.saturating_add(duration_us(samples, sampling_frequency));
            let (first, last) = self.span.unwrap_or((start, end));
            self.span = Some((first.min(start), last.max(end)));
        }
        if entry.block_flags & FLAG_DISCONTINUITY != 0 {
            self.discontinuities += 1;
            self.run = Stretch::default();
        }
        self.run.blocks += 1;
        self.run.bytes += i64::from(bytes);
        self.run.samples += i64::from(samples);
        self.longest.blocks = self.longest.blocks.max(self.run.blocks);
        self.longest.bytes = self.longest.bytes.max(self.run.bytes);
        self.longest.samples = self.longest.samples.max(self.run.samples);
        self.blocks += 1;
        self.samples = self.samples.saturating_add(u64::from(samples));
        self.maximum_block_bytes = self.maximum_block_bytes.max(bytes);
        self.maximum_block_samples = self.maximum_block_samples.max(samples);
        let difference_bytes = difference_bytes
            .unwrap_or_else(|| samples.saturating_mul(DIFFERENCE_BYTES_PER_SAMPLE))
            // The greatest number stands for "unknown".
            .min(u32::MAX - 1);
        self.maximum_difference_bytes = self.maximum_difference_bytes.max(difference_bytes);
        let least = entry.minimum_sample_value.get();
        let greatest = entry.maximum_sample_value.get();
        // A block of NaN only has no extremes, and some writers store none.
        if least != NAN && greatest != NAN {
            let (low, high) = self.extremes.unwrap_or((least, greatest));
            self.extremes = Some((low.min(least), high.max(greatest)));
        }
    }

    /// Writes the sums to a segment's metadata, all but what depends on the
    /// segments before it.
    pub(super) fn declare(&self, section: &mut Section2) {
        let factor = section.units_conversion_factor.get();
        let (minimum, maximum) = self.native_extremes(factor);
        let fs = section.sampling_frequency.get();
        let (start, end) = self.span.unwrap_or_default();
        section.recording_duration = I64::new(end.saturating_sub(start));
        section.maximum_native_sample_value = F64::new(maximum);
        section.minimum_native_sample_value = F64::new(minimum);
        section.number_of_samples = I64::new(self.samples as i64);
        section.number_of_blocks = I64::new(self.blocks as i64);
        section.maximum_block_bytes = I64::new(i64::from(self.maximum_block_bytes));
        section.maximum_block_samples = U32::new(self.maximum_block_samples);
        section.maximum_difference_bytes = U32::new(self.maximum_difference_bytes);
        section.block_interval = I64::new(duration_us(self.maximum_block_samples, fs));
        section.number_of_discontinuities = I64::new(self.discontinuities);
        section.maximum_contiguous_blocks = I64::new(self.longest.blocks);
        section.maximum_contiguous_block_bytes = I64::new(self.longest.bytes);
        section.maximum_contiguous_samples = I64::new(self.longest.samples);
    }

    /// Least and greatest sample in units; a negative factor swaps the ends.
    fn native_extremes(&self, factor: f64) -> (f64, f64) {
        let Some((minimum, maximum)) = self.extremes else {
            return (f64::NAN, f64::NAN);
        };
        let (low, high) = (f64::from(minimum) * factor, f64::from(maximum) * factor);
        (low.min(high), low.max(high))
    }
}
