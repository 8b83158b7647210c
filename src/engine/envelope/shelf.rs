//! What envelopes leave for the next run of the server: a file for each recording, in a
//! folder that is bounded in bytes. A file that does not fit in any way is as good as
//! none, and is written anew.
//!
//! Nothing of a protected recording is written: the folder is not encrypted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use sha2::{Digest, Sha256};

use super::kept::{Kept, KeptPiece, SegmentOf};
use super::shelf_file::{self, SegmentDigest, SegmentPieces};
use crate::mef::{Access, Segment};
use crate::worker::page::{PagedRecording, RecordingId};

/// How long what is new waits for more of it before it is written.
const PAUSE: Duration = Duration::from_secs(2);
/// Recordings that wait for it.
const MOST_WAITING: usize = 256;
/// Openings of which it is known that their file was read.
const MOST_READ: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Names of the files end in this, and those of files that are being written in that.
const SUFFIX: &str = ".envelope";
const UNFINISHED: &str = ".envelope-unfinished";
/// A file that was begun so long ago was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// The folder.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    most_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read: LruCache<RecordingId, ()>,
    waiting: HashMap<PathBuf, Arc<PagedRecording>>,
    /// A thread takes what waits.
    is_writing: bool,
}

impl Shelf {
    pub(super) fn new(folder: PathBuf, most_bytes: u64) -> Self {
        Self {
            folder,
            most_bytes,
            state: Mutex::new(State {
                read: LruCache::new(MOST_READ),
                waiting: HashMap::new(),
                is_writing: false,
            }),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the file of a recording is to be read now: once for each opening.
    pub(super) fn is_to_read(&self, recording: &PagedRecording) -> bool {
        recording.recording.access == Access::Unprotected
            && self.with(|state| state.read.put(recording.id, ()).is_none())
    }

    /// Reads the file of a recording. It blocks.
    pub(super) fn read(&self, kept: &Kept, recording: &PagedRecording) {
        let path = self.file_of(recording);
        let pieces = match read_file(&path, self.most_bytes.min(kept.budget() as u64)) {
            Ok(Some(bytes)) => shelf_file::decode(&bytes),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "kept envelopes cannot be read");
                return;
            }
        };
        let Some(pieces) = pieces else {
            tracing::warn!(file = %path.display(), "kept envelopes are damaged or of another version");
            return;
        };
        let mut segments: HashMap<SegmentDigest, _> = segments_of(recording).collect();
        for SegmentPieces { segment, pieces } in pieces {
            let Some((of, index)) = segments.remove(&segment) else {
                continue;
            };
            let number = kept.number(of);
            let fits = |piece: &KeptPiece| piece.is_in(&index.index);
            let mut pieces: Vec<KeptPiece> = pieces.into_iter().filter(fits).collect();
            pieces.sort_unstable_by_key(KeptPiece::group);
            for group in pieces.chunk_by(|one, other| one.group() == other.group()) {
                let first = group.first().map_or(0, KeptPiece::group);
                kept.put_pieces(number, first, group);
            }
        }
    }

    /// Has what is kept of a recording written soon.
    pub(super) fn write_soon(self: &Arc<Self>, kept: &Arc<Kept>, recording: &Arc<PagedRecording>) {
        if recording.recording.access != Access::Unprotected {
            return;
        }
        let begin = self.with(|state| {
            let path = recording.recording.path.clone();
            if state.waiting.len() < MOST_WAITING || state.waiting.contains_key(&path) {
                state.waiting.insert(path, Arc::clone(recording));
            }
            !std::mem::replace(&mut state.is_writing, true)
        });
        if !begin {
            return;
        }
        let (shelf, kept) = (Arc::clone(self), Arc::clone(kept));
        let name = "mef3-envelopes".to_owned();
        let begun = thread::Builder::new()
            .name(name)
            .spawn(move || shelf.write_waiting(&kept));
        if let Err(error) = begun {
            tracing::warn!(%error, "envelopes are not kept on disk");
            self.with(|state| state.is_writing = false);
        }
    }

    fn write_waiting(&self, kept: &Kept) {
        loop {
            thread::sleep(PAUSE);
            let waiting = self.with(|state| {
                state.is_writing = !state.waiting.is_empty();
                std::mem::take(&mut state.waiting)
            });
            if waiting.is_empty() {
                return;
            }
            for recording in waiting.values() {
                if let Err(error) = self.write(kept, recording) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, %error, "envelopes cannot be kept on disk");
                }
            }
        }
    }

    fn write(&self, kept: &Kept, recording: &PagedRecording) -> io::Result<()> {
        let segments = segments_of(recording).filter_map(|(digest, (of, segment))| {
            let pieces = kept.all_pieces(of.opening, segment.index.len());
            (!pieces.is_empty()).then_some(SegmentPieces {
                segment: digest,
                pieces,
            })
        });
        let bytes = shelf_file::encode(segments, self.most_bytes);
        fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::Builder::new()
            .suffix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        file.write_all(&bytes)?;
        file.persist(self.file_of(recording))?;
        self.make_room()
    }

    /// Removes the oldest files, until the others are not too large.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let status = entry.metadata()?;
            let modified = status.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if !status.is_file() {
                continue;
            }
            if name.ends_with(SUFFIX) {
                files.push((modified, status.len(), entry.path()));
            }
            let age = modified.elapsed().unwrap_or_default();
            if name.ends_with(UNFINISHED) && age > LEFT_BEHIND {
                fs::remove_file(entry.path())?;
            }
        }
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, of_it, path) in files {
            if bytes <= self.most_bytes {
                break;
            }
            fs::remove_file(path)?;
            bytes -= of_it;
        }
        Ok(())
    }

    /// The file of a recording, by the path of its session.
    fn file_of(&self, recording: &PagedRecording) -> PathBuf {
        let path = recording.recording.path.as_os_str().as_encoded_bytes();
        let digest = Sha256::digest(path);
        let name: String = digest
            .iter()
            .take(16)
            .map(|it| format!("{it:02x}"))
            .collect();
        self.folder.join(name + SUFFIX)
    }
}

/// The segments of a recording, each by the identity of its files.
fn segments_of(
    recording: &PagedRecording,
) -> impl Iterator<Item = (SegmentDigest, (SegmentOf<'_>, &Segment))> {
    let channels = recording.recording.channels.iter().zip(0u32..);
    channels.flat_map(move |(channel, position)| {
        let segments = channel.segments.iter().zip(0u32..);
        segments.filter_map(move |(segment, number)| {
            let page = recording.page_of(position, number, 0)?;
            let of = SegmentOf {
                opening: (page.recording, page.segment),
                identity: &segment.identity,
                access: recording.recording.access,
            };
            let identity = serde_json::to_vec(&segment.identity).ok()?;
            Some((Sha256::digest(identity).into(), (of, &**segment)))
        })
    })
}

/// A file of at most so many bytes; `None` where there is none, or a longer one.
fn read_file(path: &Path, most_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let status = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        status => status?,
    };
    if !status.is_file() || status.len() > most_bytes {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
