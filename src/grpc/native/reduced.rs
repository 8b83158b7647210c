//! A window as so many points of each row.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tonic::Status;

use super::signal::{Replies, masked, on_damage};
use super::status::{Refusal, status};
use crate::actors::file_manager::Selection;
use crate::actors::plan::channel_positions;
use crate::engine::{Engine, RangeRequest, RangeStream, Reader, Recording, Window};
use crate::error::Error;
use crate::grpc::proto::native::{DamageInfo, ReadReducedRequest, ReadReducedResponse, Revision};
use crate::grpc::samples::sample_bytes;

/// Bytes of points in a message.
const MESSAGE_BYTES: usize = 128 << 10;
/// Findings of a message; what is beyond goes into messages of its own.
const MOST_DAMAGE: usize = 512;

/// The window of a request.
pub(super) fn range(request: &ReadReducedRequest) -> Result<RangeRequest, Status> {
    let Some(span) = request.span else {
        let text = "span: a span of time is needed";
        return Err(Refusal::field("span", "WINDOW_MISSING", text).into());
    };
    let range = RangeRequest {
        start_uutc: span.start_uutc,
        end_uutc: span.end_uutc,
        points: Some(request.points.into()),
    };
    range.check_points().map_err(|error| status(&error))?;
    Ok(range)
}

/// The messages, made as the client takes them.
pub(super) fn messages(
    engine: &Engine,
    opened: &Recording,
    request: &ReadReducedRequest,
    range: RangeRequest,
    reader: Reader,
) -> Result<Replies<ReadReducedResponse>, Status> {
    let refused = |error: Error| status(&error);
    let paged = opened.paged();
    let selection = Selection {
        recording: Arc::clone(paged),
        channels: channel_positions(paged, &request.channels).map_err(refused)?,
        served_rate: None,
    };
    let plan = engine.plan_range(selection, range).map_err(refused)?;
    let shape = plan.shape();
    let rows = plan.channels().len().max(1);
    let columns = (MESSAGE_BYTES / (rows * size_of::<f32>())).max(1) as u64;
    let frame = ReadReducedResponse {
        revision: Some(Revision::from(paged.revision())),
        channels: plan.rows().map(|channel| channel.name.clone()).collect(),
        sampling_frequency: shape.rate,
        total_columns: shape.columns,
        ..ReadReducedResponse::default()
    };
    let damage = on_damage(request.on_damage());
    let source = engine.read_range(plan, reader, columns, damage);
    let source = source.map_err(refused)?;
    let messages = Messages {
        source: Some(source),
        frame,
        findings: Vec::new(),
    };
    let messages = stream::unfold(messages, |mut messages| async move {
        let message = messages.next().await?;
        Some((message, messages))
    });
    Ok(messages.boxed())
}

struct Messages {
    /// Until its end.
    source: Option<RangeStream>,
    /// What is the same in all messages.
    frame: ReadReducedResponse,
    /// What was masked and not told.
    findings: Vec<DamageInfo>,
}

impl Messages {
    async fn next(&mut self) -> Option<Result<ReadReducedResponse, Status>> {
        if self.findings.len() > MOST_DAMAGE {
            return Some(Ok(self.message(Window::empty(0))));
        }
        let window = match &mut self.source {
            Some(source) => source.next().await,
            None => None,
        };
        match window {
            Some(Ok(window)) => Some(Ok(self.message(window))),
            Some(Err(error)) => {
                self.source = None;
                self.findings.clear();
                Some(Err(status(&error)))
            }
            None => {
                self.source = None;
                let rest = !self.findings.is_empty();
                rest.then(|| Ok(self.message(Window::empty(0))))
            }
        }
    }

    fn message(&mut self, window: Window<f32>) -> ReadReducedResponse {
        self.findings.extend(window.masked.iter().map(masked));
        let told = self.findings.len().min(MOST_DAMAGE);
        ReadReducedResponse {
            first_column: window.first_column,
            columns: window.columns as u32,
            points: sample_bytes(window.samples),
            damage: self.findings.drain(..told).collect(),
            ..self.frame.clone()
        }
    }
}
