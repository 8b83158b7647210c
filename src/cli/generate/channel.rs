//! One channel: signal and writer.

use mef3_server::mef::synth::Synth;
use mef3_server::mef::{ChannelWriter, WriteError};

use super::plan::Plan;

/// Samples that are made and written at a time: 256 KiB.
const CHUNK: usize = 64 * 1024;

pub(super) struct Generator {
    writer: ChannelWriter,
    signal: Synth,
    rate: f64,
    /// Absolute uUTC.
    start: i64,
    segment: u32,
    /// Number of the first sample that is not written, gaps counted.
    unwritten: u64,
    chunk: Vec<i32>,
}

impl Generator {
    pub(super) fn new(writer: ChannelWriter, signal: Synth, start: i64) -> Self {
        Self {
            rate: writer.sampling_frequency(),
            writer,
            signal,
            start,
            segment: 0,
            unwritten: 0,
            chunk: Vec::new(),
        }
    }

    /// Writes what the plan has within a span of time, in seconds from the start.
    pub(super) fn write(&mut self, plan: &Plan, from: f64, until: f64) -> Result<(), WriteError> {
        for piece in plan.within(from, until) {
            if piece.segment != self.segment {
                self.writer.new_segment()?;
                self.segment = piece.segment;
            }
            let mut next = self.sample_at(piece.from).max(self.unwritten);
            // A channel of a recording has at least one sample.
            let end = self
                .sample_at(piece.until)
                .max(u64::from(piece.from == 0.0));
            while next < end {
                let length = (end - next).min(CHUNK as u64);
                self.chunk.resize(length as usize, 0);
                self.signal.fill(&mut self.chunk);
                let offset = (next as f64 / self.rate * 1e6).round() as i64;
                let time = self.start.saturating_add(offset);
                self.writer.write(time, &self.chunk)?;
                next += length;
                self.unwritten = next;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.writer.flush()
    }

    pub(super) fn finish(self) -> Result<(), WriteError> {
        self.writer.finish()
    }

    /// Number of samples before an instant.
    fn sample_at(&self, seconds: f64) -> u64 {
        (seconds * self.rate).round() as u64
    }
}
