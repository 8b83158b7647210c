//! A time range at a lower rate than it was recorded at.
//!
//! The signal is reduced in stretches that are counted from the start of the channel,
//! so that a sample is the same whatever window it is read in. In each, the samples are
//! placed at the channel's rate, and every two values of the lower rate are their
//! extrema (see [`crate::reduce`]). Of a stretch, only those blocks are read whose
//! samples the range shows.

use std::ops::Range;
use std::sync::Arc;

use super::range::{Columns, RangeRequest, Reading, Shape, Told};
use super::windows::{Window, WindowStream};
use crate::actors::file_manager::Selection;
use crate::actors::plan::{Pattern, ReadPlan, distinct_rates, no_channel};
use crate::actors::prefetcher::Observed;
use crate::actors::settings::{Settings, Stretches};
use crate::error::Error;
use crate::mef::{Channel, Grid, Rule, WindowError};
use crate::reduce::OrderedRow;
use crate::worker::page::{Form, PagedRecording};

/// Most columns: beyond it, not every one has a number in f64.
const MOST_COLUMNS: f64 = 4_503_599_627_370_496.0;
/// The blocks of a channel by which its stretches are rounded.
const TYPICAL_BLOCKS: usize = 100;
const TYPICAL_SPAN_US: i64 = 3_600_000_000;

/// A range that was checked: all rows are served at the same rate.
#[derive(Clone, Debug)]
pub(crate) struct ServedPlan {
    pub(super) recording: Arc<PagedRecording>,
    /// Positions of the channels, in the order of the rows.
    pub(super) channels: Arc<[u32]>,
    pub(super) shape: Shape,
    levels: Vec<Level>,
}

/// Rows that are reduced together, since their channels have the same rate, start and
/// stretches.
#[derive(Clone, Debug)]
struct Level {
    way: Way,
    /// The rows, and the positions of their channels.
    rows: Vec<usize>,
    channels: Vec<u32>,
}

/// How a row is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Of its samples as they are.
    AsItIs,
    /// Of stretches of the channel.
    Reduced {
        channel_start: i64,
        native_rate: f64,
        /// Columns of one stretch, an even number.
        stretch: i64,
    },
}

impl ServedPlan {
    /// # Errors
    /// As for [`ReadPlan::new`], and in its order.
    pub(super) fn new(
        selection: Selection,
        request: RangeRequest,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let most = settings.channels_per_read;
        if selection.channels.len() > most {
            return Err(Error::LimitExceeded {
                limit: "limits.channels_per_read",
                value: most as u64,
            });
        }
        let rates = distinct_rates(selection.rows().map(|channel| selection.rate_of(channel)));
        let Some(&rate) = rates.first() else {
            return Err(no_channel(&selection.recording));
        };
        let RangeRequest {
            start_uutc,
            end_uutc,
            ..
        } = request;
        if end_uutc <= start_uutc {
            return Err(WindowError::Empty.into());
        }
        if rates.len() > 1 {
            return Err(Error::MixedRates(rates));
        }
        let too_long = WindowError::TooLong {
            start_uutc,
            end_uutc,
            sampling_frequency: rate,
        };
        let length = end_uutc.checked_sub(start_uutc).ok_or(too_long)? as f64;
        let columns = (length * rate / 1e6).round_ties_even();
        if columns > MOST_COLUMNS {
            return Err(too_long.into());
        }
        if columns < 1.0 {
            return Err(Error::ShorterThanOneSample);
        }
        let mut levels: Vec<Level> = Vec::new();
        for (&position, row) in selection.channels.iter().zip(0..) {
            let Some(channel) = selection.recording.channel(position) else {
                continue;
            };
            let way = Way::of(channel, rate, settings.stretches);
            match levels.iter_mut().find(|level| level.way == way) {
                Some(level) => {
                    level.rows.push(row);
                    level.channels.push(position);
                }
                None => levels.push(Level {
                    way,
                    rows: vec![row],
                    channels: vec![position],
                }),
            }
        }
        Ok(Self {
            recording: selection.recording,
            channels: selection.channels.into(),
            shape: Shape {
                start_uutc,
                end_uutc,
                columns: columns as u64,
                rate,
            },
            levels,
        })
    }
}

impl Way {
    fn of(channel: &Channel, rate: f64, stretches: Stretches) -> Self {
        if rate >= channel.sampling_frequency {
            return Self::AsItIs;
        }
        let mut seconds = stretches.length.as_secs_f64();
        if let Some(block) = typical_block_seconds(channel).filter(|_| stretches.whole_blocks) {
            seconds = (seconds / block).round_ties_even().max(1.0) * block;
        }
        // As pairs; a saturated number is one that no window reaches.
        let pairs = (seconds * rate / 2.0).round_ties_even().max(1.0) as i64;
        Self::Reduced {
            channel_start: channel.start_uutc,
            native_rate: channel.sampling_frequency,
            stretch: pairs.saturating_mul(2),
        }
    }
}

/// The usual length of a channel's blocks, by those at its start.
fn typical_block_seconds(channel: &Channel) -> Option<f64> {
    let until = channel.start_uutc.saturating_add(TYPICAL_SPAN_US);
    let blocks = channel.segments.iter().flat_map(|it| it.index.iter());
    let early = blocks.take_while(|block| block.start_uutc < until);
    let lengths = early.map(|block| channel.end_of(&block).saturating_sub(block.start_uutc));
    let mut lengths: Vec<i64> = lengths.take(TYPICAL_BLOCKS).collect();
    lengths.sort_unstable();
    let middle = |at: usize| lengths.get(at).map(|&us| us as f64);
    let above = middle(lengths.len() / 2)?;
    let below = middle((lengths.len() - 1) / 2)?;
    let seconds = (above + below) / 2.0 / 1e6;
    (seconds > 0.0).then_some(seconds)
}

/// A range at a lower rate as a stream of windows.
pub(crate) struct ServedStream {
    reading: Reading,
    plan: ServedPlan,
    columns_per_window: u64,
    next_column: u64,
    levels: Vec<Running>,
    told: Told,
    ended: bool,
}

/// A level that is being read.
struct Running {
    level: Level,
    /// What was made and not taken.
    ready: Columns,
    source: Source,
}

enum Source {
    AsItIs(Option<WindowStream<f32>>),
    Reduced {
        stretches: StretchesLeft,
        /// The stretch that is being read.
        current: Option<(WindowStream<f64>, Vec<OrderedRow>)>,
        /// Columns of it that come first and are not shown.
        skip: usize,
        pairs: Vec<f32>,
    },
}

/// The stretches of a range that were not begun.
struct StretchesLeft {
    channel_start: i64,
    native_rate: f64,
    rate: f64,
    stretch: i64,
    /// Columns of the range, counted from the start of the channel.
    columns: Range<i64>,
}

/// A stretch, and what is to be read of it.
struct Stretch {
    grid: Grid,
    /// The pairs that are made.
    pairs: Range<u64>,
    /// Pairs of the whole stretch.
    all: u64,
    /// Columns of the first pair that are not shown.
    skip: usize,
}

impl StretchesLeft {
    /// The next stretch that the range shows something of.
    fn next(&mut self) -> Result<Option<Stretch>, Error> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let number = self.columns.start.div_euclid(self.stretch);
        let first = number.saturating_mul(self.stretch);
        let time_of = |columns: i64| {
            let us = (columns as f64 * 1e6 / self.rate).round_ties_even();
            self.channel_start.saturating_add(us as i64)
        };
        let end = first.saturating_add(self.stretch);
        let grid = Grid::new(Rule::Mef3io, time_of(first), time_of(end), self.native_rate)?;
        let from = self.columns.start - first;
        let until = self.columns.end.min(end) - first;
        self.columns.start = end.min(self.columns.end);
        Ok(Some(Stretch {
            grid,
            pairs: from.unsigned_abs() / 2..until.unsigned_abs().div_ceil(2),
            all: self.stretch.unsigned_abs() / 2,
            skip: (from % 2) as usize,
        }))
    }
}

impl ServedStream {
    pub(super) fn new(reading: Reading, plan: ServedPlan, columns_per_window: u64) -> Self {
        let shape = plan.shape;
        let levels = plan.levels.iter().map(|level| {
            let source = match level.way {
                Way::AsItIs => Source::AsItIs(None),
                Way::Reduced {
                    channel_start,
                    native_rate,
                    stretch,
                } => {
                    let distance = shape.start_uutc.saturating_sub(channel_start) as f64;
                    let first = (distance * shape.rate / 1e6).round_ties_even() as i64;
                    let end = first.saturating_add_unsigned(shape.columns);
                    Source::Reduced {
                        stretches: StretchesLeft {
                            channel_start,
                            native_rate,
                            rate: shape.rate,
                            stretch,
                            columns: first..end,
                        },
                        current: None,
                        skip: 0,
                        pairs: Vec::new(),
                    }
                }
            };
            Running {
                ready: Columns::new(level.rows.len()),
                level: level.clone(),
                source,
            }
        });
        Self {
            levels: levels.collect(),
            reading,
            columns_per_window,
            next_column: 0,
            told: Vec::new(),
            ended: false,
            plan,
        }
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
        let first_column = self.next_column;
        let left = self.plan.shape.columns - first_column;
        let columns = left.min(self.columns_per_window);
        if columns == 0 {
            return Ok(None);
        }
        for running in &mut self.levels {
            while running.ready.len() < columns {
                running
                    .advance(&self.reading, &self.plan, &mut self.told)
                    .await?;
            }
        }
        let rows = self.plan.channels.len();
        let width = columns as usize;
        let mut samples = vec![f32::NAN; rows * width];
        for running in &mut self.levels {
            for (&row, position) in running.level.rows.iter().zip(0..) {
                if let Some(line) = samples.get_mut(row * width..(row + 1) * width) {
                    running.ready.take(position, width, line);
                }
            }
        }
        self.next_column += columns;
        if columns == left {
            self.expect_more();
        }
        Ok(Some(Window {
            first_column,
            rows,
            columns: width,
            samples,
            masked: std::mem::take(&mut self.told),
            missing: Vec::new(),
            scales: Vec::new(),
        }))
    }
}

impl ServedStream {
    /// Has what comes after the range, or before it, read ahead of the client.
    fn expect_more(&self) {
        for running in &self.levels {
            let level = &running.level;
            let Way::Reduced { native_rate, .. } = level.way else {
                // The read of the samples says so itself.
                continue;
            };
            let (start, end) = (self.plan.shape.start_uutc, self.plan.shape.end_uutc);
            let Ok(grid) = Grid::new(Rule::Mef3io, start, end, native_rate) else {
                continue;
            };
            let plan = self.plan.read(&level.channels, grid, Pattern::Windows);
            let reader = self.reading.reader.id;
            let prefetcher = &self.reading.engine.addresses().prefetcher;
            // A prefetcher without room has better things to do.
            let _ = prefetcher.try_send(Observed { reader, plan });
        }
    }
}

impl ServedPlan {
    /// A read of some channels on a grid.
    fn read(&self, channels: &[u32], grid: Grid, pattern: Pattern) -> ReadPlan {
        ReadPlan {
            recording: Arc::clone(&self.recording),
            channels: channels.into(),
            grid,
            columns: 0..grid.columns(),
            pattern,
            form: Form::Counts,
        }
    }
}

impl Running {
    /// Reads on, by one window of its source.
    async fn advance(
        &mut self,
        reading: &Reading,
        plan: &ServedPlan,
        told: &mut Told,
    ) -> Result<(), Error> {
        let ready = &mut self.ready;
        match &mut self.source {
            Source::AsItIs(stream) => {
                let stream = match stream {
                    Some(stream) => stream,
                    None => {
                        let Shape {
                            start_uutc,
                            end_uutc,
                            rate,
                            ..
                        } = plan.shape;
                        let grid = Grid::new(Rule::Mef3io, start_uutc, end_uutc, rate)?;
                        let read = plan.read(&self.level.channels, grid, Pattern::Windows);
                        stream.insert(reading.windows(read, None)?)
                    }
                };
                let window = stream.next().await.unwrap_or(Err(Error::Stopped))?;
                told.extend(window.masked);
                let lines = window.samples.chunks_exact(window.columns.max(1));
                for (line, row) in lines.zip(0..) {
                    ready.extend(row, line.iter().copied());
                }
            }
            Source::Reduced {
                stretches,
                current,
                skip,
                pairs,
            } => {
                let (stream, rows) = match current {
                    Some(current) => current,
                    None => {
                        let stretch = stretches.next()?.ok_or(Error::Stopped)?;
                        *skip = stretch.skip;
                        let channels = &self.level.channels;
                        let row = OrderedRow::new(stretch.grid.columns(), stretch.all);
                        let row = row.between(stretch.pairs);
                        let mut read = plan.read(channels, stretch.grid, Pattern::Parts);
                        read.columns = row.samples();
                        let stream = reading.windows(read, None)?;
                        current.insert((stream, vec![row; channels.len()]))
                    }
                };
                let window = stream.next().await.transpose()?;
                let ended = window.is_none();
                let window = window.unwrap_or_else(|| Window::empty(rows.len()));
                told.extend(window.masked);
                let mut lines = window.samples.chunks_exact(window.columns.max(1));
                let mut hidden = 0;
                for (line, row) in rows.iter_mut().zip(0..) {
                    line.feed(lines.next().unwrap_or_default(), pairs);
                    if ended {
                        line.finish(pairs);
                    }
                    hidden = (*skip).min(pairs.len());
                    ready.extend(row, pairs.drain(..).skip(hidden));
                }
                *skip -= hidden;
                if ended {
                    *current = None;
                }
            }
        }
        Ok(())
    }
}
