//! The extrema of stored blocks, as the index has them: no sample is decoded.

use std::sync::Arc;
use std::vec;

use futures_util::stream::{self, StreamExt};

use super::reading::Replies;
use crate::grpc::proto::ChannelEnvelope;
use crate::mef::{BlockEntry, Channel, Segment};
use crate::worker::page::PagedRecording;

/// Most blocks of one message: 36 bytes each, where times take nine, so that it stays
/// below 256 KiB.
const MESSAGE_BLOCKS: usize = 7000;

/// What is wanted of the channels.
pub(super) struct Envelope {
    pub(super) file_path: String,
    pub(super) recording: Arc<PagedRecording>,
    pub(super) channels: Vec<u32>,
    /// Blocks are left out that end before it or at it.
    pub(super) from: Option<i64>,
    /// Blocks are left out that start at it or later.
    pub(super) until: Option<i64>,
}

/// Where the next message begins: a channel of the request, a segment of it, a block of
/// that.
#[derive(Clone, Copy, Default)]
struct Place {
    row: usize,
    segment: usize,
    block: usize,
}

impl Envelope {
    /// The messages, made as the client takes them: for each channel at least one.
    pub(super) fn into_messages(self) -> Replies<ChannelEnvelope> {
        let messages = stream::unfold((self, Place::default()), |(envelope, place)| async move {
            let (message, next) = envelope.message(place)?;
            Some((Ok(message), (envelope, next)))
        });
        messages.boxed()
    }

    fn message(&self, mut place: Place) -> Option<(ChannelEnvelope, Place)> {
        let position = *self.channels.get(place.row)?;
        let channel = self.recording.channel(position)?;
        let mut message = ChannelEnvelope {
            file_path: self.file_path.clone(),
            channel_name: channel.name.clone(),
            ..ChannelEnvelope::default()
        };
        while let Some(segment) = channel.segments.get(place.segment) {
            let factor = segment.acquisition.scale().unwrap_or(f64::NAN);
            for number in self.candidates(segment, place.block) {
                if message.start_uutc.len() == MESSAGE_BLOCKS {
                    place.block = number;
                    return Some((message, place));
                }
                if let Some(block) = segment.index.get(number) {
                    self.add(&mut message, channel, &block, factor);
                }
            }
            place.segment += 1;
            place.block = 0;
        }
        place = Place {
            row: place.row + 1,
            ..Place::default()
        };
        Some((message, place))
    }

    /// Blocks of a segment, from one on, that may be wanted.
    fn candidates(&self, segment: &Segment, from_block: usize) -> std::ops::Range<usize> {
        let from = self.from.unwrap_or(i64::MIN);
        let until = self.until.unwrap_or(i64::MAX);
        let candidates = segment.index.candidates(from, until);
        candidates.start.max(from_block)..candidates.end.max(from_block)
    }

    fn add(
        &self,
        message: &mut ChannelEnvelope,
        channel: &Channel,
        block: &BlockEntry,
        factor: f64,
    ) {
        let end = channel.end_of(block);
        let is_before = self.from.is_some_and(|from| end <= from);
        if is_before || self.until.is_some_and(|until| block.start_uutc >= until) {
            return;
        }
        let (minimum, maximum) = block.extrema.in_units(factor);
        message.start_uutc.push(block.start_uutc);
        message.end_uutc.push(end);
        message.min.push(minimum);
        message.max.push(maximum);
    }
}

/// A stream of one error message.
pub(super) fn refuse(file_path: String, error_message: String) -> Replies<ChannelEnvelope> {
    tracing::info!(path = file_path, error = error_message, "read refused");
    let message = ChannelEnvelope {
        file_path,
        error_message: Some(error_message),
        ..ChannelEnvelope::default()
    };
    stream::iter(vec![Ok(message)]).boxed()
}
