//! Decoding everything, to see what cannot be.

use std::path::PathBuf;

use mef3_server::mef::{
    Channel, DecodedBlock, MefError, Recording, Scratch, Segment, SegmentReader,
};
use serde::Serialize;

use crate::cli::iso8601;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Checked {
    /// Blocks that were looked at.
    pub(super) blocks: u64,
    /// Samples that could be decoded.
    pub(super) decoded_samples: u64,
    pub(super) damaged_blocks: Vec<Damaged>,
}

/// A damaged block.
#[derive(Debug, Serialize)]
pub(super) struct Damaged {
    pub(super) channel: String,
    pub(super) segment: String,
    /// Position in the segment's index, from 0.
    pub(super) block: usize,
    pub(super) file: PathBuf,
    pub(super) file_offset: u64,
    pub(super) start_uutc: i64,
    pub(super) start_utc: String,
    /// Samples that the index promises.
    pub(super) lost_samples: u32,
    pub(super) error: String,
}

/// Decodes every block of every readable segment.
///
/// # Errors
/// [`MefError`] where a segment that was readable a moment ago is not any more.
pub(super) fn check_blocks(recording: &Recording) -> Result<Checked, MefError> {
    let mut check = Check {
        recording,
        scratch: Scratch::default(),
        found: Checked::default(),
    };
    for channel in &recording.channels {
        for segment in &channel.segments {
            check.segment(channel, segment)?;
        }
    }
    Ok(check.found)
}

struct Check<'a> {
    recording: &'a Recording,
    scratch: Scratch,
    found: Checked,
}

impl Check<'_> {
    fn segment(&mut self, channel: &Channel, segment: &Segment) -> Result<(), MefError> {
        let reader = SegmentReader::open_in(self.recording, channel, segment)?;
        let mut samples = Vec::new();
        let mut decoded: Vec<DecodedBlock> = Vec::new();
        for (entry, block) in segment.index.iter().zip(0..) {
            samples.clear();
            decoded.clear();
            // One at a time, since nothing bounds what many may claim to hold.
            reader.decode(&[entry], &mut self.scratch, &mut samples, &mut decoded);
            self.found.blocks += 1;
            self.found.decoded_samples += samples.len() as u64;
            for damaged in &decoded {
                if let Some(damage) = &damaged.damage {
                    let stem = &segment.stem;
                    self.found.damaged_blocks.push(Damaged {
                        channel: channel.name.clone(),
                        segment: stem.clone(),
                        block,
                        file: self.recording.data_file(&channel.name, stem),
                        file_offset: damage.file_offset,
                        start_uutc: damaged.start_uutc,
                        start_utc: iso8601::utc(damaged.start_uutc),
                        lost_samples: damage.samples,
                        error: damage.error.to_string(),
                    });
                }
            }
        }
        Ok(())
    }
}
