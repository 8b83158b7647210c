//! The messages of a reply: its groups in turn, as their time goes on.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tonic::Status;

use super::Replies;
use super::source::{Part, Source};
use crate::grpc::native::cursor::Place;
use crate::grpc::native::status::status;
use crate::grpc::proto::native::{Compression, ReadSignalResponse, SignalChunk, SignalHeader};
use crate::mef::Grid;

/// Entries of the lists of a message, each of at most 40 bytes, and of those of damage,
/// which have texts. What is beyond goes into messages of its own.
const MOST_ENTRIES: usize = 16_384;
const MOST_DAMAGE: usize = 512;

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
                blocks: std::mem::take(&mut part.blocks),
            };
            chunks.push(ReadSignalResponse {
                header: None,
                chunk: Some(chunk),
                cursor: Bytes::new(),
            });
            let lists = [part.missing.len(), part.scales.len(), part.damage.len()];
            if lists == [0; 3] {
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
