//! What a read needs: which channels, on which grid, from which pages. Pure
//! functions over a recording.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::mef::{Channel, Grid, Placement};
use crate::worker::page::{PageKey, PagedRecording};

/// How a reader is expected to go on after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Segment by segment on a grid.
    Segments,
    /// Window by window, forwards or backwards.
    Windows,
    /// Nothing is known.
    None,
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

impl ReadPlan {
    /// The channels of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Channel> {
        self.channels
            .iter()
            .filter_map(|&position| self.recording.channel(position))
    }

    /// Every page that the whole read needs, each once, earliest row first, as
    /// far as they stay within a number of decoded bytes.
    pub(crate) fn pages(&self, max_bytes: usize) -> Vec<PageKey> {
        let mut seen = HashSet::new();
        let mut pages = Vec::new();
        let mut bytes = 0usize;
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
                let samples = self
                    .recording
                    .run_of(&key)
                    .map_or(0, |(_, _, run)| run.samples);
                bytes = bytes.saturating_add(samples as usize * size_of::<i32>());
                if bytes > max_bytes {
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
