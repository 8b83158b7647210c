//! Reading one channel's window straight from the files: what command-line
//! tools do. Servers go through the engine, where workers decode and a cache
//! remembers.

use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

use super::blocks::{DamagedBlock, DecodedBlock, Scratch, SegmentReader};
use super::error::MefError;
use super::place::{BlockPosition, Grid, Placement, Rule, SampleValue, Scale, place};
use super::recording::{Channel, Recording};
use super::segment::SegmentFiles;

/// Why a window cannot be read.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file is missing, unreadable or malformed.
    #[error(transparent)]
    Mef(#[from] MefError),
    /// A block within the window cannot be decoded.
    #[error(transparent)]
    Damaged(#[from] Box<DamagedBlock>),
    /// A segment that may belong to the window cannot be read.
    #[error("channel {channel}, segment {segment}: {error}")]
    UnreadableSegment {
        /// Name of the channel.
        channel: String,
        /// Stem of the segment.
        segment: String,
        /// Why.
        error: MefError,
    },
    /// The conversion factor is not a finite number, so that counts cannot be
    /// scaled.
    #[error("{}: channel {channel}, segment {segment}: units conversion factor {factor} is not usable", file.display())]
    ConversionFactor {
        /// The metadata file, relative to the session.
        file: PathBuf,
        /// Name of the channel.
        channel: String,
        /// Stem of the segment.
        segment: String,
        /// As stored.
        factor: f64,
    },
}

/// Refuses a span, from one uUTC to another, that an unreadable segment may have
/// samples in.
pub(crate) fn check_readable(
    channel: &Channel,
    (from, until): (i64, i64),
) -> Result<(), ReadError> {
    let mut unreadable = channel.unreadable_within(from, until);
    match unreadable.next() {
        None => Ok(()),
        Some(segment) => Err(ReadError::UnreadableSegment {
            channel: channel.name.clone(),
            segment: segment.stem.clone(),
            error: segment.error.clone(),
        }),
    }
}

/// The scale of a channel's segment under a rule, for values of type `T`.
pub(crate) fn scale_of<T: SampleValue>(
    channel: &Channel,
    segment: u32,
    rule: Rule,
) -> Result<Scale, ReadError> {
    let null_is_gap = rule == Rule::Pymef;
    let segment = channel.segments.get(segment as usize);
    let Some(segment) = segment.filter(|_| T::SCALED) else {
        let factor = 1.0;
        return Ok(Scale {
            factor,
            null_is_gap,
        });
    };
    match segment.acquisition.scale() {
        Some(factor) => Ok(Scale {
            factor,
            null_is_gap,
        }),
        None => Err(ReadError::ConversionFactor {
            file: SegmentFiles::new(&channel.name, &segment.stem).name("tmet"),
            channel: channel.name.clone(),
            segment: segment.stem.clone(),
            factor: segment.acquisition.units_conversion_factor,
        }),
    }
}

/// What becomes of a read at a damaged block.
type AtDamage<'a> = dyn FnMut(Box<DamagedBlock>) -> Result<(), ReadError> + 'a;

/// Reads one window of one channel, a range of columns at a time.
pub struct ChannelReader<'a> {
    recording: &'a Recording,
    channel: &'a Channel,
    placement: Placement,
    /// The segment read last. Blocks come segment by segment, and a channel may
    /// have more segments than a process may have files open.
    open: Option<(u32, SegmentReader)>,
    scratch: Scratch,
    samples: Vec<i32>,
    blocks: Vec<DecodedBlock>,
}

impl<'a> ChannelReader<'a> {
    /// A reader of `channel`, which must be one of the recording's.
    ///
    /// # Errors
    /// [`ReadError::UnreadableSegment`] where the window may hold samples of one.
    pub fn new(
        recording: &'a Recording,
        channel: &'a Channel,
        grid: Grid,
    ) -> Result<Self, ReadError> {
        check_readable(channel, (grid.start_uutc(), grid.end_uutc()))?;
        Ok(Self::masking(recording, channel, grid))
    }

    /// A reader of `channel` for a window that may have gaps where there is damage.
    /// Whoever uses it tells of [`Channel::unreadable_within`], and of what
    /// [`read_masked`](Self::read_masked) tells of.
    pub fn masking(recording: &'a Recording, channel: &'a Channel, grid: Grid) -> Self {
        Self {
            recording,
            channel,
            placement: Placement::new(grid, channel),
            open: None,
            scratch: Scratch::default(),
            samples: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Fills `row` with the columns from `first_column` on.
    ///
    /// # Errors
    /// [`ReadError`] where a block that the columns need cannot be read; nothing
    /// but a gap is ever left as one.
    pub fn read<T: SampleValue>(
        &mut self,
        first_column: u64,
        row: &mut [T],
    ) -> Result<(), ReadError> {
        self.read_blocks(first_column, row, &mut |damaged| Err(damaged.into()))
    }

    /// As [`read`](Self::read), but a block that cannot be decoded leaves a gap, and
    /// `tell` hears of it: by each call that needs the block.
    ///
    /// # Errors
    /// [`ReadError`] for all that is wrong beyond single blocks.
    pub fn read_masked<T: SampleValue>(
        &mut self,
        first_column: u64,
        row: &mut [T],
        tell: &mut dyn FnMut(Box<DamagedBlock>),
    ) -> Result<(), ReadError> {
        self.read_blocks(first_column, row, &mut |damaged| {
            tell(damaged);
            Ok(())
        })
    }

    fn read_blocks<T: SampleValue>(
        &mut self,
        first_column: u64,
        row: &mut [T],
        at_damage: &mut AtDamage<'_>,
    ) -> Result<(), ReadError> {
        row.fill(T::GAP);
        let columns: Range<u64> = first_column..first_column.saturating_add(row.len() as u64);
        for position in self.placement.blocks(self.channel, columns) {
            self.place_block(position, first_column, row, at_damage)?;
        }
        Ok(())
    }

    fn place_block<T: SampleValue>(
        &mut self,
        position: BlockPosition,
        first_column: u64,
        row: &mut [T],
        at_damage: &mut AtDamage<'_>,
    ) -> Result<(), ReadError> {
        let BlockPosition { segment, block } = position;
        let rule = self.placement.grid().rule();
        let scale = scale_of::<T>(self.channel, segment, rule)?;
        self.samples.clear();
        self.blocks.clear();
        let channel = self.channel;
        let part = channel.segments.get(segment as usize);
        let entry = part.and_then(|part| part.index.get(block as usize));
        let (Some(part), Some(entry)) = (part, entry) else {
            return Ok(());
        };
        let reader = match self.open.take() {
            Some((number, reader)) if number == segment => reader,
            _ => SegmentReader::open_in(self.recording, channel, part)?,
        };
        let (samples, blocks) = (&mut self.samples, &mut self.blocks);
        reader.decode(&[entry], &mut self.scratch, samples, blocks);
        self.open = Some((segment, reader));
        for decoded in &self.blocks {
            if let Some(damage) = &decoded.damage {
                let start = decoded.start_uutc;
                let damaged = DamagedBlock::new(self.recording, channel, position, start, damage);
                at_damage(Box::new(damaged))?;
                continue;
            }
            let column = self
                .placement
                .column(position, decoded.start_uutc, decoded.samples);
            if let Some(column) = column {
                place(&self.samples, column, scale, first_column, row);
            }
        }
        Ok(())
    }
}
