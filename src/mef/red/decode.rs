//! The RED decoder (format sections 8.3, 8.5 and 8.7).

use zerocopy::{FromBytes, IntoBytes};

use super::{BOTTOM, KEY_SAMPLE, MAX_BLOCK_SAMPLES};
use crate::mef::crc::crc32;
use crate::mef::crypto::Keys;
use crate::mef::error::BlockError;
use crate::mef::layout::{
    BlockHeader, ENCRYPTED_STATISTICS, FLAG_DISCONTINUITY, FLAG_ENCRYPTED_1, FLAG_ENCRYPTED_2,
};

/// Length of a table that any 16-bit value can index.
const TABLE_LENGTH: usize = 1 << 16;

/// What a block's header says of the samples after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Time of the first sample in the stored encoding
    /// (see [`time::absolute`](crate::mef::time::absolute)).
    pub stored_start_time: i64,
    /// Number of samples.
    pub samples: u32,
    /// The block does not follow seamlessly from the one before.
    pub discontinuity: bool,
}

/// Decodes RED blocks to counts, one after another.
pub struct Decoder {
    /// For each cumulative count: symbol, its frequency and the cumulative
    /// count below it, packed by [`pack`].
    table: Box<[u32; TABLE_LENGTH]>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder with its 256 KiB symbol table.
    pub fn new() -> Self {
        Self {
            table: Box::new([0; TABLE_LENGTH]),
        }
    }

    /// Decodes one whole block and appends its samples, as stored counts with
    /// scale and trend undone, to `samples`.
    ///
    /// The CRC is verified first. On an error `samples` is as it was.
    ///
    /// # Errors
    /// [`BlockError`] with the check that failed.
    pub fn decode(
        &mut self,
        block: &[u8],
        samples: &mut Vec<i32>,
    ) -> Result<BlockFacts, BlockError> {
        self.decode_if(block, &Keys::default(), samples, |_| Ok(()))
    }

    /// As [`decode`](Self::decode), with the keys for encrypted statistics,
    /// unless `accept` refuses the header's facts: a block that is not the
    /// expected one costs no decoding.
    pub(crate) fn decode_if(
        &mut self,
        block: &[u8],
        keys: &Keys,
        samples: &mut Vec<i32>,
        accept: impl FnOnce(&BlockFacts) -> Result<(), BlockError>,
    ) -> Result<BlockFacts, BlockError> {
        let (header, payload, facts) = checked(block)?;
        accept(&facts)?;
        if facts.samples == 0 {
            return Ok(facts);
        }
        check_header(header)?;

        let first = samples.len();
        let total = self.fill_table(&statistics(header, keys)?)?;
        let symbols = SymbolReader::new(&self.table, total, payload);
        let coded_symbols = header.difference_bytes.get() - 1;
        if let Err(error) = integrate(symbols, coded_symbols, facts.samples, samples) {
            samples.truncate(first);
            return Err(error);
        }
        if let Some(decoded) = samples.get_mut(first..) {
            undo_scale_and_trend(header, decoded);
        }
        Ok(facts)
    }

    /// Builds the table from cumulative count to symbol and returns the total.
    fn fill_table(&mut self, statistics: &[u8; 256]) -> Result<u32, BlockError> {
        let mut cumulative = 0usize;
        for (symbol, &frequency) in (0u8..=255).zip(statistics) {
            let next = cumulative + usize::from(frequency);
            // At most 255 * 256 = 65280 entries, which the table has.
            if let Some(run) = self.table.get_mut(cumulative..next) {
                run.fill(pack(symbol, frequency, cumulative as u16));
            }
            cumulative = next;
        }
        match cumulative {
            0 => Err(BlockError::Statistics),
            total => Ok(total as u32),
        }
    }
}

/// Appends a block in plain text, unless `accept` refuses the header's facts: its very
/// bytes, but for statistics that were encrypted. Those are decrypted, their flags are
/// cleared, and the checksum is that of what came of it. The block takes whole words of
/// `words`, in the order of bytes in memory; what is left of the last is 0.
///
/// # Errors
/// [`BlockError`] with the check that failed, of those that need no decoding; `words`
/// is as it was.
pub(in crate::mef) fn copy_if(
    block: &[u8],
    keys: &Keys,
    words: &mut Vec<i32>,
    accept: impl FnOnce(&BlockFacts) -> Result<(), BlockError>,
) -> Result<BlockFacts, BlockError> {
    let (header, payload, facts) = checked(block)?;
    accept(&facts)?;
    let mut plain = header.clone();
    if facts.samples > 0 {
        check_header(header)?;
        plain.statistics = statistics(header, keys)?;
        if plain.statistics.iter().all(|&count| count == 0) {
            return Err(BlockError::Statistics);
        }
    }
    let first = words.len();
    let length = block.len().div_ceil(size_of::<i32>());
    if words.try_reserve(length).is_err() {
        return Err(BlockError::Memory {
            bytes: block.len() as u64,
            samples: facts.samples,
        });
    }
    words.resize(first + length, 0);
    let copy: &mut [u8] = bytemuck::cast_slice_mut(words.get_mut(first..).unwrap_or_default());
    if plain.statistics == header.statistics {
        copy.iter_mut()
            .zip(block)
            .for_each(|(to, from)| *to = *from);
        return Ok(facts);
    }
    plain.flags &= !(FLAG_ENCRYPTED_1 | FLAG_ENCRYPTED_2);
    let bytes = plain.as_bytes().iter().chain(payload);
    copy.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    let (crc, rest) = copy.split_at_mut(size_of_val(&plain.crc));
    crc.copy_from_slice(
        &crc32(rest.get(..block.len() - crc.len()).unwrap_or_default()).to_le_bytes(),
    );
    Ok(facts)
}

/// A block's header, what follows it, and its facts: the whole has the length that it
/// says, and the right checksum.
fn checked(block: &[u8]) -> Result<(&BlockHeader, &[u8], BlockFacts), BlockError> {
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    let (header, payload) =
        BlockHeader::ref_from_prefix(block).map_err(|_| BlockError::Length(length))?;
    if header.block_bytes.get() != length {
        return Err(BlockError::Length(header.block_bytes.get()));
    }
    let stored = header.crc.get();
    let computed = crc32(block.get(size_of_val(&stored)..).unwrap_or_default());
    if stored != computed {
        return Err(BlockError::Crc { stored, computed });
    }
    let facts = BlockFacts {
        stored_start_time: header.start_time.get(),
        samples: header.number_of_samples.get(),
        discontinuity: header.flags & FLAG_DISCONTINUITY != 0,
    };
    Ok((header, payload, facts))
}

/// Checks what section 14 asks of a block with samples, after its CRC.
fn check_header(header: &BlockHeader) -> Result<(), BlockError> {
    let samples = header.number_of_samples.get();
    if samples > MAX_BLOCK_SAMPLES {
        return Err(BlockError::TooManySamples(samples));
    }
    let difference_bytes = header.difference_bytes.get();
    if !can_hold(difference_bytes, samples) {
        return Err(BlockError::DifferenceBytes {
            difference_bytes,
            samples,
        });
    }
    let trend = [header.detrend_slope.get(), header.detrend_intercept.get()];
    let scale = header.scale_factor.get();
    if trend.iter().any(|value| !value.is_finite()) || scale == f32::INFINITY {
        return Err(BlockError::NotFinite);
    }
    Ok(())
}

/// Whether a difference stream can belong to so many samples (format section 14).
fn can_hold(difference_bytes: u32, samples: u32) -> bool {
    samples.saturating_add(4) <= difference_bytes
        && difference_bytes <= samples.saturating_mul(5)
        && (difference_bytes - samples).is_multiple_of(4)
}

/// Whether the header of a block with the right checksum can be decoded.
pub(in crate::mef) fn is_plausible(header: &BlockHeader) -> bool {
    let samples = header.number_of_samples.get();
    samples == 0
        || (samples <= MAX_BLOCK_SAMPLES && can_hold(header.difference_bytes.get(), samples))
}

/// The statistics in plain text (format section 10.4): level 1 goes first where
/// both are marked.
fn statistics(header: &BlockHeader, keys: &Keys) -> Result<[u8; 256], BlockError> {
    let mut statistics = header.statistics;
    let level = match header.flags {
        flags if flags & FLAG_ENCRYPTED_1 != 0 => 1,
        flags if flags & FLAG_ENCRYPTED_2 != 0 => 2,
        _ => return Ok(statistics),
    };
    let (encrypted, _) = statistics.split_at_mut(ENCRYPTED_STATISTICS);
    let decrypted = keys.decrypt(level, encrypted);
    decrypted.map_err(|_| BlockError::Encrypted { level })?;
    Ok(statistics)
}

fn pack(symbol: u8, frequency: u8, cumulative: u16) -> u32 {
    u32::from(cumulative) << 16 | u32::from(frequency) << 8 | u32::from(symbol)
}

/// The range decoder proper: yields one symbol a call, for ever.
///
/// Whatever the bytes are, every step is defined: after normalisation the range
/// is above `BOTTOM`, so that the quotient by a total of at most 65280 is at
/// least 128 and nothing divides by zero.
struct SymbolReader<'a> {
    table: &'a [u32; TABLE_LENGTH],
    total: u32,
    /// `ceil(2^64 / total)`: the high half of a product with it is the exact
    /// quotient for every 32-bit dividend (Granlund and Montgomery, 1994).
    reciprocal: u64,
    payload: &'a [u8],
    position: usize,
    input: u32,
    low: u32,
    range: u32,
}

impl<'a> SymbolReader<'a> {
    fn new(table: &'a [u32; TABLE_LENGTH], total: u32, payload: &'a [u8]) -> Self {
        let mut reader = Self {
            table,
            total,
            reciprocal: (u64::MAX / u64::from(total)).wrapping_add(1),
            payload,
            position: 0,
            input: 0,
            low: 0,
            range: 0x80,
        };
        reader.input = reader.next_byte();
        reader.low = reader.input >> 1;
        reader
    }

    /// The next payload byte; past the end of the block, zero.
    fn next_byte(&mut self) -> u32 {
        let byte = self.payload.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        u32::from(byte)
    }

    #[inline(always)]
    fn normalise(&mut self) {
        while self.range <= BOTTOM {
            self.low = self.low << 8 | (self.input << 7) & 0xFF;
            self.input = self.next_byte();
            self.low |= self.input >> 1;
            self.range <<= 8;
        }
    }

    #[inline(always)]
    fn next_symbol(&mut self) -> u8 {
        self.normalise();
        let unit = self.divide_by_total(self.range);
        let count = (self.low / unit).min(self.total - 1);
        let entry = self.table[usize::from(count as u16)];
        let symbol = entry as u8;
        let below = unit.wrapping_mul(entry >> 16);
        self.low = self.low.wrapping_sub(below);
        self.range = if symbol < u8::MAX {
            unit * (entry >> 8 & 0xFF)
        } else {
            // The last symbol takes the remainder of the range.
            self.range - below
        };
        symbol
    }

    #[inline(always)]
    fn divide_by_total(&self, dividend: u32) -> u32 {
        if self.total == 1 {
            // 2^64 does not fit the reciprocal.
            return dividend;
        }
        ((u128::from(dividend) * u128::from(self.reciprocal)) >> 64) as u32
    }
}

/// Rebuilds `count` samples from at most `coded_symbols` symbols.
///
/// Differences are added with 32-bit wrap-around, since the reference encoder
/// stores a step over the whole range as a small wrapped difference.
fn integrate(
    mut symbols: SymbolReader<'_>,
    coded_symbols: u32,
    count: u32,
    samples: &mut Vec<i32>,
) -> Result<(), BlockError> {
    // The header check guarantees at least count + 3 symbols: four for the first
    // sample and one for each other. Only key samples can exhaust the rest.
    let mut spare_symbols = coded_symbols - (count + 3);
    if samples.try_reserve(count as usize).is_err() {
        return Err(BlockError::Memory {
            bytes: u64::from(coded_symbols),
            samples: count,
        });
    }
    let mut value = full_value(&mut symbols);
    samples.push(value);
    for _ in 1..count {
        let symbol = symbols.next_symbol();
        value = if symbol == KEY_SAMPLE {
            spare_symbols = spare_symbols.checked_sub(4).ok_or(BlockError::StreamEnd)?;
            full_value(&mut symbols)
        } else {
            value.wrapping_add(i32::from(symbol as i8))
        };
        samples.push(value);
    }
    Ok(())
}

fn full_value(symbols: &mut SymbolReader<'_>) -> i32 {
    i32::from_le_bytes(std::array::from_fn(|_| symbols.next_symbol()))
}

/// Undoes the lossy scale, then the trend, rounding after each
/// (format section 8.7).
fn undo_scale_and_trend(header: &BlockHeader, samples: &mut [i32]) {
    let scale = f64::from(header.scale_factor.get());
    if scale > 1.0 {
        for sample in &mut *samples {
            *sample = round(f64::from(*sample) * scale);
        }
    }
    let slope = f64::from(header.detrend_slope.get());
    let intercept = f64::from(header.detrend_intercept.get());
    if slope != 0.0 || intercept != 0.0 {
        for (sample, ordinal) in samples.iter_mut().zip(1u32..) {
            *sample = round((f64::from(*sample) + slope * f64::from(ordinal)) + intercept);
        }
    }
}

/// The format's rounding: half away from zero by adding one half and cutting,
/// clamped to +-(2^31 - 1). The least integer is never produced.
fn round(value: f64) -> i32 {
    const LIMIT: f64 = i32::MAX as f64;
    let shifted = if value >= 0.0 {
        value + 0.5
    } else {
        value - 0.5
    };
    shifted.clamp(-LIMIT, LIMIT) as i32
}

#[cfg(test)]
mod tests;
