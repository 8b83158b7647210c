//! A read as placed samples.

mod line;
mod missing;
mod stored;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::Stream;
use futures_util::stream::unfold;

use self::line::{Line, Told};
use self::missing::Coverage;
pub use self::missing::{Missing, MissingReason, ScaleChange};
pub(crate) use self::stored::{StoredBlock, StoredPart, StoredStream};
use super::read_ahead::{Chunk, ReadAhead};
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::{DamagedBlock, Grid, SampleValue, UnreadableSegment, place, scale_of};
use crate::worker::page::Revision;

/// A range of columns of a read, for all of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Window<T> {
    /// Number of the first column within the whole read.
    pub first_column: u64,
    /// Number of rows: the channels of the request, in its order.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Row after row; a gap is [`SampleValue::GAP`].
    pub samples: Vec<T>,
    /// Damage that has left gaps in these columns, where the request allows it.
    pub masked: Vec<Masked>,
    /// Columns without a sample, row by row; only where the request wants
    /// [details](super::ReadRequest::detailed).
    pub missing: Vec<Missing>,
    /// Units per count, row by row; only where the request wants
    /// [details](super::ReadRequest::detailed).
    pub scales: Vec<ScaleChange>,
}

impl<T> Window<T> {
    /// No column of so many rows.
    pub(crate) fn empty(rows: usize) -> Self {
        Self {
            first_column: 0,
            rows,
            columns: 0,
            samples: Vec::new(),
            masked: Vec::new(),
            missing: Vec::new(),
            scales: Vec::new(),
        }
    }
}

/// Samples that are there and cannot be read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Masked {
    /// A block that cannot be decoded.
    Block(Box<DamagedBlock>),
    /// A segment, or a part of one, that cannot be read.
    Segment {
        /// Name of the channel.
        channel: String,
        /// The segment. Its samples lie somewhere between its neighbours.
        segment: Box<UnreadableSegment>,
    },
}

/// A read as a stream of [`Window`]s, in the order of time.
pub struct WindowStream<T> {
    pages: Option<ReadAhead>,
    grid: Grid,
    revision: Revision,
    on_damage: OnDamage,
    detailed: bool,
    /// Blocks that were masked, in the engine's life.
    masked_blocks: Arc<AtomicU64>,
    value: std::marker::PhantomData<T>,
}

impl<T: SampleValue> WindowStream<T> {
    pub(super) fn new(
        pages: ReadAhead,
        on_damage: OnDamage,
        masked_blocks: Arc<AtomicU64>,
    ) -> Self {
        Self {
            grid: pages.plan.grid,
            revision: pages.plan.recording.revision(),
            on_damage,
            detailed: false,
            masked_blocks,
            pages: Some(pages),
            value: std::marker::PhantomData,
        }
    }

    /// The same with the details of each window, or without.
    pub(crate) fn detailed(mut self, detailed: bool) -> Self {
        self.detailed = detailed;
        self
    }

    /// The grid of the whole read.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Names the state of the recording that is read.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The next range of columns; `None` after the last, and after an error.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; dropping the stream cancels the work
    /// that nobody else wants. Until the call is made again or the stream is
    /// dropped, it may hold a share of `limits.in_flight_mb` that others wait for.
    ///
    /// # Errors
    /// The first thing that went wrong: a damaged block, a changed file, a limit.
    pub async fn next(&mut self) -> Option<Result<Window<T>, Error>> {
        let pages = self.pages.as_mut()?;
        let window = match pages.next().await {
            Ok(Some(chunk)) => assemble(pages, &chunk, self.on_damage, self.detailed),
            Ok(None) => {
                self.pages = None;
                return None;
            }
            Err(error) => Err(error),
        };
        match &window {
            Ok(window) => {
                let masked = window.masked.len() as u64;
                self.masked_blocks.fetch_add(masked, Ordering::Relaxed);
            }
            Err(_) => self.pages = None,
        }
        Some(window)
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Window<T>, Error>> + Send {
        unfold(self, |mut windows| async move {
            let window = windows.next().await?;
            Some((window, windows))
        })
    }
}

/// Places a chunk's blocks on their rows.
fn assemble<T: SampleValue>(
    pages: &ReadAhead,
    chunk: &Chunk,
    on_damage: OnDamage,
    detailed: bool,
) -> Result<Window<T>, Error> {
    let rows = chunk.rows.len();
    let columns = chunk.columns as usize;
    let mut samples = vec![T::GAP; rows * columns];
    let rule = pages.plan.grid.rule();
    let of_read = chunk.first_column..chunk.first_column + chunk.columns;
    let mut told = Told::default();
    let lines = samples.chunks_exact_mut(columns.max(1));
    let sources = pages.plan.rows().zip(&pages.placements).zip(&chunk.rows);
    for ((line, ((channel, placement), blocks)), row) in lines.zip(sources).zip(0..) {
        let line_of = Line {
            recording: &pages.plan.recording.recording,
            row,
            channel,
            placement,
            columns: &of_read,
            on_damage,
        };
        let mut coverage = detailed.then(Coverage::default);
        line_of.begin(&mut told);
        for (position, page) in blocks {
            let Some(block) = page.block(position.block) else {
                continue;
            };
            if let Some(column) = line_of.take(*position, &block, coverage.as_mut(), &mut told)? {
                let scale = scale_of::<T>(channel, position.segment, rule)?;
                place(block.words, column, scale, chunk.first_column, line);
            }
        }
        if let Some(coverage) = coverage {
            line_of.end(coverage, &mut told);
        }
    }
    Ok(Window {
        first_column: chunk.first_column,
        rows,
        columns,
        samples,
        masked: told.masked,
        missing: told.missing,
        scales: told.scales,
    })
}
