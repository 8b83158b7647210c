//! What the messages of a group are made of, whatever form its samples have.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::engine::{
    Masked, Missing as MissingColumns, MissingReason, StoredBlock, StoredPart, StoredStream,
    Window, WindowStream,
};
use crate::error::Error;
use crate::grpc::native::status::damaged_block;
use crate::grpc::proto::native::{
    Compression, DamageInfo, Missing, MissingReason as Reason, RedBlock, Scale,
};
use crate::grpc::samples::sample_bytes;
use crate::mef::SampleValue;

/// How hard samples are packed: more takes much longer for little.
const ZSTD_LEVEL: i32 = 1;

/// The samples of a group, in one of the forms, with the details of each window.
pub(super) enum Source {
    Counts(WindowStream<i32>),
    Float32(WindowStream<f32>),
    Float64(WindowStream<f64>),
    RedBlocks(Box<StoredStream>),
}

/// A range of columns, or a part of what there is of one.
pub(super) struct Part {
    pub(super) columns: Range<u64>,
    pub(super) samples: Bytes,
    pub(super) compression: Compression,
    pub(super) blocks: Vec<RedBlock>,
    pub(super) missing: VecDeque<Missing>,
    pub(super) scales: VecDeque<Scale>,
    pub(super) damage: VecDeque<DamageInfo>,
    /// Whether it is the first of these columns, and the last.
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Source {
    /// The next part; `None` after the last, and after an error.
    pub(super) async fn next(&mut self, compression: Compression) -> Option<Result<Part, Error>> {
        Some(match self {
            Self::Counts(windows) => {
                let window = windows.next().await?;
                window.map(|window| {
                    let scales = window.scales.iter().map(|scale| Scale {
                        row: scale.row as u32,
                        first_column: scale.first_column as u32,
                        units_per_count: usable(scale.units_conversion_factor),
                    });
                    let scales = scales.collect();
                    Part {
                        scales,
                        ..part(window, compression)
                    }
                })
            }
            Self::Float32(windows) => {
                let window = windows.next().await?;
                window.map(|window| part(window, compression))
            }
            Self::Float64(windows) => {
                let window = windows.next().await?;
                window.map(|window| part(window, compression))
            }
            Self::RedBlocks(parts) => parts.next().await?.map(stored),
        })
    }
}

/// The part of a window, but for its scales.
fn part<T: SampleValue>(window: Window<T>, compression: Compression) -> Part {
    let missing = window.missing.iter().map(missing).collect();
    let damage = window.masked.iter().map(masked).collect();
    let columns = window.first_column..window.first_column + window.columns as u64;
    let (samples, compression) = pack(window.samples, compression);
    Part {
        columns,
        samples,
        compression,
        blocks: Vec::new(),
        missing,
        scales: VecDeque::new(),
        damage,
        is_first: true,
        is_last: true,
    }
}

/// The part of stored blocks.
fn stored(part: StoredPart) -> Part {
    Part {
        missing: part.missing.iter().map(missing).collect(),
        damage: part.masked.iter().map(masked).collect(),
        blocks: part.blocks.into_iter().map(red_block).collect(),
        columns: part.columns,
        samples: Bytes::new(),
        compression: Compression::None,
        scales: VecDeque::new(),
        is_first: part.is_first,
        is_last: part.is_last,
    }
}

fn red_block(block: StoredBlock) -> RedBlock {
    RedBlock {
        row: block.row as u32,
        first_column: block.first_column,
        samples: block.samples,
        start_uutc: block.start_uutc,
        units_per_count: usable(block.units_conversion_factor),
        order: u64::from(block.position.segment) << 32 | u64::from(block.position.block),
        bytes: block.bytes,
        offset: block.offset,
        red: block.red,
    }
}

fn missing(missing: &MissingColumns) -> Missing {
    Missing {
        row: missing.row as u32,
        first_column: missing.first_column as u32,
        columns: missing.columns as u32,
        reason: reason(missing.reason).into(),
    }
}

/// Units per count; 0 where the stored factor is no number.
fn usable(factor: f64) -> f64 {
    match factor {
        0.0 => 1.0,
        factor if factor.is_finite() => factor,
        _ => 0.0,
    }
}

fn reason(reason: MissingReason) -> Reason {
    match reason {
        MissingReason::Gap => Reason::Gap,
        MissingReason::Outside => Reason::Outside,
        MissingReason::Damaged => Reason::Damaged,
    }
}

/// What is masked, as it is told.
pub(in crate::grpc::native) fn masked(masked: &Masked) -> DamageInfo {
    match masked {
        Masked::Block(block) => damaged_block(block),
        Masked::Segment { channel, segment } => DamageInfo {
            channel: channel.clone(),
            segment: segment.stem.clone(),
            start_uutc: segment.not_before,
            reason: segment.error.to_string(),
            ..DamageInfo::default()
        },
    }
}

/// The samples of a message, and how they are packed: as they are, where packing does
/// not make them fewer bytes.
fn pack<T: SampleValue>(samples: Vec<T>, compression: Compression) -> (Bytes, Compression) {
    if compression == Compression::Zstd {
        let bytes = bytemuck::cast_slice(&samples);
        match zstd::bulk::compress(bytes, ZSTD_LEVEL) {
            Ok(packed) if packed.len() < bytes.len() => return (packed.into(), compression),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "samples are sent unpacked"),
        }
    }
    (sample_bytes(samples), Compression::None)
}
