//! What a read needs: which channels, on which grid, from which pages. Pure
//! functions over a recording.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::mef::{Channel, Grid, Placement, Rule};
use crate::worker::page::{PageKey, PagedRecording};

/// How a reader is expected to go on after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Segment by segment on a grid.
    Segments,
    /// Window by window, forwards or backwards.
    Windows,
}

/// A read that was checked: every channel exists and the grid fits them all.
#[derive(Clone, Debug)]
pub(crate) struct ReadPlan {
    pub(crate) recording: Arc<PagedRecording>,
    /// Positions of the channels, in the order of the rows; repeats are legal.
    pub(crate) channels: Arc<[u32]>,
    pub(crate) grid: Grid,
    pub(crate) pattern: Pattern,
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

/// The different rates of some channels, in the order of their first use.
fn distinct_rates(recording: &PagedRecording, channels: &[u32]) -> Vec<f64> {
    let mut rates = Vec::new();
    for channel in channels
        .iter()
        .filter_map(|&position| recording.channel(position))
    {
        if !rates.contains(&channel.sampling_frequency) {
            rates.push(channel.sampling_frequency);
        }
    }
    rates
}

/// The error for a recording that has only unreadable channels.
fn no_channel(recording: &PagedRecording) -> Error {
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
        let rates = distinct_rates(recording, &channels);
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
            pattern,
        })
    }

    /// The channels of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Channel> {
        self.channels
            .iter()
            .filter_map(|&position| self.recording.channel(position))
    }

    /// Every page that the whole read needs, each once, earliest row first, as
    /// far as a budget of decoded bytes reaches. They are taken from it; what
    /// does not fit ends it.
    pub(crate) fn pages(&self, budget: &mut usize) -> Vec<PageKey> {
        let mut seen = HashSet::new();
        let mut pages = Vec::new();
        for &position in self.channels.iter() {
            let Some(channel) = self.recording.channel(position) else {
                continue;
            };
            let placement = Placement::new(self.grid, channel);
            let columns = 0..self.grid.columns();
            for key in channel_pages(&self.recording, position, channel, &placement, columns) {
                if !seen.insert(key) {
                    continue;
                }
                let samples = self.recording.samples_of(&key);
                let rest = budget.checked_sub(samples as usize * size_of::<i32>());
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

/// Pages that hold a channel's blocks for some columns, in order, neighbours
/// not repeated.
fn channel_pages<'a>(
    recording: &'a PagedRecording,
    position: u32,
    channel: &Channel,
    placement: &Placement,
    columns: Range<u64>,
) -> impl Iterator<Item = PageKey> + use<'a> {
    let mut last = None;
    placement
        .blocks(channel, columns)
        .into_iter()
        .filter_map(move |block| {
            let page = recording.page_of(position, block.segment, block.block)?;
            (last.replace(page) != Some(page)).then_some(page)
        })
}
