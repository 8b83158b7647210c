//! One channel under construction: runs of samples become blocks, blocks go to
//! segments.

use std::path::PathBuf;

use fastrand::Rng;

use super::WriteError;
use super::existing::Existing;
use super::segment::SegmentWriter;
use super::template::Template;
use crate::mef::red::Encoder;
use crate::mef::time;

/// Most segments of a channel: their numbers have six digits.
const MAX_SEGMENTS: u32 = 1_000_000;

/// Time that `samples` samples last, in microseconds (format section 11.5).
fn duration(samples: u64, sampling_frequency: f64) -> i64 {
    (samples as f64 / sampling_frequency * 1e6).round() as i64
}

/// Samples without a gap between them; all their times follow from the first.
pub(super) struct Run {
    /// Absolute uUTC.
    pub(super) start: i64,
    /// Samples of the run that are in blocks already.
    pub(super) encoded: u64,
}

/// A channel that takes samples.
///
/// Dropped without [`finish`](Self::finish) or [`flush`](Self::flush), it loses
/// what was written since: a new segment stays in a folder that no reader takes for
/// one.
pub struct ChannelWriter {
    name: String,
    folder: PathBuf,
    template: Template,
    rng: Rng,
    encoder: Encoder,
    /// The latest encoded block, kept for its capacity.
    block: Vec<u8>,
    samples_per_block: usize,
    /// Samples of the current run that do not fill a block yet.
    pending: Vec<i32>,
    pub(super) run: Option<Run>,
    /// The segment at hand: there is none before its first block.
    segment: Option<SegmentWriter>,
    next_segment: u32,
    /// Samples in all finished segments.
    finished_samples: u64,
    /// A call failed while it wrote.
    unusable: bool,
}

impl ChannelWriter {
    /// A writer that goes on where a channel stands.
    pub(super) fn new(name: String, samples_per_block: u32, stands: Existing, rng: Rng) -> Self {
        let offset = stands.template.recording_time_offset();
        Self {
            name,
            folder: stands.folder,
            template: stands.template,
            rng,
            encoder: Encoder::with_recording_time_offset(offset),
            block: Vec::new(),
            samples_per_block: samples_per_block as usize,
            pending: Vec::new(),
            run: stands.run,
            segment: stands.segment,
            next_segment: stands.next_segment,
            finished_samples: stands.finished_samples,
            unusable: false,
        }
    }

    /// Samples a second, in Hz.
    pub fn sampling_frequency(&self) -> f64 {
        self.template.section_2().sampling_frequency.get()
    }

    /// Units per count.
    pub fn units_conversion_factor(&self) -> f64 {
        self.template.section_2().units_conversion_factor.get()
    }

    /// The instant just after the last sample so far, absolute uUTC.
    pub fn end_uutc(&self) -> Option<i64> {
        let run = self.run.as_ref()?;
        let samples = run.encoded + self.pending.len() as u64;
        Some(
            run.start
                .saturating_add(duration(samples, self.sampling_frequency())),
        )
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
        let offset = self.template.recording_time_offset();
        let storable = time::stored_under(start_uutc, offset).is_some();
        if !storable || self.end_after(start_uutc, samples.len()).is_none() {
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

    /// Makes everything so far visible to readers. Samples that do not fill a block
    /// become a short one, so a recording that is to be followed live needs one call
    /// for each step that its readers are to see.
    ///
    /// The order is that of format section 13.1: readers, and a writer after a crash
    /// of this process, find all earlier samples at any instant. It does not wait
    /// for the disk.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.check_usable()?;
        self.write_pending()?;
        self.unusable = true;
        if let Some(segment) = &mut self.segment {
            segment.publish()?;
        }
        self.unusable = false;
        Ok(())
    }

    /// Completes the segment at hand, so that later samples go to the next. A
    /// segment without samples is not written.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn new_segment(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        if let Some(segment) = self.segment.take() {
            self.finished_samples += segment.samples();
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
        start.checked_add(duration(samples as u64, self.sampling_frequency()))
    }

    /// Whether samples from `start` on belong to the run at hand.
    fn continues_run(&self, start: i64) -> Result<bool, WriteError> {
        let Some(run) = &self.run else {
            return Ok(false);
        };
        let fs = self.sampling_frequency();
        let samples = run.encoded + self.pending.len() as u64;
        let end = run.start.saturating_add(duration(samples, fs));
        // A time that stands in the files may be any.
        let late = start.saturating_sub(end) as f64 * fs / 1e6;
        if late <= -0.5 {
            return Err(WriteError::Overlap { start, end });
        }
        Ok(late < 0.5)
    }

    /// Encodes the pending samples as one block of the segment at hand.
    fn write_pending(&mut self) -> Result<(), WriteError> {
        let fs = self.sampling_frequency();
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
                    &self.name,
                    number,
                    self.finished_samples,
                    &self.template,
                    &mut self.rng,
                )?)
            }
        };
        // A segment's first block is flagged even if the run continues in it.
        let discontinuity = run.encoded == 0 || segment.samples() == 0;
        let since_run_start = duration(run.encoded, fs);
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
