//! Why columns have no sample.

use std::ops::Range;

use crate::mef::{Channel, Grid};

/// Consecutive columns of a row of a [`Window`](super::Window) without a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The row.
    pub row: usize,
    /// The first column, within the window.
    pub first_column: usize,
    /// Number of columns.
    pub columns: usize,
    /// Why.
    pub reason: MissingReason,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingReason {
    /// Nothing was recorded.
    Gap,
    /// It is before the start or after the end of the channel.
    Outside,
    /// There are samples that cannot be read, or there may be.
    Damaged,
}

/// Units per count of a row of a [`Window`](super::Window), from some column on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleChange {
    /// The row.
    pub row: usize,
    /// The first column, within the window.
    pub first_column: usize,
    /// Units per count as stored; see
    /// [`Acquisition::scale`](crate::mef::Acquisition::scale).
    pub units_conversion_factor: f64,
}

/// What was placed in a row, block by block.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// Columns with samples.
    shown: Vec<Range<usize>>,
    /// Columns whose samples are damaged.
    damaged: Vec<Range<usize>>,
    /// Of the samples, in the order in which they were placed: the later ones hide the
    /// earlier.
    factors: Vec<(Range<usize>, f64)>,
}

impl Coverage {
    /// Notes samples, and their factor.
    pub(super) fn show(&mut self, columns: Range<usize>, factor: f64) {
        if columns.is_empty() {
            return;
        }
        match self.factors.last_mut() {
            Some((last, same)) if last.end == columns.start && is_same(*same, factor) => {
                last.end = columns.end;
            }
            _ => self.factors.push((columns.clone(), factor)),
        }
        match self.shown.last_mut() {
            Some(last) if last.end == columns.start => last.end = columns.end,
            _ => self.shown.push(columns),
        }
    }

    pub(super) fn damage(&mut self, columns: Range<usize>) {
        if !columns.is_empty() {
            self.damaged.push(columns);
        }
    }

    /// Where another factor begins, in a window of so many columns.
    pub(super) fn factors(&self, columns: usize) -> Vec<(usize, f64)> {
        let Some((first, factor)) = self.factors.first() else {
            return Vec::new();
        };
        if self
            .factors
            .iter()
            .all(|(_, other)| is_same(*other, *factor))
        {
            let starts = self.factors.iter().map(|(range, _)| range.start);
            return vec![(starts.min().unwrap_or(first.start), *factor)];
        }
        let mut painted = vec![None; columns];
        for (range, factor) in &self.factors {
            if let Some(columns) = painted.get_mut(range.clone()) {
                columns.fill(Some(*factor));
            }
        }
        let mut changes: Vec<(usize, f64)> = Vec::new();
        let known = painted.into_iter().zip(0..);
        for (factor, column) in known.filter_map(|(factor, at)| Some((factor?, at))) {
            let last = changes.last();
            if last.is_none_or(|&(_, last)| !is_same(last, factor)) {
                changes.push((column, factor));
            }
        }
        changes
    }

    /// The columns of a window of so many without a sample, and why.
    pub(super) fn missing(
        mut self,
        columns: usize,
        reason_of: impl Fn(usize) -> (MissingReason, usize),
    ) -> Vec<(Range<usize>, MissingReason)> {
        // Blocks may come out of order, and overlap.
        self.shown.sort_unstable_by_key(|range| range.start);
        self.damaged.sort_unstable_by_key(|range| range.start);
        let mut missing = Vec::new();
        let mut at = 0;
        let end = columns..columns;
        for shown in self.shown.iter().chain([&end]) {
            while at < shown.start {
                let (reason, until) = self.damaged_at(at).map_or_else(
                    || {
                        let (reason, until) = reason_of(at);
                        (reason, until.min(self.next_damage(at)))
                    },
                    |until| (MissingReason::Damaged, until),
                );
                let until = until.clamp(at + 1, shown.start);
                push(&mut missing, at..until, reason);
                at = until;
            }
            at = at.max(shown.end);
        }
        missing
    }

    /// Until where damage reaches that a column is in.
    fn damaged_at(&self, column: usize) -> Option<usize> {
        let here = self.damaged.iter().filter(|range| range.contains(&column));
        here.map(|range| range.end).max()
    }

    /// Where damage begins next.
    fn next_damage(&self, column: usize) -> usize {
        let starts = self.damaged.iter().map(|range| range.start);
        starts
            .filter(|&start| start > column)
            .min()
            .unwrap_or(usize::MAX)
    }
}

/// Whether two factors are the same, be they numbers or not.
fn is_same(one: f64, other: f64) -> bool {
    one.to_bits() == other.to_bits()
}

fn push(
    missing: &mut Vec<(Range<usize>, MissingReason)>,
    columns: Range<usize>,
    reason: MissingReason,
) {
    match missing.last_mut() {
        Some((last, same)) if last.end == columns.start && *same == reason => {
            last.end = columns.end;
        }
        _ => missing.push((columns, reason)),
    }
}

/// Why a column has no sample where no block is, and until which column that holds, both
/// counted from the first of a window.
pub(super) fn reason_without_block(
    grid: &Grid,
    channel: &Channel,
    first_column: u64,
    column: usize,
) -> (MissingReason, usize) {
    let time = grid.time_of(first_column + column as u64);
    let column_at = |time: i64| {
        let column = grid.first_column_from(time).saturating_sub(first_column);
        usize::try_from(column).unwrap_or(usize::MAX)
    };
    if time < channel.start_uutc {
        return (MissingReason::Outside, column_at(channel.start_uutc));
    }
    if time >= channel.end_uutc {
        return (MissingReason::Outside, usize::MAX);
    }
    let mut until = channel.end_uutc;
    for segment in &channel.unreadable {
        let from = segment.not_before.unwrap_or(i64::MIN);
        let to = segment.not_after.unwrap_or(i64::MAX);
        if (from..to).contains(&time) {
            return (MissingReason::Damaged, column_at(to));
        }
        if from > time {
            until = until.min(from);
        }
    }
    (MissingReason::Gap, column_at(until))
}

#[cfg(test)]
mod tests {
    use super::MissingReason::{Damaged, Gap, Outside};
    use super::*;

    #[test]
    fn every_column_without_a_sample_has_one_reason() {
        let mut coverage = Coverage::default();
        coverage.show(30..40, 1.0);
        coverage.show(10..20, 2.0);
        coverage.show(20..25, 2.0);
        coverage.damage(24..28);
        coverage.damage(45..60);
        assert_eq!(coverage.factors(50), [(10, 2.0), (30, 1.0)]);
        let outside_until = |column: usize| match column {
            ..5 => (Outside, 5),
            _ => (Gap, 50),
        };
        let missing = coverage.missing(50, outside_until);
        assert_eq!(
            missing,
            [
                (0..5, Outside),
                (5..10, Gap),
                (25..28, Damaged),
                (28..30, Gap),
                (40..45, Gap),
                (45..50, Damaged),
            ]
        );
    }

    #[test]
    fn nothing_is_missing_from_what_is_whole() {
        let mut coverage = Coverage::default();
        coverage.show(0..5, 1.0);
        coverage.show(3..9, 1.0);
        assert_eq!(coverage.factors(9), [(0, 1.0)]);
        assert!(coverage.missing(9, |_| (Gap, 0)).is_empty());
        let empty = Coverage::default().missing(3, |_| (Gap, usize::MAX));
        assert_eq!(empty, [(0..3, Gap)]);
    }
}
