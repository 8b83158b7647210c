//! A RED block that is always there, to see whether somebody can decode.

use std::sync::{Arc, LazyLock};

use crate::mef::red::{Decoder, Encoder};

/// Samples of the block: some microseconds of decoding.
const SAMPLES: i32 = 256;
/// Any time after 1970, in microseconds.
const START_UUTC: i64 = 1_700_000_000_000_000;

static BLOCK: LazyLock<ProbeBlock> = LazyLock::new(ProbeBlock::make);

/// A block, and what is in it.
pub(crate) struct ProbeBlock {
    /// The whole block; empty where it could not be encoded, so that nobody decodes it.
    pub(crate) bytes: Arc<[u8]>,
    /// Its samples, as counts.
    pub(crate) samples: Vec<i32>,
}

impl ProbeBlock {
    fn make() -> Self {
        // Small steps, and some that are larger than a byte.
        let samples: Vec<i32> = (0..SAMPLES)
            .map(|number| number * 7 % 50 + if number % 64 == 0 { 100_000 } else { 0 })
            .collect();
        let mut bytes = Vec::new();
        let encoded = Encoder::new().encode(&samples, START_UUTC, true, &mut bytes);
        if let Err(error) = encoded {
            tracing::error!(%error, "the probe cannot be encoded");
        }
        Self {
            bytes: bytes.into(),
            samples,
        }
    }
}

/// The block, made once in each process.
pub(crate) fn probe_block() -> &'static ProbeBlock {
    &BLOCK
}

/// What a reader finds in a block; nothing where it cannot decode it.
pub(crate) fn decode_probe(block: &[u8]) -> Vec<i32> {
    let mut samples = Vec::new();
    match Decoder::new().decode(block, &mut samples) {
        Ok(_) => samples,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_decoded_to_its_samples_and_a_spoilt_one_to_nothing() {
        let probe = probe_block();
        assert_eq!(decode_probe(&probe.bytes), probe.samples);
        let mut spoilt = probe.bytes.to_vec();
        *spoilt.last_mut().unwrap() ^= 1;
        assert_eq!(decode_probe(&spoilt), [0; 0]);
        assert_eq!(decode_probe(&[]), [0; 0]);
    }
}
