//! What envelopes leave for the next: pyramids, and the extrema of blocks that a pixel
//! edge cuts.
//!
//! A segment has a number here, by which both are kept. It is found by the opening of
//! its recording, so that it stays when the segment grows, and by the identity of its
//! files, so that it stays when the recording was closed meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::pixels::Line;
use super::pyramid::{Piece, Pyramid};
use crate::mef::{Access, BlockIndex, SegmentIdentity};
use crate::worker::page::{RecordingId, SegmentId};

/// Blocks whose pieces are kept together.
pub(super) const GROUP_BLOCKS: u32 = 1024;
/// Pieces that are kept of these: a view that has more does not come again soon.
const MOST_PIECES: usize = 8192;
/// What an entry costs beside its own bytes: key, list links and hash slot.
const ENTRY_BYTES: usize = 160;

/// Names a segment here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SegmentNumber(u64);

/// Who asks for a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentOf<'a> {
    pub(super) opening: (RecordingId, SegmentId),
    pub(super) identity: &'a SegmentIdentity,
    /// What is encrypted is not told to whom it is locked.
    pub(super) access: Access,
}

/// The extrema of a part of a block, as they were decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptPiece {
    block: u32,
    from: u32,
    to: u32,
    pub(super) minimum: i32,
    pub(super) maximum: i32,
}

impl KeptPiece {
    pub(super) fn new(piece: &Piece, (minimum, maximum): (i32, i32)) -> Self {
        Self {
            block: piece.block,
            from: piece.from,
            to: piece.to,
            minimum,
            maximum,
        }
    }

    fn place(&self) -> (u32, u32, u32) {
        (self.block, self.from, self.to)
    }

    /// As it is written to a file.
    pub(super) fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let (block, from, to) = self.place();
        let extrema = [self.minimum, self.maximum].map(i32::cast_unsigned);
        let fields = [block, from, to].into_iter().chain(extrema);
        let (chunks, _) = bytes.as_chunks_mut::<4>();
        for (chunk, field) in chunks.iter_mut().zip(fields) {
            *chunk = field.to_le_bytes();
        }
        bytes
    }

    /// As it was read from one.
    pub(super) fn from_bytes(bytes: &[u8; 20]) -> Self {
        let (chunks, _) = bytes.as_chunks::<4>();
        let field = |at: usize| chunks.get(at).map_or(0, |it| u32::from_le_bytes(*it));
        Self {
            block: field(0),
            from: field(1),
            to: field(2),
            minimum: field(3).cast_signed(),
            maximum: field(4).cast_signed(),
        }
    }

    /// Whether a segment with such an index may have it.
    pub(super) fn is_in(&self, index: &BlockIndex) -> bool {
        let mut block = index.extents(self.block as usize, 1);
        block.next().is_some_and(|it| self.to <= it.samples)
            && self.from < self.to
            && self.minimum <= self.maximum
    }

    /// The number of its group.
    pub(super) fn group(&self) -> u32 {
        self.block / GROUP_BLOCKS
    }

    /// The same part of a block, where it is among some in order.
    pub(super) fn find(kept: &[Self], piece: &Piece) -> Option<Self> {
        let place = (piece.block, piece.from, piece.to);
        let found = kept.binary_search_by_key(&place, Self::place).ok()?;
        kept.get(found).copied()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Opening(RecordingId, SegmentId),
    Files(Box<SegmentIdentity>, u8),
    Pyramid(SegmentNumber),
    Pieces(SegmentNumber, u32),
}

#[derive(Clone, Debug)]
enum Value {
    Number(SegmentNumber),
    Pyramid(Arc<Pyramid>),
    /// In order of their places.
    Pieces(Arc<[KeptPiece]>),
}

impl Value {
    fn cost(&self) -> usize {
        ENTRY_BYTES
            + match self {
                // The key of one has the identity.
                Self::Number(_) => size_of::<SegmentIdentity>(),
                Self::Pyramid(pyramid) => pyramid.memory(),
                Self::Pieces(pieces) => size_of_val::<[KeptPiece]>(pieces),
            }
    }
}

/// All that is kept, the least recently used first to go.
#[derive(Debug)]
pub(crate) struct Kept {
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    entries: LruCache<Key, Value>,
    bytes: usize,
    budget: usize,
    next_number: u64,
}

impl Kept {
    /// Keeps up to so many bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            entries: Mutex::new(Entries {
                // Bounded by bytes, not by number.
                entries: LruCache::unbounded(),
                bytes: 0,
                budget,
                next_number: 0,
            }),
        }
    }

    /// The number of a segment.
    pub(super) fn number(&self, of: SegmentOf<'_>) -> SegmentNumber {
        let opening = Key::Opening(of.opening.0, of.opening.1);
        let files = Key::Files(Box::new(*of.identity), of.access as u8);
        self.with(|kept| {
            let by_opening = kept.number(&opening);
            let by_files = kept.number(&files);
            let number = by_opening.or(by_files).unwrap_or_else(|| {
                kept.next_number += 1;
                SegmentNumber(kept.next_number)
            });
            if by_opening != Some(number) {
                kept.put(opening, Value::Number(number));
            }
            if by_files != Some(number) {
                kept.put(files, Value::Number(number));
            }
            number
        })
    }

    /// The pyramid over the blocks of a segment, if there is one.
    pub(super) fn pyramid(
        &self,
        segment: SegmentNumber,
        line: Line,
        index: &BlockIndex,
    ) -> Option<Arc<Pyramid>> {
        let kept = self.with(|kept| kept.get(&Key::Pyramid(segment)));
        match kept {
            Some(Value::Pyramid(pyramid)) if pyramid.is_over(line, index) => Some(pyramid),
            _ => None,
        }
    }

    /// Keeps a pyramid, in place of one over fewer blocks.
    pub(super) fn put_pyramid(&self, segment: SegmentNumber, pyramid: Arc<Pyramid>) {
        self.with(|kept| kept.put(Key::Pyramid(segment), Value::Pyramid(pyramid)));
    }

    /// The pieces of a group of blocks, in order.
    pub(super) fn pieces(&self, segment: SegmentNumber, group: u32) -> Arc<[KeptPiece]> {
        match self.with(|kept| kept.get(&Key::Pieces(segment, group))) {
            Some(Value::Pieces(pieces)) => pieces,
            _ => Arc::default(),
        }
    }

    /// Bytes that may be kept.
    pub(super) fn budget(&self) -> usize {
        self.with(|kept| kept.budget)
    }

    /// All pieces of a segment of so many blocks. None becomes younger by it.
    pub(super) fn all_pieces(
        &self,
        opening: (RecordingId, SegmentId),
        blocks: usize,
    ) -> Vec<KeptPiece> {
        let opening = Key::Opening(opening.0, opening.1);
        let number = self.with(|kept| match kept.entries.peek(&opening) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        });
        let groups = (0u32..).take(blocks.div_ceil(GROUP_BLOCKS as usize));
        let groups = number.into_iter().flat_map(|number| {
            groups.clone().filter_map(move |group| {
                let key = Key::Pieces(number, group);
                match self.with(|kept| kept.entries.peek(&key).cloned())? {
                    Value::Pieces(pieces) => Some(pieces),
                    _ => None,
                }
            })
        });
        let mut all = Vec::new();
        for pieces in groups {
            all.extend_from_slice(&pieces);
        }
        all
    }

    /// Keeps pieces of a group beside those that are there, if there is room for both.
    pub(super) fn put_pieces(&self, segment: SegmentNumber, group: u32, new: &[KeptPiece]) {
        let old = self.pieces(segment, group);
        let old: &[KeptPiece] = if old.len() + new.len() > MOST_PIECES {
            &[]
        } else {
            &old
        };
        let mut pieces = [old, new].concat();
        pieces.sort_unstable_by_key(KeptPiece::place);
        pieces.dedup_by_key(|piece| piece.place());
        pieces.truncate(MOST_PIECES);
        let pieces = Value::Pieces(pieces.into());
        self.with(|kept| kept.put(Key::Pieces(segment, group), pieces));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Entries) -> T) -> T {
        act(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn get(&mut self, key: &Key) -> Option<Value> {
        self.entries.get(key).cloned()
    }

    fn number(&mut self, key: &Key) -> Option<SegmentNumber> {
        match self.entries.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn put(&mut self, key: Key, value: Value) {
        let cost = value.cost();
        if cost > self.budget {
            return;
        }
        self.bytes += cost;
        if let Some((_, replaced)) = self.entries.push(key, value) {
            self.bytes -= replaced.cost();
        }
        while self.bytes > self.budget
            && let Some((_, dropped)) = self.entries.pop_lru()
        {
            self.bytes -= dropped.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(block: u32, from: u32) -> Piece {
        Piece {
            block,
            from,
            to: from + 1,
            samples: 100,
            pixel: 0,
            needed: true,
        }
    }

    #[test]
    fn pieces_are_found_again_within_the_budget() {
        let kept = Kept::new(100_000);
        let all = SegmentNumber(1);
        for round in 0..50 {
            let new: Vec<_> = (0..100)
                .map(|from| KeptPiece::new(&piece(round, from), (round as i32, 7)))
                .collect();
            kept.put_pieces(all, round % 7, &new);
            kept.put_pieces(all, round % 7, &new);
            kept.with(|kept| {
                let bytes: usize = kept.entries.iter().map(|(_, value)| value.cost()).sum();
                assert!(bytes == kept.bytes && bytes <= kept.budget);
            });
        }
        let last = kept.pieces(all, 49 % 7);
        let found = KeptPiece::find(&last, &piece(49, 3)).unwrap();
        assert_eq!((found.minimum, found.maximum), (49, 7));
        assert_eq!(KeptPiece::find(&last, &piece(49, 100)), None);
        assert!(kept.pieces(SegmentNumber(2), 0).is_empty());
    }

    #[test]
    fn a_group_has_so_many_pieces_and_no_budget_keeps_none() {
        let kept = Kept::new(usize::MAX);
        let number = SegmentNumber(1);
        for round in 0..5 {
            let new: Vec<_> = (0..6000)
                .map(|from| KeptPiece::new(&piece(round, from), (0, 0)))
                .collect();
            kept.put_pieces(number, 0, &new);
            assert!(kept.pieces(number, 0).len() <= MOST_PIECES);
        }
        let none = Kept::new(0);
        none.put_pieces(number, 0, &[KeptPiece::new(&piece(0, 0), (0, 0))]);
        assert!(none.pieces(number, 0).is_empty());
    }
}
