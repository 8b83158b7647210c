//! Decoding what an envelope needs of blocks.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::kept::{KeptPiece, SegmentNumber};
use super::pyramid::Piece;
use super::{EnvelopeItem, EnvelopeStream};
use crate::actors::coordinator::Fetch;
use crate::config::OnDamage;
use crate::engine::read_ahead::bytes_of;
use crate::engine::windows::Masked;
use crate::error::Error;
use crate::mef::{BlockDamage, BlockPosition, DamagedBlock};
use crate::trace;
use crate::worker::page::{Page, PageKey, PagedRecording};

/// Decoded bytes that are asked for at a time, one block excepted; with what lies
/// between the blocks, up to twice as many.
const MOST_BYTES: u64 = 2 << 20;
/// Blocks, and pieces of them, that are asked for at a time.
const MOST_BLOCKS: usize = 512;
const MOST_PIECES: usize = 65_536;

/// A piece that is to be decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Position of the part in the item.
    pub(super) part: usize,
    /// Positions of channel and segment.
    pub(super) place: (u32, u32),
    pub(super) number: SegmentNumber,
    /// Units per count.
    pub(super) factor: f64,
    pub(super) piece: Piece,
}

/// A block: positions of its channel, its segment and in that.
type Block = (u32, u32, u32);

impl Need {
    fn block(&self) -> Block {
        (self.place.0, self.place.1, self.piece.block)
    }
}

/// What is to be decoded, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Needs {
    needs: Vec<Need>,
    blocks: usize,
    bytes: u64,
}

impl Needs {
    pub(super) fn push(&mut self, need: Need) {
        let is_other = self.needs.last().map(Need::block) != Some(need.block());
        if is_other {
            self.blocks += 1;
            let bytes = u64::from(need.piece.samples) * size_of::<i32>() as u64;
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.needs.push(need);
    }

    /// Whether they are to be decoded before there are more.
    pub(super) fn are_many(&self) -> bool {
        self.blocks >= MOST_BLOCKS || self.bytes >= MOST_BYTES || self.needs.len() >= MOST_PIECES
    }
}

impl EnvelopeStream {
    /// Decodes what is needed, and puts it into the parts of an item.
    pub(super) async fn fetch(
        &mut self,
        item: &mut EnvelopeItem,
        needs: &mut Needs,
    ) -> Result<(), Error> {
        let all = std::mem::take(needs).needs;
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch(rest));
            self.fetch_batch(item, now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn fetch_batch(&mut self, item: &mut EnvelopeItem, needs: &[Need]) -> Result<(), Error> {
        self.check().await?;
        let recording = Arc::clone(&self.recording);
        let pages = pages_of(&recording, needs);
        // Rows may show the same channel.
        let mut keys: Vec<PageKey> = pages.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        let bytes = keys.iter().map(|key| bytes_of(&recording, key));
        let bytes = bytes.fold(0usize, usize::saturating_add);
        self.lease.awaited(bytes).await?;
        let (reply, fetched) = oneshot::channel();
        let question = Fetch {
            recording: Arc::clone(&recording),
            pages: keys.clone(),
            trace: trace::current(),
            reply,
        };
        let sent = self.engine.addresses().coordinator.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        let fetched = fetched.await.map_err(|_| Error::Stopped)??;
        let mut found: HashMap<SegmentNumber, Vec<KeptPiece>> = HashMap::new();
        for (key, needs) in pages {
            let page = keys.binary_search(&key).ok().and_then(|it| fetched.get(it));
            let page = page.ok_or(Error::Stopped)?.as_ref().map_err(Error::clone)?;
            self.fold(item, page, needs, &mut found)?;
        }
        drop(fetched);
        self.lease.end_awaited();
        self.has_new |= !found.is_empty();
        let kept = &self.engine.inner.envelopes.kept;
        for (number, pieces) in found {
            for group in pieces.chunk_by(|one, other| one.group() == other.group()) {
                let first = group.first().map_or(0, KeptPiece::group);
                kept.put_pieces(number, first, group);
            }
        }
        Ok(())
    }

    /// Puts the needed pieces of one page into their parts.
    fn fold(
        &self,
        item: &mut EnvelopeItem,
        page: &Page,
        needs: &[Need],
        found: &mut HashMap<SegmentNumber, Vec<KeptPiece>>,
    ) -> Result<(), Error> {
        let mut last = None;
        for need in needs {
            let piece = &need.piece;
            let is_other = last.replace(need.block()) != Some(need.block());
            let Some(block) = page.block(piece.block) else {
                continue;
            };
            item.decoded_blocks += u64::from(is_other && block.damage.is_none());
            if let Some(damage) = block.damage {
                if is_other {
                    let start = block.start_uutc;
                    let damaged = self.damaged(need, start, damage)?;
                    match self.request.on_damage {
                        OnDamage::Fail => return Err(Error::Read(damaged.into())),
                        OnDamage::Mask => item.masked.push(Masked::Block(damaged)),
                    }
                }
                continue;
            }
            let counts = block.words.get(piece.from as usize..piece.to as usize);
            let counts = counts.unwrap_or_default();
            let Some(extrema) = extrema(counts) else {
                continue;
            };
            if let Some(part) = item.parts.get_mut(need.part) {
                part.fold(piece.pixel, extrema.0, extrema.1, need.factor);
            }
            if piece.needed {
                let pieces = found.entry(need.number).or_default();
                pieces.push(KeptPiece::new(piece, extrema));
            }
        }
        Ok(())
    }

    fn damaged(
        &self,
        need: &Need,
        start_uutc: i64,
        damage: &BlockDamage,
    ) -> Result<Box<DamagedBlock>, Error> {
        let recording = &self.recording.recording;
        let position = BlockPosition {
            segment: need.place.1,
            block: need.piece.block,
        };
        let channel = self.recording.channel(need.place.0).ok_or(Error::Stopped)?;
        let damaged = DamagedBlock::new(recording, channel, position, start_uutc, damage);
        Ok(Box::new(damaged))
    }
}

/// How many needs are asked for at once: as many blocks as there may be.
fn batch(needs: &[Need]) -> usize {
    let (mut blocks, mut bytes) = (0, 0u64);
    let mut last = None;
    for (need, number) in needs.iter().zip(0..) {
        if last.replace(need.block()) == Some(need.block()) {
            continue;
        }
        blocks += 1;
        let of_it = u64::from(need.piece.samples) * size_of::<i32>() as u64;
        bytes = bytes.saturating_add(of_it);
        if blocks > 1 && (blocks > MOST_BLOCKS || bytes > MOST_BYTES) {
            return number;
        }
    }
    needs.len()
}

/// The pages to ask for, and what each is needed for: a page of the recording, where
/// half of its samples are needed; otherwise runs of blocks.
fn pages_of<'a>(recording: &PagedRecording, needs: &'a [Need]) -> Vec<(PageKey, &'a [Need])> {
    let page_of = |need: &Need| {
        let (channel, segment) = need.place;
        recording.page_of(channel, segment, need.piece.block)
    };
    let mut pages = Vec::new();
    for of_page in needs.chunk_by(|one, other| page_of(one) == page_of(other)) {
        let Some(whole) = of_page.first().and_then(page_of) else {
            continue;
        };
        let blocks = of_page.chunk_by(|one, other| one.block() == other.block());
        let samples = blocks.filter_map(|of_block| of_block.first());
        let samples: u64 = samples.map(|need| u64::from(need.piece.samples)).sum();
        if samples.saturating_mul(2) >= recording.words_of(&whole) {
            pages.push((whole, of_page));
            continue;
        }
        let follows = |one: &Need, other: &Need| {
            (0..2).contains(&i64::from(other.piece.block).saturating_sub(one.piece.block.into()))
        };
        for run in of_page.chunk_by(follows) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                let key = PageKey {
                    first_block: first.piece.block,
                    blocks: last.piece.block - first.piece.block + 1,
                    ..whole
                };
                pages.push((key, run));
            }
        }
    }
    pages
}

/// The least and the greatest of some counts.
fn extrema(counts: &[i32]) -> Option<(i32, i32)> {
    let first = *counts.first()?;
    let wider =
        |(least, greatest): (i32, i32), &count: &i32| (least.min(count), greatest.max(count));
    Some(counts.iter().fold((first, first), wider))
}
