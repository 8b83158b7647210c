//! The places in files of the format, and the checksums over them
//! (format sections 3, 4, 6, 7, 8.2 and 9).

use mef3_server::mef::crc::crc32;

pub const HEADER: usize = 1024;
const METADATA: usize = 16384;

/// Offsets of the fields of a universal header.
const HEADER_FIELDS: [usize; 18] = [
    0, 4, 8, 13, 14, 15, 16, 24, 32, 40, 48, 52, 308, 564, 820, 836, 868, 884,
];
/// Offsets of the numbers of a metadata file.
const METADATA_FIELDS: [usize; 28] = [
    1024, 1025, 6656, 6664, 6672, 6680, 6688, 8712, 8720, 8728, 8736, 8744, 8752, 8760, 8768, 8896,
    8904, 8912, 8920, 8928, 8936, 8944, 8952, 8984, 13312, 13320, 13328, 13336,
];
/// Offsets within an index entry, a block header, a record header and so on.
const INDEX_FIELDS: [usize; 9] = [0, 8, 16, 24, 28, 32, 36, 40, 44];
const BLOCK_FIELDS: [usize; 12] = [0, 4, 8, 16, 20, 24, 28, 32, 36, 40, 48, 300];
const RECORD_FIELDS: [usize; 8] = [0, 4, 8, 9, 10, 11, 12, 16];
const RECORD_INDEX_FIELDS: [usize; 6] = [0, 4, 5, 7, 8, 16];
const CLIP_FIELDS: [usize; 6] = [0, 8, 16, 20, 24, 32];

/// Start and length of each unit of a file's body: entries, blocks or records.
pub fn units(extension: &str, bytes: &[u8]) -> Vec<(usize, usize)> {
    let fixed = |length: usize| {
        let count = bytes.len().saturating_sub(HEADER) / length;
        (0..count)
            .map(|unit| (HEADER + unit * length, length))
            .collect()
    };
    let chained = |at: usize, base: usize| {
        let mut units = Vec::new();
        let mut place = HEADER;
        while let Some(field) = bytes.get(place + at..place + at + 4) {
            let length = base + u32::from_le_bytes(field.try_into().unwrap()) as usize;
            if length == 0 || place + length > bytes.len() {
                break;
            }
            units.push((place, length));
            place += length;
        }
        units
    };
    match extension {
        "tidx" => fixed(56),
        "vidx" => fixed(64),
        "ridx" => fixed(24),
        "tdat" => chained(36, 0),
        "rdat" => chained(12, 24),
        _ => Vec::new(),
    }
}

/// A place where a file has a number.
pub fn field(extension: &str, bytes: &[u8], rng: &mut fastrand::Rng) -> usize {
    let units = units(extension, bytes);
    let metadata = extension.ends_with("met");
    if !metadata && (units.is_empty() || rng.u8(..4) == 0) || metadata && rng.bool() {
        return HEADER_FIELDS[rng.usize(..HEADER_FIELDS.len())];
    }
    let fields: &[usize] = match extension {
        "tidx" => &INDEX_FIELDS,
        "tdat" => &BLOCK_FIELDS,
        "rdat" => &RECORD_FIELDS,
        "ridx" => &RECORD_INDEX_FIELDS,
        "vidx" => &CLIP_FIELDS,
        _ => return METADATA_FIELDS[rng.usize(..METADATA_FIELDS.len())],
    };
    units[rng.usize(..units.len())].0 + fields[rng.usize(..fields.len())]
}

/// A value that no field expects, as it would stand in four or eight bytes.
pub fn absurd(rng: &mut fastrand::Rng) -> Vec<u8> {
    let values = [
        0,
        1,
        u64::MAX,
        1 << 63,
        (1 << 63) - 1,
        (1 << 63) + 1,
        0x8000_0000,
        0x7FFF_FFFF,
        0x7FFF_FFFF_7FFF_FFFF,
        1 << 40,
        f64::NAN.to_bits(),
        f64::INFINITY.to_bits(),
        (-1e300_f64).to_bits(),
        rng.u64(..),
    ];
    let bytes = values[rng.usize(..values.len())].to_le_bytes();
    let length = [1, 4, 8][rng.usize(..3)];
    bytes[..length].to_vec()
}

/// Puts all checksums right: of blocks and records where they still stand in a row,
/// of the body, and of the header.
pub fn repair(extension: &str, bytes: &mut [u8]) {
    if bytes.len() < HEADER {
        return;
    }
    if ["tdat", "rdat"].contains(&extension) {
        for (start, length) in units(extension, bytes) {
            if length > 4 {
                let crc = crc32(&bytes[start + 4..start + length]);
                bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
    let end = if extension.ends_with("met") {
        bytes.len().min(METADATA)
    } else {
        bytes.len()
    };
    let body = crc32(&bytes[HEADER..end]);
    bytes[4..8].copy_from_slice(&body.to_le_bytes());
    let header = crc32(&bytes[4..HEADER]);
    bytes[..4].copy_from_slice(&header.to_le_bytes());
}

/// Whether one of the bytes that differ is under a checksum that was computed.
pub fn covered(extension: &str, before: &[u8], after: &[u8]) -> bool {
    // Zero stands for a checksum that was not computed.
    let stored = |place: usize| {
        let computed = |bytes: &[u8]| bytes.get(place..place + 4) != Some(&[0; 4]);
        computed(before) && computed(after)
    };
    let end = if extension.ends_with("met") {
        METADATA
    } else {
        usize::MAX
    };
    let length = before.len().max(after.len());
    (4..length).any(|place| {
        let differs = before.get(place) != after.get(place);
        let under = match place {
            0..HEADER => stored(0),
            // A body that is longer or shorter has another checksum.
            _ => place < end && stored(4),
        };
        differs && under
    })
}
