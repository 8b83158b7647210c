//! Opening the video channels of a session (format sections 1 and 6.4).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Malformation, MefError};
use super::layout::METADATA_BYTES;
use super::path_bytes;
use super::recording::UnreadableSegment;
use super::segment::SegmentFiles;
use super::session::{OpenOptions, segments_of};
use super::store::{ReadAt, Store, stem_of};
use super::video::{VideoClip, VideoMetadata, parse_clips, parse_video_metadata};

/// Longest clip table that is read: a million clips. Writers make one clip a
/// file, or one a minute. A longer one is refused before it is read.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// A video channel. It has no samples, and is never read but by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoChannel {
    /// The channel folder's name without `.vidd`.
    pub name: String,
    /// Readable segments in order of their numbers.
    pub segments: Vec<VideoSegment>,
    /// Segments that stand in the folder and cannot be read.
    pub unreadable: Vec<UnreadableSegment>,
}

/// A segment of a video channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoSegment {
    /// Number from the folder's name.
    pub number: u64,
    /// Name of the folder and of its files, without extension.
    pub stem: String,
    /// What the metadata say.
    pub metadata: VideoMetadata,
    /// The clips, in the order of the index.
    pub clips: Vec<VideoClip>,
    /// Bytes after the last whole entry of the index.
    pub trailing_bytes: u64,
    /// The video itself, in a foreign format, if it is there.
    #[serde(with = "path_bytes::option")]
    pub video_file: Option<PathBuf>,
}

/// Reads all video channels of a session, by name.
pub(crate) fn read_video_channels(
    store: &Store,
    options: &OpenOptions,
    progress: &mut dyn FnMut(),
) -> Result<Vec<VideoChannel>, MefError> {
    let mut channels = Vec::new();
    for item in store.list("")?.into_iter().filter(|item| item.is_folder) {
        let Some(name) = stem_of(&item.name, "vidd") else {
            continue;
        };
        let folder = Path::new(&item.name);
        let mut channel = VideoChannel {
            name: name.to_owned(),
            segments: Vec::new(),
            unreadable: Vec::new(),
        };
        for (number, stem) in segments_of(store, folder)? {
            match read_segment(store, folder, (number, &stem), options) {
                Ok(segment) => channel.segments.push(segment),
                Err(error) => channel.unreadable.push(UnreadableSegment {
                    number,
                    stem,
                    error,
                    not_before: None,
                    not_after: None,
                }),
            }
            progress();
        }
        channels.push(channel);
    }
    channels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(channels)
}

/// Sums up names, sizes and times of all files of video channels: other files, or
/// files that were written to, make another sum.
pub(crate) fn video_print(store: &Store) -> Result<u64, MefError> {
    let mut hasher = DefaultHasher::new();
    for item in store.list("")?.into_iter().filter(|item| item.is_folder) {
        if stem_of(&item.name, "vidd").is_none() {
            continue;
        }
        let folder = Path::new(&item.name);
        item.name.hash(&mut hasher);
        for (_, stem) in segments_of(store, folder)? {
            let segment = folder.join(format!("{stem}.segd"));
            let files = match store.list(&segment) {
                Ok(files) => files,
                // An unreadable segment, which costs nothing else of the session.
                Err(error) => {
                    error.to_string().hash(&mut hasher);
                    continue;
                }
            };
            for file in files {
                let path = segment.join(&file.name);
                path.hash(&mut hasher);
                if let Ok(status) = store.status(&path) {
                    (status.size, status.modified_ns).hash(&mut hasher);
                }
            }
        }
    }
    Ok(hasher.finish())
}

fn read_segment(
    store: &Store,
    channel: &Path,
    (number, stem): (u64, &str),
    options: &OpenOptions,
) -> Result<VideoSegment, MefError> {
    let files = SegmentFiles::in_folder(channel, stem);
    let file = store.file(files.name("vmet"))?;
    let bytes = file.read(0, METADATA_BYTES as u64)?;
    let metadata = parse_video_metadata(&bytes, file.path(), options.password.as_ref())?;
    let video_file = video_file(store, channel, stem)?;
    let video_bytes = match &video_file {
        Some(name) => {
            let video = store.file(name)?;
            Some(video.size().map_err(|error| video.error(&error))?)
        }
        None => None,
    };
    let index = store.file(files.name("vidx"))?;
    let have = index.size().map_err(|error| index.error(&error))?;
    if have > MAX_INDEX_BYTES {
        let most = MAX_INDEX_BYTES;
        let reason = Malformation::IndexTooLong { have, most };
        return Err(MefError::malformed(index.path(), reason));
    }
    let bytes = index.read(0, have)?;
    let offset = metadata.recording_time_offset.unwrap_or(0);
    let found = parse_clips(&bytes, index.path(), offset, video_bytes)?;
    Ok(VideoSegment {
        number,
        stem: stem.to_owned(),
        metadata,
        clips: found.clips,
        trailing_bytes: found.trailing_bytes,
        video_file: video_file.map(|name| store.path(name)),
    })
}

/// The video of a segment: the file of its name with an extension that is none
/// of the format's, relative to the session.
fn video_file(store: &Store, channel: &Path, stem: &str) -> Result<Option<PathBuf>, MefError> {
    let folder = channel.join(format!("{stem}.segd"));
    let mut files = store.list(&folder)?.into_iter();
    let video = files.find(|item| {
        let path = Path::new(&item.name);
        let extension = path.extension().unwrap_or_default();
        let of_the_format = ["vmet", "vidx", "rdat", "ridx"]
            .iter()
            .any(|known| extension == *known);
        !item.is_folder
            && path.file_stem() == Some(stem.as_ref())
            && !extension.is_empty()
            && !of_the_format
    });
    Ok(video.map(|item| folder.join(item.name)))
}
