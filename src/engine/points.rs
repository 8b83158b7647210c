//! A time range as so many points for each row, however long it is.
//!
//! The samples pass by once, at the rate of the channel, or at the lower one that the
//! client is served at, where that has at least twice as many as there are points. What
//! is kept are two numbers for each point.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::range::{RangePlan, RangeRequest, Reading, SamplesPlan, SamplesStream, Shape, Told};
use super::windows::Window;
use crate::actors::file_manager::Selection;
use crate::actors::plan::{distinct_rates, no_channel};
use crate::actors::settings::Settings;
use crate::error::Error;
use crate::reduce::LttbRow;
use crate::worker::page::PagedRecording;

/// Bytes of a window of samples on its way.
const WINDOW_BYTES: usize = 1 << 20;
/// What was masked is told when it is so much, not only with the points.
const MOST_TOLD: usize = 256;
/// Bytes of a point until it is known, and then.
const POINT_BYTES: u64 = (2 * size_of::<f32>() + size_of::<f32>()) as u64;
/// Bytes of one permit.
const UNIT: u64 = 1024;

/// Room for the points of all reads.
#[derive(Debug)]
pub(super) struct PointsRoom {
    free: Arc<Semaphore>,
    limit_mb: usize,
}

impl PointsRoom {
    pub(super) fn new(limit_mb: usize) -> Self {
        let units = ((limit_mb as u64) << 20) / UNIT;
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        Self {
            free: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            limit_mb,
        }
    }

    /// Takes room for a read, until it ends.
    fn take(&self, plan: &PointsPlan) -> Result<OwnedSemaphorePermit, Error> {
        let points = plan
            .shape
            .columns
            .saturating_mul(plan.channels.len() as u64);
        self.take_bytes(points.saturating_mul(POINT_BYTES))
    }

    /// The same of so many bytes.
    pub(super) fn take_bytes(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        let limit = "limits.points_mb";
        let value = self.limit_mb as u64;
        let units = bytes.div_ceil(UNIT);
        if units > (value << 20) / UNIT {
            return Err(Error::LimitExceeded { limit, value });
        }
        let units = u32::try_from(units).map_err(|_| Error::LimitExceeded { limit, value })?;
        let free = Arc::clone(&self.free);
        free.try_acquire_many_owned(units)
            .map_err(|_| Error::Busy { limit, value })
    }
}

/// A range that was checked.
#[derive(Clone, Debug)]
pub(crate) struct PointsPlan {
    pub(super) recording: Arc<PagedRecording>,
    /// Positions of the channels, in the order of the rows.
    pub(super) channels: Arc<[u32]>,
    pub(super) shape: Shape,
    sources: Vec<PointsSource>,
}

/// Rows whose samples come together.
#[derive(Clone, Debug)]
struct PointsSource {
    rows: Vec<usize>,
    plan: SamplesPlan,
}

impl PointsPlan {
    /// Checks a range; one that has no more samples than points is read as it is.
    ///
    /// # Errors
    /// As for [`ReadPlan::new`](crate::actors::plan::ReadPlan::new), but that channels
    /// may have different rates.
    pub(super) fn choose(
        selection: Selection,
        request: RangeRequest,
        points: u64,
        settings: &Settings,
    ) -> Result<RangePlan, Error> {
        request.check_points()?;
        let whole = RangeRequest {
            points: None,
            ..request
        };
        let rate_of = |position: u32| {
            let channel = selection.recording.channel(position)?;
            let (served, native) = (selection.rate_of(channel), channel.sampling_frequency);
            let is_enough = request.samples(served) >= 2.0 * points as f64;
            Some(if is_enough { served } else { native })
        };
        let rates = distinct_rates(selection.channels.iter().filter_map(|&it| rate_of(it)));
        if rates.is_empty() {
            return Err(no_channel(&selection.recording));
        }
        let mut sources = Vec::new();
        // A window that is shorter than a sample of some channels, but not of all, has
        // no points of theirs.
        let mut too_short = None;
        for &rate in &rates {
            let of_it = selection.channels.iter().zip(0..);
            let of_it = of_it.filter(|&(&position, _)| rate_of(position) == Some(rate));
            let (channels, rows) = of_it.map(|(&position, row)| (position, row)).unzip();
            let part = Selection {
                recording: Arc::clone(&selection.recording),
                channels,
                // All of these have the rate, or are served at it.
                served_rate: Some(rate),
            };
            match SamplesPlan::new(part, whole, settings) {
                Ok(plan) => sources.push(PointsSource { rows, plan }),
                Err(error @ Error::ShorterThanOneSample) => too_short = Some(error),
                Err(error) => return Err(error),
            }
        }
        if sources.is_empty()
            && let Some(error) = too_short
        {
            return Err(error);
        }
        if let ([_], [PointsSource { plan, .. }]) = (rates.as_slice(), sources.as_slice())
            && plan.shape().columns <= points
        {
            return Ok(RangePlan::Samples(plan.clone()));
        }
        Ok(RangePlan::Points(Self {
            recording: selection.recording,
            channels: selection.channels.into(),
            shape: Shape {
                start_uutc: request.start_uutc,
                end_uutc: request.end_uutc,
                columns: points,
                rate: points as f64 / request.seconds(),
            },
            sources,
        }))
    }
}

/// A range as points, as a stream of windows.
pub(crate) struct PointsStream {
    reading: Reading,
    shape: Shape,
    columns_per_window: u64,
    next_column: u64,
    /// Those that are still to be read.
    sources: VecDeque<PointsSource>,
    current: Option<Current>,
    /// The points of each row; gaps until they are known.
    points: Vec<Vec<f32>>,
    told: Told,
    ended: bool,
    _room: OwnedSemaphorePermit,
}

/// Rows that are being read.
struct Current {
    stream: SamplesStream,
    rows: Vec<(usize, LttbRow)>,
}

impl PointsStream {
    /// # Errors
    /// [`Error::LimitExceeded`] and [`Error::Busy`] where there is no room for so many
    /// points.
    pub(super) fn new(
        reading: Reading,
        plan: PointsPlan,
        columns_per_window: u64,
    ) -> Result<Self, Error> {
        let room = reading.engine.inner.points.take(&plan)?;
        let gaps = vec![f32::NAN; plan.shape.columns as usize];
        Ok(Self {
            _room: room,
            reading,
            shape: plan.shape,
            columns_per_window,
            next_column: 0,
            sources: plan.sources.into(),
            current: None,
            points: vec![gaps; plan.channels.len()],
            told: Vec::new(),
            ended: false,
        })
    }

    /// The next range of columns; `None` after the last, and after an error.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Window<f32>, Error>> {
        if self.ended {
            return None;
        }
        let window = self.window().await.transpose();
        self.ended = !matches!(window, Some(Ok(_)));
        window
    }

    async fn window(&mut self) -> Result<Option<Window<f32>>, Error> {
        while self.read_on().await? {
            if self.told.len() >= MOST_TOLD {
                return Ok(Some(Window {
                    masked: std::mem::take(&mut self.told),
                    ..Window::empty(self.points.len())
                }));
            }
        }
        let first_column = self.next_column;
        let columns = (self.shape.columns - first_column).min(self.columns_per_window);
        if columns == 0 {
            return Ok(None);
        }
        let range = first_column as usize..(first_column + columns) as usize;
        let lines = self.points.iter().filter_map(|row| row.get(range.clone()));
        self.next_column += columns;
        Ok(Some(Window {
            first_column,
            rows: self.points.len(),
            columns: columns as usize,
            samples: lines.flatten().copied().collect(),
            masked: std::mem::take(&mut self.told),
            missing: Vec::new(),
            scales: Vec::new(),
        }))
    }

    /// Takes one window of samples, if there are any left.
    async fn read_on(&mut self) -> Result<bool, Error> {
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let Some(source) = self.sources.front() else {
                    return Ok(false);
                };
                let samples = source.plan.shape().columns;
                let points = self.shape.columns as usize;
                let rows = source.rows.iter();
                let rows = rows.map(|&row| (row, LttbRow::new(samples, points)));
                let columns = WINDOW_BYTES / (source.rows.len().max(1) * size_of::<f32>());
                let plan = source.plan.clone();
                let current = Current {
                    rows: rows.collect(),
                    stream: self.reading.samples(plan, columns.max(1) as u64)?,
                };
                self.sources.pop_front();
                self.current.insert(current)
            }
        };
        match current.stream.next().await.transpose()? {
            Some(window) => {
                let lines = window.samples.chunks_exact(window.columns.max(1));
                for (line, (_, row)) in lines.zip(&mut current.rows) {
                    row.feed(line);
                }
                self.told.extend(window.masked);
            }
            None => {
                for (row, line) in &current.rows {
                    if let Some(points) = self.points.get_mut(*row) {
                        *points = line.points();
                    }
                }
                self.current = None;
            }
        }
        Ok(true)
    }
}
