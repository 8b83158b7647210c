//! Opens a channel that exists, and finds out where its next block goes
//! (format sections 13 and 16, rule 10).
//!
//! New blocks go to the last segment if it is whole: data, index and metadata
//! agree, and nothing stands behind the last block. A segment that a crash has
//! torn is left as it is, and the channel goes on in a new one.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zerocopy::FromBytes;

use super::WriteError;
use super::channel::Run;
use super::file::{GrowingFile, OpenFile};
use super::segment::{SegmentWriter, file_path};
use super::template::{FileKind, Template};
use super::totals::Totals;
use crate::mef::crc::{CRC_NOT_COMPUTED, crc32};
use crate::mef::header::{header_crc_is_right, parse_header, verify_version};
use crate::mef::layout::{
    BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, IndexEntry, METADATA_BYTES, UniversalHeader,
};
use crate::mef::red::MAX_BLOCK_BYTES;
use crate::mef::session::{read_channel, segments_of};
use crate::mef::store::Store;
use crate::mef::time::NO_TIME;
use crate::mef::{Channel, MefError, OpenOptions, Password};

/// Most bytes behind the metadata that are kept when they are written anew.
const MOST_TAIL_BYTES: u64 = 1 << 20;

/// A channel as it stands on disk.
pub(super) struct Existing {
    pub(super) folder: PathBuf,
    pub(super) template: Template,
    /// The run that the block with the latest end belongs to.
    pub(super) run: Option<Run>,
    pub(super) next_segment: u32,
    /// Samples in all segments but `segment`.
    pub(super) finished_samples: u64,
    /// The last segment, if new blocks can go there.
    pub(super) segment: Option<SegmentWriter>,
}

/// Opens the channel `name` of a session to be extended.
pub(super) fn open_channel(
    store: &Store,
    name: &str,
    options: &OpenOptions,
) -> Result<Existing, WriteError> {
    let relative = PathBuf::from(format!("{name}.timd"));
    let folder = store.path(&relative);
    let nothing = || WriteError::NothingToContinue {
        path: folder.clone(),
    };
    let segments = segments_of(store, &relative)?;
    let (number, stem) = segments.last().ok_or_else(nothing)?;
    let next_segment = u32::try_from(*number)
        .ok()
        .and_then(|number| number.checked_add(1))
        .ok_or(WriteError::TooManySegments)?;
    let password = options.password.as_ref();
    let segment_folder = folder.join(format!("{stem}.segd"));
    let segment = match open_segment(segment_folder, stem, password) {
        Ok(segment) => Some(segment),
        Err(Refusal::Error(error)) => return Err(error),
        Err(Refusal::Leave(reason)) => {
            let channel = name;
            tracing::warn!(channel, segment = stem, reason, "a new segment is begun");
            None
        }
    };
    let channel = match read_channel(store, name, options)? {
        Some(Ok(channel)) => channel,
        Some(Err(unreadable)) => return Err(unreadable.error.into()),
        None => return Err(nothing()),
    };
    // The next segment says how many samples there are before it.
    let known = |stem: &str| channel.segments.iter().any(|segment| segment.stem == stem);
    let mut unreadable = channel.unreadable.iter();
    if let Some(lost) = unreadable.find(|segment| !known(&segment.stem)) {
        return Err(WriteError::UnreadableSegment {
            path: folder.join(format!("{}.segd", lost.stem)),
            error: lost.error.clone(),
        });
    }
    let template = match &segment {
        Some(segment) => segment.template.clone(),
        None => template_of(store, name, options)?.ok_or_else(nothing)?,
    };
    let in_segment = segment.as_ref().map_or(0, SegmentWriter::samples);
    Ok(Existing {
        run: last_run(&channel),
        finished_samples: channel.stored_samples().saturating_sub(in_segment),
        folder,
        template,
        next_segment,
        segment,
    })
}

/// The metadata of the newest segment of a channel that has some that can be
/// read; nothing, where there is no segment.
pub(super) fn template_of(
    store: &Store,
    channel: &str,
    options: &OpenOptions,
) -> Result<Option<Template>, WriteError> {
    let relative = PathBuf::from(format!("{channel}.timd"));
    let mut newest_error = None;
    for (_, stem) in segments_of(store, &relative)?.into_iter().rev() {
        let folder = store.path(&relative).join(format!("{stem}.segd"));
        let path = file_path(&folder, &stem, FileKind::Metadata);
        let template = read_metadata(&path)
            .map_err(WriteError::io(&path))
            .and_then(|(bytes, _)| Template::read(&bytes, &path, options.password.as_ref()));
        match template {
            Ok(template) => return Ok(Some(template)),
            Err(error) => newest_error = newest_error.or(Some(error)),
        }
    }
    newest_error.map_or(Ok(None), Err)
}

/// The run of the block that ends last; earlier blocks of it do not matter.
fn last_run(channel: &Channel) -> Option<Run> {
    let blocks = channel.segments.iter().flat_map(|s| s.index.iter());
    let last = blocks.max_by_key(|block| channel.end_of(block))?;
    Some(Run {
        start: last.start_uutc,
        encoded: u64::from(last.samples),
    })
}

/// Why a segment takes no more blocks.
enum Refusal {
    /// Nothing can be written.
    Error(WriteError),
    /// It is not whole, and the channel can go on in another.
    Leave(&'static str),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Error(error)
    }
}

/// What breaks the format is left as it is; a password that is missing or wrong
/// is for the caller to mend.
impl From<MefError> for Refusal {
    fn from(error: MefError) -> Self {
        if error.is_about_password() {
            return Self::Error(error.into());
        }
        Self::Leave("a file breaks the format")
    }
}

fn open_segment(
    folder: PathBuf,
    stem: &str,
    password: Option<&Password>,
) -> Result<SegmentWriter, Refusal> {
    let path = |kind| file_path(&folder, stem, kind);
    let (data_path, index_path) = (path(FileKind::Data), path(FileKind::Index));
    // The lock comes first: what is read under it stays true.
    let data = open_file(&data_path)?;
    data.lock(&data_path)?;
    let index = open_file(&index_path)?;
    let metadata_path = path(FileKind::Metadata);
    let (metadata, metadata_tail) = match read_metadata(&metadata_path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::Leave("it has no metadata"));
        }
        Err(error) => return Err(WriteError::io(&metadata_path)(error).into()),
    };
    let template = match Template::read(&metadata, &metadata_path, password) {
        Err(WriteError::Unreadable(error)) => return Err(error.into()),
        template => template?,
    };

    let data_bytes = size(&data, &data_path)?;
    let data_header = read_header(&data, &data_path, "tdat")?;
    let index_bytes = read_all(&index, &index_path)?;
    let index_header = parse_header(&index_bytes, "tidx", &index_path)?.clone();
    for (header, path) in [(&data_header, &data_path), (&index_header, &index_path)] {
        verify_version(header, path)?;
        check_header(header, &template)?;
    }
    let body = index_bytes.get(HEADER_BYTES..).unwrap_or_default();
    let entries = <[IndexEntry]>::ref_from_bytes(body)
        .map_err(|_| Refusal::Leave("its index ends in the midst of an entry"))?;
    let first = entries.first().ok_or(Refusal::Leave("it has no blocks"))?;
    let totals = add_up(entries, data_bytes, &template)?;
    if let Some(last) = entries.last() {
        check_block(&data, &data_path, last)?;
    }

    let counted = |header: &UniversalHeader| {
        u64::try_from(header.number_of_entries.get()) == Ok(totals.blocks)
    };
    let index_counted = counted(&index_header);
    let stored = index_header.body_crc.get();
    if index_counted && stored != CRC_NOT_COMPUTED && stored != crc32(body) {
        return Err(Refusal::Leave("its index is damaged"));
    }
    let data_counted = counted(&data_header);
    let mut data = GrowingFile::new(data_path, data, data_header, data_bytes);
    let size = index_bytes.len() as u64;
    let mut index = GrowingFile::new(index_path, index, index_header, size);
    // Headers that were not written after the last blocks say nothing of them.
    if !data_counted {
        data.recompute_crc(data_bytes)?;
    }
    if !index_counted {
        index.recompute_crc(size)?;
    }
    let start_sample = template.section_2().start_sample.get();
    let channel_wide = start_sample > 0 && first.start_sample.get() == start_sample;
    Ok(SegmentWriter {
        folder,
        stem: stem.to_owned(),
        visible_as: None,
        data,
        index,
        template,
        metadata_tail,
        totals,
        first_sample: if channel_wide { start_sample } else { 0 },
        blocks: Vec::new(),
        entries: Vec::new(),
    })
}

/// Adds up the blocks, which must stand one behind the other and fill the data
/// file.
fn add_up(entries: &[IndexEntry], data_bytes: u64, template: &Template) -> Result<Totals, Refusal> {
    let section = template.section_2();
    let fs = section.sampling_frequency.get();
    let offset = template.recording_time_offset();
    // Blocks do not say how much of it they need without being read; zero and
    // the greatest number are what writers store who do not know.
    let declared = match section.maximum_difference_bytes.get() {
        0 | u32::MAX => None,
        declared => Some(declared),
    };
    let mut totals = Totals::default();
    let mut place = HEADER_BYTES as u64;
    for entry in entries {
        let bytes = entry.block_bytes.get();
        let follows = u64::try_from(entry.file_offset.get()) == Ok(place);
        if !follows || (bytes as usize) < BLOCK_HEADER_BYTES {
            return Err(Refusal::Leave("its blocks do not stand in a row"));
        }
        if entry.start_time.get() == NO_TIME {
            return Err(Refusal::Leave("a block has no time"));
        }
        place += u64::from(bytes);
        totals.add(entry, declared, fs, offset);
    }
    if place != data_bytes {
        return Err(Refusal::Leave("its index and its data end differently"));
    }
    Ok(totals)
}

/// The header must be whole, and of the same segment as the metadata.
fn check_header(header: &UniversalHeader, template: &Template) -> Result<(), Refusal> {
    if !header_crc_is_right(header) {
        return Err(Refusal::Leave("a header is damaged"));
    }
    let level = template.header().level_uuid;
    let known = level != [0; 16] && header.level_uuid != [0; 16];
    if known && header.level_uuid != level {
        return Err(Refusal::Leave("its files belong to different segments"));
    }
    Ok(())
}

/// The last block must be what its index entry says: behind anything else, a new
/// block could not be found.
fn check_block(data: &OpenFile, path: &Path, entry: &IndexEntry) -> Result<(), Refusal> {
    let bytes = entry.block_bytes.get();
    if bytes > MAX_BLOCK_BYTES {
        return Err(Refusal::Leave("its last block is too large"));
    }
    // Within the file, as the sum of all blocks is its size.
    let mut block = vec![0; bytes as usize];
    let place = u64::try_from(entry.file_offset.get()).unwrap_or(u64::MAX);
    data.read_exact_at(&mut block, place)
        .map_err(WriteError::io(path))?;
    let header = BlockHeader::ref_from_prefix(&block);
    let covered = block.get(size_of::<u32>()..).unwrap_or_default();
    let whole = header.is_ok_and(|(header, _)| {
        header.block_bytes == entry.block_bytes
            && header.number_of_samples == entry.number_of_samples
            && header.start_time == entry.start_time
            && header.crc.get() == crc32(covered)
    });
    if whole {
        return Ok(());
    }
    Err(Refusal::Leave("its last block is damaged"))
}

fn open_file(path: &Path) -> Result<OpenFile, Refusal> {
    match OpenFile::open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Refusal::Leave("a file is missing"))
        }
        Err(error) => Err(WriteError::io(path)(error).into()),
    }
}

/// Length of a regular file.
fn size(file: &OpenFile, path: &Path) -> Result<u64, Refusal> {
    let status = file.metadata().map_err(WriteError::io(path))?;
    if !status.is_file() {
        return Err(Refusal::Leave("a file is none"));
    }
    Ok(status.len())
}

fn read_header(file: &OpenFile, path: &Path, kind: &str) -> Result<UniversalHeader, Refusal> {
    let mut bytes = [0; HEADER_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Refusal::Leave("a file is shorter than its header"));
        }
        read => read.map_err(WriteError::io(path))?,
    }
    Ok(parse_header(&bytes, kind, path)?.clone())
}

fn read_all(file: &OpenFile, path: &Path) -> Result<Vec<u8>, Refusal> {
    let length = size(file, path)?;
    let mut bytes = Vec::new();
    let read = (&**file).take(length).read_to_end(&mut bytes);
    read.map_err(WriteError::io(path))?;
    Ok(bytes)
}

/// A metadata file, and what stands behind it.
fn read_metadata(path: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let file = fs::File::open(path)?;
    let most = METADATA_BYTES as u64 + MOST_TAIL_BYTES;
    if !file.metadata()?.is_file() || file.metadata()?.len() > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let tail = bytes.split_off(bytes.len().min(METADATA_BYTES));
    Ok((bytes, tail))
}
