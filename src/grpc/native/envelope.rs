//! The least and the greatest sample of each pixel of a window.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tonic::Status;

use super::signal::{Replies, masked, on_damage};
use super::status::{Refusal, status};
use crate::actors::plan::channel_positions;
use crate::engine::{Engine, EnvelopeItem, EnvelopeRequest, EnvelopeStream, Reader, Recording};
use crate::error::Error;
use crate::grpc::proto::native::{
    DamageInfo, EnvelopeHeader, EnvelopePart, ReadEnvelopeRequest, ReadEnvelopeResponse, TimeSpan,
};
use crate::grpc::samples::sample_bytes;
use crate::mef::WindowError;
use crate::worker::page::PagedRecording;

/// Findings of a message; what is beyond goes into messages of its own.
const MOST_DAMAGE: usize = 512;

/// The envelope that a request is for.
pub(super) fn wanted(request: &ReadEnvelopeRequest) -> Result<EnvelopeRequest, Status> {
    let Some(span) = request.span else {
        let text = "span: a span of time is needed";
        return Err(Refusal::field("span", "WINDOW_MISSING", text).into());
    };
    if span.end_uutc <= span.start_uutc {
        return Err(status(&WindowError::Empty.into()));
    }
    if request.pixels == 0 {
        let text = "pixels: at least one is needed";
        return Err(Refusal::field("pixels", "NO_PIXELS", text).into());
    }
    Ok(EnvelopeRequest {
        start_uutc: span.start_uutc,
        end_uutc: span.end_uutc,
        pixels: request.pixels,
        decode_all: request.decode_all,
        on_damage: on_damage(request.on_damage()),
    })
}

/// The messages, made as the client takes them.
pub(super) fn messages(
    engine: &Engine,
    opened: &Recording,
    channels: &[String],
    wanted: EnvelopeRequest,
    reader: Reader,
) -> Result<Replies<ReadEnvelopeResponse>, Status> {
    let refused = |error: Error| status(&error);
    let recording = opened.paged();
    let channels = channel_positions(recording, channels).map_err(refused)?;
    let header = EnvelopeHeader {
        revision: Some(recording.revision().into()),
        span: Some(TimeSpan {
            start_uutc: wanted.start_uutc,
            end_uutc: wanted.end_uutc,
        }),
        pixels: wanted.pixels,
        rows: channels.len() as u32,
    };
    let source = engine.read_envelope(recording, channels, wanted, reader);
    let first = ReadEnvelopeResponse {
        header: Some(header),
        ..ReadEnvelopeResponse::default()
    };
    let messages = Messages {
        source: Some(source.map_err(refused)?),
        recording: Arc::clone(recording),
        ready: VecDeque::from([first]),
    };
    let messages = stream::unfold(messages, |mut messages| async move {
        let message = messages.next().await?;
        Some((message, messages))
    });
    Ok(messages.boxed())
}

struct Messages {
    /// Until its end.
    source: Option<EnvelopeStream>,
    recording: Arc<PagedRecording>,
    /// Those that were made and not taken.
    ready: VecDeque<ReadEnvelopeResponse>,
}

impl Messages {
    async fn next(&mut self) -> Option<Result<ReadEnvelopeResponse, Status>> {
        if let Some(message) = self.ready.pop_front() {
            return Some(Ok(message));
        }
        match self.source.as_mut()?.next().await? {
            Ok(item) => {
                self.ready = self.of_item(item);
                self.ready.pop_front().map(Ok)
            }
            Err(error) => {
                self.source = None;
                Some(Err(status(&error)))
            }
        }
    }

    /// An item as messages: one, unless very much was masked.
    fn of_item(&self, item: EnvelopeItem) -> VecDeque<ReadEnvelopeResponse> {
        let damage: Vec<DamageInfo> = item.masked.iter().map(masked).collect();
        let mut damage = damage.chunks(MOST_DAMAGE).map(<[_]>::to_vec);
        let parts = item.parts.into_iter().map(|part| {
            let channel = self.recording.channel(part.channel);
            let acquisition = channel.and_then(|channel| channel.acquisition());
            EnvelopePart {
                row: part.row as u32,
                channel: channel.map(|it| it.name.clone()).unwrap_or_default(),
                sampling_frequency: channel.map_or(0.0, |it| it.sampling_frequency),
                unit: acquisition.map(|it| it.units.clone()).unwrap_or_default(),
                first_pixel: part.first_pixel,
                pixels: part.minima.len() as u32,
                minima: sample_bytes(part.minima),
                maxima: sample_bytes(part.maxima),
            }
        });
        let first = ReadEnvelopeResponse {
            header: None,
            parts: parts.collect(),
            damage: damage.next().unwrap_or_default(),
            index_blocks: item.index_blocks,
            kept_parts: item.kept_pieces,
            decoded_blocks: item.decoded_blocks,
        };
        let others = damage.map(|damage| ReadEnvelopeResponse {
            damage,
            ..ReadEnvelopeResponse::default()
        });
        std::iter::once(first).chain(others).collect()
    }
}
