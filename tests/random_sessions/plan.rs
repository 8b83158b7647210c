//! What a session is to be: all that any of the writers needs to write it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::options::{Choices, Writer};

/// A session that is to be written.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub number: u64,
    pub writer: Writer,
    /// `counts`, `float` or `generate`.
    pub input: &'static str,
    #[serde(skip)]
    pub choices: Choices,
    /// The session's folder.
    pub path: PathBuf,
    /// Levels 1 and 2.
    pub passwords: Option<[&'static str; 2]>,
    pub subject: Option<Subject>,
    /// Recording time offset, zero where there is none.
    pub offset: i64,
    pub unit: &'static str,
    pub block_samples: Option<u32>,
    pub lossy: bool,
    /// mef_tools stores short runs of NaN as zeros.
    pub zeros: bool,
    pub channels: Vec<Channel>,
    /// Who opens the session again, if it is opened again.
    pub second: Option<Writer>,
    pub records: Vec<Record>,
    /// Who packs the session, if it is packed.
    pub archive: Option<&'static str>,
    /// Arguments of each run of `generate`.
    #[serde(skip)]
    pub generate: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    pub name_1: String,
    pub name_2: String,
    pub id: String,
    pub location: String,
    pub gmt_offset: i32,
}

#[derive(Debug, Serialize)]
pub struct Channel {
    pub name: String,
    pub rate: f64,
    pub factor: f64,
    /// Of float input; `None` leaves it to the writer.
    pub precision: Option<Precision>,
    /// Samples of all calls, one after another, gaps included.
    pub data: PathBuf,
    pub calls: Vec<Call>,
    /// What stands in the data file.
    #[serde(skip)]
    pub samples: Samples,
}

/// How decimal numbers become counts.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Precision {
    Places(u32),
    /// mef3io's word for the step that the numbers are multiples of.
    Step(&'static str),
}

#[derive(Debug)]
pub enum Samples {
    Counts(Vec<i32>),
    /// NaN in gaps.
    Float(Vec<f64>),
}

/// Samples that a writer is given at once.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Of the first sample, uUTC.
    pub start: i64,
    /// Place and number of the samples in the data file.
    pub first: usize,
    pub samples: usize,
    /// Where there are samples: first ones, within the call, and numbers.
    pub runs: Vec<(usize, usize)>,
    pub segment: u32,
    /// Whether the segment begins with it.
    pub begins_segment: bool,
    /// 0 for the first writer of the session, 1 for the second.
    pub opening: u32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub kind: &'static str,
    pub time: i64,
    pub text: String,
    pub duration: i64,
    pub channel: Option<String>,
    pub segment: Option<u32>,
    pub opening: u32,
}

impl Plan {
    /// Where the session is read: in its archive, if there is one.
    pub fn read_path(&self) -> PathBuf {
        match self.archive {
            Some(_) => PathBuf::from(format!("{}.tar", self.path.display())),
            None => self.path.clone(),
        }
    }

    /// Stores the samples for the Python writers.
    pub fn store_samples(&self) {
        for channel in &self.channels {
            let bytes: Vec<u8> = match &channel.samples {
                Samples::Counts(counts) => counts.iter().flat_map(|c| c.to_le_bytes()).collect(),
                Samples::Float(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            fs::write(&channel.data, bytes).unwrap();
        }
    }

    /// The samples that are not in gaps, in the order of time, with the times that
    /// they were given.
    pub fn given(&self, channel: &Channel) -> Vec<(f64, i64)> {
        let mut given = Vec::new();
        for call in &channel.calls {
            for &(first, samples) in &call.runs {
                for sample in first..first + samples {
                    let value = match &channel.samples {
                        Samples::Counts(counts) => f64::from(counts[call.first + sample]),
                        Samples::Float(values) => values[call.first + sample],
                    };
                    given.push((value, tick(call.start, sample, channel.rate)));
                }
            }
        }
        given
    }
}

/// The time of a sample, to the nearest microsecond.
pub fn tick(start: i64, sample: usize, rate: f64) -> i64 {
    start + (sample as f64 / rate * 1e6).round() as i64
}

/// The samples of a full block where nothing is said of it (format section 12).
pub fn usual_block_samples(rate: f64) -> u32 {
    let samples = if rate >= 5000.0 { rate } else { 10.0 * rate };
    (samples as u32).max(1)
}

/// A folder or file beside the session of this number.
pub fn beside(folder: &Path, number: u64, name: &str) -> PathBuf {
    folder.join(format!("{number}-{name}"))
}
