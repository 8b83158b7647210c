//! Reading the metadata and the index of one segment (format sections 6 and 7).

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, SystemTimeError};

use serde::{Deserialize, Serialize};

use super::crc::{CRC_NOT_COMPUTED, crc32};
use super::crypto::{Access, Password};
use super::error::{Malformation, MefError};
use super::header::{header_crc_is_right, parse_header};
use super::identity::{FileIdentity, SegmentIdentity};
use super::index::{BlockIndex, duration_us, most_index_bytes};
use super::layout::{HEADER_BYTES, INDEX_ENTRY_BYTES, METADATA_BYTES, UniversalHeader};
use super::metadata::{SegmentMetadata, Subject, parse_metadata};
use super::reconcile::{Reconciled, Reconciler};
use super::recording::{Segment, UnreadableSegment};
use super::store::{ReadAt, Store, StoredFile};
use super::time;

/// A file that was written to so recently may be growing: what its end lacks is
/// still to come.
const GROWING: Duration = Duration::from_secs(10);

/// A file that was cut so recently may be in the midst of being written anew. What
/// nobody writes to any more is older, so that this bounds the wait for a whole
/// session.
const REWRITING: Duration = Duration::from_millis(250);
/// How often, and after what pause, it is looked at again: whoever goes on cutting
/// it must not hold a reader for ever.
const REWRITING_LOOKS: u32 = 100;
const REWRITING_PAUSE: Duration = Duration::from_millis(5);

/// A segment as it was found in its files, and what its metadata say of the
/// session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FoundSegment {
    pub(crate) segment: Segment,
    pub(crate) subject: Option<Subject>,
    pub(crate) access: Access,
    pub(crate) by_fallback: bool,
}

/// The files of a segment, named after its folder.
pub(crate) struct SegmentFiles {
    folder: PathBuf,
    stem: String,
}

/// The folder of a time-series channel, relative to the session.
pub(crate) fn channel_folder(channel: &str) -> String {
    format!("{channel}.timd")
}

impl SegmentFiles {
    /// Of a time-series channel.
    pub(crate) fn new(channel: &str, stem: &str) -> Self {
        Self::in_folder(channel_folder(channel).as_ref(), stem)
    }

    /// Of a channel by its folder.
    pub(crate) fn in_folder(channel: &Path, stem: &str) -> Self {
        Self {
            folder: channel.join(format!("{stem}.segd")),
            stem: stem.to_owned(),
        }
    }

    /// Their folder, relative to the session.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an extension, relative to the session.
    pub(crate) fn name(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.stem))
    }
}

/// Reads the segment `stem` of a channel.
pub(crate) fn read_segment(
    store: &Store,
    channel: &str,
    (number, stem): (u64, &str),
    password: Option<&Password>,
    progress: &mut dyn FnMut(),
) -> Result<FoundSegment, MefError> {
    let files = SegmentFiles::new(channel, stem);
    let (metadata_file, metadata) = read_metadata(store, &files, password)?;
    let data = store.file(files.name("tdat"))?;
    let index_file = store.file(files.name("tidx"))?;
    let identity = SegmentIdentity {
        metadata: FileIdentity::of(&metadata_file)?,
        index: FileIdentity::of(&index_file)?,
        data: FileIdentity::of(&data)?,
    };
    let facts = Facts {
        offset: metadata.recording_time_offset.unwrap_or(0),
        sampling_frequency: metadata.acquisition.sampling_frequency,
        level_uuid: metadata.level_uuid,
    };
    let data_header = read_header(&data, "tdat", &facts)?;
    let growing = is_growing(&data);
    let index_bytes = identity.index.size();
    let (reconciled, cut) = read_index(&index_file, &data, index_bytes, growing, &facts, progress)?;
    let index = reconciled.index;
    // Of a file that grows, the end is still to come; later it is looked at again.
    let unsettled = growing && (cut || reconciled.repairs.torn_bytes > 0);
    let tail = index.data_end();
    let is_to_come = |offset: u64| unsettled && offset >= tail;
    if !index.has_finite_durations() {
        let rate = facts.sampling_frequency;
        let reason = Malformation::SamplingFrequency(rate);
        return Err(MefError::malformed(metadata_file.path(), reason));
    }

    // Headers of growing files are stale; blocks that are there are there. A
    // damaged header says nothing.
    let told = header_crc_is_right(&data_header).then_some(&data_header);
    let told = |stored: fn(&UniversalHeader) -> i64| {
        told.and_then(|header| time::absolute(stored(header), facts.offset))
    };
    let earliest = [told(|header| header.start_time.get()), index.start_uutc()];
    let latest = [told(|header| header.end_time.get()), index.end_uutc()];
    let start_uutc = earliest.into_iter().flatten().min().or(metadata.start_uutc);
    let end_uutc = latest.into_iter().flatten().max().or(metadata.end_uutc);
    let (Some(start_uutc), Some(end_uutc)) = (start_uutc, end_uutc) else {
        return Err(MefError::malformed(data.path(), Malformation::NoTime));
    };
    let unknown = reconciled
        .unknown
        .iter()
        .filter(|unknown| !is_to_come(unknown.file_offset))
        .map(|unknown| UnreadableSegment {
            number,
            stem: stem.to_owned(),
            error: MefError::malformed(
                index_file.path(),
                Malformation::UnknownBytes {
                    offset: unknown.file_offset,
                    bytes: unknown.bytes,
                },
            ),
            not_before: unknown.not_before,
            not_after: unknown.not_after,
        })
        .collect();
    let span_uutc = span_of(&metadata, &index).unwrap_or((start_uutc, end_uutc));
    Ok(FoundSegment {
        access: metadata.access,
        by_fallback: metadata.by_fallback,
        subject: metadata.subject,
        segment: Segment {
            number,
            stem: stem.to_owned(),
            start_uutc,
            end_uutc,
            acquisition: metadata.acquisition,
            recording_time_offset: metadata.recording_time_offset,
            identity,
            index,
            repairs: reconciled.repairs,
            span_uutc,
            unknown,
            unsettled,
        },
    })
}

/// What a segment's metadata say of its other files.
struct Facts {
    /// Recording time offset; zero where it is locked.
    offset: i64,
    sampling_frequency: f64,
    level_uuid: [u8; 16],
}

/// Reads a metadata file. The legacy writer cuts it at every append and writes it
/// anew: one that is too short is looked at again, unless it has been so for long.
pub(crate) fn read_metadata(
    store: &Store,
    files: &SegmentFiles,
    password: Option<&Password>,
) -> Result<(StoredFile, SegmentMetadata), MefError> {
    let mut looks = 0;
    loop {
        let file = store.file(files.name("tmet"))?;
        let bytes = file.read(0, METADATA_BYTES as u64)?;
        looks += 1;
        let may_change = looks < REWRITING_LOOKS && is_being_rewritten(&file);
        match parse_metadata(&bytes, file.path(), password) {
            Ok(metadata) => return Ok((file, metadata)),
            Err(error) if bytes.len() < METADATA_BYTES && may_change => {
                tracing::debug!(%error, "metadata are looked at again");
                thread::sleep(REWRITING_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

fn read_header(
    file: &StoredFile,
    file_type: &str,
    facts: &Facts,
) -> Result<UniversalHeader, MefError> {
    let bytes = file.read(0, HEADER_BYTES as u64)?;
    let header = parse_header(&bytes, file_type, file.path())?;
    check_level(header, file.path(), facts)?;
    Ok(header.clone())
}

/// Refuses a file of another segment: its times and counts might fit, and its
/// samples would be somebody else's.
fn check_level(header: &UniversalHeader, file: &Path, facts: &Facts) -> Result<(), MefError> {
    let known = [header.level_uuid, facts.level_uuid]
        .iter()
        .all(|uuid| *uuid != [0; 16]);
    if known && header_crc_is_right(header) && header.level_uuid != facts.level_uuid {
        return Err(MefError::malformed(file, Malformation::OtherSegment));
    }
    Ok(())
}

/// Reads the block index, and holds it against the data file. Of a file that grows,
/// the entries at its end are left out whose blocks are not whole yet, and the
/// result says so.
fn read_index(
    file: &StoredFile,
    data: &StoredFile,
    size: u64,
    growing: bool,
    facts: &Facts,
    progress: &mut dyn FnMut(),
) -> Result<(Reconciled, bool), MefError> {
    // Bounded by the size at the time of the identity: a file that grows
    // meanwhile is read up to there.
    let most = most_index_bytes(data.size().map_err(|error| data.error(&error))?);
    if size > most {
        let reason = Malformation::IndexTooLong { have: size, most };
        return Err(MefError::malformed(file.path(), reason));
    }
    let bytes = file.read(0, size)?;
    let header = parse_header(&bytes, "tidx", file.path())?;
    check_level(header, file.path(), facts)?;
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    check_memory(body.len()).map_err(|error| file.error(&error))?;
    let trusted = vouched_for(header, body);
    let mut index = BlockIndex::parse(body, facts.offset, facts.sampling_frequency);
    let io_error = |error| data.error(&error);
    let times = (facts.offset, facts.sampling_frequency);
    let mut cut = false;
    if growing {
        let mut reconciler =
            Reconciler::new(data, times, trusted, 0, progress).map_err(io_error)?;
        let whole = reconciler.whole_blocks(&index).map_err(io_error)?;
        if whole < index.len() {
            cut = true;
            index = index.truncated(whole, facts.sampling_frequency);
        }
    }
    let reconciler = Reconciler::new(data, times, trusted, 0, progress).map_err(io_error)?;
    let reconciled = reconciler.reconcile(index).map_err(io_error)?;
    Ok((reconciled, cut))
}

/// Makes sure that there is memory for what is made of so many bytes of an index,
/// which is less: without it, the process would end.
fn check_memory(bytes: usize) -> io::Result<()> {
    let mut spare: Vec<u8> = Vec::new();
    spare
        .try_reserve_exact(bytes)
        .map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// Entries, from the first on, that the index's checksum covers. The header of a
/// file that grows is written after its body.
fn vouched_for(header: &UniversalHeader, body: &[u8]) -> usize {
    let stored = header.body_crc.get();
    let all = body.len() / INDEX_ENTRY_BYTES;
    if stored == CRC_NOT_COMPUTED || stored == crc32(body) {
        return all;
    }
    let declared = usize::try_from(header.number_of_entries.get()).unwrap_or(0);
    let declared = declared.min(all);
    let covered = body.get(..declared * INDEX_ENTRY_BYTES).unwrap_or_default();
    if stored == crc32(covered) {
        declared
    } else {
        0
    }
}

/// Whether a file was written to a moment ago.
pub(crate) fn is_growing(file: &StoredFile) -> bool {
    // A time in the future is that of another clock.
    age_of(file).is_some_and(|age| age.unwrap_or_default() < GROWING)
}

/// Whether somebody was writing to a file just now, by the clock of this machine.
fn is_being_rewritten(file: &StoredFile) -> bool {
    age_of(file).is_some_and(|age| age.is_ok_and(|age| age < REWRITING))
}

/// How long ago a file was written to; an error for a time in the future.
fn age_of(file: &StoredFile) -> Option<Result<Duration, SystemTimeError>> {
    let modified = file.modified().ok()?;
    Some(SystemTime::now().duration_since(modified))
}

/// The span of a segment by its metadata, unless the index goes beyond it by
/// more than a sample: the metadata of a growing segment are stale, and the
/// writers' roundings are not.
fn span_of(metadata: &SegmentMetadata, index: &BlockIndex) -> Option<(i64, i64)> {
    let sample = duration_us(1, metadata.acquisition.sampling_frequency).max(1);
    let start = match (metadata.start_uutc, index.start_uutc()) {
        (Some(stored), Some(first)) if first < stored.saturating_sub(sample) => first,
        (stored, first) => stored.or(first)?,
    };
    let end = match (metadata.end_uutc, index.end_uutc()) {
        (Some(stored), Some(last)) if last > stored.saturating_add(sample) => last,
        (stored, last) => stored.or(last)?,
    };
    Some((start, end))
}
