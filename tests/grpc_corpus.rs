//! The reference corpus over gRPC: what clients of both generations read, bit
//! for bit, with worker processes and without.
//!
//! Ranges are compared with the recorded truth of every window. Segments lie on
//! a grid, so that they are compared with those windows that lie on one, and with
//! both references run on the very segments.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::corpus;
use common::server::Server;
use common::wire::{Client, assert_same, messages_of};
use mef3_server::grpc::proto::FileInfoResponse;
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000;

/// A server that decodes in worker processes, and one that does it itself.
fn servers() -> [(&'static str, Server); 2] {
    ["2", "0"].map(|workers| (workers, Server::start(&["--workers", workers])))
}

#[tokio::test]
async fn every_window_as_a_range() {
    let mut compared = 0;
    for (workers, server) in servers() {
        for session in corpus::plain_sessions() {
            let mut client = Client::open(&server, &session.path).await;
            for window in session.windows() {
                let what = describe(&session.name, &window.channel, &window.kind, workers);
                let span = (window.start_uutc, window.end_uutc);
                let names = [window.channel.clone()];
                let matrix = client.range(&names, span).await.expect(&what);
                assert_eq!((matrix.start_uutc, matrix.end_uutc), span, "{what}");
                let facts = &session.facts["channels"][&window.channel];
                assert_eq!(matrix.sampling_frequency, facts["sampling_frequency"]);
                let expected: Vec<f32> = window.mef3io.iter().map(|&value| value as f32).collect();
                assert_same(&matrix.rows[0], &expected, &what);
                compared += 1;
            }
        }
    }
    assert!(compared >= 2 * 550, "only {compared} windows");
}

#[tokio::test]
async fn every_window_on_a_grid_as_a_segment() {
    let mut compared = 0;
    for (workers, server) in servers() {
        for session in corpus::plain_sessions() {
            let mut client = Client::open(&server, &session.path).await;
            let recording = Recording::of_corpus(&session);
            for window in session.windows() {
                let span = (window.start_uutc, window.end_uutc);
                let Some(segment) = recording.segment_of(span) else {
                    continue;
                };
                let what = describe(&session.name, &window.channel, &window.kind, workers);
                let names = [window.channel];
                client.set_active_channels(&names).await;
                client.set_segment_size(segment.seconds).await;
                let matrix = client.segment(segment.index, &names).await.expect(&what);
                assert_eq!((matrix.start_uutc, matrix.end_uutc), span, "{what}");
                assert_same(&matrix.rows[0], &window.pymef.expect(&what), &what);
                compared += 1;
            }
        }
    }
    assert!(compared >= 2 * 100, "only {compared} windows");
}

#[tokio::test]
async fn segments_are_what_the_references_read() {
    let servers = servers();
    let mut recordings: Vec<Recording> = corpus::plain_sessions()
        .iter()
        .map(Recording::of_corpus)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    recordings.push(Recording::generated(folder.path()));
    let mut tally = Tally::default();
    for recording in &recordings {
        let segments = recording.some_segments();
        let references = recording.read_references(&segments, folder.path());
        for (workers, server) in &servers {
            let mut client = Client::open(server, &recording.path).await;
            recording.assert_described_by(&client.info);
            for names in recording.shuffled_channels_by_rate() {
                client.set_active_channels(&names).await;
                let mut seconds = 0;
                for (position, segment) in segments.iter().enumerate() {
                    if segment.seconds != seconds {
                        seconds = segment.seconds;
                        let count = client.set_segment_size(seconds).await;
                        assert_eq!(count, recording.segments(seconds), "{}", recording.name);
                    }
                    let what = format!("{}, {segment:?}, {workers} workers", recording.name);
                    let matrix = client.segment(segment.index, &names).await.expect(&what);
                    assert_eq!((matrix.start_uutc, matrix.end_uutc), segment.span, "{what}");
                    for (name, row) in names.iter().zip(&matrix.rows) {
                        let channel = recording.channel(name);
                        assert_eq!(matrix.sampling_frequency, channel.rate, "{what}");
                        let reference = references.row(channel, position);
                        let what = format!("{what}, channel {name}");
                        compare(row, channel, segment, reference, &what, &mut tally);
                    }
                }
            }
        }
    }
    let all_turns = tally.equal >= 2000 && tally.missed >= 100 && tally.reserved >= 1;
    assert!(all_turns, "{tally:?}");
}

#[tokio::test]
async fn long_replies_are_cut_by_the_number_of_rows() {
    let server = Server::start(&["--workers", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::generated(folder.path());
    let whole = (recording.start_uutc(), recording.end_uutc());
    let mut client = Client::open(&server, &recording.path).await;
    client.set_segment_size(3600).await;
    for rows in [1, 3, 7, 40] {
        let channels = recording.channels.iter().map(|c| c.name.clone());
        let names: Vec<String> = channels.cycle().take(rows).collect();
        client.set_active_channels(&names).await;
        let segment = client.segment(0, &names).await.unwrap();
        let range = client.range(&names, whole).await.unwrap();
        let columns = segment.rows[0].len();
        assert_eq!(segment.messages, messages_of::<f64>(rows, columns));
        assert_eq!(range.messages, messages_of::<f32>(rows, columns));
        for (row, (wide, narrow)) in segment.rows.iter().zip(&range.rows).enumerate() {
            let narrowed: Vec<f32> = wide.iter().map(|&value| value as f32).collect();
            assert_same(narrow, &narrowed, &format!("row {row} of {rows}"));
            let first = row % recording.channels.len();
            assert_same(wide, &segment.rows[first], "a repeated channel");
        }
    }
}

/// Which turns the comparisons took.
#[derive(Debug, Default)]
struct Tally {
    /// Rows that are what mef_tools read.
    equal: usize,
    /// Rows of a channel that begins after the segment or ended before it.
    missed: usize,
    /// Samples with the count that the format reserves.
    reserved: usize,
}

/// Compares a row of a segment with both references.
///
/// Of a segment that a channel has no part in, pymef makes no array: its wrapper
/// puts NaN there, and cuts their number where all others are rounded. Ours is
/// as long as the other rows of the segment.
fn compare(
    row: &[f64],
    channel: &Channel,
    segment: &Segment,
    reference: Reference,
    what: &str,
    tally: &mut Tally,
) {
    let seconds = (segment.span.1 - segment.span.0) as f64 / 1e6;
    let samples = seconds * channel.rate;
    assert_eq!(row.len(), (samples + 0.5) as usize, "{what}");
    if channel.is_missed_by(segment.span) {
        assert_eq!(reference.mef_tools.len(), samples as usize, "{what}");
        let gap = vec![f64::NAN; row.len()];
        assert_same(row, &gap, what);
        assert_same(reference.mef_tools, &gap[..samples as usize], what);
        tally.missed += 1;
    } else {
        assert_same(row, reference.mef_tools, what);
        tally.equal += 1;
    }
    // The count that the format reserves is a gap to pymef, a number to mef3io.
    let reserved = f64::from(i32::MIN) * channel.factor;
    let without_reserved = |&value: &f64| if value == reserved { f64::NAN } else { value };
    let expected: Vec<f64> = reference.mef3io.iter().map(without_reserved).collect();
    assert_same(row, &expected, &format!("{what}, by mef3io"));
    tally.reserved += reference
        .mef3io
        .iter()
        .filter(|&&value| value == reserved)
        .count();
}

fn describe(session: &str, channel: &str, kind: &str, workers: &str) -> String {
    format!("{session}, channel {channel}, {kind}, {workers} workers")
}

/// What is known of a session before a server has told anything.
struct Recording {
    name: String,
    path: PathBuf,
    channels: Vec<Channel>,
}

struct Channel {
    name: String,
    rate: f64,
    factor: f64,
    start_uutc: i64,
    end_uutc: i64,
}

/// A segment of a grid.
#[derive(Debug)]
struct Segment {
    seconds: i64,
    index: i64,
    /// From the first microsecond to the first one after it.
    span: (i64, i64),
}

impl Channel {
    /// Whether pymef finds that a window has nothing to do with the channel.
    fn is_missed_by(&self, (start_uutc, end_uutc): (i64, i64)) -> bool {
        end_uutc < self.start_uutc || start_uutc > self.end_uutc
    }
}

impl Recording {
    fn of_corpus(session: &corpus::Session) -> Self {
        let channels = session.facts["channels"].as_object().unwrap().iter();
        let mut channels: Vec<Channel> = channels
            .map(|(name, facts)| Channel {
                name: name.clone(),
                rate: facts["sampling_frequency"].as_f64().unwrap(),
                factor: facts["units_conversion_factor"].as_f64().unwrap(),
                start_uutc: facts["start_uutc"].as_i64().unwrap(),
                end_uutc: facts["end_uutc"].as_i64().unwrap(),
            })
            .collect();
        channels.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            name: session.name.clone(),
            path: session.path.clone(),
            channels,
        }
    }

    /// A session of the command `generate`, so long that one segment of a minute
    /// takes several messages.
    fn generated(folder: &Path) -> Self {
        const START: i64 = 1_700_000_000_250_000;
        const SECONDS: i64 = 170;
        let path = folder.join("generated.mefd");
        let made = Command::new(env!("CARGO_BIN_EXE_mef3-server"))
            .args(["generate", "--channels", "4", "--rate", "2000"])
            .args(["--seconds", &SECONDS.to_string()])
            .args(["--start", &START.to_string(), "--seed", "11"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let channels = (1..=4).map(|number| Channel {
            name: format!("ch{number}"),
            rate: 2000.0,
            factor: 0.1,
            start_uutc: START,
            end_uutc: START + SECONDS * SECOND,
        });
        Self {
            name: "generated".into(),
            path,
            channels: channels.collect(),
        }
    }

    fn start_uutc(&self) -> i64 {
        self.channels.iter().map(|c| c.start_uutc).min().unwrap()
    }

    fn end_uutc(&self) -> i64 {
        self.channels.iter().map(|c| c.end_uutc).max().unwrap()
    }

    fn channel(&self, name: &str) -> &Channel {
        self.channels.iter().find(|c| c.name == name).unwrap()
    }

    /// Segments of a grid: the last, shorter one counts.
    fn segments(&self, seconds: i64) -> i64 {
        let duration = self.end_uutc() - self.start_uutc();
        (duration + seconds * SECOND - 1) / (seconds * SECOND)
    }

    fn segment(&self, seconds: i64, index: i64) -> Segment {
        let start = self.start_uutc() + index * seconds * SECOND;
        let end = (start + seconds * SECOND).min(self.end_uutc());
        Segment {
            seconds,
            index,
            span: (start, end),
        }
    }

    /// The segment that a window is, on the coarsest grid that has one.
    fn segment_of(&self, span: (i64, i64)) -> Option<Segment> {
        let longest = (span.1 - span.0) / SECOND + 1;
        let mut sizes = (1..=longest).rev();
        sizes.find_map(|seconds| {
            let index = (span.0 - self.start_uutc()).div_euclid(seconds * SECOND);
            let segment = self.segment(seconds, index);
            let exists = (0..self.segments(seconds)).contains(&index);
            (exists && segment.span == span).then_some(segment)
        })
    }

    /// Segments of short, middle and long grids: the first and the last ones of
    /// each, and some between.
    fn some_segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        for seconds in [1, 7, 60] {
            let count = self.segments(seconds);
            let step = (count / 8).max(1);
            let chosen = (0..count).filter(|&i| i < 10 || i >= count - 4 || i % step == 0);
            segments.extend(chosen.map(|index| self.segment(seconds, index)));
        }
        segments
    }

    /// The channels that can be read together, each group in disorder.
    fn shuffled_channels_by_rate(&self) -> Vec<Vec<String>> {
        let mut groups: Vec<(f64, Vec<String>)> = Vec::new();
        for channel in &self.channels {
            match groups.iter_mut().find(|(rate, _)| *rate == channel.rate) {
                Some((_, names)) => names.push(channel.name.clone()),
                None => groups.push((channel.rate, vec![channel.name.clone()])),
            }
        }
        let mut random = fastrand::Rng::with_seed(3);
        let shuffled = groups.into_iter().map(|(_, mut names)| {
            random.shuffle(&mut names);
            names
        });
        shuffled.collect()
    }

    /// That OpenFile tells the facts.
    fn assert_described_by(&self, info: &FileInfoResponse) {
        let channels = || self.channels.iter();
        let names: Vec<_> = channels().map(|c| c.name.clone()).collect();
        let rates: Vec<_> = channels().map(|c| c.rate as f32).collect();
        let starts: Vec<_> = channels().map(|c| c.start_uutc).collect();
        let ends: Vec<_> = channels().map(|c| c.end_uutc).collect();
        let (start, end) = (self.start_uutc(), self.end_uutc());
        let expected = FileInfoResponse {
            file_path: self.path.to_str().unwrap().into(),
            file_opened: true,
            number_of_channels: Some(names.len() as i64),
            channel_names: names,
            channel_sampling_rates: rates,
            start_uutc: Some(start),
            end_uutc: Some(end),
            duration_s: Some((end - start) as f64 / 1e6),
            channel_start_uutc: starts,
            channel_end_uutc: ends,
            channel_served_sampling_rates: channels().map(|c| c.rate).collect(),
            cache_fs: None,
            error_message: None,
        };
        assert_eq!(*info, expected);
    }

    /// What the references read in some segments of all channels.
    fn read_references(&self, segments: &[Segment], folder: &Path) -> References {
        let windows: Vec<Value> = self
            .channels
            .iter()
            .flat_map(|channel| {
                let windows = segments.iter().map(|segment| segment.span);
                windows.map(move |(start, end)| json!([channel.name, start, end]))
            })
            .collect();
        let request = folder.join("request.json");
        let values = folder.join("values.f64");
        let asked = json!({"session": self.path, "windows": windows});
        fs::write(&request, asked.to_string()).unwrap();
        let printed = common::run_python("read_reference.py", [&request, &values]);
        let lengths: Value = serde_json::from_str(&printed).unwrap();
        let values: Vec<f64> = bytemuck::pod_collect_to_vec(&fs::read(&values).unwrap());
        let mut rest = &values[..];
        let [mef_tools, mef3io] = ["mef_tools", "mef3io"].map(|reader| {
            let lengths = lengths[reader].as_array().unwrap();
            assert_eq!(lengths.len(), windows.len(), "{} {reader}", self.name);
            let rows = lengths.iter().map(|length| {
                let (row, after) = rest.split_at(length.as_u64().unwrap() as usize);
                rest = after;
                row.to_vec()
            });
            rows.collect()
        });
        assert!(rest.is_empty());
        References {
            channels: self.channels.iter().map(|c| c.name.clone()).collect(),
            segments: segments.len(),
            mef_tools,
            mef3io,
        }
    }
}

/// What both references read: the rows of a channel's segments, channel by
/// channel.
struct References {
    channels: Vec<String>,
    segments: usize,
    mef_tools: Vec<Vec<f64>>,
    mef3io: Vec<Vec<f64>>,
}

/// What both references read in one window.
#[derive(Clone, Copy)]
struct Reference<'a> {
    mef_tools: &'a [f64],
    mef3io: &'a [f64],
}

impl References {
    fn row(&self, channel: &Channel, segment: usize) -> Reference<'_> {
        let channel = self.channels.iter().position(|c| *c == channel.name);
        let row = channel.unwrap() * self.segments + segment;
        Reference {
            mef_tools: &self.mef_tools[row],
            mef3io: &self.mef3io[row],
        }
    }
}
