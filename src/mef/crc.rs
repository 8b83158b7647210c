//! The Koopman 32-bit CRC that guards headers, bodies, blocks and records
//! (format section 4).

use std::sync::LazyLock;

use crc_fast::{CrcParams, Digest, checksum_with_params};

/// Polynomial 0x741B8CD7, reflected in and out, no final XOR.
const POLYNOMIAL: u64 = 0x741B_8CD7;
/// The register before the first byte.
pub const CRC_START: u32 = 0xFFFF_FFFF;
/// A stored CRC of zero says that the writer never computed it.
pub const CRC_NOT_COMPUTED: u32 = 0;

// Building the parameters derives the folding keys, which costs more than a
// block's checksum: once per process.
static PARAMETERS: LazyLock<CrcParams> = LazyLock::new(|| parameters(CRC_START));

fn parameters(start: u32) -> CrcParams {
    CrcParams::new("CRC-32/MEF3", 32, POLYNOMIAL, u64::from(start), true, 0, 0)
}

/// CRC of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    // The algorithm is 32 bits wide, the crate's return type serves 64-bit CRCs too.
    checksum_with_params(*PARAMETERS, bytes) as u32
}

/// CRC of a first part and `bytes`, where `register` is the CRC of that first part.
///
/// Without a final XOR the stored value is the register, so an appended file's
/// CRC costs only the appended bytes.
pub fn crc32_continue(register: u32, bytes: &[u8]) -> u32 {
    checksum_with_params(parameters(register), bytes) as u32
}

/// The CRC of a file body that grows piece by piece.
pub struct RunningCrc(Digest);

impl Default for RunningCrc {
    fn default() -> Self {
        Self::new()
    }
}

impl RunningCrc {
    /// The CRC of nothing.
    pub fn new() -> Self {
        Self(Digest::new_with_params(*PARAMETERS))
    }

    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// CRC of all pieces so far.
    pub fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit: the oracle for the table-free SIMD crate.
    fn bitwise(start: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(start, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| {
                if c & 1 == 1 {
                    (c >> 1) ^ 0xEB31_D82E
                } else {
                    c >> 1
                }
            })
        })
    }

    #[test]
    fn vectors_of_section_18_1() {
        let all: Vec<u8> = (0..=255).collect();
        for (input, crc, from_zero) in [
            (&b""[..], 0xFFFF_FFFF, 0),
            (&[0][..], 0xC0AD_D38D, 0),
            (b"a", 0xF25D_5575, 0x32F0_86F8),
            (b"123456789", 0xD2C2_2F51, 0xA55C_F835),
            (&[0; 64], 0xA580_FD71, 0),
            (&[0xFF; 64], 0xA878_1AB7, 0x0DF8_E7C6),
            (&all, 0x543F_2C99, 0x7105_1670),
        ] {
            assert_eq!(crc32(input), crc);
            assert_eq!(crc32_continue(0, input), from_zero);
        }
        assert_eq!(crc32_continue(crc32(b"12345"), b"6789"), 0xD2C2_2F51);
    }

    #[test]
    fn pieces_give_the_crc_of_the_whole() {
        let mut running = RunningCrc::new();
        assert_eq!(running.value(), CRC_START);
        running.update(b"12345");
        running.update(b"");
        running.update(b"6789");
        assert_eq!(running.value(), crc32(b"123456789"));
    }

    #[test]
    fn every_length_up_to_two_kilobytes_agrees_with_the_bitwise_form() {
        let mut rng = fastrand::Rng::with_seed(1);
        let bytes: Vec<u8> = (0..2048).map(|_| rng.u8(..)).collect();
        for length in 0..bytes.len() {
            let part = &bytes[..length];
            assert_eq!(crc32(part), bitwise(CRC_START, part), "length {length}");
        }
    }
}
