//! Where a recording has samples: gaps, and the ends of segments.

use fastrand::Rng;

use super::Arguments;

/// A recording's course, in seconds from its start.
pub(super) struct Plan {
    seconds: f64,
    pieces: Vec<Piece>,
}

/// Samples of one segment without a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) segment: u32,
    pub(super) from: f64,
    pub(super) until: f64,
}

impl Plan {
    /// The course that the arguments ask for, or what is wrong with them.
    pub(super) fn new(arguments: &Arguments) -> Result<Self, String> {
        let (seconds, gaps) = (arguments.seconds, arguments.gaps);
        // One gap in each part, anywhere but at its ends.
        let part = seconds / f64::from(gaps.max(1));
        let room = part - arguments.gap_seconds;
        if gaps > 0 && room <= 0.0 {
            return Err(format!(
                "{gaps} gaps of {} s do not fit into {seconds} s",
                arguments.gap_seconds
            ));
        }
        let mut rng = Rng::with_seed(arguments.sample_seed());
        let mut runs = Vec::new();
        let mut from = 0.0;
        for gap in 0..gaps {
            let start = f64::from(gap) * part + room * (0.1 + 0.8 * rng.f64());
            runs.push((from, start));
            from = start + arguments.gap_seconds;
        }
        runs.push((from, seconds));
        let pieces = cut(&runs, seconds, arguments.segments);
        Ok(Self { seconds, pieces })
    }

    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The pieces within a span of time, cut to it.
    pub(super) fn within(&self, from: f64, until: f64) -> impl Iterator<Item = Piece> + '_ {
        let pieces = self.pieces.iter().map(move |piece| Piece {
            from: piece.from.max(from),
            until: piece.until.min(until),
            ..*piece
        });
        pieces.filter(|piece| piece.from < piece.until)
    }
}

/// Cuts runs where segments end. All segments are of the same length.
fn cut(runs: &[(f64, f64)], seconds: f64, segments: u32) -> Vec<Piece> {
    let end_of = |segment: u32| seconds * (f64::from(segment) + 1.0) / f64::from(segments);
    let mut pieces = Vec::new();
    let mut segment = 0;
    for &(mut from, until) in runs {
        while from < until {
            while segment + 1 < segments && end_of(segment) <= from {
                segment += 1;
            }
            let last = segment + 1 == segments;
            let end = if last {
                until
            } else {
                until.min(end_of(segment))
            };
            pieces.push(Piece {
                segment,
                from,
                until: end,
            });
            from = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_where_segments_end_and_nothing_is_lost() {
        let runs = [(0.0, 25.0), (30.0, 60.0), (65.0, 100.0)];
        let pieces = cut(&runs, 100.0, 4);
        let spans: Vec<_> = pieces
            .iter()
            .map(|p| (p.segment, p.from, p.until))
            .collect();
        assert_eq!(
            spans,
            [
                (0, 0.0, 25.0),
                (1, 30.0, 50.0),
                (2, 50.0, 60.0),
                (2, 65.0, 75.0),
                (3, 75.0, 100.0),
            ]
        );
    }

    #[test]
    fn a_span_has_the_parts_of_pieces_in_it() {
        let plan = Plan {
            seconds: 10.0,
            pieces: cut(&[(0.0, 4.0), (6.0, 10.0)], 10.0, 1),
        };
        let spans = |from, until| -> Vec<_> {
            let pieces = plan.within(from, until);
            pieces.map(|piece| (piece.from, piece.until)).collect()
        };
        assert_eq!(spans(3.0, 7.0), [(3.0, 4.0), (6.0, 7.0)]);
        assert_eq!(spans(4.0, 6.0), []);
        assert_eq!(spans(0.0, 10.0), [(0.0, 4.0), (6.0, 10.0)]);
    }
}
