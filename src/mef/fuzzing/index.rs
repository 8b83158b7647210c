//! The block index, read and held against its data file.

use std::collections::HashSet;

use zerocopy::FromBytes;

use super::common::{Controls, Counted, seal, u32_at};
use super::oracle;
use crate::mef::index::{BlockEntry, BlockIndex, duration_us};
use crate::mef::layout::{BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, INDEX_ENTRY_BYTES};
use crate::mef::reconcile::{Reconciled, Reconciler};
use crate::mef::red::is_plausible;
use crate::mef::time;

/// Bits of the first byte of an input.
pub(super) mod mode {
    /// The blocks' checksums stay as they are.
    pub(crate) const RAW: u8 = 1;
    /// Not all entries are vouched for by a checksum.
    pub(crate) const DISTRUST: u8 = 2;
    /// Entries point where blocks are.
    pub(crate) const ALIGNED: u8 = 4;
    /// Entries say what blocks say.
    pub(crate) const TRUE: u8 = 8;
    /// The file was written to a moment ago.
    pub(crate) const GROWING: u8 = 16;
    /// The index ends within an entry.
    pub(crate) const TORN: u8 = 32;
}

const RATES: [f64; 8] = [256.0, 1.0, 1e6, 0.001, 32_000.0, 249.7, 1e-300, 1e300];
/// Bytes of an input before the entries.
pub(super) const CONTROL_BYTES: usize = 12;

/// The input is: mode, number of entries, number of those that are vouched for,
/// rate, eight bytes of recording time offset, the entries, and the blocks.
pub fn index(input: &[u8]) {
    let mut controls = Controls(input);
    let [mode, entries, trusted, rate] = controls.array();
    let is = |what| mode & what != 0;
    let offset = i64::from_le_bytes(controls.array());
    let rate = RATES[usize::from(rate) % RATES.len()];
    let torn = if is(mode::TORN) { 5 } else { 0 };
    let body = controls.take(usize::from(entries & 63) * INDEX_ENTRY_BYTES + torn);
    let mut body = body.to_vec();
    let mut data = vec![0; HEADER_BYTES];
    data.extend_from_slice(controls.0);
    let blocks = blocks(&mut data, !is(mode::RAW));
    for (entry, &at) in body.chunks_exact_mut(INDEX_ENTRY_BYTES).zip(&blocks) {
        if is(mode::ALIGNED) {
            entry[..8].copy_from_slice(&(at as u64).to_le_bytes());
        }
        if is(mode::TRUE) {
            entry[8..16].copy_from_slice(&data[at + 40..at + 48]);
            entry[24..28].copy_from_slice(&data[at + 32..at + 36]);
            entry[28..32].copy_from_slice(&data[at + 36..at + 40]);
        }
    }
    if !is(mode::RAW) {
        for entry in body.chunks_exact(INDEX_ENTRY_BYTES) {
            let at = u64::from_le_bytes(*entry.first_chunk().unwrap());
            seal_block(&mut data, usize::try_from(at).unwrap_or(usize::MAX));
        }
    }

    let parsed = BlockIndex::parse(&body, offset, rate);
    assert!(parsed.len() <= body.len() / INDEX_ENTRY_BYTES);
    assert_eq!(
        parsed.trailing_bytes(),
        (body.len() % INDEX_ENTRY_BYTES) as u64
    );
    check_index(&parsed, rate, u64::MAX);
    let trusted = if is(mode::DISTRUST) {
        usize::from(trusted).min(parsed.len())
    } else {
        parsed.len()
    };
    let times = (offset, rate);
    let reconciled = reconcile(&parsed, &data, times, trusted, is(mode::GROWING));
    check(&parsed, &reconciled, &data);
    check_index(&reconciled.index, rate, data.len() as u64);
    if trusted == 0 && reconciled.unknown.is_empty() {
        the_header_wins(&reconciled, &data, times);
    }
    let again = reconcile(&parsed, &data, times, trusted, is(mode::GROWING));
    assert_eq!(again.index, reconciled.index);
    assert_eq!(again.repairs, reconciled.repairs);
    assert_eq!(again.unknown, reconciled.unknown);
}

/// Where blocks follow each other from the header on.
fn blocks(data: &mut [u8], sealed: bool) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(length) = u32_at(data, at + 36)
        && length as usize >= BLOCK_HEADER_BYTES
        && at + length as usize <= data.len()
    {
        if sealed {
            seal_block(data, at);
        }
        blocks.push(at);
        at += length as usize;
    }
    blocks
}

/// Puts the checksum of a block right, if one can be there.
fn seal_block(data: &mut [u8], at: usize) {
    let Some(block) = data.get_mut(at..) else {
        return;
    };
    let length = u32_at(block, 36).map_or(0, |length| length as usize);
    if length >= BLOCK_HEADER_BYTES
        && let Some(block) = block.get_mut(..length)
    {
        seal(block);
    }
}

fn reconcile(
    parsed: &BlockIndex,
    data: &[u8],
    times: (i64, f64),
    trusted: usize,
    growing: bool,
) -> Reconciled {
    let data = Counted::new(data);
    let mut progress = || {};
    let mut index = parsed.clone();
    if growing {
        let reconciler = Reconciler::new(&data, times, trusted, 0, &mut progress);
        let whole = reconciler.unwrap().whole_blocks(&index).unwrap();
        assert!(whole <= index.len());
        index = index.truncated(whole, times.1);
    }
    let reconciler = Reconciler::new(&data, times, trusted, 0, &mut progress);
    let reconciled = reconciler.unwrap().reconcile(index).unwrap();
    // Blocks four times on average, headers now and then, padding once; and what
    // asks for a growing file's whole blocks has a budget of its own.
    let passes = if growing { 10 } else { 6 };
    let looks = 8 * (parsed.len() + reconciled.index.len() + 2) * BLOCK_HEADER_BYTES;
    let size = data.bytes.len();
    assert!(data.taken.get() <= (passes * size + looks) as u64);
    reconciled
}

/// What every index promises, whatever it was made of.
///
/// Of a data file of `data_bytes`, entries beyond its end do not move the end of the
/// data.
fn check_index(index: &BlockIndex, rate: f64, data_bytes: u64) {
    assert!(index.is_consistent());
    let entries: Vec<BlockEntry> = index.iter().collect();
    assert_eq!(entries.len(), index.len());
    assert_eq!(index.get(entries.len()), None);
    assert_eq!(index.is_empty(), entries.is_empty());
    let end = |entry: &BlockEntry| {
        entry
            .start_uutc
            .saturating_add(duration_us(entry.samples, rate))
    };
    assert_eq!(index.end_uutc(), entries.iter().map(end).max());
    assert_eq!(index.start_uutc(), entries.first().map(|e| e.start_uutc));
    let ends = entries.iter().map(BlockEntry::file_end);
    let data_end = ends.filter(|&end| end <= data_bytes).max();
    assert_eq!(
        index.data_end(),
        data_end.map_or(HEADER_BYTES as u64, |end| end.max(HEADER_BYTES as u64))
    );
    for (number, entry) in entries.iter().enumerate().take(6) {
        assert!(duration_us(entry.samples, rate) >= 0);
        let (from, until) = (entry.start_uutc, end(entry));
        let candidates = index.candidates(from, until);
        assert!(candidates.start <= candidates.end && candidates.end <= entries.len());
        for (other, block) in entries.iter().enumerate() {
            let overlaps = block.start_uutc < until && end(block) > from;
            assert!(!overlaps || candidates.contains(&other));
        }
        let after = index.first_start_after(from, number);
        let expected = entries
            .iter()
            .skip(number)
            .position(|e| e.start_uutc > from);
        assert_eq!(after, expected.map(|position| position + number));
    }
    let half = index.truncated(entries.len() / 2, rate);
    assert!(half.is_consistent());
    assert_eq!(
        half.iter().collect::<Vec<_>>(),
        entries[..entries.len() / 2]
    );
}

/// What holding an index against its data promises.
fn check(parsed: &BlockIndex, reconciled: &Reconciled, data: &[u8]) {
    let Reconciled {
        index,
        repairs,
        unknown,
    } = reconciled;
    let most_blocks = data.len() / BLOCK_HEADER_BYTES;
    assert!(repairs.recovered <= most_blocks as u64);
    assert!(repairs.dropped <= parsed.len() as u64);
    assert!(index.len() <= parsed.len() + repairs.recovered as usize);
    // By its length, and by what else it says.
    assert!(repairs.corrected <= 2 * index.len() as u64);
    assert!(repairs.torn_bytes <= data.len() as u64);
    // One more at the end of the file.
    assert!(unknown.len() <= 101);
    let mut end = HEADER_BYTES as u64;
    for unknown in unknown {
        assert!(unknown.bytes > 0 && unknown.file_offset >= end);
        end = unknown.file_offset + unknown.bytes;
        assert!(end <= data.len() as u64);
    }
}

/// Where a whole block is at the place of an entry, the index has what the block
/// says: in that entry, or in another if the block is a copy.
fn the_header_wins(reconciled: &Reconciled, data: &[u8], (offset, _): (i64, f64)) {
    let length_at = |entry: BlockEntry| {
        let at = usize::try_from(entry.file_offset).unwrap_or(usize::MAX);
        let length = u32_at(data, at.saturating_add(36)).unwrap_or(0) as usize;
        length.min(data.len())
    };
    let cost: usize = reconciled.index.iter().map(length_at).sum();
    if cost > 2 * data.len() {
        // Blocks that overlap may be too many to be looked at.
        return;
    }
    let entries = reconciled.index.iter();
    let facts: HashSet<_> = entries.map(|e| (e.start_uutc, e.samples)).collect();
    for entry in reconciled.index.iter() {
        let start = usize::try_from(entry.file_offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(entry.bytes as usize);
        let Some(block) = data.get(start..end) else {
            continue;
        };
        let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else {
            continue;
        };
        let right = header.block_bytes.get() == entry.bytes
            && is_plausible(header)
            && header.crc.get() == oracle::crc(&block[4..]);
        if right {
            let start = time::absolute(header.start_time.get(), offset);
            let told = (
                start.unwrap_or(time::NO_TIME),
                header.number_of_samples.get(),
            );
            assert!(facts.contains(&told));
        }
    }
}
