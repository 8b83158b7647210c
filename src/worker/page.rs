//! Pages: runs of whole decoded blocks, the unit that is cached and shared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mef::{
    BlockDamage, BlockEntry, BlockIndex, Channel, DecodedBlock, MefError, PART_ENTRIES, Recording,
    Segment,
};

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

/// Names the state of a recording that was read. Within an engine's life no two
/// states have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Another number means that something was replaced or cut: what was read of
    /// an earlier state may not be there any more.
    pub opening: u64,
    /// How often blocks, segments or channels were added since; what was read
    /// before is still true.
    pub growth: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.opening, self.growth)
    }
}

/// Names a segment of a recording, whatever is added before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentId(u32);

#[cfg(test)]
impl SegmentId {
    /// For tests that look at no segment.
    pub(crate) const ANY: Self = Self(0);
}

/// What a page holds of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Form {
    /// Their samples, as counts.
    Counts,
    /// Their bytes, in plain text.
    Stored,
}

impl Form {
    /// Words of 32 bits that a block takes.
    pub(crate) fn words_of(self, block: &BlockEntry) -> u32 {
        match self {
            Self::Counts => block.samples,
            Self::Stored => block.bytes.div_ceil(4),
        }
    }
}

/// Names a page. The page at the end of a recording that grows has another name
/// when there are more blocks in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageKey {
    /// The opening of the recording.
    pub recording: RecordingId,
    /// The segment.
    pub segment: SegmentId,
    /// Position of the page's first block in the segment's index.
    pub first_block: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// What it holds of them.
    pub form: Form,
}

/// The division of a segment into pages. A page lies in one part of the index,
/// so that the pages of full parts are those of all later states, too.
#[derive(Debug)]
struct SegmentPages {
    id: SegmentId,
    /// For each part of the index, the first block of each page in it.
    starts: Vec<Arc<[u32]>>,
}

/// A recording with its division into pages.
#[derive(Debug)]
pub(crate) struct PagedRecording {
    /// Names this opening.
    pub id: RecordingId,
    /// How often something was added since.
    growth: u64,
    /// What was found in the files.
    pub recording: Recording,
    target_samples: u32,
    /// By channel and segment, as in the recording.
    pages: Vec<Vec<SegmentPages>>,
    /// Positions of channel and segment by the segment's name.
    places: Vec<(u32, u32)>,
    /// Bytes that the indices take.
    memory: usize,
}

impl PagedRecording {
    /// Divides a recording into pages of whole blocks with at most
    /// `target_samples` samples each; a larger block is a page of its own.
    pub(crate) fn new(recording: Recording, target_samples: u32) -> Self {
        let mut paged = Self {
            id: RecordingId::next(),
            growth: 0,
            memory: 0,
            recording,
            target_samples,
            pages: Vec::new(),
            places: Vec::new(),
        };
        paged.divide(None);
        paged
    }

    /// A later state of the same recording. Pages keep their names, but for
    /// those at the ends of segments that have grown.
    pub(crate) fn grown(&self, recording: Recording) -> Self {
        let mut paged = Self {
            id: self.id,
            growth: self.growth + 1,
            memory: 0,
            recording,
            target_samples: self.target_samples,
            pages: Vec::new(),
            // Segments that are not there any more keep theirs, and nobody asks.
            places: self.places.clone(),
        };
        paged.divide(Some(self));
        paged
    }

    fn divide(&mut self, before: Option<&Self>) {
        for (channel, position) in self.recording.channels.iter().zip(0..) {
            let mut segments = Vec::with_capacity(channel.segments.len());
            let mut known = before
                .into_iter()
                .flat_map(|b| b.segments(&channel.name))
                .peekable();
            for (segment, number) in channel.segments.iter().zip(0..) {
                let same = known.next_if(|(known, _)| known.stem == segment.stem);
                let (id, mut starts) = match same {
                    Some((_, pages)) => {
                        // The last part may have grown.
                        let full = pages.starts.len().saturating_sub(1);
                        (
                            pages.id,
                            pages.starts.get(..full).unwrap_or_default().to_vec(),
                        )
                    }
                    None => (SegmentId(self.places.len() as u32), Vec::new()),
                };
                match self.places.get_mut(id.0 as usize) {
                    Some(place) => *place = (position, number),
                    None => self.places.push((position, number)),
                }
                starts.extend(page_starts(
                    &segment.index,
                    starts.len(),
                    self.target_samples,
                ));
                segments.push(SegmentPages { id, starts });
            }
            self.pages.push(segments);
        }
        let starts = self.pages.iter().flatten().flat_map(|pages| &pages.starts);
        let starts = starts
            .map(|starts| size_of_val::<[u32]>(starts))
            .sum::<usize>();
        let segments = self.places.len() * (size_of::<Segment>() + size_of::<SegmentPages>());
        self.memory = self.recording.memory() + starts + segments;
    }

    /// About how many bytes the indices of the recording take.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// The segments of a channel, with their pages.
    fn segments(&self, channel: &str) -> impl Iterator<Item = (&Segment, &SegmentPages)> {
        let position = self.recording.channel_position(channel);
        let channel = position.and_then(|p| self.recording.channels.get(p));
        let pages = position.and_then(|p| self.pages.get(p));
        let segments = channel.into_iter().flat_map(|channel| &channel.segments);
        segments
            .map(|segment| &**segment)
            .zip(pages.into_iter().flatten())
    }

    /// Which of `lanes` lanes a page's channel belongs to: neighbours take turns.
    pub(crate) fn lane_of(&self, key: &PageKey, lanes: usize) -> usize {
        let place = self.places.get(key.segment.0 as usize);
        place.map_or(0, |&(channel, _)| channel as usize % lanes.max(1))
    }

    /// The error for a recording whose files are others by now.
    pub(crate) fn changed(&self) -> Error {
        let file = self.recording.path.clone();
        Error::Mef(MefError::Changed { file })
    }

    /// Refuses to pass for an earlier opening.
    pub(crate) fn must_be(&self, id: RecordingId) -> Result<(), Error> {
        if self.id == id {
            return Ok(());
        }
        Err(self.changed())
    }

    /// Names the state of the recording.
    pub(crate) fn revision(&self) -> Revision {
        Revision {
            opening: self.id.0,
            growth: self.growth,
        }
    }

    /// A recording without channels.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::new(Recording::empty("", ""), 1)
    }

    /// The channel at a position.
    pub(crate) fn channel(&self, position: u32) -> Option<&Channel> {
        self.recording.channels.get(position as usize)
    }

    /// The page that holds the samples of a block; `None` where there is no such block.
    pub(crate) fn page_of(&self, channel: u32, segment: u32, block: u32) -> Option<PageKey> {
        let pages = self.pages.get(channel as usize)?.get(segment as usize)?;
        let part = block as usize / PART_ENTRIES;
        let starts = pages.starts.get(part)?;
        let page = starts
            .partition_point(|&start| start <= block)
            .checked_sub(1)?;
        let first_block = *starts.get(page)?;
        let end = match starts.get(page + 1) {
            Some(&next) => next as usize,
            None => {
                let index = &self.segment(channel, segment)?.index;
                index.len().min((part + 1) * PART_ENTRIES)
            }
        };
        let blocks = u32::try_from(end).ok()?.checked_sub(first_block)?;
        (block - first_block < blocks).then_some(PageKey {
            recording: self.id,
            segment: pages.id,
            first_block,
            blocks,
            form: Form::Counts,
        })
    }

    /// What to decode for a page: its channel, its segment and its blocks.
    pub(crate) fn run_of(
        &self,
        key: &PageKey,
    ) -> Option<(&Channel, &Segment, impl Iterator<Item = BlockEntry>)> {
        let &(channel, segment) = self.places.get(key.segment.0 as usize)?;
        let segment = self.segment(channel, segment)?;
        let first = key.first_block as usize;
        let blocks = first..first + key.blocks as usize;
        let entries = blocks.filter_map(|block| segment.index.get(block));
        Some((self.channel(channel)?, segment, entries))
    }

    /// Words of 32 bits that the index promises for a page.
    pub(crate) fn words_of(&self, key: &PageKey) -> u64 {
        let blocks = self.run_of(key).map(|(_, _, blocks)| blocks);
        blocks
            .into_iter()
            .flatten()
            .map(|block| u64::from(key.form.words_of(&block)))
            .sum()
    }

    fn segment(&self, channel: u32, segment: u32) -> Option<&Segment> {
        let segments = &self.channel(channel)?.segments;
        segments.get(segment as usize).map(|segment| &**segment)
    }
}

/// The first block of each page, for the parts of an index from `first_part` on.
fn page_starts(index: &BlockIndex, first_part: usize, target_samples: u32) -> Vec<Arc<[u32]>> {
    let parts = index.sizes_by_part().zip(0..).skip(first_part);
    parts
        .map(|(sizes, part)| {
            let first_block = (part * PART_ENTRIES) as u32;
            page_starts_of_part(sizes, first_block, target_samples)
        })
        .collect()
}

/// By the samples and the bytes of blocks: no form of a page is larger than `target_samples`
/// words, unless a single block is.
fn page_starts_of_part(
    sizes: impl Iterator<Item = (u32, u32)>,
    first_block: u32,
    target_samples: u32,
) -> Arc<[u32]> {
    let mut starts = Vec::new();
    let mut filled = u64::MAX;
    for ((samples, bytes), block) in sizes.zip(first_block..) {
        let words = u64::from(samples.max(bytes.div_ceil(4)));
        filled = filled.saturating_add(words);
        // Blocks without samples must not make an endless page.
        let blocks = starts.last().map_or(0, |start| block - start);
        if filled > u64::from(target_samples) || blocks >= target_samples {
            starts.push(block);
            filled = words;
        }
    }
    starts.into()
}

/// Whole blocks: counts exactly as stored, or the stored bytes, with each block's time.
#[derive(Debug)]
pub(crate) struct Page {
    first_block: u32,
    blocks: Box<[PageBlock]>,
    words: Box<[i32]>,
}

#[derive(Debug)]
struct PageBlock {
    start_uutc: i64,
    samples: u32,
    /// Position of the block's first word in the page, and how many it has.
    offset: usize,
    words: u32,
    damage: Option<Box<BlockDamage>>,
}

/// One block of a [`Page`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageBlockView<'a> {
    /// Time of the first sample, absolute uUTC.
    pub start_uutc: i64,
    /// Number of samples; 0 where the block is damaged.
    pub samples: u32,
    /// Its counts, or its bytes; none where it is damaged.
    pub words: &'a [i32],
    /// Why the block has no words.
    pub damage: Option<&'a BlockDamage>,
}

impl Page {
    /// A page of blocks, each with its number of words, which follow each other in
    /// `words`. `None` where the two do not fit together.
    pub(crate) fn new(
        first_block: u32,
        blocks: impl IntoIterator<Item = (DecodedBlock, u32)>,
        words: Box<[i32]>,
    ) -> Option<Self> {
        let mut offset = 0usize;
        let blocks = blocks
            .into_iter()
            .map(|(block, words)| {
                let page_block = PageBlock {
                    start_uutc: block.start_uutc,
                    samples: block.samples,
                    offset,
                    words,
                    damage: block.damage.map(Box::new),
                };
                offset = offset.checked_add(words as usize)?;
                Some(page_block)
            })
            .collect::<Option<_>>()?;
        (offset == words.len()).then_some(Self {
            first_block,
            blocks,
            words,
        })
    }

    /// The block at a position of the segment's index.
    pub(crate) fn block(&self, block: u32) -> Option<PageBlockView<'_>> {
        let position = block.checked_sub(self.first_block)?;
        let block = self.blocks.get(position as usize)?;
        Some(PageBlockView {
            start_uutc: block.start_uutc,
            samples: block.samples,
            words: self
                .words
                .get(block.offset..block.offset + block.words as usize)?,
            damage: block.damage.as_deref(),
        })
    }

    /// Whether the page reads the same as long as its files are the same: not where
    /// the system gave no bytes, or no memory, for some of it.
    pub(crate) fn is_lasting(&self) -> bool {
        let mut damage = self.blocks.iter().filter_map(|it| it.damage.as_ref());
        damage.all(|damage| !damage.error.may_pass())
    }

    /// Whether anything of it was read.
    pub(crate) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Bytes that the page takes in memory.
    pub(crate) fn memory(&self) -> usize {
        let damaged = self.blocks.iter().filter(|it| it.damage.is_some()).count();
        size_of::<Self>()
            + size_of_val(&*self.blocks)
            + size_of_val(&*self.words)
            + damaged * size_of::<BlockDamage>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mef::BlockError;

    #[test]
    fn pages_hold_whole_blocks_up_to_the_target() {
        let starts = |samples: &[u32], target| {
            let sizes = samples.iter().map(|&samples| (samples, 0));
            page_starts_of_part(sizes, 7, target).to_vec()
        };
        assert_eq!(starts(&[100; 7], 250), [7, 9, 11, 13]);
        assert_eq!(starts(&[100, 900, 100, 100], 250), [7, 8, 9]);
        assert!(starts(&[], 250).is_empty());
        assert_eq!(starts(&[u32::MAX, u32::MAX], 1), [7, 8]);
        // Empty blocks are cheap, and still do not pile up without end.
        assert_eq!(starts(&[0; 5], 2), [7, 9, 11]);
        // Nor are those that are mostly filler.
        let sizes = [(10, 8), (10, 397), (10, 8), (10, 9)];
        assert_eq!(
            page_starts_of_part(sizes.into_iter(), 7, 100)[..],
            [7, 8, 9]
        );
    }

    /// A page of empty blocks, each with this damage.
    fn page(error: Option<BlockError>, blocks: usize) -> Page {
        let damage = error.map(|error| BlockDamage {
            file_offset: 0,
            samples: 1,
            error,
        });
        let block = DecodedBlock {
            start_uutc: 0,
            samples: 0,
            damage,
        };
        Page::new(0, vec![(block, 0); blocks], [].into()).unwrap()
    }

    #[test]
    fn a_page_that_may_read_well_the_next_time_does_not_last() {
        let page = |error| page(error, 1);
        assert!(page(None).is_lasting());
        assert!(page(Some(BlockError::Statistics)).is_lasting());
        for passing in [
            BlockError::Io("stale handle".into()),
            BlockError::Memory {
                bytes: 1,
                samples: 1,
            },
            BlockError::OutsideFile {
                offset: 1,
                bytes: 1,
                file_bytes: 1,
            },
        ] {
            assert!(!page(Some(passing.clone())).is_lasting(), "{passing}");
        }
    }

    #[test]
    fn damage_is_counted_where_it_lies() {
        let page = |error| page(error, 100).memory();
        let whole = page(None);
        assert!(whole >= 100 * size_of::<PageBlock>());
        let damage = page(Some(BlockError::Statistics)) - whole;
        assert_eq!(damage, 100 * size_of::<BlockDamage>());
    }

    #[test]
    fn a_page_whose_samples_do_not_match_its_blocks_is_refused() {
        let block = |samples, words| {
            let block = DecodedBlock {
                start_uutc: 0,
                samples,
                damage: None,
            };
            (block, words)
        };
        assert!(Page::new(0, [block(3, 2)], [1, 2, 3].into()).is_none());
        let page = Page::new(5, [block(2, 2), block(7, 1)], [1, 2, 3].into()).unwrap();
        let last = page.block(6).unwrap();
        assert_eq!((last.samples, last.words), (7, &[3][..]));
        assert!(page.block(4).is_none() && page.block(7).is_none());
    }
}
