//! Where a block's samples go on the regular grid of a window: pure functions
//! over times and rates (format section 11).
//!
//! Two rules exist in the field, and clients depend on each: that of pymef and
//! mef_tools, and that of mef3io 2.x. Away from exact half samples and
//! overlapping blocks they agree.

use std::ops::Range;

use bytemuck::Pod;
use thiserror::Error;

use super::recording::Channel;

/// Which reference a grid follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// mef3io 2.x: nearest column, an exact half goes to the earlier one
    /// (format section 11.2).
    Mef3io,
    /// pymef and mef_tools: rounding away from the window's start, and a special
    /// treatment of the first and last block (format section 11.3).
    Pymef,
}

/// A window that no grid can be laid over.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum WindowError {
    /// The end is not after the start.
    #[error("end_uutc must be greater than start_uutc")]
    Empty,
    /// More columns than can be counted.
    #[error("the window from {start_uutc} to {end_uutc} is too long at {sampling_frequency} Hz")]
    TooLong {
        /// Start of the window, uUTC.
        start_uutc: i64,
        /// End of the window, uUTC.
        end_uutc: i64,
        /// Rate in Hz.
        sampling_frequency: f64,
    },
}

/// A regular grid over a half-open window: column `i` stands for the time
/// `start + i / rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    rule: Rule,
    start_uutc: i64,
    end_uutc: i64,
    sampling_frequency: f64,
    columns: u64,
}

impl Grid {
    /// Lays a grid over `[start_uutc, end_uutc)` (uUTC) at a rate in Hz, which
    /// must be finite and positive.
    ///
    /// # Errors
    /// [`WindowError`] where the window is empty or absurdly long.
    pub fn new(
        rule: Rule,
        start_uutc: i64,
        end_uutc: i64,
        sampling_frequency: f64,
    ) -> Result<Self, WindowError> {
        // 2^52: beyond it, not every column has a number in f64.
        const MOST_COLUMNS: f64 = 4_503_599_627_370_496.0;

        if end_uutc <= start_uutc {
            return Err(WindowError::Empty);
        }
        let too_long = WindowError::TooLong {
            start_uutc,
            end_uutc,
            sampling_frequency,
        };
        let duration = end_uutc.checked_sub(start_uutc).ok_or(too_long)? as f64;
        // The order of evaluation decides about exact halves (section 18.10).
        let columns = match rule {
            Rule::Mef3io => (duration * sampling_frequency / 1e6).round(),
            Rule::Pymef => (duration / 1e6 * sampling_frequency + 0.5).trunc(),
        };
        if !(0.0..=MOST_COLUMNS).contains(&columns) {
            return Err(too_long);
        }
        Ok(Self {
            rule,
            start_uutc,
            end_uutc,
            sampling_frequency,
            columns: columns as u64,
        })
    }

    /// Number of columns, that is samples of each channel.
    pub fn columns(&self) -> u64 {
        self.columns
    }

    /// The rate in Hz.
    pub fn sampling_frequency(&self) -> f64 {
        self.sampling_frequency
    }

    /// The window's start, uUTC.
    pub fn start_uutc(&self) -> i64 {
        self.start_uutc
    }

    /// The window's end, uUTC, exclusive.
    pub fn end_uutc(&self) -> i64 {
        self.end_uutc
    }

    /// The time of a column, uUTC, to the nearest microsecond.
    pub(crate) fn time_of(&self, column: u64) -> i64 {
        let distance = column as f64 * 1e6 / self.sampling_frequency;
        self.start_uutc.saturating_add(distance.round() as i64)
    }

    /// The first column that is not earlier than a time, to half a microsecond; the
    /// number of columns, where all are.
    pub(crate) fn first_column_from(&self, uutc: i64) -> u64 {
        let distance = uutc.saturating_sub(self.start_uutc) as f64 - 0.5;
        let column = (distance * self.sampling_frequency / 1e6).ceil();
        // A negative number saturates to zero.
        (column as u64).min(self.columns)
    }

    /// The rule that the grid follows.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The time of the sample at `distance` columns from the start, widened by
    /// two columns and two microseconds: a safe bound for a search by time.
    pub(crate) fn time_bound(&self, column: u64, outward: f64) -> i64 {
        let columns = column as f64 + 2.0 * outward;
        let distance = columns * 1e6 / self.sampling_frequency + 2.0 * outward;
        self.start_uutc.saturating_add(distance as i64)
    }

    /// The column of a block's first sample; negative where the block begins
    /// before the window.
    fn column_of(&self, block_start: i64, inner: bool) -> i64 {
        let distance = block_start.saturating_sub(self.start_uutc) as f64;
        let column = match self.rule {
            Rule::Mef3io => (distance * self.sampling_frequency / 1e6 - 0.5).ceil(),
            Rule::Pymef => {
                let position = distance / 1e6 * self.sampling_frequency;
                if inner || distance >= 0.0 {
                    (position + 0.5).trunc()
                } else {
                    (position - 0.5).trunc()
                }
            }
        };
        column as i64
    }
}

/// A block by its place in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockPosition {
    /// Position of the segment in [`Channel::segments`].
    pub segment: u32,
    /// Position of the block in the segment's index.
    pub block: u32,
}

/// Which blocks of a channel a grid shows, and where.
#[derive(Clone, Debug)]
pub struct Placement {
    grid: Grid,
    /// pymef reads one run of blocks, from the first to the last; `None` where
    /// the window misses the recording.
    run: Option<(BlockPosition, BlockPosition)>,
}

impl Placement {
    /// Decides what the grid shows of a channel.
    pub fn new(grid: Grid, channel: &Channel) -> Self {
        let run = match grid.rule {
            Rule::Mef3io => None,
            Rule::Pymef => pymef_run(&grid, channel),
        };
        Self { grid, run }
    }

    /// The grid.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Blocks that may have samples in the given columns, in the order of their
    /// placement: where blocks overlap, the later one wins.
    pub fn blocks(&self, channel: &Channel, columns: Range<u64>) -> Vec<BlockPosition> {
        let from = self.grid.time_bound(columns.start, -1.0);
        let until = self.grid.time_bound(columns.end, 1.0);
        let mut blocks = Vec::new();
        for (segment, position) in channel.segments.iter().zip(0u32..) {
            let misses = segment.index.start_uutc().is_none()
                || segment.index.end_uutc().is_some_and(|end| end < from);
            if misses {
                continue;
            }
            for block in segment.index.candidates(from, until) {
                let Some(entry) = segment.index.get(block) else {
                    continue;
                };
                let position = BlockPosition {
                    segment: position,
                    block: block as u32,
                };
                let Some(column) = self.column(position, entry.start_uutc, entry.samples) else {
                    continue;
                };
                let end = column.saturating_add(i64::from(entry.samples.max(1)));
                let needed = end > columns.start as i64 && column < columns.end as i64;
                if needed {
                    blocks.push(position);
                }
            }
        }
        blocks
    }

    /// The column of the first sample of a block that starts at `start_uutc`;
    /// `None` where the rule does not show the block.
    pub fn column(&self, position: BlockPosition, start_uutc: i64, samples: u32) -> Option<i64> {
        let grid = &self.grid;
        match grid.rule {
            Rule::Mef3io => {
                let duration = super::index::duration_us(samples, grid.sampling_frequency);
                // Empty by the index: looked at all the same, since a header that
                // says otherwise is damage.
                let shown = samples == 0
                    || (start_uutc.saturating_add(duration) > grid.start_uutc
                        && start_uutc < grid.end_uutc);
                shown.then(|| grid.column_of(start_uutc, false))
            }
            Rule::Pymef => {
                let (first, last) = self.run?;
                if position < first || position > last {
                    return None;
                }
                let inner = position != first && position != last;
                if inner && start_uutc < grid.start_uutc {
                    return None;
                }
                Some(grid.column_of(start_uutc, inner))
            }
        }
    }
}

/// The first and the last block of the run that pymef decodes
/// (format section 11.3, steps 3, 5 and 8).
fn pymef_run(grid: &Grid, channel: &Channel) -> Option<(BlockPosition, BlockPosition)> {
    let (t0, t1) = (grid.start_uutc, grid.end_uutc);
    let segments = &channel.segments;
    let outside = t1 < channel.start_uutc || t0 > channel.end_uutc;
    if outside {
        return None;
    }
    let first_segment = segments.iter().position(|segment| segment.end_uutc >= t0)?;
    let last_segment = segments
        .iter()
        .rposition(|segment| segment.start_uutc <= t1)?;
    if last_segment < first_segment {
        return None;
    }
    let block_at = |segment: usize, time| -> Option<BlockPosition> {
        let index = &segments.get(segment)?.index;
        let after = index.first_start_after(time, 1).unwrap_or(index.len());
        Some(BlockPosition {
            segment: segment as u32,
            block: after.checked_sub(1)? as u32,
        })
    };
    let first = block_at(first_segment, t0)?;
    let mut last = block_at(last_segment, t1)?;

    // The walk stops at the first inner block that reaches the window's end.
    let ends_at = |entry: super::index::BlockEntry| {
        entry.start_uutc as f64 + f64::from(entry.samples) / grid.sampling_frequency * 1e6
    };
    let inner_blocks = (first_segment..=last_segment).flat_map(|number| {
        let index = segments.get(number).map(|segment| &segment.index);
        let candidates = index.map_or(0..0, |index| {
            index.candidates(t1.saturating_sub(2), i64::MAX)
        });
        candidates.filter_map(move |block| {
            let position = BlockPosition {
                segment: number as u32,
                block: block as u32,
            };
            Some((position, index?.get(block)?))
        })
    });
    let stop = inner_blocks
        .take_while(|(position, _)| *position < last)
        .filter(|(position, entry)| *position > first && entry.start_uutc >= t0)
        .find(|(_, entry)| ends_at(*entry) >= t1 as f64);
    if let Some((position, _)) = stop {
        last = position;
    }
    Some((first, last.max(first)))
}

/// How a count becomes a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Units per count.
    pub factor: f64,
    /// Whether the stored count -2^31 means "no value" (format section 8.1): to
    /// pymef it does, to mef3io it is a number.
    pub null_is_gap: bool,
}

/// A sample as clients want it.
pub trait SampleValue: Pod + Send + Sync + 'static {
    /// What stands where nothing was recorded.
    const GAP: Self;

    /// Whether values are in units; counts need no usable conversion factor.
    const SCALED: bool;

    /// The value of a stored count.
    fn from_count(count: i32, scale: Scale) -> Self;
}

impl SampleValue for f64 {
    const GAP: Self = f64::NAN;
    const SCALED: bool = true;

    #[inline]
    fn from_count(count: i32, scale: Scale) -> Self {
        if scale.null_is_gap && count == i32::MIN {
            return Self::GAP;
        }
        f64::from(count) * scale.factor
    }
}

impl SampleValue for f32 {
    const GAP: Self = f32::NAN;
    const SCALED: bool = true;

    #[inline]
    fn from_count(count: i32, scale: Scale) -> Self {
        f64::from_count(count, scale) as f32
    }
}

/// Counts as stored, whatever the scale.
impl SampleValue for i32 {
    const GAP: Self = i32::MIN;
    const SCALED: bool = false;

    #[inline]
    fn from_count(count: i32, _scale: Scale) -> Self {
        count
    }
}

/// Writes the samples of one block, whose first goes to `column`, into a row
/// that shows the columns from `first_column` on. What falls outside is cut.
pub fn place<T: SampleValue>(
    counts: &[i32],
    column: i64,
    scale: Scale,
    first_column: u64,
    row: &mut [T],
) {
    let offset = i128::from(column) - i128::from(first_column);
    let skipped = usize::try_from(-offset).unwrap_or(0);
    let target = usize::try_from(offset).unwrap_or(0);
    let (Some(counts), Some(row)) = (counts.get(skipped..), row.get_mut(target..)) else {
        return;
    };
    for (value, &count) in row.iter_mut().zip(counts) {
        *value = T::from_count(count, scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_columns_of_section_18_10() {
        for (rate, distance, mef3io, pymef) in [
            (500.0, 1000, 0, 1),
            (500.0, -1000, -1, -1),
            (500.0, 3000, 1, 2),
            (500.0, -3000, -2, -2),
            (250.0, 1999, 0, 0),
            (250.0, 2000, 0, 1),
            (250.0, 2001, 1, 1),
            (256.0, 1953, 0, 0),
            (256.0, 1954, 1, 1),
        ] {
            let start = 1_600_000_000_000_000;
            let column = |rule| {
                let grid = Grid::new(rule, start, start + 1_000_000, rate).unwrap();
                grid.column_of(start + distance, false)
            };
            assert_eq!(column(Rule::Mef3io), mef3io, "mef3io {rate} {distance}");
            assert_eq!(column(Rule::Pymef), pymef, "pymef {rate} {distance}");
        }
    }

    #[test]
    fn window_lengths_of_section_18_10() {
        for (rate, duration, pymef, mef3io) in [
            (500.0, 256_109_000, 128_054, 128_055),
            (1000.0, 32_066_500, 32_066, 32_067),
            (5000.0, 734_038_700, 3_670_193, 3_670_194),
            (1000.0 / 3.0, 133_186_500, 44_395, 44_396),
        ] {
            let columns = |rule| Grid::new(rule, 0, duration, rate).unwrap().columns();
            assert_eq!(columns(Rule::Pymef), pymef);
            assert_eq!(columns(Rule::Mef3io), mef3io);
        }
    }

    #[test]
    fn impossible_windows_are_refused() {
        assert_eq!(Grid::new(Rule::Mef3io, 5, 5, 1.0), Err(WindowError::Empty));
        assert_eq!(Grid::new(Rule::Pymef, 5, 4, 1.0), Err(WindowError::Empty));
        assert!(matches!(
            Grid::new(Rule::Mef3io, i64::MIN, i64::MAX, 1.0),
            Err(WindowError::TooLong { .. })
        ));
        assert!(Grid::new(Rule::Mef3io, 0, i64::MAX, 1e12).is_err());
    }

    #[test]
    fn placing_cuts_at_both_ends_of_the_row() {
        let scale = Scale {
            factor: 0.5,
            null_is_gap: true,
        };
        let mut row = [f64::GAP; 4];
        place(&[1, 2, 3], -2, scale, 0, &mut row);
        place(&[10, 20, 30], 3, scale, 0, &mut row);
        assert_eq!((row[0], row[3]), (1.5, 5.0));
        assert!(row[1].is_nan() && row[2].is_nan());
        place(&[7, i32::MIN], i64::MIN, scale, 0, &mut row);
        place(&[7, i32::MIN], i64::MAX, scale, u64::MAX, &mut row);
        assert_eq!(row[0], 1.5);
    }
}
