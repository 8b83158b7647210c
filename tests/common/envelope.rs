//! Envelopes of the native service, what brute force makes of all samples, and
//! recordings to try both on.

use std::path::{Path, PathBuf};

use mef3_server::grpc::proto::native::{
    Channel, DamageInfo, GetRecordingRequest, GetStatsRequest, OnDamage, ReadEnvelopeRequest,
    ReadSignalRequest, SampleForm, TimeSpan,
};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use prost::Message;
use tonic::Status;

use super::native::{Cell, Client, by_samples, in_form, read, with_password};

/// Most bytes of any message.
const MOST_BYTES: usize = 256 << 10;
pub const START: i64 = 1_700_000_000_000_000;

/// One row of a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub channel: String,
    pub minima: Vec<f32>,
    pub maxima: Vec<f32>,
}

/// A whole reply.
#[derive(Debug, Default)]
pub struct Envelope {
    pub rows: Vec<Row>,
    pub damage: Vec<DamageInfo>,
    pub index_blocks: u64,
    pub kept_parts: u64,
    pub decoded_blocks: u64,
}

pub async fn envelope(
    client: &mut Client,
    request: ReadEnvelopeRequest,
    password: Option<&str>,
) -> Result<Envelope, Status> {
    let pixels = request.pixels;
    let request = with_password(request, password);
    let mut stream = client.read_envelope(request).await?.into_inner();
    let header = stream.message().await?.expect("a first message");
    assert!(header.parts.is_empty());
    let header = header.header.expect("a header in the first message");
    assert_eq!(header.pixels, pixels);
    let mut found = Envelope {
        rows: vec![Row::default(); header.rows as usize],
        ..Envelope::default()
    };
    while let Some(message) = stream.message().await? {
        assert!(message.header.is_none() && message.encoded_len() <= MOST_BYTES);
        for part in message.parts {
            let row = &mut found.rows[part.row as usize];
            assert_eq!(part.first_pixel as usize, row.minima.len());
            row.channel = part.channel;
            let minima: Vec<f32> = bytemuck::pod_collect_to_vec(&part.minima);
            let maxima: Vec<f32> = bytemuck::pod_collect_to_vec(&part.maxima);
            assert_eq!(
                (minima.len(), maxima.len()),
                (part.pixels as usize, minima.len())
            );
            row.minima.extend(minima);
            row.maxima.extend(maxima);
        }
        found.damage.extend(message.damage);
        found.index_blocks += message.index_blocks;
        found.kept_parts += message.kept_parts;
        found.decoded_blocks += message.decoded_blocks;
    }
    for row in &found.rows {
        assert_eq!(row.minima.len(), pixels as usize);
    }
    Ok(found)
}

/// Of all channels.
pub fn over(path: &Path, (start_uutc, end_uutc): (i64, i64), pixels: u32) -> ReadEnvelopeRequest {
    ReadEnvelopeRequest {
        recording: path.display().to_string(),
        span: Some(TimeSpan {
            start_uutc,
            end_uutc,
        }),
        pixels,
        ..ReadEnvelopeRequest::default()
    }
}

pub async fn channels(client: &mut Client, path: &Path, password: Option<&str>) -> Vec<Channel> {
    let request = GetRecordingRequest {
        recording: path.display().to_string(),
        ..GetRecordingRequest::default()
    };
    let answer = client.get_recording(with_password(request, password)).await;
    answer.unwrap().into_inner().channels
}

/// All samples of a channel, in order: time and value, NaN without one.
pub async fn samples(
    client: &mut Client,
    path: &Path,
    channel: &Channel,
    password: Option<&str>,
) -> Result<Vec<(i64, f32)>, Status> {
    let span = channel.span.unwrap();
    let rate = channel.sampling_frequency;
    let seconds = (span.end_uutc - span.start_uutc) as f64 / 1e6;
    let request = ReadSignalRequest {
        channels: vec![channel.name.clone()],
        ..by_samples(path, 0, (seconds * rate) as i64 + 3)
    };
    let request = in_form(request, SampleForm::Float32, OnDamage::Mask);
    let signal = read(client, request, password).await?;
    let cells = signal.rows[0].cells.iter().zip(0i64..);
    Ok(cells
        .map(|(cell, number)| {
            let time = span.start_uutc + (number as f64 * 1e6 / rate).round() as i64;
            match cell {
                Cell::Value(value) => (time, *value as f32),
                _ => (time, f32::NAN),
            }
        })
        .collect())
}

/// The envelope of some samples.
pub fn brute_force(samples: &[(i64, f32)], (start, end): (i64, i64), pixels: u32) -> Row {
    let mut row = Row {
        channel: String::new(),
        minima: vec![f32::NAN; pixels as usize],
        maxima: vec![f32::NAN; pixels as usize],
    };
    for &(time, value) in samples {
        if (start..end).contains(&time) {
            let pixel = i128::from(time - start) * i128::from(pixels) / i128::from(end - start);
            let pixel = pixel as usize;
            row.minima[pixel] = row.minima[pixel].min(value);
            row.maxima[pixel] = row.maxima[pixel].max(value);
        }
    }
    row
}

pub fn assert_same(found: &Row, expected: &Row, what: &str) {
    let same = |one: f32, other: f32| one == other || (one.is_nan() && other.is_nan());
    for pixel in 0..expected.minima.len() {
        let found = (found.minima[pixel], found.maxima[pixel]);
        let expected = (expected.minima[pixel], expected.maxima[pixel]);
        assert!(
            same(found.0, expected.0) && same(found.1, expected.1),
            "{what}, pixel {pixel}: {found:?} for {expected:?}"
        );
    }
}

/// Pages that were asked for, whether they were in the cache or not.
pub async fn asked_pages(client: &mut Client) -> u64 {
    let stats = client.get_stats(GetStatsRequest {}).await;
    let cache = stats.unwrap().into_inner().cache.unwrap();
    cache.hits + cache.misses
}

/// Channels of 100 Hz, in blocks of a second.
pub fn write(path: &Path, names: &[&str], seconds: i32) -> SessionWriter {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    for (name, number) in names.iter().zip(1..) {
        let options = ChannelOptions {
            block_samples: Some(100),
            units_conversion_factor: if number == 2 { -0.5 } else { 0.25 },
            ..ChannelOptions::new(*name, 100.0)
        };
        let mut channel = session.channel(options).unwrap();
        channel
            .write(START, &signal(seconds * 100, number))
            .unwrap();
        channel.finish().unwrap();
    }
    session
}

pub fn signal(samples: i32, number: i32) -> Vec<i32> {
    let mut rng = fastrand::Rng::with_seed(number as u64);
    (0..samples)
        .map(|at| (at % 977) * number + rng.i32(-50..50))
        .collect()
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let below = |path: PathBuf| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    };
    entries
        .flat_map(|entry| below(entry.unwrap().path()))
        .collect()
}
