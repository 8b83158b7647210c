//! A time range as the clients of mef3io-server read it: at the rate of the channels,
//! at a lower one, or as so many points.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Engine;
use super::points::{PointsPlan, PointsStream};
use super::reader::Reader;
use super::served::{ServedPlan, ServedStream};
use super::windows::{Masked, Window, WindowStream};
use crate::actors::file_manager::Selection;
use crate::actors::plan::{Pattern, ReadPlan};
use crate::actors::settings::Settings;
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::{Channel, Rule, SampleValue, WindowError};
use crate::worker::page::PagedRecording;

/// What a matrix of samples stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) start_uutc: i64,
    pub(crate) end_uutc: i64,
    pub(crate) columns: u64,
    /// Columns a second, in Hz.
    pub(crate) rate: f64,
}

impl Shape {
    pub(crate) fn of(plan: &ReadPlan) -> Self {
        let grid = &plan.grid;
        Self {
            start_uutc: grid.start_uutc(),
            end_uutc: grid.end_uutc(),
            columns: grid.columns(),
            rate: grid.sampling_frequency(),
        }
    }
}

/// A time range that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeRequest {
    pub(crate) start_uutc: i64,
    pub(crate) end_uutc: i64,
    /// Each row is reduced to so many points.
    pub(crate) points: Option<u64>,
}

impl RangeRequest {
    /// What can be said of it without the recording.
    pub(crate) fn check_points(&self) -> Result<(), Error> {
        match self.points {
            Some(0) => Err(Error::NoPoints),
            Some(_) if self.end_uutc <= self.start_uutc => Err(WindowError::Empty.into()),
            _ => Ok(()),
        }
    }

    /// Its length in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.end_uutc.saturating_sub(self.start_uutc) as f64 / 1e6
    }

    /// Samples that it has at a rate.
    pub(super) fn samples(&self, rate: f64) -> f64 {
        (self.seconds() * rate).round_ties_even()
    }
}

/// How a time range is read.
#[derive(Clone, Debug)]
pub(crate) enum RangePlan {
    Samples(SamplesPlan),
    Points(PointsPlan),
}

/// How the samples of a time range are read.
#[derive(Clone, Debug)]
pub(crate) enum SamplesPlan {
    /// All that there are.
    Whole(ReadPlan),
    /// At a lower rate.
    Served(ServedPlan),
}

impl RangePlan {
    /// Checks a range of some channels, and decides how it is read.
    ///
    /// # Errors
    /// Those of [`ReadPlan::new`], in its order, for the rates that are served.
    pub(crate) fn new(
        selection: Selection,
        request: RangeRequest,
        settings: &Settings,
    ) -> Result<Self, Error> {
        match request.points {
            Some(points) => PointsPlan::choose(selection, request, points, settings),
            None => Ok(Self::Samples(SamplesPlan::new(
                selection, request, settings,
            )?)),
        }
    }

    pub(crate) fn recording(&self) -> &Arc<PagedRecording> {
        match self {
            Self::Samples(plan) => plan.parts().0,
            Self::Points(plan) => &plan.recording,
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Samples(plan) => plan.shape(),
            Self::Points(plan) => plan.shape,
        }
    }

    /// Positions of the channels of the rows.
    pub(crate) fn channels(&self) -> &[u32] {
        match self {
            Self::Samples(plan) => plan.parts().1,
            Self::Points(plan) => &plan.channels,
        }
    }

    /// The channels of the rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Channel> {
        let positions = self.channels().iter();
        positions.filter_map(|&position| self.recording().channel(position))
    }
}

impl SamplesPlan {
    /// A range at the rate that the client has asked for, or that of the channels.
    ///
    /// # Errors
    /// Those of [`ReadPlan::new`], in its order, for the rates that are served.
    pub(super) fn new(
        selection: Selection,
        request: RangeRequest,
        settings: &Settings,
    ) -> Result<Self, Error> {
        if selection.is_reduced() {
            return Ok(Self::Served(ServedPlan::new(selection, request, settings)?));
        }
        let window = (request.start_uutc, request.end_uutc);
        let plan = ReadPlan::new(
            &selection.recording,
            selection.channels,
            window,
            Rule::Mef3io,
            Pattern::Windows,
            settings.channels_per_read,
        )?;
        Ok(Self::Whole(plan))
    }

    pub(super) fn shape(&self) -> Shape {
        match self {
            Self::Whole(plan) => Shape::of(plan),
            Self::Served(plan) => plan.shape,
        }
    }

    /// The recording, and the positions of the channels of the rows.
    fn parts(&self) -> (&Arc<PagedRecording>, &[u32]) {
        match self {
            Self::Whole(plan) => (&plan.recording, &plan.channels),
            Self::Served(plan) => (&plan.recording, &plan.channels),
        }
    }
}

impl Selection {
    /// The rate at which a channel is served.
    pub(super) fn rate_of(&self, channel: &Channel) -> f64 {
        let native = channel.sampling_frequency;
        self.served_rate.map_or(native, |rate| rate.min(native))
    }

    /// Whether any channel is served at less than its rate.
    fn is_reduced(&self) -> bool {
        let mut rows = self.rows();
        rows.any(|channel| self.rate_of(channel) < channel.sampling_frequency)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Channel> {
        let positions = self.channels.iter();
        positions.filter_map(|&position| self.recording.channel(position))
    }
}

/// A range as a stream of windows of float32.
pub(crate) enum RangeStream {
    Samples(SamplesStream),
    Points(Box<PointsStream>),
}

/// The samples of a range as a stream of windows.
pub(crate) enum SamplesStream {
    Whole(Box<WindowStream<f32>>),
    Served(Box<ServedStream>),
}

impl RangeStream {
    /// The next range of columns; `None` after the last, and after an error. A window
    /// may have none, and only tell what was masked.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Window<f32>, Error>> {
        match self {
            Self::Samples(stream) => stream.next().await,
            Self::Points(stream) => stream.next().await,
        }
    }
}

impl SamplesStream {
    /// The next range of columns; `None` after the last, and after an error.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Window<f32>, Error>> {
        match self {
            Self::Whole(stream) => stream.next().await,
            Self::Served(stream) => stream.next().await,
        }
    }
}

impl Engine {
    /// Checks a range of some channels, and decides how it is read.
    ///
    /// # Errors
    /// As [`RangePlan::new`].
    pub(crate) fn plan_range(
        &self,
        selection: Selection,
        request: RangeRequest,
    ) -> Result<RangePlan, Error> {
        RangePlan::new(selection, request, &self.inner.settings)
    }

    /// Refuses a range of more samples than one may have.
    pub(crate) fn check_range_size(&self, plan: &RangePlan, reader: Reader) -> Result<(), Error> {
        let columns = plan.shape().columns;
        self.check_matrix(plan.channels().len(), columns, size_of::<f32>(), reader)
    }

    /// Starts to read a range, in windows of so many columns.
    pub(crate) fn read_range(
        &self,
        plan: RangePlan,
        reader: Reader,
        columns_per_message: u64,
        on_damage: OnDamage,
    ) -> Result<RangeStream, Error> {
        self.check_range_size(&plan, reader)?;
        let columns = columns_per_message.max(1);
        let reading = Reading {
            engine: self.clone(),
            reader,
            on_damage,
        };
        Ok(match plan {
            RangePlan::Samples(plan) => RangeStream::Samples(reading.samples(plan, columns)?),
            RangePlan::Points(plan) => {
                RangeStream::Points(Box::new(PointsStream::new(reading, plan, columns)?))
            }
        })
    }
}

/// What all parts of one read share.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) engine: Engine,
    pub(super) reader: Reader,
    pub(super) on_damage: OnDamage,
}

impl Reading {
    pub(super) fn samples(&self, plan: SamplesPlan, columns: u64) -> Result<SamplesStream, Error> {
        Ok(match plan {
            SamplesPlan::Whole(plan) => {
                SamplesStream::Whole(Box::new(self.windows(plan, Some(columns))?))
            }
            SamplesPlan::Served(plan) => {
                SamplesStream::Served(Box::new(ServedStream::new(self.clone(), plan, columns)))
            }
        })
    }

    pub(super) fn windows<T: SampleValue>(
        &self,
        plan: ReadPlan,
        columns: Option<u64>,
    ) -> Result<WindowStream<T>, Error> {
        self.engine
            .stream_plan(plan, self.reader, columns, self.on_damage)
    }
}

/// Rows of which columns come at one end and are taken at the other.
#[derive(Debug, Default)]
pub(super) struct Columns {
    rows: Vec<VecDeque<f32>>,
}

impl Columns {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows: vec![VecDeque::new(); rows],
        }
    }

    /// Columns that are there for every row.
    pub(super) fn len(&self) -> u64 {
        self.rows.iter().map(VecDeque::len).min().unwrap_or(0) as u64
    }

    /// Appends samples to a row.
    pub(super) fn extend(&mut self, row: usize, samples: impl IntoIterator<Item = f32>) {
        if let Some(row) = self.rows.get_mut(row) {
            row.extend(samples);
        }
    }

    /// Takes the first columns of a row.
    pub(super) fn take(&mut self, row: usize, columns: usize, into: &mut [f32]) {
        let Some(row) = self.rows.get_mut(row) else {
            return;
        };
        let columns = columns.min(row.len());
        for (sample, value) in into.iter_mut().zip(row.drain(..columns)) {
            *sample = value;
        }
    }
}

/// What was masked, which is told with the next window.
pub(super) type Told = Vec<Masked>;
