//! The decoder's steps, its rounding and its checks.

use super::*;
use crate::mef::layout::BLOCK_HEADER_BYTES;

#[test]
fn rounding_of_section_18_7() {
    for (value, rounded) in [
        (0.5, 1),
        (-0.5, -1),
        (1.5, 2),
        (-1.5, -2),
        (2_147_483_646.4, 2_147_483_646),
        (2_147_483_646.6, i32::MAX),
        (-2_147_483_646.6, -i32::MAX),
        (-2_147_483_647.9, -i32::MAX),
        (1e300, i32::MAX),
        (-1e300, -i32::MAX),
        (0.499_999_999_999_999_94, 1),
    ] {
        assert_eq!(round(value), rounded, "{value}");
    }
}

#[test]
fn trace_of_section_18_6() {
    let mut statistics = [0; 256];
    (statistics[0], statistics[1]) = (4, 9);
    let mut decoder = Decoder::new();
    let total = decoder.fill_table(&statistics).unwrap();
    assert_eq!(total, 13);
    let payload = [0x02, 0x36, 0x00, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E];
    let mut reader = SymbolReader::new(&decoder.table, total, &payload);
    assert_eq!((reader.input, reader.low, reader.range), (2, 1, 0x80));
    // Number, low and range after normalisation, r, cc, symbol, low and range
    // after it; symbols 6 to 11 are not listed.
    let listed = [
        (
            0,
            0x011B_003F,
            0x8000_0000,
            0x09D8_9D89,
            0,
            0,
            0x011B_003F,
            0x2762_7624,
        ),
        (
            1,
            0x011B_003F,
            0x2762_7624,
            0x0307_92EF,
            0,
            0,
            0x011B_003F,
            0x0C1E_4BBC,
        ),
        (
            2,
            0x011B_003F,
            0x0C1E_4BBC,
            0x00EE_A35D,
            1,
            0,
            0x011B_003F,
            0x03BA_8D74,
        ),
        (
            3,
            0x011B_003F,
            0x03BA_8D74,
            0x0049_6D57,
            3,
            0,
            0x011B_003F,
            0x0125_B55C,
        ),
        (
            4,
            0x011B_003F,
            0x0125_B55C,
            0x0016_97CC,
            12,
            1,
            0x00C0_A10F,
            0x00CB_562C,
        ),
        (
            5,
            0x00C0_A10F,
            0x00CB_562C,
            0x000F_A42A,
            12,
            1,
            0x0082_1067,
            0x008C_C57A,
        ),
        (
            12,
            0x04CA_B9F7,
            0x0F7F_CB93,
            0x0131_370B,
            4,
            1,
            0x0005_DDCB,
            0x0ABA_EF63,
        ),
    ];
    let mut next = 0;
    for (number, low, range, unit, count, symbol, low_after, range_after) in listed {
        for _ in next..number {
            reader.next_symbol();
        }
        next = number + 1;
        reader.normalise();
        assert_eq!((reader.low, reader.range), (low, range), "{number}");
        assert_eq!(reader.divide_by_total(range), unit, "{number}");
        assert_eq!((low / unit).min(total - 1), count, "{number}");
        assert_eq!(reader.next_symbol(), symbol, "{number}");
        assert_eq!(
            (reader.low, reader.range),
            (low_after, range_after),
            "{number}"
        );
    }
}

#[test]
fn reciprocal_division_is_exact() {
    let table = Box::new([0; TABLE_LENGTH]);
    for total in (1..=300).chain(64_900..=65_280) {
        let reader = SymbolReader::new(&table, total, &[]);
        for dividend in [
            0,
            1,
            total - 1,
            total,
            BOTTOM + 1,
            0x8000_0000,
            u32::MAX - 1,
            u32::MAX,
        ] {
            assert_eq!(reader.divide_by_total(dividend), dividend / total);
        }
    }
}

/// pymef's lossy writer divides by zero where a block has a single sample: what
/// it stores of that cannot be undone (format section 8.7). Both references read
/// such a sample as -2^31.
#[test]
fn a_trend_of_one_sample_that_is_no_number_is_refused() {
    let mut block = vec![0; BLOCK_HEADER_BYTES + 8];
    block[4] = 1;
    block[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    block[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    block[24..28].copy_from_slice(&1f32.to_le_bytes());
    block[28..32].copy_from_slice(&5u32.to_le_bytes());
    block[32..36].copy_from_slice(&1u32.to_le_bytes());
    block[36..40].copy_from_slice(&312u32.to_le_bytes());
    block[48] = 4;
    let crc = crc32(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    let mut samples = Vec::new();
    let outcome = Decoder::new().decode(&block, &mut samples);
    assert!(matches!(outcome, Err(BlockError::NotFinite)), "{outcome:?}");
    assert!(samples.is_empty());
}

#[test]
fn random_blocks_end_in_an_error_or_in_the_declared_number_of_samples() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut decoder = Decoder::new();
    let mut samples = Vec::new();
    for _ in 0..5000 {
        let mut block: Vec<u8> = (0..BLOCK_HEADER_BYTES + 64).map(|_| rng.u8(..)).collect();
        let count = rng.u32(1..40);
        let key_samples = rng.u32(0..count);
        block[4] = 1;
        block[16..28].fill(0);
        block[28..32].copy_from_slice(&(count + 4 + 4 * key_samples).to_le_bytes());
        block[32..36].copy_from_slice(&count.to_le_bytes());
        let length = block.len() as u32;
        block[36..40].copy_from_slice(&length.to_le_bytes());
        if rng.bool() {
            block[48..304].fill(0);
            block[48 + rng.usize(..256)] = rng.u8(..);
        }
        let crc = crc32(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        samples.clear();
        match decoder.decode(&block, &mut samples) {
            Ok(facts) => assert_eq!(samples.len(), facts.samples as usize),
            Err(error) => {
                assert!(matches!(
                    error,
                    BlockError::Statistics | BlockError::StreamEnd
                ));
                assert!(samples.is_empty());
            }
        }
    }
}
