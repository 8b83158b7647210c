//! Placement on a grid, by property: random recordings in random windows, read
//! in random pieces, against a plain reading of the rule and against the
//! references themselves.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use mef3_server::mef::{
    ChannelOptions, ChannelReader, Grid, OpenOptions, Rule, SessionOptions, SessionWriter,
    open_session,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::json;

const START: i64 = 1_600_000_000_000_000;
const CHANNEL: &str = "ch";
const FACTOR: f64 = 0.5;

/// A recording of one channel: runs of samples with gaps between them.
#[derive(Clone, Debug)]
struct Plan {
    rate: f64,
    block_samples: u32,
    /// Microseconds of gap before each run, at least one sample period, and its
    /// number of samples; whether the run begins a segment.
    runs: Vec<(i64, usize, bool)>,
    /// Start and end of each window, relative to the start of the recording.
    windows: Vec<(i64, i64)>,
    /// Columns that are read at a time.
    piece: u64,
}

fn plans() -> impl Strategy<Value = Plan> {
    let rates = prop::sample::select(vec![
        0.5_f64,
        1.0,
        249.7,
        250.0,
        256.0,
        1000.0 / 3.0,
        500.0,
        512.5,
        5000.0,
    ]);
    (rates, 1u32..60, 1u64..40).prop_flat_map(|(rate, block_samples, piece)| {
        let period = (1e6 / rate).ceil() as i64;
        let runs = prop::collection::vec((period..period * 300, 1usize..250, any::<bool>()), 1..6);
        // About as long as the recording can be, and beyond it at both ends.
        let times = -period * 100..period * 2000;
        let windows = prop::collection::vec((times, 1..period * 700), 1..12);
        (Just(rate), Just(block_samples), runs, windows, Just(piece)).prop_map(
            |(rate, block_samples, runs, windows, piece)| Plan {
                rate,
                block_samples,
                runs,
                windows: windows
                    .into_iter()
                    .map(|(from, span)| (from, from + span))
                    .collect(),
                piece,
            },
        )
    })
}

/// A written block: its start, and its samples.
type Block = (i64, Vec<i32>);

/// Writes the recording and returns its blocks.
fn write(plan: &Plan, path: &Path) -> Vec<Block> {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    let mut channel = session
        .channel(ChannelOptions {
            units_conversion_factor: FACTOR,
            block_samples: Some(plan.block_samples),
            ..ChannelOptions::new(CHANNEL, plan.rate)
        })
        .unwrap();
    let mut blocks = Vec::new();
    let mut time = START;
    let mut number = 0;
    for &(gap, samples, new_segment) in &plan.runs {
        time += gap;
        if new_segment && !blocks.is_empty() {
            channel.new_segment().unwrap();
        }
        let counts: Vec<i32> = (number..).take(samples).collect();
        number += samples as i32;
        channel.write(time, &counts).unwrap();
        let start_of = |sample: usize| time + (sample as f64 / plan.rate * 1e6).round() as i64;
        for (index, block) in counts.chunks(plan.block_samples as usize).enumerate() {
            blocks.push((
                start_of(index * plan.block_samples as usize),
                block.to_vec(),
            ));
        }
        time = start_of(samples);
    }
    channel.finish().unwrap();
    blocks
}

/// Reads a window in pieces; `None` where it has no grid.
fn read(path: &Path, plan: &Plan, window: (i64, i64), rule: Rule, piece: u64) -> Vec<f64> {
    let recording = open_session(path, &OpenOptions::default()).unwrap();
    let channel = &recording.channels[0];
    let grid = Grid::new(rule, START + window.0, START + window.1, plan.rate).unwrap();
    let mut reader = ChannelReader::new(&recording, channel, grid).unwrap();
    let mut values = Vec::new();
    while (values.len() as u64) < grid.columns() {
        let first = values.len() as u64;
        let mut row = vec![0.0; piece.min(grid.columns() - first) as usize];
        reader.read(first, &mut row).unwrap();
        values.extend(row);
    }
    values
}

/// Section 11.2 of the format, word by word: every block to its nearest columns,
/// an exact half to the earlier one.
fn mef3io_rule(blocks: &[Block], rate: f64, (start, end): (i64, i64)) -> Vec<f64> {
    let length = ((end - start) as f64 * rate / 1e6).round() as usize;
    let mut row = vec![f64::NAN; length];
    for (block_start, counts) in blocks {
        let distance = (block_start - START - start) as f64;
        let first = (distance * rate / 1e6 - 0.5).ceil() as i64;
        for (column, &count) in (first..).zip(counts) {
            if let Ok(column) = usize::try_from(column)
                && column < length
            {
                row[column] = f64::from(count) * FACTOR;
            }
        }
    }
    row
}

fn bits(values: &[f64]) -> Vec<u64> {
    let canonical = |value: &f64| if value.is_nan() { f64::NAN } else { *value };
    values
        .iter()
        .map(|value| canonical(value).to_bits())
        .collect()
}

proptest! {
    #![proptest_config(Config { cases: 96, failure_persistence: None, ..Config::default() })]

    #[test]
    fn pieces_make_the_whole_and_the_whole_follows_the_rule(plan in plans()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        let blocks = write(&plan, &path);
        for &window in &plan.windows {
            for rule in [Rule::Mef3io, Rule::Pymef] {
                let whole = read(&path, &plan, window, rule, u64::MAX);
                let pieces = read(&path, &plan, window, rule, plan.piece);
                prop_assert_eq!(bits(&whole), bits(&pieces), "{:?} {:?}", rule, window);
            }
            let whole = read(&path, &plan, window, Rule::Mef3io, u64::MAX);
            prop_assert_eq!(
                bits(&whole), bits(&mef3io_rule(&blocks, plan.rate, window)), "{:?}", window
            );
        }
    }
}

/// The references on the same windows: first mef_tools over pymef, then mef3io.
fn references(path: &Path, windows: &[(i64, i64)]) -> [Vec<Vec<f64>>; 2] {
    let folder = path.parent().unwrap();
    let (request, values) = (folder.join("request.json"), folder.join("values.f64"));
    let windows: Vec<_> = windows
        .iter()
        .map(|&(from, until)| (CHANNEL, START + from, START + until))
        .collect();
    fs::write(
        &request,
        json!({ "session": path, "windows": windows }).to_string(),
    )
    .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_reference.py");
    let run = Command::new(common::peers_python())
        .args([&script, &request, &values])
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let lengths: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let bytes = fs::read(&values).unwrap();
    let mut rest = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&value| f64::from_le_bytes(value));
    ["mef_tools", "mef3io"].map(|reader| {
        let lengths = lengths[reader].as_array().unwrap().iter();
        lengths
            .map(|length| {
                rest.by_ref()
                    .take(length.as_u64().unwrap() as usize)
                    .collect()
            })
            .collect()
    })
}

#[test]
fn random_recordings_read_as_both_references_read_them() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(Default::default()),
    );
    let mut compared = 0;
    for _ in 0..12 {
        let plan = plans().new_tree(&mut runner).unwrap().current();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        write(&plan, &path);
        let [pymef, mef3io] = references(&path, &plan.windows);
        for ((&window, pymef), mef3io) in plan.windows.iter().zip(pymef).zip(mef3io) {
            let ours = |rule| bits(&read(&path, &plan, window, rule, u64::MAX));
            assert_eq!(
                ours(Rule::Mef3io),
                bits(&mef3io),
                "mef3io, {window:?} of {plan:?}"
            );
            let ours = ours(Rule::Pymef);
            // A window that misses the recording is not pymef's: mef_tools makes
            // NaN for it, and cuts their number where pymef rounds it.
            let misses = pymef.iter().all(|value| value.is_nan());
            if misses && pymef.len() + 1 == ours.len() {
                assert!(ours.iter().all(|&bits| f64::from_bits(bits).is_nan()));
            } else {
                assert_eq!(ours, bits(&pymef), "pymef, {window:?} of {plan:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} windows");
}
