//! A segment's index held against its blocks, and what its headers declare.

use std::io;

use zerocopy::FromBytes;

use super::{Check, Problem, both_absolute};
use crate::mef::crc::crc32;
use crate::mef::error::{BlockError, IndexField};
use crate::mef::index::duration_us;
use crate::mef::layout::{
    BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, INDEX_ENTRY_BYTES, IndexEntry, UniversalHeader,
};
use crate::mef::recording::{Channel, Segment};
use crate::mef::red::MAX_BLOCK_BYTES;
use crate::mef::segment::{SegmentFiles, is_growing};
use crate::mef::store::{ReadAt, StoredFile};
use crate::mef::time;

/// How often each byte of the data file may be read, on average.
const BUDGET_READS: u64 = 4;
/// "No entry" for an extreme of a block.
const NO_EXTREME: i32 = i32::MIN;

impl Check<'_> {
    /// Checks the index of a segment against its blocks, and what is declared.
    pub(super) fn segment(&mut self, channel: &Channel, segment: &Segment) {
        let files = SegmentFiles::new(&channel.name, &segment.stem);
        let opened = ["tmet", "tidx", "tdat"].map(|kind| self.store.file(files.name(kind)));
        let [Ok(metadata), Ok(index), Ok(data)] = opened else {
            // Gone since the session was opened.
            for error in opened.into_iter().filter_map(Result::err) {
                self.unreadable(&error);
            }
            return;
        };
        let entries = match index.read(HEADER_BYTES as u64, u64::MAX) {
            Ok(body) => body,
            Err(error) => return self.unreadable(&error),
        };
        if let Err(error) = self.blocks(segment, &index, &data, &entries) {
            self.unreadable(&data.error(&error));
        }
        self.declarations(segment, &metadata);
        self.spans(channel, segment, &[&metadata, &index, &data]);
    }

    fn blocks(
        &mut self,
        segment: &Segment,
        index: &StoredFile,
        data: &StoredFile,
        entries: &[u8],
    ) -> io::Result<()> {
        let offset = segment.recording_time_offset;
        let (chunks, rest) = entries.as_chunks::<INDEX_ENTRY_BYTES>();
        let mut end = HEADER_BYTES as u64;
        let mut samples = Vec::new();
        // Entries that overlap must not have the same bytes read again and again.
        let size = data.size()?;
        let mut budget = size.saturating_mul(BUDGET_READS);
        for (number, bytes) in chunks.iter().enumerate() {
            let Ok(entry) = IndexEntry::ref_from_bytes(bytes) else {
                continue;
            };
            if entry.file_offset.get() <= 0 && [0, u32::MAX].contains(&entry.block_bytes.get()) {
                continue;
            }
            self.checked.blocks += 1;
            let place = (HEADER_BYTES + number * INDEX_ENTRY_BYTES) as u64;
            let start = u64::try_from(entry.file_offset.get()).unwrap_or(u64::MAX);
            if start != end {
                let field = "file offset";
                self.report(
                    index,
                    Some(place),
                    Problem::Entry {
                        entry: number,
                        field,
                    },
                );
            }
            let behind = start.saturating_add(u64::from(entry.block_bytes.get()));
            if behind <= size {
                let Some(left) = budget.checked_sub(behind - start) else {
                    // That it does not stand behind the one before it was told.
                    end = behind;
                    continue;
                };
                budget = left;
            }
            let block = match read_block(data, start, entry.block_bytes.get())? {
                Ok(block) => block,
                Err(error) => {
                    self.report(
                        data,
                        Some(start),
                        Problem::Block {
                            block: number,
                            error,
                        },
                    );
                    end = behind;
                    continue;
                }
            };
            end = start.saturating_add(block.len() as u64);
            if let Ok((header, _)) = BlockHeader::ref_from_prefix(&block) {
                for field in contradictions(entry, header, offset) {
                    self.report(
                        index,
                        Some(place),
                        Problem::Entry {
                            entry: number,
                            field,
                        },
                    );
                }
            }
            if self.deep {
                samples.clear();
                match self.decoder.decode(&block, &mut samples) {
                    Ok(_) => {
                        if !extremes_hold(entry, &block, &samples) {
                            let field = "extremes";
                            let problem = Problem::Entry {
                                entry: number,
                                field,
                            };
                            self.report(index, Some(place), problem);
                        }
                    }
                    // Whether it can be read is a matter of the password.
                    Err(BlockError::Encrypted { .. }) => {}
                    Err(error) => {
                        self.report(
                            data,
                            Some(start),
                            Problem::Block {
                                block: number,
                                error,
                            },
                        );
                    }
                }
            }
        }
        self.entry_counts(chunks.len(), &[index, data])?;
        if !rest.is_empty() {
            let place = (entries.len() - rest.len() + HEADER_BYTES) as u64;
            self.report(index, Some(place), Problem::Trailing(rest.len() as u64));
        }
        let size = data.size()?;
        if end < size && !is_growing(data) {
            self.report(data, Some(end), Problem::Unindexed(size - end));
        }
        Ok(())
    }

    /// Checks the number of entries that headers declare; negative is unknown.
    pub(super) fn entry_counts(&mut self, entries: usize, files: &[&StoredFile]) -> io::Result<()> {
        for file in files {
            let mut bytes = [0; HEADER_BYTES];
            file.read_at(&mut bytes, 0)?;
            let Ok(header) = UniversalHeader::ref_from_bytes(&bytes) else {
                continue;
            };
            let (declared, found) = (header.number_of_entries.get(), entries as i64);
            let stale = declared < found && is_growing(file);
            if declared >= 0 && declared != found && !stale {
                let what = "entries";
                let problem = Problem::Count {
                    what,
                    declared,
                    found,
                };
                self.report(file, Some(32), problem);
            }
        }
        Ok(())
    }

    fn declarations(&mut self, segment: &Segment, metadata: &StoredFile) {
        if segment.acquisition.scale().is_none() {
            let factor = segment.acquisition.units_conversion_factor;
            self.report(metadata, None, Problem::ConversionFactor(factor));
        }
        if is_growing(metadata) {
            return;
        }
        let declared = &segment.acquisition;
        let samples = i64::try_from(segment.index.total_samples()).unwrap_or(i64::MAX);
        let counts = [
            ("samples", declared.declared_samples, samples),
            (
                "blocks",
                declared.declared_blocks,
                segment.index.len() as i64,
            ),
        ];
        for (what, declared, found) in counts {
            // Some writers leave zero where they know nothing.
            let declared = declared.filter(|&declared| declared != 0);
            if let Some(declared) = declared.filter(|&declared| declared != found) {
                let problem = Problem::Count {
                    what,
                    declared,
                    found,
                };
                self.report(metadata, None, problem);
            }
        }
    }

    /// Checks that the headers' times span the blocks.
    fn spans(&mut self, channel: &Channel, segment: &Segment, files: &[&StoredFile]) {
        let offset = segment.recording_time_offset;
        let sample = duration_us(1, channel.sampling_frequency).max(1);
        let (Some(first), Some(last)) = (segment.index.start_uutc(), segment.index.end_uutc())
        else {
            return;
        };
        for file in files {
            let Ok(bytes) = file.read(0, HEADER_BYTES as u64) else {
                continue;
            };
            let Ok(header) = UniversalHeader::ref_from_bytes(&bytes) else {
                continue;
            };
            let comparable = |stored: i64| {
                // The blocks' times are relative to an offset that is locked.
                let known = offset.is_some() || time::is_relative(stored);
                let absolute = time::absolute(stored, offset.unwrap_or(0));
                absolute.filter(|_| known)
            };
            let start = comparable(header.start_time.get());
            let end = comparable(header.end_time.get());
            if start.is_some_and(|start| start > first.saturating_add(sample)) {
                self.report(
                    file,
                    Some(16),
                    Problem::Time("starts after its first block"),
                );
            }
            let short = end.is_some_and(|end| end < last.saturating_sub(sample));
            if short && !is_growing(file) {
                self.report(file, Some(24), Problem::Time("ends before its last block"));
            }
        }
    }
}

/// A block's bytes, whose checksum is right.
fn read_block(
    data: &StoredFile,
    offset: u64,
    bytes: u32,
) -> io::Result<Result<Vec<u8>, BlockError>> {
    let file_bytes = data.size()?;
    if offset
        .checked_add(u64::from(bytes))
        .is_none_or(|end| end > file_bytes)
    {
        return Ok(Err(BlockError::OutsideFile {
            offset,
            bytes,
            file_bytes,
        }));
    }
    if !(BLOCK_HEADER_BYTES as u32..=MAX_BLOCK_BYTES).contains(&bytes) {
        return Ok(Err(BlockError::Length(bytes)));
    }
    let mut block = vec![0; bytes as usize];
    let filled = data.read_at(&mut block, offset)?;
    block.truncate(filled);
    let Ok((header, _)) = BlockHeader::ref_from_prefix(&block) else {
        return Ok(Err(BlockError::Length(bytes)));
    };
    let (stored, length) = (header.crc.get(), header.block_bytes.get());
    let computed = crc32(block.get(size_of::<u32>()..).unwrap_or_default());
    Ok(if stored != computed {
        Err(BlockError::Crc { stored, computed })
    } else if length != bytes {
        Err(BlockError::IndexMismatch(IndexField::Bytes))
    } else {
        Ok(block)
    })
}

/// What an entry says otherwise than its block.
fn contradictions<'a>(
    entry: &IndexEntry,
    header: &BlockHeader,
    offset: Option<i64>,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let (told, begins) = (entry.start_time.get(), header.start_time.get());
    // One of them may be relative to an offset that nobody knows, and the other not.
    let same_start = told == begins
        || both_absolute(told, begins, offset).map_or_else(
            || told != time::NO_TIME && begins != time::NO_TIME,
            |(told, begins)| told == begins,
        );
    let same_samples = entry.number_of_samples == header.number_of_samples;
    [
        (same_start, "start time"),
        (same_samples, "number of samples"),
        (entry.block_flags == header.flags, "flags"),
    ]
    .into_iter()
    .filter(|&(same, _)| !same)
    .map(|(_, field)| field)
}

/// Whether the samples of a lossless block lie within the entry's extremes.
fn extremes_hold(entry: &IndexEntry, block: &[u8], samples: &[i32]) -> bool {
    let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else {
        return true;
    };
    let (least, greatest) = (
        entry.minimum_sample_value.get(),
        entry.maximum_sample_value.get(),
    );
    // Lossy samples lie slightly outside (format section 7.1).
    let lossy = header.scale_factor.get() > 1.0
        || header.detrend_slope.get() != 0.0
        || header.detrend_intercept.get() != 0.0;
    let unset = least == NO_EXTREME || greatest == NO_EXTREME;
    let inside = |sample: &i32| *sample == NO_EXTREME || (least..=greatest).contains(sample);
    lossy || unset || samples.iter().all(inside)
}
