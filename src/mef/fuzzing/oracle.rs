//! Plain versions of the checksum and of the block decoder, written from the
//! format's numbered steps (sections 4, 8.5 and 8.7) and from nothing else.

use crate::mef::crypto::Keys;
use crate::mef::error::BlockError;
use crate::mef::red::MAX_BLOCK_SAMPLES;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut step = 0;
        while step < 8 {
            let out = value & 1;
            value >>= 1;
            if out == 1 {
                value ^= 0xEB31_D82E;
            }
            step += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

/// The checksum in its table-driven form.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xFFFF_FFFF, |crc, &byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize]
    })
}

/// Decodes a block, or says why not.
pub(super) fn decode(block: &[u8], keys: &Keys) -> Result<Vec<i32>, BlockError> {
    let field = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
    let length = block.len() as u32;
    if block.len() < 304 {
        return Err(BlockError::Length(length));
    }
    let (difference_bytes, n, block_bytes) = (field(28), field(32), field(36));
    if block_bytes != length {
        return Err(BlockError::Length(block_bytes));
    }
    let (stored, computed) = (field(0), crc(&block[4..]));
    if stored != computed {
        return Err(BlockError::Crc { stored, computed });
    }
    if n == 0 {
        return Ok(Vec::new());
    }
    if n > MAX_BLOCK_SAMPLES {
        return Err(BlockError::TooManySamples(n));
    }
    let (wide, samples) = (u64::from(difference_bytes), u64::from(n));
    if wide < samples + 4 || wide > 5 * samples || !(wide - samples).is_multiple_of(4) {
        return Err(BlockError::DifferenceBytes {
            difference_bytes,
            samples: n,
        });
    }
    let [slope, intercept, scale] = [16, 20, 24].map(|at| f32::from_bits(field(at)));
    // A scale of NaN is not applied, and so is one that is not above one.
    if !slope.is_finite() || !intercept.is_finite() || (scale > 1.0 && !scale.is_finite()) {
        return Err(BlockError::NotFinite);
    }
    let mut statistics: [u8; 256] = block[48..304].try_into().unwrap();
    for (flag, level) in [(2, 1), (4, 2)] {
        if block[4] & flag != 0 {
            keys.decrypt(level, &mut statistics[..16])
                .map_err(|_| BlockError::Encrypted { level })?;
            break;
        }
    }
    let stream = stream(&statistics, &block[304..], difference_bytes - 1)?;
    let mut samples = integrate(&stream, n as usize)?;
    for (sample, c) in samples.iter_mut().zip(1u32..) {
        if scale > 1.0 {
            *sample = round(f64::from(*sample) * f64::from(scale));
        }
        if slope != 0.0 || intercept != 0.0 {
            let trend = f64::from(slope) * f64::from(c);
            *sample = round((f64::from(*sample) + trend) + f64::from(intercept));
        }
    }
    Ok(samples)
}

/// The coded symbols, all of them.
fn stream(statistics: &[u8; 256], payload: &[u8], symbols: u32) -> Result<Vec<u8>, BlockError> {
    let mut cum = [0u32; 257];
    for (b, &frequency) in statistics.iter().enumerate() {
        cum[b + 1] = cum[b] + u32::from(frequency);
    }
    let total = cum[256];
    if total == 0 {
        return Err(BlockError::Statistics);
    }
    let mut symbol_at = Vec::with_capacity(total as usize);
    for (s, &end) in (0u8..=255).zip(&cum[1..]) {
        symbol_at.resize(end as usize, s);
    }
    let mut bytes = payload.iter();
    let mut next_byte = || u32::from(bytes.next().copied().unwrap_or(0));
    let mut input = next_byte();
    let mut low = input >> 1;
    let mut range = 0x80u32;
    let mut stream = Vec::with_capacity(symbols as usize);
    for _ in 0..symbols {
        while range <= 0x0080_0000 {
            low = (low << 8) | ((input << 7) & 0xFF);
            input = next_byte();
            low |= input >> 1;
            range <<= 8;
        }
        let r = range / total;
        let cc = (low / r).min(total - 1);
        let s = usize::from(symbol_at[cc as usize]);
        low = low.wrapping_sub(r.wrapping_mul(cum[s]));
        range = if s < 255 {
            r * u32::from(statistics[s])
        } else {
            range - r * cum[255]
        };
        stream.push(s as u8);
    }
    Ok(stream)
}

fn integrate(stream: &[u8], n: usize) -> Result<Vec<i32>, BlockError> {
    let mut stream = stream;
    let full = |stream: &mut &[u8]| {
        let (value, rest) = stream.split_first_chunk().ok_or(BlockError::StreamEnd)?;
        *stream = rest;
        Ok(i32::from_le_bytes(*value))
    };
    let mut samples = vec![full(&mut stream)?];
    while samples.len() < n {
        let (&byte, rest) = stream.split_first().ok_or(BlockError::StreamEnd)?;
        stream = rest;
        let value = if byte == 0x80 {
            full(&mut stream)?
        } else {
            samples[samples.len() - 1].wrapping_add(i32::from(byte as i8))
        };
        samples.push(value);
    }
    Ok(samples)
}

fn round(v: f64) -> i32 {
    if v >= 0.0 {
        if v + 0.5 >= 2_147_483_647.0 {
            return i32::MAX;
        }
        (v + 0.5) as i32
    } else {
        if v - 0.5 <= -2_147_483_647.0 {
            return -i32::MAX;
        }
        (v - 0.5) as i32
    }
}
