//! What the files of a channel hold, found by walking them: no index is believed,
//! and nothing is put right.

use std::fs;

use mef3_server::mef::red::Decoder;
use mef3_server::mef::{BlockError, Channel, Recording, Segment, time};

use crate::common::patch::{HEADER, units};

/// Length of an index entry.
const ENTRY: usize = 56;

/// All blocks of a channel that can be decoded, by whoever has the password.
pub struct Held {
    blocks: Vec<HeldBlock>,
}

struct HeldBlock {
    start_uutc: i64,
    samples: usize,
    /// Empty where a password would be needed: the samples may be any.
    values: Option<Vec<f64>>,
}

impl Held {
    pub fn by(recording: &Recording, channel: &Channel) -> Self {
        let mut held = Self { blocks: Vec::new() };
        for segment in &channel.segments {
            let data = recording.data_file(&channel.name, &segment.stem);
            let index = fs::read(data.with_extension("tidx")).unwrap_or_default();
            held.add(segment, &fs::read(data).unwrap_or_default(), &index);
        }
        held
    }

    /// The blocks that follow each other, and those that the index has elsewhere.
    fn add(&mut self, segment: &Segment, data: &[u8], index: &[u8]) {
        let mut places = units("tdat", data);
        for entry in index.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY) {
            let offset = u64::from_le_bytes(entry[..8].try_into().unwrap());
            let bytes = u32::from_le_bytes(entry[28..32].try_into().unwrap());
            places.push((offset as usize, bytes as usize));
        }
        places.sort_unstable();
        places.dedup();
        let factor = segment.acquisition.scale().unwrap_or(f64::NAN);
        let offset = segment.recording_time_offset.unwrap_or(0);
        let mut decoder = Decoder::new();
        for (start, length) in places {
            let Some(block) = data.get(start..start.saturating_add(length)) else {
                continue;
            };
            let mut counts = Vec::new();
            let values = match decoder.decode(block, &mut counts) {
                Ok(_) => Some(counts.iter().map(|&count| f64::from(count) * factor)),
                Err(BlockError::Encrypted { .. }) => None,
                Err(_) => continue,
            };
            let samples = u32::from_le_bytes(block[32..36].try_into().unwrap());
            let stored = i64::from_le_bytes(block[40..48].try_into().unwrap());
            if let Some(start_uutc) = time::absolute(stored, offset) {
                self.blocks.push(HeldBlock {
                    start_uutc,
                    samples: samples as usize,
                    values: values.map(Iterator::collect),
                });
            }
        }
    }

    /// Whether a sample `distance_us` after `start_uutc` may have a value: one that a
    /// block has there, give or take one sample for the rounding.
    pub fn has(&self, start_uutc: i64, column: usize, rate: f64, value: f64) -> bool {
        self.blocks.iter().any(|block| {
            let place = block.place(start_uutc, column, rate);
            (-1..=1).any(|shift| {
                let sample = usize::try_from(place.saturating_add(shift)).ok();
                let sample = sample.filter(|&sample| sample < block.samples);
                sample.is_some_and(|sample| match &block.values {
                    Some(values) => values[sample].to_bits() == value.to_bits(),
                    None => true,
                })
            })
        })
    }

    /// Whether a block has a sample there, beyond any doubt of rounding.
    pub fn covers(&self, start_uutc: i64, column: usize, rate: f64) -> bool {
        self.blocks.iter().any(|block| {
            let place = block.place(start_uutc, column, rate);
            place >= 1 && place.saturating_add(1) < block.samples as i64
        })
    }
}

impl HeldBlock {
    /// The sample of the block that stands in a column; it need not exist.
    fn place(&self, start_uutc: i64, column: usize, rate: f64) -> i64 {
        let ahead = self.start_uutc as f64 - start_uutc as f64;
        (column as f64 - ahead * rate / 1e6).round() as i64
    }
}
