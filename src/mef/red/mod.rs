//! RED blocks: range-encoded differences of 32-bit samples (format section 8).
//!
//! A block stands alone: header, symbol statistics, and a range-coded stream of
//! byte-wide differences. [`Decoder`] and [`Encoder`] keep their tables between
//! blocks, so that one of each per thread decodes or encodes any number.

mod decode;
mod encode;
#[cfg(test)]
mod vectors;

pub use decode::{BlockFacts, Decoder};
pub(super) use decode::{copy_if, is_plausible};
pub use encode::{EncodeError, EncodedBlock, Encoder};

/// Most samples that one block may hold. The format itself sets no bound: a
/// constant signal costs almost no bits, so 312 bytes can claim 2^32 samples.
/// 2^24 samples are 64 MiB decoded and eight minutes at 32 kHz; the blocks that
/// writers make are a thousandth of that.
pub const MAX_BLOCK_SAMPLES: u32 = 1 << 24;
/// The longest block that can hold [`MAX_BLOCK_SAMPLES`] (format section 8.6).
pub(super) const MAX_BLOCK_BYTES: u32 = 5 * MAX_BLOCK_SAMPLES + 311;

/// The count that stands for "not a number" (format section 8.1). The codec
/// itself treats it like any other.
pub const NAN: i32 = i32::MIN;

/// Symbol that announces a full value instead of a difference.
const KEY_SAMPLE: u8 = 0x80;
/// The coder renormalises at or below this range.
const BOTTOM: u32 = 0x0080_0000;
/// Filler up to the next multiple of [`ALIGNMENT`].
const PAD: u8 = 0x7E;
/// Blocks are multiples of this many bytes.
const ALIGNMENT: usize = 8;
