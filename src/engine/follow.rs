//! New data of a recording, as they land.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::Instant;

use super::blocks::Block;
use super::permits::Lease;
use super::read_ahead::{bytes_of, fetch};
use super::{Engine, Recording};
use crate::error::Error;
use crate::mef::BlockPosition;
use crate::worker::page::{Page, PageKey, Revision};

/// Shortest pause between two looks at the files.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Pages that are planned at a time: a recording has millions, and planning goes
/// through every segment.
const PLANNED: usize = 1024;

/// The blocks that are added to a recording, as a stream without an end.
pub struct Follow {
    engine: Engine,
    recording: Recording,
    /// Names of the channels of the rows; all that there are, where it is empty.
    channels: Vec<String>,
    /// Blocks of each segment that were handed out or passed over, by channel and
    /// stem.
    seen: HashMap<(String, String), usize>,
    /// The next pages with blocks that are to be handed out, and the first of these.
    coming: VecDeque<(usize, BlockPosition, PageKey)>,
    /// Those are not all that are known.
    unplanned: bool,
    /// The first of them, as long as there is room for it ahead of the client.
    page: Option<Arc<Page>>,
    lease: Lease,
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
            lease: engine.inner.permits.lease(0u64.into()),
            engine,
            recording: recording.clone(),
            channels,
            seen: HashMap::new(),
            coming: VecDeque::new(),
            unplanned: true,
            page: None,
            // Who asks twice in that time sees what is new within one and a half.
            pause: (staleness / 2).max(MIN_PAUSE),
            next_look: Instant::now(),
            failed: false,
        };
        follow.pass_over(from_uutc.unwrap_or(i64::MAX));
        follow
    }

    /// The recording that the blocks so far belong to.
    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Names of the channels of the rows; all that there are, where it is empty.
    pub(crate) fn channels(&self) -> &[String] {
        &self.channels
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
    /// Dropping the future loses nothing. Until the call is made again or the stream
    /// is dropped, it may hold a share of `limits.in_flight_mb` that others wait for.
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
            if let Some(&(row, position, key)) = self.coming.front() {
                let page = self.first_page(key).await?;
                self.take_first();
                let recording = &self.recording.paged;
                let block = Block::new(recording, row, position, &key, page);
                return block.ok_or(Error::Stopped);
            }
            if self.unplanned {
                self.plan();
                continue;
            }
            tokio::time::sleep_until(self.next_look).await;
            let now = self.engine.refresh(&self.recording).await?;
            self.next_look = Instant::now() + self.pause;
            now.paged.must_be(self.recording.paged.id)?;
            // Most looks find nothing.
            self.unplanned = now.revision() != self.revision();
            self.recording = now;
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

    /// Finds the next pages with blocks that were not seen yet.
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
                    if self.coming.len() == PLANNED {
                        return;
                    }
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
        self.unplanned = false;
    }

    /// The first page that comes. It is held for its other blocks, too, if there is
    /// room for it; otherwise it comes again.
    async fn first_page(&mut self, key: PageKey) -> Result<Arc<Page>, Error> {
        if let Some(page) = &self.page {
            return Ok(Arc::clone(page));
        }
        let recording = &self.recording.paged;
        let addresses = self.engine.addresses();
        let page = fetch(&addresses.coordinator, recording, key, &mut self.lease).await?;
        if self.lease.try_ahead(bytes_of(recording, &key)) {
            self.page = Some(Arc::clone(&page));
        }
        self.lease.end_awaited();
        Ok(page)
    }

    /// The first block that comes is taken.
    fn take_first(&mut self) {
        let Some((_, position, key)) = self.coming.front_mut() else {
            return;
        };
        position.block += 1;
        if position.block == key.first_block + key.blocks {
            self.coming.pop_front();
            self.page = None;
            self.lease.shrink_ahead(0);
        }
    }
}
