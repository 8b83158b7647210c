//! The extrema of blocks, of 16 blocks, of 256 and so on: what a wide view is made of.
//!
//! A node knows which samples its blocks have, so that blocks may overlap, and come in
//! any order; where they do not, a view of so many pixels looks at about so many nodes
//! of each level.

use crate::mef::{BlockExtent, BlockIndex};

use super::pixels::{Line, Pixels};

/// Nodes below a node.
pub(super) const FAN_OUT: usize = 16;

/// Several blocks of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// Their samples, by the numbers of the line.
    first: i64,
    end: i64,
    /// The least and the greatest of them in counts, where `known`.
    minimum: i32,
    maximum: i32,
    /// Blocks with samples.
    blocks: u32,
    /// The index has the extrema of all of them.
    known: bool,
    /// Every block has samples, and begins where the one before it ends, or later.
    ordered: bool,
}

impl Node {
    const EMPTY: Self = Self {
        first: i64::MAX,
        end: i64::MIN,
        minimum: i32::MAX,
        maximum: i32::MIN,
        blocks: 0,
        known: true,
        ordered: true,
    };

    /// A block; of one without samples, nothing.
    fn of(line: Line, extent: &BlockExtent) -> Self {
        if extent.samples == 0 {
            return Self::EMPTY;
        }
        let (first, end) = line.range_of(extent.start_uutc, extent.samples);
        let known = extent.known();
        let (minimum, maximum) = known.unwrap_or((i32::MAX, i32::MIN));
        Self {
            first,
            end,
            minimum,
            maximum,
            blocks: 1,
            known: known.is_some(),
            ordered: true,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            end: self.end.max(other.end),
            minimum: self.minimum.min(other.minimum),
            maximum: self.maximum.max(other.maximum),
            blocks: self.blocks.saturating_add(other.blocks),
            known: self.known && other.known,
            ordered: self.ordered
                && other.ordered
                && other.blocks > 0
                && (self.blocks == 0 || self.end <= other.first),
        }
    }
}

/// The levels over the blocks of a segment.
#[derive(Clone, Debug)]
pub(super) struct Pyramid {
    line: Line,
    blocks: usize,
    /// From the finest, of [`FAN_OUT`] blocks to a node, to the one of a single node.
    levels: Vec<Vec<Node>>,
}

impl Pyramid {
    /// Begins a pyramid over the blocks of a segment.
    pub(super) fn begin(line: Line) -> Self {
        Self {
            line,
            blocks: 0,
            levels: vec![Vec::new()],
        }
    }

    /// Adds up to so many blocks that are not in it yet; whether there are more.
    pub(super) fn add(&mut self, index: &BlockIndex, most: usize) -> bool {
        let end = index.len().min(self.blocks.saturating_add(most));
        if let Some(finest) = self.levels.first_mut() {
            while self.blocks < end {
                let run = index.extents(self.blocks, FAN_OUT);
                let nodes = run.map(|extent| Node::of(self.line, &extent));
                finest.push(nodes.fold(Node::EMPTY, Node::and));
                self.blocks += FAN_OUT;
            }
        }
        self.blocks = self.blocks.min(index.len());
        self.blocks < index.len()
    }

    /// Builds the upper levels.
    pub(super) fn finish(mut self) -> Self {
        while let Some(below) = self.levels.last().filter(|level| level.len() > 1) {
            let groups = below.chunks(FAN_OUT);
            let level = groups.map(|nodes| nodes.iter().copied().fold(Node::EMPTY, Node::and));
            let level = level.collect();
            self.levels.push(level);
        }
        self
    }

    /// Whether it is over the blocks of such an index.
    pub(super) fn is_over(&self, line: Line, index: &BlockIndex) -> bool {
        self.line == line && self.blocks == index.len()
    }

    /// Bytes that it takes in memory.
    pub(super) fn memory(&self) -> usize {
        let nodes: usize = self.levels.iter().map(Vec::capacity).sum();
        size_of::<Self>() + nodes * size_of::<Node>() + self.levels.len() * size_of::<Vec<Node>>()
    }
}

/// What some pixels show of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shown {
    /// Whole blocks of one pixel, whose extrema are known.
    Whole {
        pixel: usize,
        minimum: i32,
        maximum: i32,
        blocks: u32,
    },
    /// A part of a block, or a whole one, whose extrema are in its samples.
    Piece(Piece),
}

/// Samples of a block that one pixel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) block: u32,
    /// The samples, counted from the first of the block.
    pub(super) from: u32,
    pub(super) to: u32,
    /// All that the block has, by the index.
    pub(super) samples: u32,
    /// Counted from the first of the pixels.
    pub(super) pixel: usize,
    /// The index has no extrema of the samples.
    pub(super) needed: bool,
}

/// A walk over all blocks that some pixels show, in the order of their places.
#[derive(Debug)]
pub(super) struct Walk {
    /// Nodes to look at, the next one last: level and number; blocks are level 0.
    stack: Vec<(usize, usize)>,
    /// Every block is a piece.
    decode_all: bool,
    hint: usize,
}

impl Walk {
    /// Over a whole segment by its pyramid.
    pub(super) fn down(pyramid: &Pyramid, decode_all: bool) -> Self {
        Self {
            stack: vec![(pyramid.levels.len(), 0)],
            decode_all,
            hint: 0,
        }
    }

    /// Over some blocks without one.
    pub(super) fn along(blocks: std::ops::Range<usize>, decode_all: bool) -> Self {
        let groups = blocks.start / FAN_OUT..blocks.end.div_ceil(FAN_OUT);
        Self {
            stack: groups.rev().map(|group| (1, group)).collect(),
            decode_all,
            hint: 0,
        }
    }

    /// Goes on by about so many nodes; whether there are more.
    pub(super) fn step(
        &mut self,
        pyramid: Option<&Pyramid>,
        (line, index): (Line, &BlockIndex),
        pixels: &Pixels,
        nodes: usize,
        show: &mut impl FnMut(Shown),
    ) -> bool {
        let mut left = nodes;
        while left > 0 {
            let Some((level, number)) = self.stack.pop() else {
                return false;
            };
            // A node costs one, and so does each piece; the blocks of a node come with it.
            left -= usize::from(level > 0);
            let levels = pyramid.map(|pyramid| pyramid.levels.as_slice());
            if let Some((levels, above)) = levels.zip(level.checked_sub(1)) {
                let Some(node) = levels.get(above).and_then(|it| it.get(number)) else {
                    continue;
                };
                if self.is_done_with(node, pixels, show) {
                    continue;
                }
                if level == 1 && node.known && node.ordered && !self.decode_all {
                    let first = number * FAN_OUT;
                    let pieces = self.along_ordered((line, index), first, pixels, show);
                    left = left.saturating_sub(pieces);
                    continue;
                }
            }
            if level > 1 {
                let first = number * FAN_OUT;
                let below = levels.and_then(|levels| levels.get(level - 2));
                let end = below.map_or(0, Vec::len).min(first + FAN_OUT);
                self.stack
                    .extend((first..end).rev().map(|it| (level - 1, it)));
                continue;
            }
            let (first, blocks) = match level {
                0 => (number, 1),
                _ => (number * FAN_OUT, FAN_OUT),
            };
            for (extent, block) in index.extents(first, blocks).zip(first..) {
                // A block may be in very many pieces: the others wait for their turn.
                if left == 0 {
                    let end = (first + blocks).min(index.len());
                    self.stack.extend((block..end).rev().map(|it| (0, it)));
                    break;
                }
                let node = Node::of(line, &extent);
                if !self.is_done_with(&node, pixels, show) {
                    left = left.saturating_sub(self.cut(&node, block as u32, pixels, show));
                }
            }
        }
        !self.stack.is_empty()
    }

    /// Shows the blocks of a node that are in order and known: only where a pixel ends
    /// are they looked at one by one. How many pieces there are.
    fn along_ordered(
        &mut self,
        (line, index): (Line, &BlockIndex),
        first: usize,
        pixels: &Pixels,
        show: &mut impl FnMut(Shown),
    ) -> usize {
        let mut blocks = [None; FAN_OUT];
        for (block, extent) in blocks.iter_mut().zip(index.extents(first, FAN_OUT)) {
            *block = Some(extent);
        }
        let range = |extent: &BlockExtent| line.range_of(extent.start_uutc, extent.samples);
        let ends_by = |extent: &Option<BlockExtent>, sample: i64| {
            extent.as_ref().is_some_and(|it| range(it).1 <= sample)
        };
        let (shown_from, shown_to) = pixels.samples();
        let begins_before = |extent: &BlockExtent| range(extent).0 < shown_from;
        let mut at = match blocks.first() {
            Some(Some(extent)) if begins_before(extent) => {
                blocks.partition_point(|it| ends_by(it, shown_from))
            }
            _ => 0,
        };
        let mut pieces = 0;
        while let Some(Some(extent)) = blocks.get(at) {
            let node = Node::of(line, extent);
            if node.first >= shown_to {
                break;
            }
            let is_cut = node.first < shown_from || {
                self.hint = pixels.of(node.first, self.hint);
                node.end > pixels.end_of(self.hint)
            };
            if is_cut {
                pieces += self.cut(&node, (first + at) as u32, pixels, show);
                at += 1;
                continue;
            }
            let until = pixels.end_of(self.hint);
            let rest = blocks.get(at..).unwrap_or_default();
            let count = rest.partition_point(|it| ends_by(it, until)).max(1);
            let known = rest
                .iter()
                .take(count)
                .flatten()
                .filter_map(BlockExtent::known);
            let (minimum, maximum) = known.fold((i32::MAX, i32::MIN), |one, other| {
                (one.0.min(other.0), one.1.max(other.1))
            });
            show(Shown::Whole {
                pixel: self.hint,
                minimum,
                maximum,
                blocks: count as u32,
            });
            at += count;
        }
        pieces
    }

    /// Whether nothing below a node is to be looked at: it is outside, or in one pixel
    /// and known.
    fn is_done_with(&mut self, node: &Node, pixels: &Pixels, show: &mut impl FnMut(Shown)) -> bool {
        let (first, end) = pixels.samples();
        if node.blocks == 0 || node.end <= first || node.first >= end {
            return true;
        }
        if self.decode_all || !node.known || node.first < first || node.end > end {
            return false;
        }
        self.hint = pixels.of(node.first, self.hint);
        if node.end > pixels.end_of(self.hint) {
            return false;
        }
        show(Shown::Whole {
            pixel: self.hint,
            minimum: node.minimum,
            maximum: node.maximum,
            blocks: node.blocks,
        });
        true
    }

    /// Shows a block in pieces; how many they are.
    fn cut(
        &mut self,
        node: &Node,
        block: u32,
        pixels: &Pixels,
        show: &mut impl FnMut(Shown),
    ) -> usize {
        let (first, end) = pixels.samples();
        let within = |sample: i64| u32::try_from(sample.saturating_sub(node.first)).unwrap_or(0);
        let end = end.min(node.end);
        let mut at = first.max(node.first);
        let mut pixel = pixels.of(at, self.hint);
        let mut pieces = 0;
        while at < end {
            let until = pixels.end_of(pixel).min(end);
            if until > at {
                let is_whole = at == node.first && until == node.end;
                show(Shown::Piece(Piece {
                    block,
                    from: within(at),
                    to: within(until),
                    samples: within(node.end),
                    pixel,
                    needed: !is_whole || !node.known,
                }));
                self.hint = pixel;
                pieces += 1;
                at = until;
            }
            pixel += 1;
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
