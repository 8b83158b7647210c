//! What is to be read of a channel, by the samples that its writer was given: a
//! plain reading of section 11.2, apart from all readers.

use mef3_server::mef::Channel;
use serde_json::Value;

use super::compare::Tally;
use super::peers::Samples;
use super::plan::{self, Plan};
use super::windows::Window;

/// A block, by mef3io.
struct Block {
    /// uUTC.
    start: i64,
    /// The instant just after its last sample.
    end: i64,
    /// The first of its samples, and their number.
    first: usize,
    samples: usize,
    /// Units per count: segments may differ in it.
    factor: f64,
}

/// The samples that a channel's writer was given, block by block.
pub struct Written {
    rate: f64,
    blocks: Vec<Block>,
    given: Vec<f64>,
    /// Whether samples are counts, and stored as they are.
    exact: bool,
    /// Whether stored samples can be told from those that were given.
    known: bool,
}

impl Written {
    /// Checks the number and the times of stored samples.
    pub fn new(
        plan: &Plan,
        planned: &plan::Channel,
        channel: &Channel,
        blocks: &Value,
    ) -> Result<Self, String> {
        let given = plan.given(planned);
        // Runs of NaN that mef_tools stores as zeros (README of the corpus, "Writer
        // behaviour").
        let has_gaps = planned.calls.iter().any(|call| call.runs.len() > 1);
        let filled = plan.zeros && has_gaps;
        let mut written = Self {
            rate: planned.rate,
            blocks: Vec::new(),
            given: given.iter().map(|&(value, _)| value).collect(),
            exact: plan.input == "counts",
            known: !plan.lossy && !filled,
        };
        let factors = channel.segments.iter().flat_map(|segment| {
            let factor = segment.acquisition.units_conversion_factor;
            segment.index.iter().map(move |_| factor)
        });
        let mut first = 0;
        for (block, factor) in blocks.as_array().unwrap().iter().zip(factors) {
            let start = block[0].as_i64().unwrap();
            let samples = block[1].as_u64().unwrap() as usize;
            written.blocks.push(Block {
                start,
                end: start + (samples as f64 * 1e6 / planned.rate).round() as i64,
                first,
                samples,
                factor,
            });
            first += samples;
        }
        if filled {
            return Ok(written);
        }
        if first != given.len() {
            let name = &planned.name;
            return Err(format!(
                "{name}: {first} samples are stored of {}",
                given.len()
            ));
        }
        // Samples that go on within half a period belong to the run before, and
        // pymef loses up to a microsecond a block (section 11.5).
        let tolerance = 0.5e6 / planned.rate + 1.0 + written.blocks.len() as f64;
        for &Block { start, first, .. } in &written.blocks {
            let planned = given[first].1;
            if (start - planned).abs() as f64 > tolerance {
                let name = &channel.name;
                return Err(format!(
                    "{name}: sample {first} is at {start}, not at {planned}"
                ));
            }
        }
        Ok(written)
    }

    /// Section 11.2, word by word: of the blocks that the window touches, each to its
    /// nearest columns, an exact half to the earlier one. Gives samples with their
    /// factors.
    fn place(&self, window: &Window, columns: usize) -> Vec<Option<(usize, f64)>> {
        let mut row = vec![None; columns];
        let touches = |block: &&Block| block.end > window.start && block.start < window.end;
        for block in self.blocks.iter().filter(touches) {
            let distance = (block.start - window.start) as f64;
            let column = (distance * self.rate / 1e6 - 0.5).ceil() as i64;
            for (column, sample) in (column..).zip(block.first..block.first + block.samples) {
                if let Ok(column) = usize::try_from(column)
                    && column < columns
                {
                    row[column] = Some((sample, block.factor));
                }
            }
        }
        row
    }

    /// Holds what mef3io reads against what was given.
    pub fn compare(
        &self,
        window: &Window,
        read: &Samples,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if !self.known {
            return Ok(());
        }
        let placed = self.place(window, read.counts.len());
        for (column, sample) in placed.into_iter().enumerate() {
            if read.valid[column] != sample.is_some() {
                return Err(format!("column {column} was given {sample:?}"));
            }
            let Some((sample, factor)) = sample else {
                continue;
            };
            let (given, count) = (self.given[sample], read.counts[column]);
            // Writers of decimal numbers differ by up to two counts (section 12).
            let distance = (f64::from(count) * factor - given).abs();
            let near = distance <= 2.0 * factor + 1e-12 * given.abs();
            let equal = f64::from(count) == given;
            if !(if self.exact { equal } else { near }) {
                return Err(format!("column {column} is {count}, given {given}"));
            }
            tally.known += 1;
        }
        Ok(())
    }
}
