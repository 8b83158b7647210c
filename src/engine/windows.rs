//! A read as placed samples.

use futures_util::Stream;
use futures_util::stream::unfold;

use super::read_ahead::{Chunk, ReadAhead};
use crate::error::Error;
use crate::mef::{DamagedBlock, Grid, SampleValue, place, scale_of};

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
}

/// A read as a stream of [`Window`]s, in the order of time.
pub struct WindowStream<T> {
    pages: Option<ReadAhead>,
    grid: Grid,
    value: std::marker::PhantomData<T>,
}

impl<T: SampleValue> WindowStream<T> {
    pub(super) fn new(pages: ReadAhead) -> Self {
        Self {
            grid: pages.plan.grid,
            pages: Some(pages),
            value: std::marker::PhantomData,
        }
    }

    /// The grid of the whole read.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The next range of columns; `None` after the last, and after an error.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; dropping the stream cancels the work
    /// that nobody else wants.
    ///
    /// # Errors
    /// The first thing that went wrong: a damaged block, a changed file, a limit.
    pub async fn next(&mut self) -> Option<Result<Window<T>, Error>> {
        let pages = self.pages.as_mut()?;
        let window = match pages.next().await {
            Ok(Some(chunk)) => assemble(pages, &chunk),
            Ok(None) => {
                self.pages = None;
                return None;
            }
            Err(error) => Err(error),
        };
        if window.is_err() {
            self.pages = None;
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
fn assemble<T: SampleValue>(pages: &ReadAhead, chunk: &Chunk) -> Result<Window<T>, Error> {
    let rows = chunk.rows.len();
    let columns = chunk.columns as usize;
    let mut samples = vec![T::GAP; rows * columns];
    let plan = &pages.plan;
    let lines = samples.chunks_exact_mut(columns.max(1));
    let sources = plan.rows().zip(&pages.placements).zip(&chunk.rows);
    for (line, ((channel, placement), blocks)) in lines.zip(sources) {
        for (position, page) in blocks {
            let Some(block) = page.block(position.block) else {
                continue;
            };
            if let Some(damage) = block.damage {
                let recording = &plan.recording.recording;
                let start = block.start_uutc;
                let damaged = DamagedBlock::new(recording, channel, *position, start, damage);
                return Err(Error::Read(Box::new(damaged).into()));
            }
            let samples = block.counts.len() as u32;
            let Some(column) = placement.column(*position, block.start_uutc, samples) else {
                continue;
            };
            let scale = scale_of::<T>(channel, position.segment, plan.grid.rule())?;
            place(block.counts, column, scale, chunk.first_column, line);
        }
    }
    Ok(Window {
        first_column: chunk.first_column,
        rows,
        columns,
        samples,
    })
}
