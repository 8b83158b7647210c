//! RED blocks, held against the plain decoder.

use std::cell::RefCell;

use super::common::{Controls, SECRETS, seal, u32_at};
use super::oracle;
use crate::mef::crypto::Keys;
use crate::mef::error::BlockError;
use crate::mef::layout::BLOCK_HEADER_BYTES;
use crate::mef::red::{Decoder, Encoder, MAX_BLOCK_SAMPLES, NAN};
use crate::mef::time;

/// Samples of a block that was put right: a constant signal costs no bytes, and
/// millions of samples no time to write but much to read.
const MOST_SAMPLES: u32 = 96;

/// Most full values that such a block has room for.
const MOST_KEY_SAMPLES: u32 = 24;

/// Wrong on purpose, by the first byte of the input.
mod wrong {
    pub(super) const CRC: u8 = 1;
    pub(super) const LENGTH: u8 = 2;
    pub(super) const SAMPLES: u8 = 4;
    pub(super) const DIFFERENCES: u8 = 8;
    pub(super) const SCALE: u8 = 16;
    pub(super) const PAYLOAD: u8 = 32;
    pub(super) const ENCRYPTED: u8 = 64;
    /// The rest of the input are samples, not a block.
    pub(super) const ENCODE: u8 = 128;
}

thread_local! {
    /// The decoder's table takes longer to make than a block to decode.
    static TOOLS: RefCell<(Decoder, Encoder)> = RefCell::default();
}

/// The input is a block, and the four bytes of its checksum say what of it stays
/// wrong: with zeros there, lengths, counts and the checksum are put right. Or it
/// is samples, to be encoded.
pub fn red_block(input: &[u8]) {
    let mut controls = Controls(input);
    let [mode, more, ..] = controls.array::<4>();
    TOOLS.with_borrow_mut(|(decoder, encoder)| {
        if mode & wrong::ENCODE != 0 {
            round_trip(decoder, encoder, more, controls.0);
        } else {
            compare(decoder, &block(mode, more, controls.0));
        }
    });
}

/// A block of what follows its checksum.
fn block(mode: u8, more: u8, rest: &[u8]) -> Vec<u8> {
    let is_wrong = |what| mode & what != 0;
    let mut block = vec![0; 4];
    block.extend_from_slice(rest);
    if !is_wrong(wrong::LENGTH) {
        block.resize(block.len().max(BLOCK_HEADER_BYTES), 0);
    }
    if let Some(samples) = u32_at(&block, 32)
        && (4 * MOST_SAMPLES..=MAX_BLOCK_SAMPLES).contains(&samples)
    {
        // A legal block, but one that takes a tenth of a second.
        block[32..36].copy_from_slice(&(samples % MOST_SAMPLES).to_le_bytes());
    }
    if is_wrong(wrong::LENGTH) {
        // Perhaps even shorter than a header.
        seal(&mut block);
        return block;
    }
    let length = block.len() as u32;
    block[36..40].copy_from_slice(&length.to_le_bytes());
    let mut samples = u32_at(&block, 32).unwrap();
    if !is_wrong(wrong::SAMPLES) {
        samples = samples % MOST_SAMPLES + 1;
        block[32..36].copy_from_slice(&samples.to_le_bytes());
    }
    let key_samples = u32_at(&block, 28).unwrap() % samples.clamp(1, MOST_KEY_SAMPLES);
    if !is_wrong(wrong::DIFFERENCES) {
        let differences = samples.wrapping_add(4 + 4 * key_samples);
        block[28..32].copy_from_slice(&differences.to_le_bytes());
    }
    if !is_wrong(wrong::SCALE) {
        // Finite as they are, or none.
        for at in [16, 20, 24] {
            let value = f32::from_bits(u32_at(&block, at).unwrap());
            if !value.is_finite() {
                block[at..at + 4].fill(0);
            }
        }
    }
    if !is_wrong(wrong::ENCRYPTED) {
        block[4] &= !6;
    }
    if is_wrong(wrong::PAYLOAD) {
        // Cut, with a length that says so.
        let cut = BLOCK_HEADER_BYTES + usize::from(more) % (block.len() - BLOCK_HEADER_BYTES + 1);
        block.truncate(cut);
        block[36..40].copy_from_slice(&(cut as u32).to_le_bytes());
    }
    if !is_wrong(wrong::CRC) {
        seal(&mut block);
    }
    block
}

/// Decodes with both decoders; the answers are the same.
fn compare(decoder: &mut Decoder, block: &[u8]) {
    let promised = u32_at(block, 32).unwrap_or(0);
    let is_encrypted = block.get(4).is_some_and(|flags| flags & 6 != 0);
    let without = Keys::default();
    for keys in [Some(&without), is_encrypted.then_some(&SECRETS.keys)]
        .into_iter()
        .flatten()
    {
        let mut samples = vec![1, 2, 3];
        let outcome = decoder.decode_if(block, keys, &mut samples, |_| Ok(()));
        assert_eq!(samples[..3], [1, 2, 3], "what was there stays");
        // The plain decoder takes all of the memory that a header asks for.
        let affordable = promised <= 4 * MOST_SAMPLES;
        let expected = affordable.then(|| oracle::decode(block, keys));
        match outcome {
            Ok(facts) => {
                assert_eq!(samples.len() - 3, facts.samples as usize);
                assert_eq!(facts.samples, promised);
                assert_eq!(facts.discontinuity, block[4] & 1 == 1);
                if let Some(expected) = expected {
                    assert_eq!(expected.as_deref(), Ok(&samples[3..]));
                }
            }
            Err(error) => {
                assert_eq!(samples.len(), 3);
                assert!(!error.to_string().is_empty());
                if let Some(expected) = expected {
                    assert_eq!(expected, Err(error));
                }
            }
        }
        let refusal = BlockError::Length(7);
        let refused = decoder.decode_if(block, keys, &mut samples, |_| Err(refusal.clone()));
        assert!(refused.is_err(), "what is not accepted is not decoded");
    }
}

/// Encodes samples, and decodes them again with both decoders.
fn round_trip(decoder: &mut Decoder, encoder: &mut Encoder, mode: u8, rest: &[u8]) {
    let samples = samples(mode, rest);
    let start = 1_600_000_000_000_000;
    let mut out = vec![9; 5];
    let encoded = encoder.encode(&samples, start, mode & 8 != 0, &mut out);
    if samples.is_empty() {
        assert!(encoded.is_err());
        assert_eq!(out, [9; 5]);
        return;
    }
    let encoded = encoded.expect("samples can be encoded");
    let block = &out[5..];
    assert_eq!(block.len(), encoded.bytes as usize);
    assert!(block.len().is_multiple_of(8) && block.len() <= 5 * samples.len() + 311);
    let differences = encoded.difference_bytes;
    assert!((encoded.samples + 4..=5 * encoded.samples).contains(&differences));
    let numbers = || samples.iter().copied().filter(|&sample| sample != NAN);
    assert_eq!(encoded.minimum, numbers().min().unwrap_or(NAN));
    assert_eq!(encoded.maximum, numbers().max().unwrap_or(NAN));
    let mut decoded = Vec::new();
    let facts = decoder.decode(block, &mut decoded).expect("its own block");
    assert_eq!(decoded, samples);
    assert_eq!(facts.samples, encoded.samples);
    assert_eq!(facts.discontinuity, mode & 8 != 0);
    assert_eq!(time::absolute(facts.stored_start_time, 0), Some(start));
    let plain = oracle::decode(block, &Keys::default());
    assert_eq!(plain.as_deref(), Ok(samples.as_slice()));
}

/// Bytes as samples: values or steps, of one byte or of four, repeated or not.
fn samples(mode: u8, rest: &[u8]) -> Vec<i32> {
    let values: Vec<i32> = if mode & 1 == 0 {
        rest.iter().map(|&byte| i32::from(byte as i8)).collect()
    } else {
        let (words, _) = rest.as_chunks::<4>();
        words.iter().map(|&word| i32::from_le_bytes(word)).collect()
    };
    let repeat = if mode & 4 == 0 { 1 } else { 16 };
    let values = values
        .iter()
        .flat_map(|&value| [value; 16].into_iter().take(repeat));
    if mode & 2 == 0 {
        return values.take(MOST_SAMPLES as usize).collect();
    }
    let mut sum = 0i32;
    let steps = values.map(|step| {
        sum = sum.wrapping_add(step);
        sum
    });
    steps.take(MOST_SAMPLES as usize).collect()
}
