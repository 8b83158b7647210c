//! Recordings that grow: their blocks, and their states.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;

use super::describe::span;
use super::signal::Replies;
use super::status::status;
use crate::engine::{Block, Engine, Follow, Recording};
use crate::grpc::proto::native::{DamageInfo, FollowResponse, WatchRecordingResponse};
use crate::grpc::samples::sample_bytes;
use crate::worker::page::PagedRecording;

/// How often the state of a recording is asked for that is watched. The files are looked
/// at no more often than `live.staleness_ms` says.
const LOOKS: Duration = Duration::from_millis(500);

/// The blocks that are added to a recording, until an error.
pub(super) fn blocks(follow: Follow) -> Replies<FollowResponse> {
    let messages = stream::unfold(follow, |mut follow| async move {
        let block = follow.next().await?;
        let message = block.map(|block| message(&follow, &block));
        Some((message.map_err(|error| status(&error)), follow))
    });
    messages.boxed()
}

fn message(follow: &Follow, block: &Block) -> FollowResponse {
    let recording = &follow.recording().paged().recording;
    let names = follow.channels();
    let channel = names.get(block.row).or_else(|| {
        let channel = recording.channels.get(block.row)?;
        Some(&channel.name)
    });
    let channel = channel.cloned().unwrap_or_default();
    let found = recording.channel_position(&channel);
    let found = found.and_then(|position| recording.channels.get(position));
    let segment = found.and_then(|it| it.segments.get(block.position.segment as usize));
    let segment = segment.map(|it| it.stem.clone()).unwrap_or_default();
    let (counts, damage) = match block.counts() {
        Ok(counts) => (counts.to_vec(), None),
        Err(damage) => (
            Vec::new(),
            Some(DamageInfo {
                channel: channel.clone(),
                segment: segment.clone(),
                block: Some(block.position.block.into()),
                file_offset: Some(damage.file_offset),
                start_uutc: Some(block.start_uutc),
                samples: damage.samples.into(),
                reason: damage.error.to_string(),
            }),
        ),
    };
    FollowResponse {
        revision: Some(follow.revision().into()),
        channel,
        segment,
        block: block.position.block.into(),
        start_uutc: block.start_uutc,
        sampling_frequency: block.sampling_frequency,
        units_conversion_factor: block.units_conversion_factor,
        counts: sample_bytes(counts),
        damage,
    }
}

/// The states of a recording: the present one, and each that is another.
pub(super) fn states(engine: Engine, opened: Recording) -> Replies<WatchRecordingResponse> {
    let first = state(opened.paged());
    let later = stream::unfold(Some((engine, opened)), |watched| async move {
        let (engine, mut known) = watched?;
        loop {
            sleep(LOOKS).await;
            match engine.refresh(&known).await {
                Ok(now) if now.revision() == known.revision() => known = now,
                Ok(now) => {
                    let message = state(now.paged());
                    return Some((Ok(message), Some((engine, now))));
                }
                Err(error) => return Some((Err(status(&error)), None)),
            }
        }
    });
    stream::iter([Ok(first)]).chain(later).boxed()
}

fn state(paged: &Arc<PagedRecording>) -> WatchRecordingResponse {
    let recording = &paged.recording;
    WatchRecordingResponse {
        revision: Some(paged.revision().into()),
        span: span(recording.start_uutc(), recording.end_uutc()),
        channels: u32::try_from(recording.channels.len()).unwrap_or(u32::MAX),
    }
}
