//! Opening a session: discovery of channels and segments, and their metadata
//! and indices (format sections 1, 6 and 7).
//!
//! One bad segment never costs its neighbours: it is recorded with the reason,
//! and the rest of the session stays readable. An encrypted session is refused
//! as a whole.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{Malformation, MefError};
use super::header::parse_header;
use super::identity::{FileIdentity, SegmentIdentity};
use super::index::{BlockIndex, duration_us};
use super::layout::{HEADER_BYTES, METADATA_BYTES};
use super::metadata::{SegmentMetadata, Subject, parse_metadata};
use super::recording::{Channel, Recording, Segment, UnreadableChannel, UnreadableSegment};
use super::time;

/// Opens the session folder at `path` and reads all of its metadata and indices.
///
/// # Errors
/// [`MefError`] where the path is not a session, holds no channel, or is
/// encrypted. Unreadable segments are listed in the result instead.
pub fn open_session(path: &Path) -> Result<Recording, MefError> {
    open_session_watched(path, &mut || {})
}

/// As [`open_session`], and calls `progress` after each segment.
pub(crate) fn open_session_watched(
    path: &Path,
    progress: &mut dyn FnMut(),
) -> Result<Recording, MefError> {
    let status = fs::metadata(path).map_err(|error| MefError::io(path, &error))?;
    let not_a_session = |reason: &str| {
        Err(MefError::NotASession {
            path: path.into(),
            reason: reason.into(),
        })
    };
    if !status.is_dir() {
        return not_a_session("not a session directory");
    }
    let Some(name) = stem_of(path.file_name(), "mefd") else {
        return not_a_session("session directory must end with .mefd");
    };
    let folders = sub_folders(path)?;
    let mut recording = Recording {
        name: name.to_owned(),
        path: path.into(),
        channels: Vec::new(),
        unreadable: Vec::new(),
        video_channels: Vec::new(),
        subject: Subject::default(),
    };
    for folder in &folders {
        if let Some(video) = stem_of(folder.file_name(), "vidd") {
            recording.video_channels.push(video.to_owned());
        }
        let Some(channel) = channel_name(folder) else {
            continue;
        };
        match channel {
            Ok(channel) => read_channel(folder, channel, &mut recording, progress)?,
            Err(unreadable) => recording.unreadable.push(unreadable),
        }
    }
    recording.channels.sort_by(|a, b| a.name.cmp(&b.name));
    recording.video_channels.sort();
    if recording.channels.is_empty() && recording.unreadable.is_empty() {
        return not_a_session("no time-series channel in the session directory");
    }
    Ok(recording)
}

/// The name of a `.timd` folder; `None` for folders of other kinds.
fn channel_name(folder: &Path) -> Option<Result<&str, UnreadableChannel>> {
    if folder.extension() != Some(OsStr::new("timd")) {
        return None;
    }
    Some(folder.file_stem().and_then(OsStr::to_str).ok_or_else(|| {
        UnreadableChannel {
            name: folder
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            error: MefError::malformed(folder, Malformation::Name),
        }
    }))
}

/// The segments of a channel as they were found.
#[derive(Default)]
struct Segments {
    readable: Vec<Segment>,
    unreadable: Vec<UnreadableSegment>,
    /// Earliest start and latest end of the readable ones.
    span: Option<(i64, i64)>,
    /// Subject metadata of the first readable one.
    subject: Subject,
}

/// Reads the channel in `folder` and adds it to the recording, among the
/// readable ones if it has a readable segment.
fn read_channel(
    folder: &Path,
    name: &str,
    recording: &mut Recording,
    progress: &mut dyn FnMut(),
) -> Result<(), MefError> {
    let segments = read_segments(folder, progress)?;
    let rate = segments
        .readable
        .first()
        .map(|s| s.acquisition.sampling_frequency);
    let (Some(sampling_frequency), Some((start_uutc, end_uutc))) = (rate, segments.span) else {
        // Without any segment it is a channel that was annotated before there
        // were data.
        let first = segments.unreadable.into_iter().next();
        recording
            .unreadable
            .extend(first.map(|segment| UnreadableChannel {
                name: name.to_owned(),
                error: segment.error,
            }));
        return Ok(());
    };
    if let Some(error) = changing_rate(folder, &segments.readable, sampling_frequency) {
        recording.unreadable.push(UnreadableChannel {
            name: name.to_owned(),
            error,
        });
        return Ok(());
    }
    if recording.channels.is_empty() {
        recording.subject = segments.subject;
    }
    recording.channels.push(Channel {
        name: name.to_owned(),
        sampling_frequency,
        start_uutc,
        end_uutc,
        segments: segments.readable,
        unreadable: segments.unreadable,
    });
    Ok(())
}

/// Reads all segments of a channel, in order of their numbers.
fn read_segments(channel: &Path, progress: &mut dyn FnMut()) -> Result<Segments, MefError> {
    let mut segments = Segments::default();
    for (number, stem, folder) in segment_folders(channel)? {
        match read_segment(&folder, &stem) {
            Ok(parts) => segments.add(number, stem, parts),
            Err(error @ MefError::Encrypted { .. }) => return Err(error),
            Err(error) => segments.unreadable.push(UnreadableSegment {
                number,
                stem,
                error,
                not_before: segments.readable.last().map(|segment| segment.end_uutc),
                not_after: None,
            }),
        }
        progress();
    }
    Ok(segments)
}

impl Segments {
    fn add(&mut self, number: u64, stem: String, parts: SegmentParts) {
        let SegmentParts {
            metadata,
            identity,
            index,
            start_uutc,
            end_uutc,
        } = parts;
        // What is unreadable before this segment ends where this one begins.
        for waiting in self.unreadable.iter_mut().filter(|u| u.not_after.is_none()) {
            waiting.not_after = Some(start_uutc);
        }
        let (start, end) = span_of(&metadata, &index).unwrap_or((start_uutc, end_uutc));
        let (first, last) = self.span.unwrap_or((start, end));
        let first = first.min(start);
        // Metadata may name an end before the start; nothing is reversed here.
        self.span = Some((first, last.max(end).max(first)));
        if self.readable.is_empty() {
            self.subject = metadata.subject;
        }
        self.readable.push(Segment {
            number,
            stem,
            start_uutc,
            end_uutc,
            acquisition: metadata.acquisition,
            identity,
            index,
        });
    }
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

/// The error for segments of different rates, which have no common grid
/// (format section 11.1).
fn changing_rate(channel: &Path, segments: &[Segment], rate: f64) -> Option<MefError> {
    let other = segments
        .iter()
        .find(|s| s.acquisition.sampling_frequency != rate)?;
    let file = channel.join(format!("{0}.segd/{0}.tmet", other.stem));
    let reason = Malformation::RateChanges(rate, other.acquisition.sampling_frequency);
    Some(MefError::malformed(&file, reason))
}

/// What a segment's files hold.
struct SegmentParts {
    metadata: SegmentMetadata,
    identity: SegmentIdentity,
    index: BlockIndex,
    start_uutc: i64,
    end_uutc: i64,
}

/// Reads the metadata and the index of the segment in `folder`.
fn read_segment(folder: &Path, stem: &str) -> Result<SegmentParts, MefError> {
    let files = SegmentFiles::new(folder, stem);
    let metadata = read_segment_metadata(&files.metadata)?;
    let data = open_regular(&files.data)?;
    let (identity, index) = read_index(&files, &data, &metadata)?;

    let mut header = [0; HEADER_BYTES];
    let length = read_up_to(&data, &files.data, &mut header)?;
    let header = parse_header(
        header.get(..length).unwrap_or_default(),
        "tdat",
        &files.data,
    )?;
    let offset = metadata.recording_time_offset;
    // Headers of growing files are stale; blocks that are there are there.
    let earliest = [
        time::absolute(header.start_time.get(), offset),
        index.start_uutc(),
    ];
    let latest = [
        time::absolute(header.end_time.get(), offset),
        index.end_uutc(),
    ];
    let start_uutc = earliest.into_iter().flatten().min().or(metadata.start_uutc);
    let end_uutc = latest.into_iter().flatten().max().or(metadata.end_uutc);
    let (Some(start_uutc), Some(end_uutc)) = (start_uutc, end_uutc) else {
        return Err(MefError::malformed(&files.data, Malformation::NoTime));
    };
    Ok(SegmentParts {
        metadata,
        identity,
        index,
        start_uutc,
        end_uutc,
    })
}

fn read_segment_metadata(path: &Path) -> Result<SegmentMetadata, MefError> {
    let mut bytes = vec![0; METADATA_BYTES];
    let length = read_up_to(&open_regular(path)?, path, &mut bytes)?;
    parse_metadata(bytes.get(..length).unwrap_or_default(), path)
}

/// Reads the block index and the identity of both files.
fn read_index(
    files: &SegmentFiles,
    data: &File,
    metadata: &SegmentMetadata,
) -> Result<(SegmentIdentity, BlockIndex), MefError> {
    let file = open_regular(&files.index)?;
    let index_error = |error: io::Error| MefError::io(&files.index, &error);
    let identity = SegmentIdentity {
        index: FileIdentity::of(&file).map_err(index_error)?,
        data: FileIdentity::of(data).map_err(|error| MefError::io(&files.data, &error))?,
    };
    // Bounded by the size at the time of the identity: a file that grows
    // meanwhile is read up to there.
    let mut bytes = Vec::new();
    (&file)
        .take(identity.index.size())
        .read_to_end(&mut bytes)
        .map_err(index_error)?;
    parse_header(&bytes, "tidx", &files.index)?;
    let index = BlockIndex::parse(
        &bytes,
        &files.index,
        metadata.recording_time_offset,
        metadata.acquisition.sampling_frequency,
    )?;
    Ok((identity, index))
}

/// A segment opened for decoding: its data file, its index and its time base.
pub(crate) struct OpenedSegment {
    pub(crate) data: File,
    pub(crate) data_path: PathBuf,
    pub(crate) index_path: PathBuf,
    pub(crate) identity: SegmentIdentity,
    pub(crate) index: BlockIndex,
    pub(crate) recording_time_offset: i64,
}

/// Opens the segment `stem` of the channel folder for decoding.
pub(crate) fn open_segment(channel_folder: &Path, stem: &str) -> Result<OpenedSegment, MefError> {
    let files = SegmentFiles::new(&channel_folder.join(format!("{stem}.segd")), stem);
    let metadata = read_segment_metadata(&files.metadata)?;
    let data = open_regular(&files.data)?;
    let (identity, index) = read_index(&files, &data, &metadata)?;
    Ok(OpenedSegment {
        data,
        data_path: files.data,
        index_path: files.index,
        identity,
        index,
        recording_time_offset: metadata.recording_time_offset,
    })
}

/// The files of a segment, named after its folder.
struct SegmentFiles {
    metadata: PathBuf,
    index: PathBuf,
    data: PathBuf,
}

impl SegmentFiles {
    fn new(folder: &Path, stem: &str) -> Self {
        let file = |extension| folder.join(format!("{stem}.{extension}"));
        Self {
            metadata: file("tmet"),
            index: file("tidx"),
            data: file("tdat"),
        }
    }
}

/// Opens a regular file; a FIFO or a folder under a file's name is refused
/// before anything could block on it.
fn open_regular(path: &Path) -> Result<File, MefError> {
    let status = fs::metadata(path).map_err(|error| MefError::io(path, &error))?;
    if !status.is_file() {
        return Err(MefError::malformed(path, Malformation::NotAFile));
    }
    File::open(path).map_err(|error| MefError::io(path, &error))
}

/// Fills `buffer` as far as the file reaches and returns the length.
fn read_up_to(mut file: &File, path: &Path, buffer: &mut [u8]) -> Result<usize, MefError> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MefError::io(path, &error)),
        }
    }
    Ok(length)
}

/// Segment folders of a channel as (number, stem, path), by number.
fn segment_folders(channel: &Path) -> Result<Vec<(u64, String, PathBuf)>, MefError> {
    let mut segments: Vec<_> = sub_folders(channel)?
        .into_iter()
        .filter_map(|folder| {
            let stem = stem_of(folder.file_name(), "segd")?.to_owned();
            let number = stem.rsplit_once('-')?.1.parse().ok()?;
            Some((number, stem, folder))
        })
        .collect();
    segments.sort();
    Ok(segments)
}

/// Sub-folders whose names do not begin with a dot; what cannot be looked at
/// (a link into nowhere) is not one.
fn sub_folders(path: &Path) -> Result<Vec<PathBuf>, MefError> {
    let io_error = |error: io::Error| MefError::io(path, &error);
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && fs::metadata(entry.path()).is_ok_and(|status| status.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// The part of a file name before `.extension`, if it ends so and is Unicode.
fn stem_of<'a>(name: Option<&'a OsStr>, extension: &str) -> Option<&'a str> {
    let stem = name?.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
    (!stem.is_empty()).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mef::{ChannelOptions, SessionOptions, SessionWriter};

    #[test]
    fn an_opening_says_after_each_segment_that_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
        for name in ["a", "b"] {
            let mut channel = session.channel(ChannelOptions::new(name, 100.0)).unwrap();
            channel.write(1_000_000_000_000_000, &[1; 100]).unwrap();
            channel.new_segment().unwrap();
            channel.write(1_000_000_002_000_000, &[2; 100]).unwrap();
            channel.finish().unwrap();
        }
        // One that cannot be read is progress, too.
        fs::remove_file(path.join("b.timd/b-000001.segd/b-000001.tdat")).unwrap();
        let mut signs = 0;
        let recording = open_session_watched(&path, &mut || signs += 1).unwrap();
        assert_eq!((signs, recording.channels.len()), (4, 2));
    }
}
