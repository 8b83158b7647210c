//! One channel under construction: runs of samples become blocks, blocks go to
//! segments.

use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;

use super::segment::SegmentWriter;
use super::{Session, WriteError, check_name, create_folder, metadata};
use crate::mef::red::{Encoder, MAX_BLOCK_SAMPLES};

/// Most segments of a channel: their numbers have six digits.
const MAX_SEGMENTS: u32 = 1_000_000;

/// What a channel's files say of the channel.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// At most 63 characters, and a folder name.
    pub name: String,
    /// Samples per second, possibly fractional.
    pub sampling_frequency: f64,
    /// Units per count: a sample is worth its count times this.
    pub units_conversion_factor: f64,
    /// The unit, at most 127 bytes.
    pub units_description: String,
    /// Samples of a full block; by default one second of a channel of 5 kHz or
    /// more, ten seconds of a slower one.
    pub block_samples: Option<u32>,
    /// Free text, at most 2047 bytes.
    pub channel_description: String,
    /// Free text, at most 2047 bytes.
    pub reference_description: String,
    /// Number of the channel in the acquisition system.
    pub acquisition_channel_number: Option<i64>,
    /// High-pass cut-off in Hz.
    pub low_frequency_filter: Option<f64>,
    /// Low-pass cut-off in Hz.
    pub high_frequency_filter: Option<f64>,
    /// Notch filter in Hz.
    pub notch_filter_frequency: Option<f64>,
    /// Frequency of the mains in Hz.
    pub ac_line_frequency: Option<f64>,
}

impl ChannelOptions {
    /// A channel of microvolts, one per count, and nothing else known.
    pub fn new(name: impl Into<String>, sampling_frequency: f64) -> Self {
        Self {
            name: name.into(),
            sampling_frequency,
            units_conversion_factor: 1.0,
            units_description: "uV".into(),
            block_samples: None,
            channel_description: String::new(),
            reference_description: String::new(),
            acquisition_channel_number: None,
            low_frequency_filter: None,
            high_frequency_filter: None,
            notch_filter_frequency: None,
            ac_line_frequency: None,
        }
    }

    fn check(&self) -> Result<(), WriteError> {
        check_name(&self.name)?;
        metadata::check_channel_texts(self)?;
        let frequency = self.sampling_frequency;
        if !frequency.is_finite() || frequency <= 0.0 {
            return Err(WriteError::SamplingFrequency(frequency));
        }
        let factor = self.units_conversion_factor;
        if !factor.is_finite() || factor == 0.0 {
            return Err(WriteError::ConversionFactor(factor));
        }
        match self.block_samples {
            Some(samples) if !(1..=MAX_BLOCK_SAMPLES).contains(&samples) => {
                Err(WriteError::BlockSamples(samples))
            }
            _ => Ok(()),
        }
    }

    fn samples_per_block(&self) -> usize {
        let by_default = if self.sampling_frequency >= 5000.0 {
            self.sampling_frequency
        } else {
            10.0 * self.sampling_frequency
        };
        let samples = self.block_samples.unwrap_or(by_default as u32);
        samples.clamp(1, MAX_BLOCK_SAMPLES) as usize
    }
}

/// Time that `samples` samples last, in microseconds (format section 11.5).
pub(super) fn duration(samples: u64, sampling_frequency: f64) -> i64 {
    (samples as f64 / sampling_frequency * 1e6).round() as i64
}

/// Samples without a gap between them; all their times follow from the first.
struct Run {
    /// Absolute uUTC.
    start: i64,
    /// Samples of the run that are in blocks already.
    encoded: u64,
}

/// A channel under construction.
///
/// Dropped without [`finish`](Self::finish), the segment at hand is lost: it
/// stays in a folder that no reader takes for a segment.
pub struct ChannelWriter {
    session: Arc<Session>,
    options: ChannelOptions,
    folder: PathBuf,
    rng: Rng,
    encoder: Encoder,
    /// The latest encoded block, kept for its capacity.
    block: Vec<u8>,
    samples_per_block: usize,
    /// Samples of the current run that do not fill a block yet.
    pending: Vec<i32>,
    run: Option<Run>,
    /// The segment at hand: there is none before its first block.
    segment: Option<SegmentWriter>,
    next_segment: u32,
    /// Samples in all finished segments.
    finished_samples: u64,
    /// A call failed while it wrote.
    unusable: bool,
}

impl ChannelWriter {
    pub(super) fn create(
        session: Arc<Session>,
        options: ChannelOptions,
        rng: Rng,
    ) -> Result<Self, WriteError> {
        options.check()?;
        let folder = session.folder.join(format!("{}.timd", options.name));
        create_folder(&folder)?;
        let samples_per_block = options.samples_per_block();
        Ok(Self {
            session,
            options,
            folder,
            rng,
            encoder: Encoder::new(),
            block: Vec::new(),
            samples_per_block,
            pending: Vec::new(),
            run: None,
            segment: None,
            next_segment: 0,
            finished_samples: 0,
            unusable: false,
        })
    }

    /// Writes counts whose first was taken at `start_uutc`, absolute uUTC.
    ///
    /// Within half a sample of the end of the data so far, they continue its
    /// run, and `start_uutc` is not stored. Later, they begin a run after a gap.
    /// The count -2^31 stands for "not a number".
    ///
    /// # Errors
    /// [`WriteError::Overlap`] and [`WriteError::StartTime`], which leave the
    /// channel as it was; [`WriteError::Io`], [`WriteError::TooManySegments`]
    /// and [`WriteError::Encode`], after which every call is
    /// [`WriteError::Unusable`].
    pub fn write(&mut self, start_uutc: i64, samples: &[i32]) -> Result<(), WriteError> {
        self.check_usable()?;
        if samples.is_empty() {
            return Ok(());
        }
        if start_uutc < 0 || self.end_after(start_uutc, samples.len()).is_none() {
            return Err(WriteError::StartTime(start_uutc));
        }
        if !self.continues_run(start_uutc)? {
            self.write_pending()?;
            self.run = Some(Run {
                start: start_uutc,
                encoded: 0,
            });
        }
        let mut rest = samples;
        while !rest.is_empty() {
            let room = self.samples_per_block - self.pending.len();
            let (head, tail) = rest.split_at(room.min(rest.len()));
            self.pending.extend_from_slice(head);
            if self.pending.len() == self.samples_per_block {
                self.write_pending()?;
            }
            rest = tail;
        }
        Ok(())
    }

    /// Completes the segment at hand, so that later samples go to the next. A
    /// segment without samples is not written.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn new_segment(&mut self) -> Result<(), WriteError> {
        self.check_usable()?;
        self.write_pending()?;
        if let Some(segment) = self.segment.take() {
            self.unusable = true;
            self.finished_samples += segment.samples();
            segment.finish(&self.session, &self.options, &mut self.rng)?;
            self.unusable = false;
        }
        Ok(())
    }

    /// Completes the channel.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.new_segment()
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if self.unusable {
            return Err(WriteError::Unusable);
        }
        Ok(())
    }

    /// End of `samples` samples from `start` on; `None` beyond the last time.
    fn end_after(&self, start: i64, samples: usize) -> Option<i64> {
        start.checked_add(duration(samples as u64, self.options.sampling_frequency))
    }

    /// Whether samples from `start` on belong to the run at hand.
    fn continues_run(&self, start: i64) -> Result<bool, WriteError> {
        let Some(run) = &self.run else {
            return Ok(false);
        };
        let fs = self.options.sampling_frequency;
        let samples = run.encoded + self.pending.len() as u64;
        let end = run.start.saturating_add(duration(samples, fs));
        // Both are times from 1970 on: their difference cannot overflow.
        let late = (start - end) as f64 * fs / 1e6;
        if late <= -0.5 {
            return Err(WriteError::Overlap { start, end });
        }
        Ok(late < 0.5)
    }

    /// Encodes the pending samples as one block of the segment at hand.
    fn write_pending(&mut self) -> Result<(), WriteError> {
        let (Some(run), false) = (&mut self.run, self.pending.is_empty()) else {
            return Ok(());
        };
        self.unusable = true;
        let segment = match &mut self.segment {
            Some(segment) => segment,
            None => {
                let number = self.next_segment;
                if number >= MAX_SEGMENTS {
                    return Err(WriteError::TooManySegments);
                }
                self.next_segment += 1;
                self.segment.insert(SegmentWriter::create(
                    &self.folder,
                    &self.options.name,
                    number,
                    self.finished_samples,
                )?)
            }
        };
        // A segment's first block is flagged even if the run continues in it.
        let discontinuity = run.encoded == 0 || segment.samples() == 0;
        let since_run_start = duration(run.encoded, self.options.sampling_frequency);
        let start = run.start.saturating_add(since_run_start);
        self.block.clear();
        let encoded = self
            .encoder
            .encode(&self.pending, start, discontinuity, &mut self.block)?;
        segment.append(&encoded, &self.block)?;
        run.encoded += self.pending.len() as u64;
        self.pending.clear();
        self.unusable = false;
        Ok(())
    }
}
