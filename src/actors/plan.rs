//! What a read needs: which channels, on which grid, from which pages. Pure
//! functions over a recording.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::mef::{BlockPosition, Channel, Grid, Placement, Rule};
use crate::worker::page::{Form, PageKey, PagedRecording};

/// How a reader is expected to go on after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Segment by segment on a grid.
    Segments,
    /// Window by window, forwards or backwards.
    Windows,
    /// Not at all: the read is a part of another one.
    Parts,
}

/// A read that was checked: every channel exists and the grid fits them all.
#[derive(Clone, Debug)]
pub(crate) struct ReadPlan {
    pub(crate) recording: Arc<PagedRecording>,
    /// Positions of the channels, in the order of the rows; repeats are legal.
    pub(crate) channels: Arc<[u32]>,
    pub(crate) grid: Grid,
    /// The columns that are read.
    pub(crate) columns: Range<u64>,
    pub(crate) pattern: Pattern,
    /// What is wanted of the blocks.
    pub(crate) form: Form,
}

/// Positions of the named channels in their order; all, where none is named.
pub(crate) fn channel_positions(
    recording: &PagedRecording,
    names: &[String],
) -> Result<Vec<u32>, Error> {
    let recording = &recording.recording;
    if names.is_empty() {
        return Ok((0u32..).take(recording.channels.len()).collect());
    }
    let mut unknown = Vec::new();
    let mut positions = Vec::new();
    for name in names {
        if let Some(position) = recording.channel_position(name) {
            positions.push(position as u32);
        } else if let Some(channel) = recording.unreadable.iter().find(|c| c.name == *name) {
            return Err(Error::UnreadableChannel {
                channel: channel.name.clone(),
                error: channel.error.clone(),
            });
        } else {
            unknown.push(name.clone());
        }
    }
    if unknown.is_empty() {
        Ok(positions)
    } else {
        Err(Error::UnknownChannels(unknown))
    }
}

/// The different ones of some rates, in the order of their first use.
pub(crate) fn distinct_rates(rates: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut distinct = Vec::new();
    for rate in rates {
        if !distinct.contains(&rate) {
            distinct.push(rate);
        }
    }
    distinct
}

/// The error for a recording that has only unreadable channels.
pub(crate) fn no_channel(recording: &PagedRecording) -> Error {
    match recording.recording.unreadable.first() {
        Some(channel) => Error::UnreadableChannel {
            channel: channel.name.clone(),
            error: channel.error.clone(),
        },
        None => Error::UnknownChannels(Vec::new()),
    }
}

impl ReadPlan {
    /// Checks a read of channels (by position) over `[start_uutc, end_uutc)`.
    ///
    /// The checks come in the order of the existing servers: window, rates,
    /// length.
    pub(crate) fn new(
        recording: &Arc<PagedRecording>,
        channels: Vec<u32>,
        (start_uutc, end_uutc): (i64, i64),
        rule: Rule,
        pattern: Pattern,
        most_channels: usize,
    ) -> Result<Self, Error> {
        if channels.len() > most_channels {
            return Err(Error::LimitExceeded {
                limit: "limits.channels_per_read",
                value: most_channels as u64,
            });
        }
        let rows = channels.iter().filter_map(|&it| recording.channel(it));
        let rates = distinct_rates(rows.map(|channel| channel.sampling_frequency));
        let Some(&rate) = rates.first() else {
            return Err(no_channel(recording));
        };
        let grid = Grid::new(rule, start_uutc, end_uutc, rate)?;
        if rates.len() > 1 {
            return Err(Error::MixedRates(rates));
        }
        // A segment at the end of a grid may be that short, and is no mistake.
        if grid.columns() == 0 && pattern == Pattern::Windows {
            return Err(Error::ShorterThanOneSample);
        }
        Ok(Self {
            recording: Arc::clone(recording),
            channels: channels.into(),
            grid,
            columns: 0..grid.columns(),
            pattern,
            form: Form::Counts,
        })
    }

    /// The page that holds a block of a channel, in the form that is wanted.
    pub(crate) fn page_of(&self, channel: u32, block: BlockPosition) -> Option<PageKey> {
        let page = self
            .recording
            .page_of(channel, block.segment, block.block)?;
        Some(PageKey {
            form: self.form,
            ..page
        })
    }

    /// The time of the columns that are read, uUTC.
    pub(crate) fn span_uutc(&self) -> (i64, i64) {
        let grid = &self.grid;
        if self.columns == (0..grid.columns()) {
            return (grid.start_uutc(), grid.end_uutc());
        }
        let start = grid.time_bound(self.columns.start, 0.0);
        (start, grid.time_bound(self.columns.end, 0.0))
    }

    /// The channels of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Channel> {
        self.channels
            .iter()
            .filter_map(|&position| self.recording.channel(position))
    }

    /// Every page that the whole read needs, each once, earliest row first, as
    /// far as a budget of bytes reaches. They are taken from it; what
    /// does not fit ends it.
    pub(crate) fn pages(&self, budget: &mut usize) -> Vec<PageKey> {
        let mut seen = HashSet::new();
        let mut pages = Vec::new();
        for &position in self.channels.iter() {
            let Some(channel) = self.recording.channel(position) else {
                continue;
            };
            let placement = Placement::new(self.grid, channel);
            let blocks = placement.blocks(channel, self.columns.clone());
            for key in blocks
                .into_iter()
                .filter_map(|it| self.page_of(position, it))
            {
                if !seen.insert(key) {
                    continue;
                }
                let words = self.recording.words_of(&key);
                let rest = budget.checked_sub(words as usize * size_of::<i32>());
                *budget = rest.unwrap_or(0);
                if rest.is_none() {
                    return pages;
                }
                pages.push(key);
            }
        }
        pages
    }
}
