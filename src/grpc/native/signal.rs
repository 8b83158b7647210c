//! Every sample of a window, as messages: rows of the same grid together, the grids in
//! turn as their time goes on.

mod messages;
mod source;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::Stream;
use tonic::Status;

use self::messages::{Messages, Running};
use self::source::Source;
pub(super) use self::source::masked;
use super::cursor::{Cursor, Place};
use super::status::{Refusal, status};
use crate::actors::plan::{Pattern, ReadPlan, channel_positions, no_channel};
use crate::config::OnDamage;
use crate::engine::{Engine, Reader, WindowStream};
use crate::error::Error;
use crate::grpc::proto::native::read_signal_request::Window as Wanted;
use crate::grpc::proto::native::{
    Compression, OnDamage as OnDamageField, ReadSignalRequest, ReadSignalResponse, SampleForm,
    SignalGroup, SignalHeader,
};
use crate::mef::{Channel, Grid, Rule, SampleValue};
use crate::worker::page::{Form, PagedRecording};

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of samples in a message.
const MESSAGE_BYTES: usize = 128 << 10;
/// Rows of one group: a column of them has room in a message.
const MOST_ROWS: usize = 16_384;

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
        let samples = samples.fold(0u64, u64::saturating_add);
        samples.saturating_mul(self.value_bytes() as u64)
    }

    /// The messages, made as the client takes them.
    pub(super) fn into_messages(
        self,
        engine: &Engine,
        reader: Reader,
    ) -> Result<Replies<ReadSignalResponse>, Status> {
        let groups = self.groups.iter().zip(self.place.columns());
        let groups = groups.map(|(group, &done)| self.running(engine, reader, group, done));
        let groups: Result<Vec<_>, Error> = groups.collect();
        let header = self.header();
        let messages = Messages::new(
            groups.map_err(refused)?,
            header,
            self.place,
            self.compression,
        );
        Ok(messages.into_stream())
    }

    /// A group from a column on.
    fn running(
        &self,
        engine: &Engine,
        reader: Reader,
        group: &Group,
        done: u64,
    ) -> Result<Running, Error> {
        let plan = ReadPlan {
            recording: Arc::clone(&self.recording),
            channels: group.channels.as_slice().into(),
            grid: group.grid,
            columns: done..group.grid.columns(),
            pattern: Pattern::Windows,
            form: Form::Counts,
        };
        let columns = (MESSAGE_BYTES / (group.rows.len() * self.value_bytes())).max(1) as u64;
        let source = match self.form {
            SampleForm::Counts => Source::Counts(self.windows(engine, reader, plan, columns)?),
            SampleForm::Float64 => Source::Float64(self.windows(engine, reader, plan, columns)?),
            SampleForm::Float32 | SampleForm::Unspecified => {
                Source::Float32(self.windows(engine, reader, plan, columns)?)
            }
            SampleForm::RedBlocks => {
                let blocks = engine.stream_stored(plan, reader, columns, self.on_damage)?;
                Source::RedBlocks(Box::new(blocks))
            }
        };
        Ok(Running::new(source, group.grid, done))
    }

    fn windows<T: SampleValue>(
        &self,
        engine: &Engine,
        reader: Reader,
        plan: ReadPlan,
        columns: u64,
    ) -> Result<WindowStream<T>, Error> {
        let windows = engine.stream_plan(plan, reader, Some(columns), self.on_damage)?;
        Ok(windows.detailed(true))
    }

    /// Bytes of a sample as it is sent, or as it would be: nobody knows how well those
    /// of RED blocks are packed.
    fn value_bytes(&self) -> usize {
        match self.form {
            SampleForm::Float64 => size_of::<f64>(),
            _ => size_of::<f32>(),
        }
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
