//! What a walk shows is what brute force finds, whatever the blocks.

use proptest::prelude::*;

use super::super::pixels::Division;
use super::*;
use crate::mef::{BlockEntry, Extrema};

const START: i64 = 1_700_000_000_000_000;

/// A block: pause before it in samples, number of samples, and whether the index has
/// its extrema.
type Block = (i64, u32, bool);

/// The count of a sample of a block.
fn count(block: usize, sample: u32) -> i32 {
    let mixed = (block as u32).wrapping_mul(2_654_435_761) ^ sample.wrapping_mul(40_503);
    (mixed % 20_001) as i32 - 10_000
}

fn index_of(blocks: &[Block], line: Line) -> BlockIndex {
    let mut index = BlockIndex::default();
    let mut at = 0i64;
    for (&(pause, samples, known), block) in blocks.iter().zip(0..) {
        at += pause;
        let counts = (0..samples).map(|sample| count(block, sample));
        let (minimum, maximum) = (counts.clone().min(), counts.max());
        let extrema = minimum.zip(maximum).filter(|_| known);
        index.push(
            BlockEntry {
                file_offset: 1024,
                start_uutc: line.time_of(at),
                samples,
                bytes: 8,
                flags: 0,
                extrema: extrema.map_or(Extrema::UNKNOWN, |(minimum, maximum)| {
                    Extrema::of(minimum, maximum)
                }),
            },
            line.rate,
        );
        at += i64::from(samples);
    }
    index
}

fn build(line: Line, index: &BlockIndex, step: usize) -> Pyramid {
    let mut pyramid = Pyramid::begin(line);
    while pyramid.add(index, step) {}
    pyramid.finish()
}

/// The extrema of each pixel by a walk, how many blocks were pieces, and that none of
/// these was in order to be known from the index.
fn walked(
    pyramid: Option<&Pyramid>,
    index: &BlockIndex,
    line: Line,
    pixels: &Pixels,
    decode_all: bool,
) -> Vec<Option<(i32, i32)>> {
    let mut found: Vec<Option<(i32, i32)>> = vec![None; pixels.len()];
    let mut fold = |pixel: usize, minimum: i32, maximum: i32| {
        let (least, greatest) = found[pixel].unwrap_or((i32::MAX, i32::MIN));
        found[pixel] = Some((least.min(minimum), greatest.max(maximum)));
    };
    let mut walk = match pyramid {
        Some(pyramid) => Walk::down(pyramid, decode_all),
        None => Walk::along(0..index.len(), decode_all),
    };
    let mut show = |shown: Shown| match shown {
        Shown::Whole {
            pixel,
            minimum,
            maximum,
            blocks,
        } => {
            assert!(!decode_all && blocks > 0);
            fold(pixel, minimum, maximum);
        }
        Shown::Piece(piece) => {
            assert!(piece.from < piece.to && piece.to <= piece.samples);
            assert!(decode_all || piece.needed);
            for sample in piece.from..piece.to {
                let value = count(piece.block as usize, sample);
                fold(piece.pixel, value, value);
            }
        }
    };
    while walk.step(pyramid, (line, index), pixels, 7, &mut show) {}
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_walk_finds_what_brute_force_finds(
        blocks in prop::collection::vec((-20i64..60, 0u32..40, prop::bool::weighted(0.9)), 0..700),
        rate in prop_oneof![Just(100.0), Just(1000.0 / 3.0), Just(0.7)],
        shift in -500i64..500,
        part in 0.01f64..1.2,
        pixels in 1u32..300,
        first_pixel in 0u32..20,
        // Most nodes are as most recordings are: in order, and known.
        disorder in prop_oneof![Just(1), Just(50), Just(usize::MAX)],
    ) {
        let ordered = |(number, (pause, samples, known)): (usize, Block)| {
            if number % disorder == disorder - 1 {
                return (pause, samples, known);
            }
            ((pause - 40).max(0), samples.max(1), true)
        };
        let blocks: Vec<Block> = blocks.into_iter().enumerate().map(ordered).collect();
        let line = Line { start_uutc: START, rate };
        let index = index_of(&blocks, line);
        let length = index.end_uutc().map_or(1, |end| end.saturating_sub(START).max(1));
        let start_uutc = line.time_of(shift);
        let length = ((length as f64 * part) as i64).max(1);
        let division = Division { start_uutc, end_uutc: start_uutc + length, pixels };
        let pixels = Pixels::new(line, division, first_pixel, 200);
        let mut expected: Vec<Option<(i32, i32)>> = vec![None; pixels.len()];
        let (first, end) = pixels.samples();
        for (entry, block) in index.iter().zip(0..) {
            let (at, _) = line.range_of(entry.start_uutc, entry.samples);
            for (number, sample) in (at..).zip(0..entry.samples) {
                if (first..end).contains(&number) {
                    let value = count(block, sample);
                    let found = &mut expected[pixels.of(number, 0)];
                    let (least, greatest) = found.unwrap_or((value, value));
                    *found = Some((least.min(value), greatest.max(value)));
                }
            }
        }
        let pyramid = build(line, &index, 48);
        prop_assert!(pyramid.is_over(line, &index));
        for decode_all in [false, true] {
            let by_pyramid = walked(Some(&pyramid), &index, line, &pixels, decode_all);
            prop_assert_eq!(&by_pyramid, &expected);
            let along = walked(None, &index, line, &pixels, decode_all);
            prop_assert_eq!(&along, &expected);
        }
    }
}

#[test]
fn a_pyramid_is_of_one_state_of_a_segment() {
    let line = Line {
        start_uutc: START,
        rate: 10.0,
    };
    let blocks = vec![(0, 10, true); 5000];
    let index = index_of(&blocks, line);
    let pyramid = build(line, &index, 4096);
    assert_eq!(
        pyramid.levels.iter().map(Vec::len).collect::<Vec<_>>(),
        [313, 20, 2, 1]
    );
    assert!(pyramid.is_over(line, &index));
    assert!(!pyramid.is_over(line, &index_of(&blocks[1..], line)));
    let later = Line {
        start_uutc: START + 1,
        ..line
    };
    assert!(!pyramid.is_over(later, &index));
    assert!(pyramid.memory() >= 336 * size_of::<Node>());
    let empty = build(line, &BlockIndex::default(), 16);
    assert!(empty.is_over(line, &BlockIndex::default()));
}

#[test]
fn a_wide_view_looks_at_few_nodes() {
    let line = Line {
        start_uutc: START,
        rate: 10.0,
    };
    let index = index_of(&vec![(0, 10, true); 86_400], line);
    let pyramid = build(line, &index, 1 << 15);
    let end_uutc = START + 86_400_000_000;
    let division = Division {
        start_uutc: START,
        end_uutc,
        pixels: 64,
    };
    let pixels = Pixels::new(line, division, 0, 64);
    let mut walk = Walk::down(&pyramid, false);
    let mut shown = 0;
    let on = (line, &index);
    // Nodes of four levels at each of 64 edges, and 16 below each.
    let more = walk.step(Some(&pyramid), on, &pixels, 64 * 4 * 16, &mut |_| {
        shown += 1
    });
    assert!(!more && shown >= 64);
}
