//! The test vectors of format sections 18.5, 18.7 and 18.8, through both halves of
//! the codec, and random round trips.

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{F32, I64, U32};

use super::*;
use crate::mef::crc::crc32;
use crate::mef::crypto::{Keys, Password};
use crate::mef::error::BlockError;
use crate::mef::layout::{BlockHeader, FLAG_DISCONTINUITY};
use crate::mef::time;

const START: i64 = 1_600_000_000_000_000;

fn encode(samples: &[i32]) -> (EncodedBlock, Vec<u8>) {
    let mut bytes = Vec::new();
    let block = Encoder::new()
        .encode(samples, START, true, &mut bytes)
        .unwrap();
    assert_eq!(block.bytes as usize, bytes.len());
    (block, bytes)
}

fn decode(block: &[u8]) -> Vec<i32> {
    let mut samples = Vec::new();
    let facts = Decoder::new().decode(block, &mut samples).unwrap();
    assert_eq!(facts.stored_start_time, time::stored(START));
    assert_eq!(facts.samples as usize, samples.len());
    assert!(facts.discontinuity);
    samples
}

/// A block as the tables of the vectors describe it.
struct Vector {
    crc: u32,
    difference_bytes: u32,
    samples: u32,
    scale: f32,
    slope: f32,
    intercept: f32,
    statistics: &'static [(u8, u8)],
    payload: &'static str,
}

impl Vector {
    fn lossless(
        crc: u32,
        difference_bytes: u32,
        samples: u32,
        statistics: &'static [(u8, u8)],
        payload: &'static str,
    ) -> Self {
        Self {
            crc,
            difference_bytes,
            samples,
            scale: 1.0,
            slope: 0.0,
            intercept: 0.0,
            statistics,
            payload,
        }
    }

    fn block(&self) -> Vec<u8> {
        let payload = unhex(self.payload);
        let mut header = BlockHeader {
            crc: U32::ZERO,
            flags: FLAG_DISCONTINUITY,
            protected_region: [0; 3],
            discretionary_region: [0; 8],
            detrend_slope: F32::new(self.slope),
            detrend_intercept: F32::new(self.intercept),
            scale_factor: F32::new(self.scale),
            difference_bytes: U32::new(self.difference_bytes),
            number_of_samples: U32::new(self.samples),
            block_bytes: U32::new(304 + payload.len() as u32),
            start_time: I64::new(time::stored(START)),
            statistics: [0; 256],
        };
        for &(byte, frequency) in self.statistics {
            header.statistics[usize::from(byte)] = frequency;
        }
        let mut block = [header.as_bytes(), &payload].concat();
        let crc = crc32(&block[4..]);
        assert_eq!(crc, self.crc, "the vector itself");
        block[..4].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn lossless_vectors_of_section_18_5() {
    let jumps = [
        100,
        227,
        99,
        -100,
        1_000_000,
        1_000_000,
        999_999,
        i32::MIN,
        i32::MAX,
        0,
    ];
    let jump_statistics = &[
        (0, 15),
        (15, 1),
        (64, 1),
        (66, 1),
        (99, 1),
        (100, 1),
        (127, 2),
        (128, 7),
        (156, 1),
        (255, 7),
    ];
    for (name, samples, vector) in [
        (
            "A",
            vec![42],
            Vector::lossless(0xE374_B4C9, 5, 1, &[(0, 3), (42, 1)], "c1007e7e7e7e7e7e"),
        ),
        (
            "B",
            (0..10).collect(),
            Vector::lossless(0xA4AD_16B8, 14, 10, &[(0, 4), (1, 9)], "0236007e7e7e7e7e"),
        ),
        (
            "C",
            jumps.to_vec(),
            Vector::lossless(
                0x38E3_198A,
                38,
                10,
                jump_statistics,
                "83b9cbdd7dc7707d4c99f2df007e7e7e",
            ),
        ),
        (
            "D",
            vec![7; 1000],
            Vector::lossless(
                0x8FD2_434F,
                1004,
                1000,
                &[(0, 255), (7, 1)],
                "ff01007e7e7e7e7e",
            ),
        ),
        (
            "E",
            (0..20).map(|sample: i32| -sample).collect(),
            Vector::lossless(
                0x43D6_5FDA,
                24,
                20,
                &[(0, 4), (255, 19)],
                "003b007e7e7e7e7e",
            ),
        ),
        (
            "W",
            vec![i32::MIN, i32::MAX],
            Vector::lossless(
                0xB94B_099A,
                10,
                2,
                &[(0, 3), (127, 1), (128, 2), (255, 3)],
                "059b6b007e7e7e7e",
            ),
        ),
    ] {
        let expected = vector.block();
        let (block, bytes) = encode(&samples);
        assert_eq!(hex(&bytes), hex(&expected), "{name}");
        assert_eq!(block.samples, vector.samples, "{name}");
        assert_eq!(block.difference_bytes, vector.difference_bytes, "{name}");
        assert_eq!(decode(&expected), samples, "{name}");
    }
}

#[test]
fn headers_of_section_18_5() {
    const REST: &str = "01000000000000000000000000000000000000000000803f";
    const END: &str = "00005cf8ce50faff";
    let jumps = [
        100,
        227,
        99,
        -100,
        1_000_000,
        1_000_000,
        999_999,
        i32::MIN,
        i32::MAX,
        0,
    ];
    let falling: Vec<i32> = (0..20).map(|sample| -sample).collect();
    for (samples, crc, counts) in [
        (vec![42], "c9b474e3", "050000000100000038010000"),
        ((0..10).collect(), "b816ada4", "0e0000000a00000038010000"),
        (jumps.to_vec(), "8a19e338", "260000000a00000040010000"),
        (vec![7; 1000], "4f43d28f", "ec030000e803000038010000"),
        (falling, "da5fd643", "180000001400000038010000"),
    ] {
        let (_, bytes) = encode(&samples);
        assert_eq!(hex(&bytes[..48]), [crc, REST, counts, END].concat());
    }
}

/// The walk of vectors F and F2.
fn random_walk(steps: i64) -> Vec<i32> {
    let (mut state, mut value) = (12_345_i64, 0);
    (0..5000)
        .map(|_| {
            state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF;
            value += (state >> 16) % steps - steps / 2;
            value as i32
        })
        .collect()
}

#[test]
fn long_vectors_of_section_18_5() {
    for (steps, extremes, length, crc, digest) in [
        (
            201,
            Some((-7876, 1730)),
            5072,
            0x5D19_FE18,
            "65597176e36b002b195a2f47ff3848756f1fc89ee488655cf15fb79dff90a849",
        ),
        (
            9,
            None,
            2288,
            0x1CC9_CC5E,
            "2866cb9b4ca6af5ab7f0e233f54d1a88bdb55367b3a56c19d68d7842ab5b870e",
        ),
    ] {
        let samples = random_walk(steps);
        let (block, bytes) = encode(&samples);
        assert_eq!(bytes.len(), length);
        assert_eq!(block.difference_bytes, 5004);
        assert_eq!(hex(&bytes[..4]), hex(&u32::to_le_bytes(crc)));
        assert_eq!(hex(&Sha256::digest(&bytes)), digest);
        if let Some(extremes) = extremes {
            assert_eq!((block.minimum, block.maximum), extremes);
        }
        assert_eq!(decode(&bytes), samples);
    }
}

#[test]
fn walks_of_section_18_5() {
    let long = random_walk(201);
    assert_eq!(long[..5], [62, 101, 8, -11, -68]);
    assert_eq!(long.last(), Some(&-7296));
    assert_eq!(long.iter().sum::<i32>(), -10_622_080);
    let (_, bytes) = encode(&long);
    let statistics = &bytes[48..304];
    assert_eq!(statistics.iter().max(), Some(&44));
    assert_eq!(statistics.iter().map(|&f| u32::from(f)).sum::<u32>(), 5003);
    assert_eq!(hex(&bytes[304..320]), "4eb2c6dcb322308366c2398ef5452470");
    let end = bytes.len() - 16;
    assert_eq!(hex(&bytes[end..]), "b31f66aed235dbec489fef901d59df00");

    let flat = random_walk(9);
    assert_eq!(flat[..6], [-1, 2, 2, 4, 7, 10]);
    assert_eq!(flat.last(), Some(&36));
    let (_, bytes) = encode(&flat);
    let mut statistics = [0; 256];
    for (byte, frequency) in [
        (0, 244),
        (1, 244),
        (2, 233),
        (3, 249),
        (4, 255),
        (252, 252),
        (253, 241),
        (254, 249),
        (255, 240),
    ] {
        statistics[byte] = frequency;
    }
    assert_eq!(bytes[48..304], statistics);
    assert_eq!(hex(&bytes[304..320]), "fff9daeabec9cec515dbd8d29b35b7df");
    let end = bytes.len() - 16;
    assert_eq!(hex(&bytes[end..]), "ea13297851dcb25c1814a48e428bc200");
}

#[test]
fn encrypted_blocks_of_section_18_8() {
    let [first, second] = ["level1", "level2"].map(|text| Password::new(text).unwrap());
    let (keys, _) = Keys::for_writing(&first, &second);
    let samples: Vec<i32> = (0..10).collect();
    let (_, plain) = encode(&samples);
    assert_eq!(hex(&plain[48..64]), "04090000000000000000000000000000");
    for (level, flags, statistics, crc) in [
        (1, 3, "393cf79b05096330e83be0bac43180ff", 0xB5FA_08A2),
        (2, 5, "26bf811920566821e542b359c04af532", 0x01C8_1A62_u32),
    ] {
        let mut block = plain.clone();
        block[4] = flags;
        keys.encrypt(level, &mut block[48..64]).unwrap();
        let computed = crc32(&block[4..]);
        block[..4].copy_from_slice(&computed.to_le_bytes());
        assert_eq!(hex(&block[48..64]), statistics);
        assert_eq!(computed, crc);

        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        let facts = decoder.decode_if(&block, &keys, &mut decoded, |_| Ok(()));
        assert!(facts.is_ok_and(|facts| facts.discontinuity));
        assert_eq!(decoded, samples);
        let locked = decoder.decode(&block, &mut decoded);
        assert_eq!(locked, Err(BlockError::Encrypted { level }));
        assert_eq!(decoded, samples);

        // A copy is the very block that was encrypted.
        let mut words = vec![7];
        copy_if(&block, &keys, &mut words, |_| Ok(())).unwrap();
        let (before, copy) = words.split_at(1);
        assert_eq!((before, bytemuck::cast_slice(copy)), (&[7][..], &plain[..]));
        let locked = copy_if(&block, &Keys::default(), &mut words, |_| Ok(()));
        assert_eq!(locked, Err(BlockError::Encrypted { level }));
        assert_eq!(words.len(), 1 + plain.len() / 4);
    }
}

#[test]
fn a_copy_is_refused_where_its_bytes_are_not_those_of_a_block() {
    let (_, plain) = encode(&[1, 2, 3]);
    let keys = Keys::default();
    let copied = |bytes: &[u8]| {
        let mut words = Vec::new();
        let copied = copy_if(bytes, &keys, &mut words, |_| Ok(()));
        assert_eq!(copied.is_ok(), !words.is_empty());
        copied.map(|_| bytemuck::cast_slice::<i32, u8>(&words).to_vec())
    };
    assert_eq!(copied(&plain), Ok(plain.clone()));
    let damaged = |at: usize, value: u8, mended: bool| {
        let mut block = plain.clone();
        block[at] = value;
        if mended {
            let crc = crc32(&block[4..]).to_le_bytes();
            block[..4].copy_from_slice(&crc);
        }
        copied(&block).unwrap_err()
    };
    assert!(matches!(damaged(310, 1, false), BlockError::Crc { .. }));
    assert!(matches!(
        damaged(35, 1, true),
        BlockError::TooManySamples(_)
    ));
    assert!(matches!(damaged(36, 1, true), BlockError::Length(_)));
    assert!(matches!(copied(&plain[..40]), Err(BlockError::Length(40))));
    let mut no_symbol = plain.clone();
    no_symbol[48..304].fill(0);
    let crc = crc32(&no_symbol[4..]).to_le_bytes();
    no_symbol[..4].copy_from_slice(&crc);
    assert_eq!(copied(&no_symbol), Err(BlockError::Statistics));
    let refused = copy_if(&plain, &keys, &mut Vec::new(), |_| {
        Err(BlockError::Statistics)
    });
    assert_eq!(refused, Err(BlockError::Statistics));
}

#[test]
fn a_wrapped_step_over_the_whole_range_decodes() {
    let wrapped = Vector::lossless(
        0xE32A_253C,
        6,
        2,
        &[(0, 3), (128, 1), (255, 1)],
        "2b007e7e7e7e7e7e",
    );
    assert_eq!(decode(&wrapped.block()), [i32::MIN, i32::MAX]);
}

#[test]
fn scale_and_trend_vectors_of_section_18_7() {
    let trend_statistics: &[(u8, u8)] = &[(0, 4), (1, 2), (2, 1), (252, 1), (254, 1)];
    let g = Vector {
        crc: 0xAC4B_82AA,
        difference_bytes: 18,
        samples: 6,
        scale: 2.5,
        slope: 0.0,
        intercept: 0.0,
        statistics: &[
            (0, 6),
            (1, 2),
            (4, 1),
            (56, 1),
            (100, 1),
            (128, 2),
            (247, 1),
            (255, 3),
        ],
        payload: "78bd3848adad007e",
    };
    let h = Vector {
        crc: 0xC7EC_BDD4,
        difference_bytes: 10,
        scale: 1.0,
        slope: 1.5,
        intercept: -10.25,
        statistics: trend_statistics,
        payload: "06903c007e7e7e7e",
        ..g
    };
    let h2 = Vector {
        crc: 0x7F45_549C,
        scale: 2.5,
        ..h
    };
    assert_eq!(decode(&g.block()), [10, 13, 15, -8, -500, 250]);
    assert_eq!(decode(&h.block()), [-9, -6, -7, -4, -1, -3]);
    assert_eq!(decode(&h2.block()), [-9, -4, -9, -4, 2, -6]);
}

/// Signals of 1 to 5000 samples: walks of any step, constants, and noise that
/// often hits the ends of the range.
fn signal() -> impl Strategy<Value = Vec<i32>> {
    let length = 1..5000_usize;
    let walk = (length.clone(), any::<i32>(), any::<u64>(), 1..=31_u32).prop_map(
        |(length, first, seed, bits)| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let step = 1_i32 << (bits - 1);
            let mut value = first;
            (0..length)
                .map(|_| {
                    value = value.wrapping_add(rng.i32(-step..=step));
                    value
                })
                .collect()
        },
    );
    let constant = (length.clone(), any::<i32>()).prop_map(|(length, value)| vec![value; length]);
    let extremes = prop::collection::vec(
        prop_oneof![
            Just(i32::MIN),
            Just(i32::MIN + 1),
            Just(-1),
            Just(0),
            Just(i32::MAX),
            any::<i32>(),
        ],
        length,
    );
    prop_oneof![3 => walk, 1 => constant, 1 => extremes]
}

/// The final range of this stream reaches hardly beyond its last bytes.
#[test]
fn a_stream_that_ends_in_a_narrow_range_decodes_to_itself() {
    let samples = [-66_052; 1779];
    let mut bytes = Vec::new();
    Encoder::new()
        .encode(&samples, 0, true, &mut bytes)
        .unwrap();
    let mut decoded = Vec::new();
    Decoder::new().decode(&bytes, &mut decoded).unwrap();
    assert!(decoded == samples);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_encoded_decodes_to_itself(samples in signal(), start in 0..i64::MAX, flag: bool) {
        let mut bytes = vec![0xAA; 3];
        let block = Encoder::new().encode(&samples, start, flag, &mut bytes).unwrap();
        prop_assert_eq!(block.bytes as usize, bytes.len() - 3);
        prop_assert_eq!(block.bytes % 8, 0);

        let mut decoded = Vec::new();
        let facts = Decoder::new().decode(&bytes[3..], &mut decoded).unwrap();
        prop_assert_eq!(time::absolute(facts.stored_start_time, 0), Some(start));
        prop_assert_eq!(facts.discontinuity, flag);
        prop_assert!(decoded == samples);
    }
}
