//! Where a channel has no samples.

use super::index::duration_us;
use super::recording::Channel;

/// A stretch of time without samples, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// End of the block before it, absolute uUTC.
    pub start_uutc: i64,
    /// Start of the block after it, absolute uUTC.
    pub end_uutc: i64,
}

impl Gap {
    /// Length in microseconds.
    pub fn duration_us(&self) -> i64 {
        self.end_uutc.saturating_sub(self.start_uutc)
    }
}

impl Channel {
    /// The gaps between the blocks, by the block indices, in order of time.
    ///
    /// Less than half a sample period between two blocks is not a gap: writers
    /// round block times to microseconds. Neither is time that an unreadable
    /// segment may have samples in, since nobody knows what is there. What the
    /// metadata's span has before the first and after the last block is not
    /// between blocks, and left out.
    pub fn gaps(&self) -> Vec<Gap> {
        let half_period_us = 0.5e6 / self.sampling_frequency;
        let mut blocks: Vec<(i64, i64)> = Vec::new();
        for segment in &self.segments {
            let stored = segment.index.iter().filter(|block| block.samples > 0);
            blocks.extend(stored.map(|block| {
                let duration = duration_us(block.samples, self.sampling_frequency);
                (block.start_uutc, block.start_uutc.saturating_add(duration))
            }));
        }
        let mut gaps = between(blocks, half_period_us);
        gaps.retain(|gap| {
            let mut unknown = self.unreadable_within(gap.start_uutc, gap.end_uutc);
            unknown.next().is_none()
        });
        gaps
    }
}

/// What lies between half-open stretches of time, where it is longer than
/// `negligible_us` microseconds.
fn between(mut stretches: Vec<(i64, i64)>, negligible_us: f64) -> Vec<Gap> {
    stretches.sort_unstable();
    let mut gaps = Vec::new();
    let mut covered: Option<i64> = None;
    for (start, end) in stretches {
        let gap = Gap {
            // Stretches may overlap: the latest end so far counts.
            start_uutc: covered.unwrap_or(start),
            end_uutc: start,
        };
        if gap.duration_us() as f64 > negligible_us {
            gaps.push(gap);
        }
        covered = covered.max(Some(end));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stretches: &[(i64, i64)], negligible_us: f64) -> Vec<(i64, i64)> {
        let gaps = between(stretches.to_vec(), negligible_us);
        gaps.iter().map(|g| (g.start_uutc, g.end_uutc)).collect()
    }

    #[test]
    fn only_more_than_the_negligible_is_a_gap() {
        let blocks = [(0, 100), (105, 200), (206, 300), (300, 400)];
        assert_eq!(found(&blocks, 5.0), [(200, 206)]);
        assert_eq!(found(&blocks, 4.9), [(100, 105), (200, 206)]);
        assert_eq!(found(&[], 0.0), []);
        assert_eq!(found(&blocks[..1], 0.0), []);
    }

    #[test]
    fn order_and_overlap_of_blocks_do_not_matter() {
        let blocks = [(500, 600), (0, 300), (100, 200), (310, 400)];
        assert_eq!(found(&blocks, 5.0), [(300, 310), (400, 500)]);
    }

    #[test]
    fn hostile_times_saturate() {
        let gaps = between(vec![(i64::MIN, i64::MIN + 1), (i64::MAX, i64::MAX)], 1.0);
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].duration_us(), i64::MAX);
    }
}
