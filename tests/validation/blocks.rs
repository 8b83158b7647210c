//! Headers and streams of blocks.

use mef3_server::mef::red::{Decoder, Encoder, MAX_BLOCK_SAMPLES};
use mef3_server::mef::{BlockError, ReadError, Rule};

use crate::block_error;
use crate::common::forge::{BLOCK, Forged, counts, put, sign_block, values, window};

/// A block of these samples, to be edited.
fn block_of(samples: &[i32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::new().encode(samples, 0, true, &mut bytes).unwrap();
    bytes
}

fn decode(block: &mut [u8]) -> Result<Vec<i32>, BlockError> {
    sign_block(block);
    let mut samples = Vec::new();
    let outcome = Decoder::new().decode(block, &mut samples);
    assert!(outcome.is_ok() || samples.is_empty());
    outcome.map(|_| samples)
}

/// Puts four bytes at a place of the second block, and reads the channel.
fn error_with(offset: usize, value: [u8; 4]) -> BlockError {
    let forged = Forged::new();
    forged.patch_block(1, |block| put(block, offset, value));
    block_error(&forged, 1)
}

#[test]
fn block_block_bytes() {
    let length = block_of(&counts()[BLOCK..2 * BLOCK]).len() as u32;
    for bytes in [
        0,
        1,
        303,
        304,
        length - 8,
        length + 1,
        length + 8,
        1 << 31,
        u32::MAX,
    ] {
        assert_eq!(
            error_with(36, bytes.to_le_bytes()),
            BlockError::Length(bytes)
        );
    }
    // Not even a header.
    let mut block = block_of(&[1, 2, 3]);
    block.truncate(303);
    let mut samples = Vec::new();
    let short = Decoder::new().decode(&block, &mut samples);
    assert_eq!(short, Err(BlockError::Length(303)));
    // A block without samples is a header alone.
    let mut block = block_of(&[1, 2, 3])[..304].to_vec();
    put(&mut block, 28, [0; 8]);
    put(&mut block, 36, 304_u32.to_le_bytes());
    assert_eq!(decode(&mut block), Ok(Vec::new()));
}

#[test]
fn block_number_of_samples_n() {
    // The format has no bound: 312 bytes can claim any number of equal samples.
    for samples in [
        MAX_BLOCK_SAMPLES + 1,
        1 << 27,
        (1 << 27) + 1,
        u32::MAX - 4,
        u32::MAX,
    ] {
        let forged = Forged::of(&[7; 1]);
        forged.patch_block(0, |block| {
            put(block, 28, samples.saturating_add(4).to_le_bytes());
            put(block, 32, samples.to_le_bytes());
        });
        forged.put_in("tidx", 0, 24, samples.to_le_bytes());
        assert_eq!(forged.bytes("tdat").len(), 1024 + 312);
        assert_eq!(bomb_error(&forged), BlockError::TooManySamples(samples));
    }
    let mut most = block_of(&[7; 1000]);
    put(&mut most, 28, (MAX_BLOCK_SAMPLES + 4).to_le_bytes());
    put(&mut most, 32, MAX_BLOCK_SAMPLES.to_le_bytes());
    assert_eq!(most.len(), 312);
    assert_eq!(decode(&mut most).unwrap().len(), MAX_BLOCK_SAMPLES as usize);
    // More than the index has: it is the header that counts, and the row that bounds.
    let forged = Forged::new();
    forged.patch_block(3, |block| {
        put(block, 28, 94_u32.to_le_bytes());
        put(block, 32, 90_u32.to_le_bytes());
    });
    let read = forged.read::<f64>("bad").unwrap();
    assert_eq!(read.len(), 240);
    assert_eq!(read[..200], values());
}

/// The error of a block that claims to hold years.
fn bomb_error(forged: &Forged) -> BlockError {
    let recording = forged.open();
    let start = recording.channels[0].start_uutc;
    let span = (start, start + 1_000_000);
    let read = window::<f64>(&recording, "bad", Rule::Mef3io, span);
    forged.assert_good("beside a bomb");
    match read {
        Err(ReadError::Damaged(damaged)) => damaged.damage.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn block_difference_bytes() {
    let n = BLOCK as u32;
    let refused = [
        0,
        1,
        n,
        n + 3,
        n + 5,
        n + 6,
        n + 7,
        5 * n + 1,
        5 * n + 4,
        u32::MAX,
    ];
    for difference_bytes in refused {
        let expected = BlockError::DifferenceBytes {
            difference_bytes,
            samples: n,
        };
        assert_eq!(error_with(28, difference_bytes.to_le_bytes()), expected);
    }
    for difference_bytes in [n + 4, n + 8, 5 * n - 4, 5 * n] {
        let forged = Forged::new();
        forged.patch_block(1, |block| put(block, 28, difference_bytes.to_le_bytes()));
        forged.assert_right("difference bytes");
    }
    // Where there are no samples it means nothing.
    for difference_bytes in [0, 1, 5, u32::MAX] {
        let mut block = block_of(&[1]);
        put(&mut block, 28, difference_bytes.to_le_bytes());
        put(&mut block, 32, [0; 4]);
        assert_eq!(decode(&mut block), Ok(Vec::new()));
    }
}

#[test]
fn statistics() {
    let forged = Forged::new();
    forged.patch_block(1, |block| block[48..304].fill(0));
    assert_eq!(block_error(&forged, 1), BlockError::Statistics);
    // The least and the most that a table can add up to.
    for (fill, first) in [(0, 1), (255, 255)] {
        let mut block = block_of(&[7; 10]);
        block[48..304].fill(fill);
        block[48] = first;
        assert_eq!(decode(&mut block).unwrap().len(), 10);
    }
}

#[test]
fn payload_end() {
    // Behind its end a block has zeros, whatever stands in the file.
    let whole = block_of(&counts());
    let mut cut = whole[..304].to_vec();
    put(&mut cut, 36, 304_u32.to_le_bytes());
    let mut zeros = [&whole[..304], &[0; 256]].concat();
    put(&mut zeros, 36, 560_u32.to_le_bytes());
    let decoded = decode(&mut cut);
    assert_eq!(decoded, decode(&mut zeros));
    assert_eq!(decoded.unwrap().len(), counts().len());
}

#[test]
fn keysample_at_stream_end() {
    // Every other value is stored in full: four bytes each beyond the first.
    let jumps: Vec<i32> = (0..10).map(|i| (i % 2) * 1_000_000).collect();
    let mut block = block_of(&jumps);
    let exact = 10 + 4 + 4 * 9_u32;
    assert_eq!(block[28..32], exact.to_le_bytes());
    assert_eq!(decode(&mut block).as_deref(), Ok(&jumps[..]));
    for missing in [4, 8, 36] {
        put(&mut block, 28, (exact - missing).to_le_bytes());
        assert_eq!(decode(&mut block), Err(BlockError::StreamEnd), "{missing}");
    }
    let forged = Forged::of(&jumps);
    forged.patch_block(0, |block| put(block, 28, (exact - 4).to_le_bytes()));
    assert_eq!(block_error(&forged, 0), BlockError::StreamEnd);
}

#[test]
fn leftover_stream_after_n_samples() {
    let mut block = block_of(&counts());
    let n = counts().len() as u32;
    for left_over in [4, 400, 4 * n - 4] {
        put(&mut block, 28, (n + 4 + left_over).to_le_bytes());
        assert_eq!(decode(&mut block), Ok(counts()), "{left_over}");
    }
    // Fewer samples than were coded.
    let forged = Forged::new();
    forged.patch_block(3, |block| {
        put(block, 28, 50_u32.to_le_bytes());
        put(block, 32, 30_u32.to_le_bytes());
    });
    let read = forged.read::<f64>("bad").unwrap();
    assert_eq!(read[..180], values()[..180]);
    assert!(read[180..].iter().all(|value| value.is_nan()));
}

#[test]
fn scale_slope_intercept() {
    for (offset, value) in [
        (16, f32::NAN),
        (16, f32::INFINITY),
        (16, f32::NEG_INFINITY),
        (20, f32::NAN),
        (20, f32::INFINITY),
        (20, f32::NEG_INFINITY),
        (24, f32::INFINITY),
    ] {
        let error = error_with(offset, value.to_le_bytes());
        assert_eq!(error, BlockError::NotFinite, "{offset} {value}");
    }
    // Nothing that is not above one is a scale.
    for scale in [1.0, 0.5, 0.0, -1.0, -f32::MAX, f32::NEG_INFINITY, f32::NAN] {
        let forged = Forged::new();
        forged.patch_block(1, |block| put(block, 24, scale.to_le_bytes()));
        forged.assert_right(&format!("scale {scale}"));
    }
    // The largest that there are: values end where counts end.
    for offset in [16, 20, 24] {
        let forged = Forged::new();
        forged.patch_block(1, |block| put(block, offset, f32::MAX.to_le_bytes()));
        let read = forged.read::<i32>("bad").unwrap();
        let ends = |count: &i32| [i32::MAX, -i32::MAX, 0].contains(count);
        assert!(read[BLOCK..2 * BLOCK].iter().all(ends), "{offset}");
        assert_eq!(read[..BLOCK], counts()[..BLOCK]);
    }
}

#[test]
fn block_flags_bits_1_2() {
    for (flags, level) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 1), (0xFF, 1)] {
        let forged = Forged::new();
        forged.patch_block(1, |block| block[4] = flags);
        assert_eq!(
            block_error(&forged, 1),
            BlockError::Encrypted { level },
            "{flags}"
        );
    }
    // The other bits mean nothing.
    for flags in [0, 1, 8, 0xF8] {
        let forged = Forged::new();
        forged.patch_block(1, |block| block[4] = flags);
        forged.assert_right(&format!("flags {flags:02X}"));
    }
}
