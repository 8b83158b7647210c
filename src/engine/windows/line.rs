//! One row of a range of columns: what its blocks leave to be told.

use std::ops::Range;

use super::Masked;
use super::missing::{Coverage, Missing, ScaleChange, reason_without_block};
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::{BlockPosition, Channel, DamagedBlock, Placement, Recording};
use crate::worker::page::PageBlockView;

/// What a range of columns has beside its blocks.
#[derive(Default)]
pub(super) struct Told {
    pub(super) masked: Vec<Masked>,
    pub(super) missing: Vec<Missing>,
    pub(super) scales: Vec<ScaleChange>,
}

/// A row of a range of columns.
pub(super) struct Line<'a> {
    pub(super) recording: &'a Recording,
    pub(super) row: usize,
    pub(super) channel: &'a Channel,
    pub(super) placement: &'a Placement,
    /// The columns, within the whole read.
    pub(super) columns: &'a Range<u64>,
    pub(super) on_damage: OnDamage,
}

impl Line<'_> {
    /// Before the first block: tells of the segments that are masked.
    pub(super) fn begin(&self, told: &mut Told) {
        if self.on_damage == OnDamage::Fail {
            return;
        }
        let grid = self.placement.grid();
        let from = grid.time_bound(self.columns.start, 0.0);
        let until = grid.time_bound(self.columns.end, 0.0);
        let unreadable = self.channel.unreadable_within(from, until);
        told.masked
            .extend(unreadable.map(|segment| Masked::Segment {
                channel: self.channel.name.clone(),
                segment: Box::new(segment.clone()),
            }));
    }

    /// The column, within the whole read, of a block's first sample; `None` where the
    /// block has none to show. Damage is told of.
    ///
    /// # Errors
    /// The damage, where it is not masked.
    pub(super) fn take(
        &self,
        position: BlockPosition,
        block: &PageBlockView<'_>,
        coverage: Option<&mut Coverage>,
        told: &mut Told,
    ) -> Result<Option<i64>, Error> {
        let start = block.start_uutc;
        if let Some(damage) = block.damage {
            let damaged = DamagedBlock::new(self.recording, self.channel, position, start, damage);
            match self.on_damage {
                OnDamage::Fail => return Err(Error::Read(Box::new(damaged).into())),
                OnDamage::Mask => told.masked.push(Masked::Block(Box::new(damaged))),
            }
            let column = self.placement.column(position, start, damage.samples);
            if let Some((coverage, column)) = coverage.zip(column) {
                coverage.damage(self.visible(column, damage.samples));
            }
            return Ok(None);
        }
        let column = self.placement.column(position, start, block.samples);
        if let Some((coverage, column)) = coverage.zip(column) {
            let segment = self.channel.segments.get(position.segment as usize);
            let factor = segment.map(|it| it.acquisition.units_conversion_factor);
            let columns = self.visible(column, block.samples);
            coverage.show(columns, factor.unwrap_or_default());
        }
        Ok(column)
    }

    /// After the last block: tells of the columns without a sample, and of the scales.
    pub(super) fn end(&self, coverage: Coverage, told: &mut Told) {
        let row = self.row;
        let columns = (self.columns.end - self.columns.start) as usize;
        let scales = coverage.factors(columns).into_iter();
        told.scales.extend(
            scales.map(|(first_column, units_conversion_factor)| ScaleChange {
                row,
                first_column,
                units_conversion_factor,
            }),
        );
        let (grid, first) = (self.placement.grid(), self.columns.start);
        let reason_of = |at| reason_without_block(grid, self.channel, first, at);
        let missing = coverage.missing(columns, reason_of).into_iter();
        told.missing.extend(missing.map(|(range, reason)| Missing {
            row,
            first_column: range.start,
            columns: range.len(),
            reason,
        }));
    }

    /// The columns of a block, counted from the first of the range.
    fn visible(&self, column: i64, samples: u32) -> Range<usize> {
        let columns = self.columns;
        let at = |column: i128| {
            let within = column.clamp(columns.start.into(), columns.end.into());
            (within - i128::from(columns.start)) as usize
        };
        let start = i128::from(column);
        at(start)..at(start + i128::from(samples))
    }
}
