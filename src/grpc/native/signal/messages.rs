//! The messages of a reply: its groups in turn, as their time goes on.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tonic::Status;

use super::Replies;
use super::source::{Part, Source};
use crate::grpc::native::cursor::Place;
use crate::grpc::native::status::status;
use crate::grpc::proto::native::{
    Compression, ReadSignalResponse, RedBlock, SignalChunk, SignalHeader,
};
use crate::mef::Grid;

/// Entries of the lists of a message, each of at most 40 bytes, and of those of damage,
/// which have texts. What is beyond goes into messages of its own.
const MOST_ENTRIES: usize = 16_384;
const MOST_DAMAGE: usize = 512;
/// Bytes of blocks in a message. A longer block is cut.
const MOST_BLOCK_BYTES: usize = 512 << 10;
/// Bytes of a block beside those that are stored.
const BLOCK_FIELDS: usize = 64;

/// A group that is being read.
pub(super) struct Running {
    /// Until the last was taken.
    source: Option<Source>,
    grid: Grid,
    next_column: u64,
}

impl Running {
    pub(super) fn new(source: Source, grid: Grid, next_column: u64) -> Self {
        Self {
            source: Some(source),
            grid,
            next_column,
        }
    }
}

/// The messages of a reply.
pub(super) struct Messages {
    groups: Vec<Running>,
    place: Place,
    compression: Compression,
    /// Those that were made and not taken.
    ready: VecDeque<ReadSignalResponse>,
    failed: bool,
}

impl Messages {
    pub(super) fn new(
        groups: Vec<Running>,
        header: SignalHeader,
        place: Place,
        compression: Compression,
    ) -> Self {
        let first = ReadSignalResponse {
            header: Some(header),
            chunk: None,
            cursor: place.to_bytes(),
        };
        Self {
            groups,
            place,
            compression,
            ready: VecDeque::from([first]),
            failed: false,
        }
    }

    /// Made as the client takes them.
    pub(super) fn into_stream(self) -> Replies<ReadSignalResponse> {
        stream::unfold(self, |mut messages| async move {
            let message = messages.next().await?;
            Some((message, messages))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<ReadSignalResponse, Status>> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if let Err(status) = self.read_on().await? {
                self.failed = true;
                return Some(Err(status));
            }
        }
    }

    /// Reads on in the group whose time is the earliest; `None` after the last.
    async fn read_on(&mut self) -> Option<Result<(), Status>> {
        let running = self.groups.iter_mut().enumerate();
        let running = running.filter(|(_, group)| group.source.is_some());
        let earliest = running.min_by_key(|(_, group)| group.grid.time_of(group.next_column));
        let (number, group) = earliest?;
        let source = group.source.as_mut()?;
        let part = match source.next(self.compression).await? {
            Ok(part) => part,
            Err(error) => return Some(Err(status(&error))),
        };
        if part.is_last {
            group.next_column = part.columns.end;
            if group.next_column >= group.grid.columns() {
                group.source = None;
            }
            self.place.advance(number, group.next_column);
        }
        self.ready = self.chunks(number as u32, part).into();
        Some(Ok(()))
    }

    /// A part as messages: one, unless its lists are very long.
    fn chunks(&self, group: u32, mut part: Part) -> Vec<ReadSignalResponse> {
        let mut chunks = Vec::new();
        let mut columns = match part.is_first {
            true => part.columns.end - part.columns.start,
            false => 0,
        };
        let mut blocks = part.blocks.into();
        loop {
            let chunk = SignalChunk {
                group,
                first_column: part.columns.start,
                columns: std::mem::take(&mut columns) as u32,
                samples: std::mem::take(&mut part.samples),
                compression: part.compression.into(),
                missing: take(&mut part.missing, MOST_ENTRIES),
                scales: take(&mut part.scales, MOST_ENTRIES),
                damage: take(&mut part.damage, MOST_DAMAGE),
                blocks: take_blocks(&mut blocks),
            };
            chunks.push(ReadSignalResponse {
                header: None,
                chunk: Some(chunk),
                cursor: Bytes::new(),
            });
            let lists = [part.missing.len(), part.scales.len(), part.damage.len()];
            if blocks.is_empty() && lists == [0; 3] {
                break;
            }
        }
        // Who has not got all of the lists begins with these columns again.
        if part.is_last
            && let Some(last) = chunks.last_mut()
        {
            last.cursor = self.place.to_bytes();
        }
        chunks
    }
}

/// The first of some entries.
fn take<E>(entries: &mut VecDeque<E>, most: usize) -> Vec<E> {
    entries.drain(..entries.len().min(most)).collect()
}

/// Blocks for one message; the last may be cut.
fn take_blocks(blocks: &mut VecDeque<RedBlock>) -> Vec<RedBlock> {
    let mut room = MOST_BLOCK_BYTES;
    let mut taken = Vec::new();
    while let Some(block) = blocks.front_mut() {
        let bytes = block.red.len() + BLOCK_FIELDS;
        if bytes > room && !taken.is_empty() {
            break;
        }
        if bytes <= room {
            room -= bytes;
            taken.extend(blocks.pop_front());
            continue;
        }
        let red = block.red.split_to(room);
        let part = RedBlock {
            red,
            ..block.clone()
        };
        block.offset += room as u32;
        taken.push(part);
        break;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_messages_and_long_ones_are_cut() {
        let block = |row, bytes: usize| RedBlock {
            row,
            bytes: bytes as u32,
            red: vec![row as u8; bytes].into(),
            ..RedBlock::default()
        };
        let mut blocks = VecDeque::from([
            block(1, 300 << 10),
            block(2, 300 << 10),
            block(3, 1200 << 10),
            block(4, 0),
        ]);
        let mut messages = Vec::new();
        while !blocks.is_empty() {
            messages.push(take_blocks(&mut blocks));
        }
        let sizes = |message: &Vec<RedBlock>| -> Vec<(u32, u32, usize)> {
            let sizes = message.iter().map(|it| (it.row, it.offset, it.red.len()));
            sizes.collect()
        };
        let sizes: Vec<_> = messages.iter().map(sizes).collect();
        let most = MOST_BLOCK_BYTES;
        assert_eq!(
            sizes,
            [
                vec![(1, 0, 300 << 10)],
                vec![(2, 0, 300 << 10)],
                vec![(3, 0, most)],
                vec![(3, most as u32, most)],
                vec![(3, 2 * most as u32, (1200 << 10) - 2 * most), (4, 0, 0)],
            ]
        );
    }
}
