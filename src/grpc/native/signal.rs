//! Every sample of a window, as messages: rows of the same grid together, the grids in
//! turn as their time goes on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tonic::Status;

use super::cursor::{Cursor, Place};
use super::status::{Refusal, damaged_block, status};
use crate::actors::plan::{Pattern, ReadPlan, channel_positions, no_channel};
use crate::config::OnDamage;
use crate::engine::{Engine, Masked, MissingReason, Reader, Window, WindowStream};
use crate::error::Error;
use crate::grpc::proto::native::read_signal_request::Window as Wanted;
use crate::grpc::proto::native::{
    Compression, DamageInfo, Missing, MissingReason as Reason, OnDamage as OnDamageField,
    ReadSignalRequest, ReadSignalResponse, SampleForm, Scale, SignalChunk, SignalGroup,
    SignalHeader,
};
use crate::grpc::samples::sample_bytes;
use crate::mef::{Channel, Grid, Rule, SampleValue};
use crate::worker::page::PagedRecording;

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of samples in a message.
const MESSAGE_BYTES: usize = 256 << 10;
/// Entries of the lists of a message, each of at most 40 bytes, and of those of damage,
/// which have texts. What is beyond goes into messages of its own.
const MOST_ENTRIES: usize = 16_384;
const MOST_DAMAGE: usize = 512;
/// Rows of one group: a column of them has room in a message.
const MOST_ROWS: usize = 16_384;
/// How hard samples are packed: more takes much longer for little.
const ZSTD_LEVEL: i32 = 1;

/// A request that was checked.
pub(super) struct Signal {
    pub(super) recording: Arc<PagedRecording>,
    groups: Vec<Group>,
    form: SampleForm,
    on_damage: OnDamage,
    compression: Compression,
    place: Place,
}

/// Rows on the same grid.
struct Group {
    grid: Grid,
    /// Numbers of the rows in the request, and the positions of their channels.
    rows: Vec<u32>,
    channels: Vec<u32>,
}

impl Signal {
    /// Checks a request against a recording.
    pub(super) fn new(
        recording: &Arc<PagedRecording>,
        request: &ReadSignalRequest,
        most_channels: usize,
    ) -> Result<Self, Status> {
        let form = match request.form() {
            SampleForm::Unspecified => SampleForm::Float32,
            form => form,
        };
        let positions = channel_positions(recording, &request.channels).map_err(refused)?;
        if positions.len() > most_channels {
            return Err(refused(Error::LimitExceeded {
                limit: "limits.channels_per_read",
                value: most_channels as u64,
            }));
        }
        let mut groups: Vec<Group> = Vec::new();
        for (&position, row) in positions.iter().zip(0u32..) {
            let Some(channel) = recording.channel(position) else {
                continue;
            };
            let grid = grid(channel, request.window)?;
            let has_room = |group: &&mut Group| group.grid == grid && group.rows.len() < MOST_ROWS;
            match groups.iter_mut().find(has_room) {
                Some(group) => {
                    group.rows.push(row);
                    group.channels.push(position);
                }
                None => groups.push(Group {
                    grid,
                    rows: vec![row],
                    channels: vec![position],
                }),
            }
        }
        if groups.is_empty() {
            return Err(refused(no_channel(recording)));
        }
        let cursor = Cursor::of(request, recording, &positions);
        let totals = groups.iter().map(|group| group.grid.columns());
        Ok(Self {
            recording: Arc::clone(recording),
            form,
            on_damage: on_damage(request.on_damage()),
            compression: match request.compression() {
                Compression::Unspecified => Compression::None,
                compression => compression,
            },
            place: cursor.place(&request.cursor, totals.collect())?,
            groups,
        })
    }

    /// Bytes of all samples as they are sent.
    pub(super) fn bytes(&self) -> u64 {
        let samples = self.groups.iter().map(|group| {
            let rows = group.rows.len() as u64;
            group.grid.columns().saturating_mul(rows)
        });
        let value_bytes = match self.form {
            SampleForm::Float64 => size_of::<f64>(),
            _ => size_of::<f32>(),
        };
        let samples = samples.fold(0u64, u64::saturating_add);
        samples.saturating_mul(value_bytes as u64)
    }

    /// The messages, made as the client takes them.
    pub(super) fn into_messages(
        self,
        engine: &Engine,
        reader: Reader,
    ) -> Result<Replies<ReadSignalResponse>, Status> {
        match self.form {
            SampleForm::Counts => self.messages_of::<i32>(engine, reader),
            SampleForm::Float64 => self.messages_of::<f64>(engine, reader),
            SampleForm::Float32 | SampleForm::Unspecified => {
                self.messages_of::<f32>(engine, reader)
            }
        }
    }

    fn messages_of<T: SampleValue>(
        self,
        engine: &Engine,
        reader: Reader,
    ) -> Result<Replies<ReadSignalResponse>, Status> {
        let header = self.header();
        let groups = self.groups.iter().zip(self.place.columns());
        let groups = groups.map(|(group, &done)| {
            let rows = group.rows.len();
            let columns = (MESSAGE_BYTES / (rows * size_of::<T>())).max(1) as u64;
            let plan = ReadPlan {
                recording: Arc::clone(&self.recording),
                channels: group.channels.as_slice().into(),
                grid: group.grid,
                columns: done..group.grid.columns(),
                pattern: Pattern::Windows,
            };
            let windows = engine.stream_plan(plan, reader, Some(columns), self.on_damage)?;
            Ok(Running::<T> {
                windows: Some(windows.detailed(true)),
                grid: group.grid,
                next_column: done,
            })
        });
        let groups: Result<Vec<_>, Error> = groups.collect();
        let first = ReadSignalResponse {
            header: Some(header),
            chunk: None,
            cursor: self.place.to_bytes(),
        };
        let messages = Messages {
            groups: groups.map_err(refused)?,
            place: self.place,
            compression: self.compression,
            with_scales: self.form == SampleForm::Counts,
            ready: VecDeque::from([first]),
            failed: false,
        };
        Ok(stream::unfold(messages, |mut messages| async move {
            let message = messages.next().await?;
            Some((message, messages))
        })
        .boxed())
    }

    fn header(&self) -> SignalHeader {
        let groups = self.groups.iter().map(|group| {
            let channels = group.channels.iter();
            let channels = channels.filter_map(|&it| self.recording.channel(it));
            let unit = |channel: &Channel| {
                let acquisition = channel.acquisition();
                acquisition.map(|it| it.units.clone()).unwrap_or_default()
            };
            SignalGroup {
                sampling_frequency: group.grid.sampling_frequency(),
                start_uutc: group.grid.start_uutc(),
                end_uutc: group.grid.end_uutc(),
                columns: group.grid.columns(),
                rows: group.rows.clone(),
                channels: channels.clone().map(|it| it.name.clone()).collect(),
                units: channels.map(unit).collect(),
            }
        });
        SignalHeader {
            revision: Some(self.recording.revision().into()),
            form: self.form.into(),
            groups: groups.collect(),
        }
    }
}

/// The status of an error that is no failure of the server.
fn refused(error: Error) -> Status {
    status(&error)
}

pub(super) fn on_damage(field: OnDamageField) -> OnDamage {
    match field {
        OnDamageField::Mask => OnDamage::Mask,
        OnDamageField::Unspecified | OnDamageField::Fail => OnDamage::Fail,
    }
}

/// The grid of a channel.
fn grid(channel: &Channel, wanted: Option<Wanted>) -> Result<Grid, Status> {
    let rate = channel.sampling_frequency;
    let (start, end) = match wanted {
        Some(Wanted::Time(span)) => (span.start_uutc, span.end_uutc),
        Some(Wanted::Samples(span)) => {
            let time_of = |sample: i64| {
                let us = (sample as f64 * 1e6 / rate).round();
                channel.start_uutc.saturating_add(us as i64)
            };
            (time_of(span.start), time_of(span.end))
        }
        None => {
            let text = "window: a span of time or of samples is needed";
            return Err(Refusal::field("window", "WINDOW_MISSING", text).into());
        }
    };
    let grid = Grid::new(Rule::Mef3io, start, end, rate).map_err(|error| refused(error.into()))?;
    if grid.columns() == 0 {
        return Err(refused(Error::ShorterThanOneSample));
    }
    Ok(grid)
}

/// A group that is being read.
struct Running<T> {
    /// Until the last was taken.
    windows: Option<WindowStream<T>>,
    grid: Grid,
    next_column: u64,
}

/// The messages of a reply.
struct Messages<T> {
    groups: Vec<Running<T>>,
    place: Place,
    compression: Compression,
    with_scales: bool,
    /// Those that were made and not taken.
    ready: VecDeque<ReadSignalResponse>,
    failed: bool,
}

impl<T: SampleValue> Messages<T> {
    async fn next(&mut self) -> Option<Result<ReadSignalResponse, Status>> {
        if self.failed {
            return None;
        }
        if let Some(message) = self.ready.pop_front() {
            return Some(Ok(message));
        }
        let message = self.read_on().await;
        self.failed = !matches!(message, Some(Ok(_)));
        message
    }

    /// Reads on in the group whose time is the earliest.
    async fn read_on(&mut self) -> Option<Result<ReadSignalResponse, Status>> {
        let running = self.groups.iter_mut().enumerate();
        let running = running.filter(|(_, group)| group.windows.is_some());
        let earliest = running.min_by_key(|(_, group)| group.grid.time_of(group.next_column));
        let (number, group) = earliest?;
        let windows = group.windows.as_mut()?;
        let window = match windows.next().await? {
            Ok(window) => window,
            Err(error) => return Some(Err(status(&error))),
        };
        group.next_column = window.first_column + window.columns as u64;
        if group.next_column >= group.grid.columns() {
            group.windows = None;
        }
        self.place.advance(number, group.next_column);
        self.ready = self.chunks(number as u32, window).into();
        self.ready.pop_front().map(Ok)
    }

    /// A window as messages: one, unless its lists are very long.
    fn chunks(&self, group: u32, window: Window<T>) -> Vec<ReadSignalResponse> {
        let first_column = window.first_column;
        let missing = window.missing.iter().map(|missing| Missing {
            row: missing.row as u32,
            first_column: missing.first_column as u32,
            columns: missing.columns as u32,
            reason: reason(missing.reason).into(),
        });
        let scales = window.scales.iter().filter(|_| self.with_scales);
        let scales = scales.map(|scale| Scale {
            row: scale.row as u32,
            first_column: scale.first_column as u32,
            units_per_count: usable(scale.units_conversion_factor),
        });
        let mut missing: VecDeque<Missing> = missing.collect();
        let mut scales: VecDeque<Scale> = scales.collect();
        let mut damage: VecDeque<DamageInfo> = window.masked.iter().map(masked).collect();
        let columns = window.columns as u32;
        let (samples, compression) = pack(window.samples, self.compression);
        let mut chunks = Vec::new();
        let mut whole = Some((columns, samples));
        while whole.is_some() || !(missing.is_empty() && scales.is_empty() && damage.is_empty()) {
            let (columns, samples) = whole.take().unwrap_or_default();
            let chunk = SignalChunk {
                group,
                first_column,
                columns,
                samples,
                compression: compression.into(),
                missing: take(&mut missing, MOST_ENTRIES),
                scales: take(&mut scales, MOST_ENTRIES),
                damage: take(&mut damage, MOST_DAMAGE),
            };
            chunks.push(ReadSignalResponse {
                header: None,
                chunk: Some(chunk),
                cursor: Bytes::new(),
            });
        }
        // Who has not got all of the lists begins with the window again.
        if let Some(last) = chunks.last_mut() {
            last.cursor = self.place.to_bytes();
        }
        chunks
    }
}

/// The first of some entries.
fn take<E>(entries: &mut VecDeque<E>, most: usize) -> Vec<E> {
    entries.drain(..entries.len().min(most)).collect()
}

/// Units per count; 0 where the stored factor is no number.
fn usable(factor: f64) -> f64 {
    match factor {
        0.0 => 1.0,
        factor if factor.is_finite() => factor,
        _ => 0.0,
    }
}

fn reason(reason: MissingReason) -> Reason {
    match reason {
        MissingReason::Gap => Reason::Gap,
        MissingReason::Outside => Reason::Outside,
        MissingReason::Damaged => Reason::Damaged,
    }
}

/// What is masked, as it is told.
pub(super) fn masked(masked: &Masked) -> DamageInfo {
    match masked {
        Masked::Block(block) => damaged_block(block),
        Masked::Segment { channel, segment } => DamageInfo {
            channel: channel.clone(),
            segment: segment.stem.clone(),
            start_uutc: segment.not_before,
            reason: segment.error.to_string(),
            ..DamageInfo::default()
        },
    }
}

/// The samples of a message, and how they are packed: as they are, where packing does
/// not make them fewer bytes.
fn pack<T: SampleValue>(samples: Vec<T>, compression: Compression) -> (Bytes, Compression) {
    if compression == Compression::Zstd {
        let bytes = bytemuck::cast_slice(&samples);
        match zstd::bulk::compress(bytes, ZSTD_LEVEL) {
            Ok(packed) if packed.len() < bytes.len() => return (packed.into(), compression),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "samples are sent unpacked"),
        }
    }
    (sample_bytes(samples), Compression::None)
}
