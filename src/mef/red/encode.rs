//! The RED encoder (format sections 8.3, 8.4 and 8.6).

use thiserror::Error;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{F32, I64, U32};

use super::{ALIGNMENT, BOTTOM, KEY_SAMPLE, MAX_BLOCK_SAMPLES, NAN, PAD};
use crate::mef::crc::crc32;
use crate::mef::layout::{BLOCK_HEADER_BYTES, BlockHeader, FLAG_DISCONTINUITY};
use crate::mef::time;

/// The range of a fresh encoder, and the mask that keeps `low` below it.
const TOP: u32 = 0x8000_0000;
/// From here on, a later carry may still change the held-back byte.
const CARRY_CHECK: u32 = 0x7F80_0000;
/// Position of the next output byte in `low`.
const SHIFT: u32 = 23;

/// Why samples cannot become a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A block has at least one sample.
    #[error("a block needs at least one sample")]
    NoSamples,
    /// More than [`MAX_BLOCK_SAMPLES`].
    #[error("{0} samples in one block are more than the limit of {MAX_BLOCK_SAMPLES}")]
    TooManySamples(usize),
    /// The format has no way to store a time before 1970, or one that is not after
    /// the recording time offset.
    #[error("start time {0} us lies before 1970 or not after the recording time offset")]
    StartTime(i64),
}

/// What an index entry says of a block (format section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedBlock {
    /// Length of the block in bytes, header and pad included.
    pub bytes: u32,
    /// Number of samples.
    pub samples: u32,
    /// The header's difference_bytes: one more than the difference stream.
    pub difference_bytes: u32,
    /// Least count, NaN samples (-2^31) left out; -2^31 if there are only those.
    pub minimum: i32,
    /// Greatest count, NaN samples left out; -2^31 if there are only those.
    pub maximum: i32,
    /// Time of the first sample in the stored encoding
    /// (see [`time::stored_under`](crate::mef::time::stored_under)).
    pub stored_start_time: i64,
    /// The block's flag byte.
    pub flags: u8,
}

/// Encodes runs of counts to RED blocks, one after another.
#[derive(Default)]
pub struct Encoder {
    /// The difference stream of the block at hand, kept for its capacity.
    stream: Vec<u8>,
    recording_time_offset: i64,
}

impl Encoder {
    /// An encoder; its scratch space grows with the largest block.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder that stores times relative to an offset (format section 5).
    pub fn with_recording_time_offset(recording_time_offset: i64) -> Self {
        Self {
            recording_time_offset,
            ..Self::default()
        }
    }

    /// Encodes `samples` losslessly and appends the whole block to `out`.
    ///
    /// `start_uutc` is the absolute time of the first sample in microseconds. The
    /// bytes depend on the arguments and the recording time offset alone.
    ///
    /// # Errors
    /// [`EncodeError`], and then `out` is as it was.
    pub fn encode(
        &mut self,
        samples: &[i32],
        start_uutc: i64,
        discontinuity: bool,
        out: &mut Vec<u8>,
    ) -> Result<EncodedBlock, EncodeError> {
        let number_of_samples = match u32::try_from(samples.len()) {
            Ok(0) => return Err(EncodeError::NoSamples),
            Ok(count) if count <= MAX_BLOCK_SAMPLES => count,
            _ => return Err(EncodeError::TooManySamples(samples.len())),
        };
        let stored_start_time = time::stored_under(start_uutc, self.recording_time_offset)
            .ok_or(EncodeError::StartTime(start_uutc))?;

        difference_stream(samples, &mut self.stream);
        let statistics = statistics(&self.stream);
        let first = out.len();
        encode_range(&self.stream, &statistics, out);
        pad(first, out);

        // The limit on samples bounds both lengths far below 2^32: five stream
        // bytes a sample, at most three payload bytes for each of those.
        let bytes = (out.len() - first) as u32;
        let difference_bytes = self.stream.len() as u32 + 1;
        let (minimum, maximum) = extremes(samples);
        let block = EncodedBlock {
            bytes,
            samples: number_of_samples,
            difference_bytes,
            minimum,
            maximum,
            stored_start_time,
            flags: if discontinuity { FLAG_DISCONTINUITY } else { 0 },
        };
        if let Some(encoded) = out.get_mut(first..) {
            write_header(&block, &statistics, encoded);
        }
        Ok(block)
    }
}

/// Differences as bytes; a step that needs more is a key sample, the full value
/// after an escape. The difference is taken in 64 bits, so that a step over the
/// whole range does not wrap to a small one.
fn difference_stream(samples: &[i32], stream: &mut Vec<u8>) {
    stream.clear();
    stream.reserve(samples.len() + 3);
    let Some((&first, rest)) = samples.split_first() else {
        return;
    };
    stream.extend_from_slice(&first.to_le_bytes());
    let mut previous = first;
    for &sample in rest {
        match i8::try_from(i64::from(sample) - i64::from(previous)) {
            // -128 would read as the escape.
            Ok(difference) if difference != i8::MIN => stream.push(difference as u8),
            _ => {
                stream.push(KEY_SAMPLE);
                stream.extend_from_slice(&sample.to_le_bytes());
            }
        }
        previous = sample;
    }
}

/// Frequencies of the stream's bytes, scaled so that the greatest fits a byte
/// and none that occurs becomes zero.
fn statistics(stream: &[u8]) -> [u8; 256] {
    let mut counts = [0u32; 256];
    for &byte in stream {
        counts[usize::from(byte)] += 1;
    }
    let greatest = counts.iter().copied().max().unwrap_or(0);
    if greatest <= u32::from(u8::MAX) {
        return counts.map(|count| count as u8);
    }
    // A hair below 255, so that rounding up cannot reach 256.
    let factor = 254.999_999_999 / f64::from(greatest);
    counts.map(|count| (f64::from(count) * factor).ceil() as u8)
}

/// Appends room for a block header and the range-coded `stream`.
///
/// The coder's first output byte is meaningless: it falls on the last byte of
/// that room, which the header overwrites.
fn encode_range(stream: &[u8], statistics: &[u8; 256], out: &mut Vec<u8>) {
    let mut below = [0u32; 256];
    let mut total = 0;
    for (below, &frequency) in below.iter_mut().zip(statistics) {
        *below = total;
        total += u32::from(frequency);
    }
    out.resize(out.len() + BLOCK_HEADER_BYTES - 1, 0);
    out.reserve(stream.len() + 6);
    let mut coder = RangeEncoder::new(out);
    for &byte in stream {
        let symbol = usize::from(byte);
        coder.code(byte, below[symbol], statistics[symbol], total);
    }
    coder.finish();
}

/// The range coder's registers (format section 8.6): the interval is
/// `low..low + range`, with bit 31 of `low` as the carry.
struct RangeEncoder<'a> {
    low: u32,
    range: u32,
    /// The latest byte, held back because a carry may still add one to it.
    held: u8,
    /// Bytes after the held one that are 0xFF, or 0x00 after a carry.
    pending: usize,
    out: &'a mut Vec<u8>,
}

impl<'a> RangeEncoder<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            low: 0,
            range: TOP,
            held: 0,
            pending: 0,
            out,
        }
    }

    /// Codes a symbol of a frequency; `below` is the sum of those of all smaller
    /// symbols, and `total` that of all.
    #[inline(always)]
    fn code(&mut self, symbol: u8, below: u32, frequency: u8, total: u32) {
        self.normalise();
        // Normalised, the range is above 2^23 and the total at most 65280.
        let unit = self.range / total;
        let offset = unit * below;
        self.low += offset;
        self.range = if symbol < u8::MAX {
            unit * u32::from(frequency)
        } else {
            // The last symbol takes the remainder of the range.
            self.range - offset
        };
    }

    #[inline(always)]
    fn normalise(&mut self) {
        while self.range <= BOTTOM {
            if self.low < CARRY_CHECK {
                self.release(0);
            } else if self.low & TOP != 0 {
                self.release(1);
            } else {
                self.pending += 1;
            }
            self.range <<= 8;
            self.low = (self.low << 8) & !TOP;
        }
    }

    /// Emits what was held back, now that the carry into it is known, and holds
    /// back the next byte.
    #[inline(always)]
    fn release(&mut self, carry: u8) {
        self.emit(carry);
        self.held = (self.low >> SHIFT) as u8;
    }

    #[inline(always)]
    fn emit(&mut self, carry: u8) {
        self.out.push(self.held.wrapping_add(carry));
        if self.pending > 0 {
            let filler = 0xFFu8.wrapping_add(carry);
            self.out.resize(self.out.len() + self.pending, filler);
            self.pending = 0;
        }
    }

    fn finish(mut self) {
        self.normalise();
        let last = (self.low >> SHIFT) + 1;
        self.emit(u8::from(last > 0xFF));
        self.out.extend([last as u8, 0]);
        // The decoder takes two bytes more. Padding would do (format section 8.6),
        // unless the range hardly reaches beyond `last`: then they are zeros, too.
        let most = (u64::from(last) << SHIFT) + (1 << (SHIFT - 8));
        if most > u64::from(self.low) + u64::from(self.range) {
            self.out.extend([0, 0]);
        }
    }
}

fn pad(first: usize, out: &mut Vec<u8>) {
    let length = (out.len() - first).next_multiple_of(ALIGNMENT);
    out.resize(first + length, PAD);
}

/// Least and greatest count, without the NaN samples.
fn extremes(samples: &[i32]) -> (i32, i32) {
    // NaN is the least integer: it never wins a maximum, and only the minimum
    // has to look past it.
    let maximum = samples.iter().copied().max().unwrap_or(NAN);
    let minimum = samples
        .iter()
        .copied()
        .filter(|&sample| sample != NAN)
        .min();
    (minimum.unwrap_or(NAN), maximum)
}

/// Writes the header over the first bytes of `encoded`, which is the whole
/// block, and then the CRC over everything after it.
fn write_header(block: &EncodedBlock, statistics: &[u8; 256], encoded: &mut [u8]) {
    let header = BlockHeader {
        crc: U32::ZERO,
        flags: block.flags,
        protected_region: [0; 3],
        discretionary_region: [0; 8],
        detrend_slope: F32::ZERO,
        detrend_intercept: F32::ZERO,
        scale_factor: F32::new(1.0),
        difference_bytes: U32::new(block.difference_bytes),
        number_of_samples: U32::new(block.samples),
        block_bytes: U32::new(block.bytes),
        start_time: I64::new(block.stored_start_time),
        statistics: *statistics,
    };
    if header.write_to_prefix(encoded).is_err() {
        return;
    }
    if let Some((crc, covered)) = encoded.split_first_chunk_mut() {
        *crc = crc32(covered).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_input_is_refused_and_leaves_the_output_alone() {
        let mut out = vec![1, 2, 3];
        let mut encoder = Encoder::new();
        let too_many = MAX_BLOCK_SAMPLES as usize + 1;
        for (samples, start, error) in [
            (vec![], 0, EncodeError::NoSamples),
            (vec![0], -1, EncodeError::StartTime(-1)),
            (vec![0], i64::MIN, EncodeError::StartTime(i64::MIN)),
            (vec![0; too_many], 0, EncodeError::TooManySamples(too_many)),
        ] {
            let result = encoder.encode(&samples, start, true, &mut out);
            assert_eq!(result, Err(error));
            assert_eq!(out, [1, 2, 3]);
        }
    }

    #[test]
    fn trace_of_section_18_6() {
        let mut out = Vec::new();
        let mut coder = RangeEncoder::new(&mut out);
        // Byte, r, and low and range after it.
        for (number, (byte, unit, low, range)) in [
            (0, 0x09D8_9D89, 0x0000_0000, 0x2762_7624),
            (0, 0x0307_92EF, 0x0000_0000, 0x0C1E_4BBC),
            (0, 0x00EE_A35D, 0x0000_0000, 0x03BA_8D74),
            (0, 0x0049_6D57, 0x0000_0000, 0x0125_B55C),
            (1, 0x0016_97CC, 0x005A_5F30, 0x00CB_562C),
            (1, 0x000F_A42A, 0x0098_EFD8, 0x008C_C57A),
            (1, 0x000A_D41D, 0x00C4_404C, 0x0061_7505),
            (1, 0x077F_27C4, 0x623C_EB10, 0x4378_65E4),
            (1, 0x0530_A560, 0x76FF_8090, 0x2EB5_D060),
            (1, 0x0397_D4F3, 0x855E_D45C, 0x2056_7C8B),
            (1, 0x027C_CE80, 0x8F52_0E5C, 0x1663_4280),
            (1, 0x01B8_DDBB, 0x9635_8548, 0x0F7F_CB93),
            (1, 0x0131_370B, 0x9AFA_6174, 0x0ABA_EF63),
        ]
        .into_iter()
        .enumerate()
        {
            coder.normalise();
            assert_eq!(coder.range / 13, unit, "{number}");
            let (below, frequency) = [(0, 4), (4, 9)][usize::from(byte)];
            coder.code(byte, below, frequency, 13);
            assert_eq!((coder.low, coder.range), (low, range), "{number}");
            // The only step before symbol 7 emits the byte that means nothing.
            let emitted = usize::from(number >= 7);
            assert_eq!((coder.out.len(), coder.pending), (emitted, 0), "{number}");
            assert_eq!(coder.held, if emitted == 0 { 0 } else { 1 }, "{number}");
        }
        coder.finish();
        assert_eq!(out[1..], [0x02, 0x36, 0x00]);
    }

    #[test]
    fn streams_of_section_18_5() {
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
        let numbers: Vec<i32> = (0..10).collect();
        let falling: Vec<i32> = (0..20).map(|sample| -sample).collect();
        for (samples, expected) in [
            (&[42][..], "2a000000"),
            (&numbers, "00000000010101010101010101"),
            (
                &jumps,
                "640000007f8063000000809cffffff8040420f0000ff800000008080ffffff7f8000000000",
            ),
            (&falling, "00000000ffffffffffffffffffffffffffffffffffffff"),
        ] {
            let mut stream = Vec::new();
            difference_stream(samples, &mut stream);
            let shown: String = stream.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn extremes_look_past_nan() {
        assert_eq!(extremes(&[NAN, -5, 7, NAN]), (-5, 7));
        assert_eq!(extremes(&[NAN]), (NAN, NAN));
        assert_eq!(extremes(&[i32::MAX]), (i32::MAX, i32::MAX));
    }
}
