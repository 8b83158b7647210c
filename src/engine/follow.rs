//! New data of a recording, as they land.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::blocks::Block;
use super::{Engine, Recording};
use crate::actors::coordinator::Fetch;
use crate::error::Error;
use crate::mef::BlockPosition;
use crate::worker::page::{PageKey, Revision};

/// Shortest pause between two looks at the files.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The blocks that are added to a recording, as a stream without an end.
pub struct Follow {
    engine: Engine,
    recording: Recording,
    /// Names of the channels of the rows; all that there are, where it is empty.
    channels: Vec<String>,
    /// Blocks of each segment that were handed out or passed over, by channel and
    /// stem.
    seen: HashMap<(String, String), usize>,
    /// Pages with blocks that are to be handed out, and the first of these.
    coming: VecDeque<(usize, BlockPosition, PageKey)>,
    ready: VecDeque<Block>,
    pause: Duration,
    /// Kept over cancelled calls, or impatient callers would wait for ever.
    next_look: Instant,
    failed: bool,
}

impl Follow {
    pub(super) fn new(
        engine: Engine,
        recording: &Recording,
        channels: Vec<String>,
        from_uutc: Option<i64>,
        staleness: Duration,
    ) -> Self {
        let mut follow = Self {
            engine,
            recording: recording.clone(),
            channels,
            seen: HashMap::new(),
            coming: VecDeque::new(),
            ready: VecDeque::new(),
            // Who asks twice in that time sees what is new within one and a half.
            pause: (staleness / 2).max(MIN_PAUSE),
            next_look: Instant::now(),
            failed: false,
        };
        follow.pass_over(from_uutc.unwrap_or(i64::MAX));
        follow.plan();
        follow
    }

    /// Names the state of the recording that the blocks so far belong to.
    pub fn revision(&self) -> Revision {
        self.recording.revision()
    }

    /// The next block; waits for one to be written. `None` after an error only.
    ///
    /// Blocks of a segment come in their order in the file. One that is damaged
    /// is an item like any other, see [`Block::counts`].
    ///
    /// # Cancellation
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`MefError::Changed`](crate::mef::MefError::Changed) where files were
    /// replaced or cut, since nobody knows what of them was seen before; and what
    /// else keeps the recording from being read.
    pub async fn next(&mut self) -> Option<Result<Block, Error>> {
        if self.failed {
            return None;
        }
        let next = self.try_next().await;
        self.failed = next.is_err();
        Some(next)
    }

    async fn try_next(&mut self) -> Result<Block, Error> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Ok(block);
            }
            if let Some(&(row, first, key)) = self.coming.front() {
                self.fetch(row, first, key).await?;
                self.coming.pop_front();
                continue;
            }
            tokio::time::sleep_until(self.next_look).await;
            let now = self.engine.refresh(&self.recording).await?;
            self.next_look = Instant::now() + self.pause;
            now.paged.must_be(self.recording.paged.id)?;
            // Most looks find nothing, and planning goes through every segment.
            let changed = now.revision() != self.revision();
            self.recording = now;
            if changed {
                self.plan();
            }
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Block, Error>> + Send {
        unfold(self, |mut follow| async move {
            let block = follow.next().await?;
            Some((block, follow))
        })
    }

    /// Leaves out what ends at or before a time.
    fn pass_over(&mut self, until_uutc: i64) {
        let recording = Arc::clone(&self.recording.paged);
        for channel in &recording.recording.channels {
            for segment in &channel.segments {
                let index = &segment.index;
                let passed = index.iter().take_while(|block| {
                    let end = channel.end_of(block);
                    end <= until_uutc
                });
                let place = (channel.name.clone(), segment.stem.clone());
                self.seen.insert(place, passed.count());
            }
        }
    }

    /// Finds the pages of the blocks that were not seen yet.
    fn plan(&mut self) {
        let recording = Arc::clone(&self.recording.paged);
        for (channel, position) in recording.recording.channels.iter().zip(0u32..) {
            let row = match self.channels.as_slice() {
                [] => Some(position as usize),
                names => names.iter().position(|name| *name == channel.name),
            };
            let Some(row) = row else {
                continue;
            };
            for (segment, number) in channel.segments.iter().zip(0u32..) {
                let place = (channel.name.clone(), segment.stem.clone());
                let seen = self.seen.entry(place).or_default();
                while *seen < segment.index.len() {
                    let block = *seen as u32;
                    let Some(key) = recording.page_of(position, number, block) else {
                        break;
                    };
                    let first = BlockPosition {
                        segment: number,
                        block,
                    };
                    self.coming.push_back((row, first, key));
                    *seen = (key.first_block + key.blocks) as usize;
                }
            }
        }
    }

    /// Has a page decoded, and makes its blocks from `first` on ready.
    async fn fetch(&mut self, row: usize, first: BlockPosition, key: PageKey) -> Result<(), Error> {
        let recording = &self.recording.paged;
        let (reply, fetched) = oneshot::channel();
        let question = Fetch {
            recording: Arc::clone(recording),
            pages: vec![key],
            reply,
        };
        let sent = self.engine.addresses().coordinator.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        let pages = fetched.await.map_err(|_| Error::Stopped)??;
        let page = pages.into_iter().next().ok_or(Error::Stopped)??;
        let Some((channel, segment, entries)) = recording.run_of(&key) else {
            return Ok(());
        };
        let blocks = entries.zip(key.first_block..);
        for (entry, block) in blocks.filter(|(_, block)| *block >= first.block) {
            self.ready.push_back(Block {
                row,
                position: BlockPosition { block, ..first },
                start_uutc: entry.start_uutc,
                sampling_frequency: channel.sampling_frequency,
                units_conversion_factor: segment.acquisition.units_conversion_factor,
                page: Arc::clone(&page),
            });
        }
        Ok(())
    }
}
