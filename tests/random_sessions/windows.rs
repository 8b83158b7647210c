//! Which windows are read: inside, across gaps and segments, at both ends and
//! beyond, at the borders of blocks, and at exact halves of a sample.

use fastrand::Rng;
use mef3_server::mef::{BlockEntry, Channel};

/// Most columns of a window: beyond, a read takes long and shows nothing new.
const MOST_COLUMNS: f64 = 20_000.0;

/// A window of a channel.
#[derive(Clone, Debug)]
pub struct Window {
    pub kind: &'static str,
    pub channel: String,
    pub start: i64,
    pub end: i64,
}

/// Every kind of window, so that none is left out unnoticed.
pub const KINDS: [&str; 19] = [
    "whole",
    "inside",
    "inside, off the grid",
    "across a gap",
    "in a gap",
    "across segments",
    "before the start",
    "after the end",
    "wholly before",
    "wholly after",
    "up to the start",
    "from the end",
    "block border, start",
    "block border, end",
    "empty",
    "one sample",
    "less than a sample",
    "tie of place",
    "tie of length",
];

/// Windows of a channel, one of most kinds.
pub fn windows(channel: &Channel, rng: &mut Rng) -> Vec<Window> {
    let blocks: Vec<BlockEntry> = channel
        .segments
        .iter()
        .flat_map(|segment| segment.index.iter())
        .collect();
    let mut picker = Picker {
        period: 1e6 / channel.sampling_frequency,
        channel,
        blocks,
        rng,
        windows: Vec::new(),
    };
    for kind in KINDS {
        picker.pick(kind);
    }
    picker.windows
}

struct Picker<'a> {
    period: f64,
    channel: &'a Channel,
    blocks: Vec<BlockEntry>,
    rng: &'a mut Rng,
    windows: Vec<Window>,
}

impl Picker<'_> {
    fn pick(&mut self, kind: &'static str) {
        let (start, end) = (self.channel.start_uutc, self.channel.end_uutc);
        let some = self.rng.i64(1..60);
        let border = self.border();
        let window = match kind {
            "whole" => Some((start, end)),
            "inside" => {
                let first = self.columns_between(start, end);
                let from = start + self.columns(first);
                Some((from, from + self.columns(some)))
            }
            "inside, off the grid" => {
                let from = self.rng.i64(start..=end);
                Some((from, from + self.rng.i64(1..=self.columns(400).max(2))))
            }
            "across a gap" => self.gap().map(|(from, until)| {
                let (before, after) = (self.some_time(), self.some_time());
                (from - before, until + after)
            }),
            "in a gap" => self.gap().filter(|(from, until)| from < until),
            "across segments" => self.segment_start().map(|border| {
                let (before, after) = (self.some_time(), self.some_time());
                (border - before, border + after)
            }),
            "before the start" => Some((start - self.some_time(), start + self.some_time())),
            "after the end" => Some((end - self.some_time(), end + self.some_time())),
            "wholly before" => {
                let until = start - 1 - self.some_time();
                Some((until - self.columns(some), until))
            }
            "wholly after" => {
                let from = end + 1 + self.some_time();
                Some((from, from + self.columns(some)))
            }
            "up to the start" => Some((start - self.columns(some), start)),
            "from the end" => Some((end, end + self.columns(some))),
            "block border, start" => {
                let from = border + self.fraction();
                Some((from, from + self.columns(some)))
            }
            "block border, end" => {
                let until = border + self.fraction();
                Some((until - self.columns(some), until))
            }
            "empty" => match self.rng.bool() {
                true => Some((border, border)),
                false => Some((border, border - some)),
            },
            "one sample" => {
                let first = self.columns_between(start, end);
                let from = start + self.columns(first);
                Some((from, from + (self.period.round() as i64).max(1)))
            }
            "less than a sample" => {
                let from = border + self.fraction();
                Some((from, from + (self.period * self.rng.f64()) as i64 + 1))
            }
            // The first slot of a block is half a sample from two columns.
            "tie of place" => {
                let from = border - self.halves(some);
                Some((from, from + self.columns(some + 20)))
            }
            "tie of length" => Some((border, border + self.halves(some))),
            _ => unreachable!("no window {kind}"),
        };
        let Some((start, end)) = window else {
            return;
        };
        if (end - start) as f64 <= MOST_COLUMNS * self.period {
            self.windows.push(Window {
                kind,
                channel: self.channel.name.clone(),
                start,
                end,
            });
        }
    }

    /// Microseconds of whole columns, to the nearest.
    fn columns(&self, columns: i64) -> i64 {
        (columns as f64 * self.period).round() as i64
    }

    /// Microseconds of columns and a half.
    fn halves(&self, columns: i64) -> i64 {
        ((columns as f64 + 0.5) * self.period).round() as i64
    }

    /// A number of columns, less than there are between two times.
    fn columns_between(&mut self, start: i64, end: i64) -> i64 {
        let columns = ((end - start) as f64 / self.period) as i64;
        self.rng.i64(0..columns.max(1))
    }

    /// Up to about thirty columns, on the grid or off it.
    fn some_time(&mut self) -> i64 {
        let columns = self.rng.i64(1..30);
        match self.rng.u8(..3) {
            0 => self.columns(columns),
            1 => self.halves(columns),
            _ => (self.period * 30.0 * self.rng.f64()) as i64,
        }
    }

    /// A part of a column, of either sign.
    fn fraction(&mut self) -> i64 {
        let parts = [0.0, 0.1, 0.25, 0.49, 0.5, 0.51, 0.75, 0.9];
        let part = parts[self.rng.usize(..parts.len())];
        let time = (self.period * part) as i64 + self.rng.i64(-1..=1);
        if self.rng.bool() { time } else { -time }
    }

    /// Start or end of some block.
    fn border(&mut self) -> i64 {
        let block = self.blocks[self.rng.usize(..self.blocks.len())];
        match self.rng.bool() {
            true => block.start_uutc,
            false => self.channel.end_of(&block),
        }
    }

    fn gap(&mut self) -> Option<(i64, i64)> {
        let pairs = self.blocks.windows(2);
        let gaps: Vec<(i64, i64)> = pairs
            .map(|pair| (self.channel.end_of(&pair[0]), pair[1].start_uutc))
            .filter(|&(end, start)| (start - end) as f64 > 0.6 * self.period)
            .collect();
        self.rng.choice(gaps)
    }

    fn segment_start(&mut self) -> Option<i64> {
        let later = self.channel.segments.iter().skip(1);
        let starts: Vec<i64> = later.map(|segment| segment.start_uutc).collect();
        self.rng.choice(starts)
    }
}
