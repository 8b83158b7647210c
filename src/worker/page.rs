//! Pages: runs of whole decoded blocks, the unit that is cached and shared.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mef::{BlockDamage, Channel, DecodedBlock, Recording, Segment};

/// Names one opening of a recording. Never used twice within a process, so that
/// a page of an earlier state of the files can never be taken for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RecordingId(u64);

impl RecordingId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

/// Names a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageKey {
    /// The opening of the recording.
    pub recording: RecordingId,
    /// Position in [`Recording::channels`].
    pub channel: u32,
    /// Position in [`Channel::segments`].
    pub segment: u32,
    /// Position of the page's first block in the segment's index.
    pub first_block: u32,
}

/// A recording with its division into pages.
#[derive(Debug)]
pub(crate) struct PagedRecording {
    /// Names this opening.
    pub id: RecordingId,
    /// What was found in the files.
    pub recording: Recording,
    /// For each channel and segment, the first block of each page.
    page_starts: Vec<Vec<Box<[u32]>>>,
}

impl PagedRecording {
    /// Divides a recording into pages of whole blocks with at most
    /// `target_samples` samples each; a larger block is a page of its own.
    pub(crate) fn new(recording: Recording, target_samples: u32) -> Self {
        let starts = |segment: &Segment| page_starts(segment.index.samples(), target_samples);
        let page_starts = recording
            .channels
            .iter()
            .map(|channel| channel.segments.iter().map(starts).collect())
            .collect();
        Self {
            id: RecordingId::next(),
            recording,
            page_starts,
        }
    }

    /// A recording without channels.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        let recording = Recording {
            name: String::new(),
            path: PathBuf::new(),
            channels: Vec::new(),
            unreadable: Vec::new(),
            video_channels: Vec::new(),
            subject: crate::mef::Subject::default(),
        };
        Self::new(recording, 1)
    }

    /// The channel at a position.
    pub(crate) fn channel(&self, position: u32) -> Option<&Channel> {
        self.recording.channels.get(position as usize)
    }

    /// The page that holds a block; `None` where there is no such segment.
    pub(crate) fn page_of(&self, channel: u32, segment: u32, block: u32) -> Option<PageKey> {
        let starts = self.starts(channel, segment)?;
        let page = starts
            .partition_point(|&start| start <= block)
            .checked_sub(1)?;
        Some(PageKey {
            recording: self.id,
            channel,
            segment,
            first_block: *starts.get(page)?,
        })
    }

    /// What to decode for a page: its segment and its blocks.
    pub(crate) fn run_of(&self, key: &PageKey) -> Option<(&Channel, &Segment, BlockRun)> {
        let channel = self.channel(key.channel)?;
        let segment = channel.segments.get(key.segment as usize)?;
        let starts = self.starts(key.channel, key.segment)?;
        let page = starts.binary_search(&key.first_block).ok()?;
        let end = starts
            .get(page + 1)
            .map_or(segment.index.len(), |&end| end as usize);
        let samples = segment.index.samples().get(key.first_block as usize..end)?;
        let run = BlockRun {
            first_block: key.first_block,
            blocks: samples.len() as u32,
            samples: samples.iter().map(|&samples| u64::from(samples)).sum(),
        };
        Some((channel, segment, run))
    }

    /// The folder of a channel.
    pub(crate) fn channel_folder(&self, channel: &Channel) -> PathBuf {
        self.recording.channel_folder(&channel.name)
    }

    fn starts(&self, channel: u32, segment: u32) -> Option<&[u32]> {
        let segments = self.page_starts.get(channel as usize)?;
        segments.get(segment as usize).map(|starts| &**starts)
    }
}

fn page_starts(samples: &[u32], target_samples: u32) -> Box<[u32]> {
    let mut starts = Vec::new();
    let mut filled = u64::MAX;
    for (&samples, block) in samples.iter().zip(0u32..) {
        filled = filled.saturating_add(u64::from(samples));
        // Blocks without samples must not make an endless page.
        let blocks = starts.last().map_or(0, |start| block - start);
        if filled > u64::from(target_samples) || blocks >= target_samples {
            starts.push(block);
            filled = u64::from(samples);
        }
    }
    starts.into_boxed_slice()
}

/// Consecutive blocks of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRun {
    /// Position of the first block in the segment's index.
    pub first_block: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Samples that the index promises, in all blocks together.
    pub samples: u64,
}

/// Decoded blocks: counts exactly as stored, with each block's time.
#[derive(Debug)]
pub(crate) struct Page {
    first_block: u32,
    blocks: Box<[PageBlock]>,
    samples: Box<[i32]>,
}

#[derive(Debug)]
struct PageBlock {
    start_uutc: i64,
    /// Position of the block's first sample in the page.
    offset: usize,
    samples: u32,
    damage: Option<Box<BlockDamage>>,
}

/// One block of a [`Page`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageBlockView<'a> {
    /// Time of the first sample, absolute uUTC.
    pub start_uutc: i64,
    /// Counts; none where the block is damaged.
    pub counts: &'a [i32],
    /// Why the block has no counts.
    pub damage: Option<&'a BlockDamage>,
}

impl Page {
    /// A page of `blocks`, whose samples follow each other in `samples`.
    /// `None` where the two do not fit together.
    pub(crate) fn new(
        first_block: u32,
        blocks: Vec<DecodedBlock>,
        samples: Box<[i32]>,
    ) -> Option<Self> {
        let mut offset = 0usize;
        let blocks = blocks
            .into_iter()
            .map(|block| {
                let page_block = PageBlock {
                    start_uutc: block.start_uutc,
                    offset,
                    samples: block.samples,
                    damage: block.damage.map(Box::new),
                };
                offset = offset.checked_add(block.samples as usize)?;
                Some(page_block)
            })
            .collect::<Option<_>>()?;
        (offset == samples.len()).then_some(Self {
            first_block,
            blocks,
            samples,
        })
    }

    /// The block at a position of the segment's index.
    pub(crate) fn block(&self, block: u32) -> Option<PageBlockView<'_>> {
        let position = block.checked_sub(self.first_block)?;
        let block = self.blocks.get(position as usize)?;
        Some(PageBlockView {
            start_uutc: block.start_uutc,
            counts: self
                .samples
                .get(block.offset..block.offset + block.samples as usize)?,
            damage: block.damage.as_deref(),
        })
    }

    /// Bytes that the page takes in memory.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.blocks) + size_of_val(&*self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_whole_blocks_up_to_the_target() {
        assert_eq!(*page_starts(&[100; 7], 250), [0, 2, 4, 6]);
        assert_eq!(*page_starts(&[100, 900, 100, 100], 250), [0, 1, 2]);
        assert!(page_starts(&[], 250).is_empty());
        assert_eq!(*page_starts(&[u32::MAX, u32::MAX], 1), [0, 1]);
        // Empty blocks are cheap, and still do not pile up without end.
        assert_eq!(*page_starts(&[0; 5], 2), [0, 2, 4]);
    }

    #[test]
    fn a_page_whose_samples_do_not_match_its_blocks_is_refused() {
        let block = |samples| DecodedBlock {
            start_uutc: 0,
            samples,
            damage: None,
        };
        assert!(Page::new(0, vec![block(2)], [1, 2, 3].into()).is_none());
        let page = Page::new(5, vec![block(2), block(1)], [1, 2, 3].into()).unwrap();
        assert_eq!(page.block(6).unwrap().counts, [3]);
        assert!(page.block(4).is_none() && page.block(7).is_none());
    }
}
