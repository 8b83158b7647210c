//! Writes new sessions: unencrypted, lossless, one file set per segment
//! (format sections 1, 3, 6, 7, 8 and the checklist of section 16).
//!
//! Blocks go to disk as soon as they are full. A segment is built in a folder
//! whose name no reader looks at, and that folder is renamed when its data,
//! index and metadata are complete: a segment is there whole or not at all.
//! The writer does not wait for the disk, so this holds for a crash of the
//! process, not of the machine.

mod channel;
mod error;
mod file;
mod metadata;
mod records;
mod segment;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use channel::{ChannelOptions, ChannelWriter};
pub use error::WriteError;
use fastrand::Rng;
pub use records::{RecordFileFault, RecordWriter};

/// Most characters of a session's or channel's name (format section 1, rule 11).
const NAME_CHARACTERS: usize = 63;

/// What a session's files say of the session and its subject. All of it is
/// optional; texts are empty by default.
#[derive(Clone, Default)]
pub struct SessionOptions {
    /// Seed of the files' identifiers: the same seed and calls give the same
    /// bytes. Without one, the identifiers are random.
    pub seed: Option<u64>,
    /// Name to show instead of the subject's, at most 255 bytes.
    pub anonymized_name: String,
    /// Free text, at most 2047 bytes.
    pub session_description: String,
    /// Seconds east of GMT at the start of the recording.
    pub gmt_offset: Option<i32>,
    /// Usually the given name, at most 127 bytes.
    pub subject_name_1: String,
    /// Usually the family name, at most 127 bytes.
    pub subject_name_2: String,
    /// At most 127 bytes.
    pub subject_id: String,
    /// At most 511 bytes.
    pub recording_location: String,
}

/// Names nobody: options may end up in a log.
impl fmt::Debug for SessionOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SessionOptions");
        shown.field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What all channels of a session share.
struct Session {
    name: String,
    folder: PathBuf,
    options: SessionOptions,
}

/// A session under construction.
///
/// It only makes channels, which then live on their own: several threads may
/// write one each.
///
/// ```
/// use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, WriteError};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("night.mefd");
/// let mut session = SessionWriter::create(path, SessionOptions::default())?;
/// let mut channel = session.channel(ChannelOptions {
///     units_conversion_factor: 0.1,
///     ..ChannelOptions::new("LT 1", 250.0)
/// })?;
/// channel.write(1_600_000_000_000_000, &[3, 1, 4, 1, 5])?;
/// // A second later: a gap.
/// channel.write(1_600_000_001_000_000, &[9, 2, 6])?;
/// channel.finish()?;
/// # Ok::<(), WriteError>(())
/// ```
pub struct SessionWriter {
    session: Arc<Session>,
    rng: Rng,
}

impl SessionWriter {
    /// Creates the folder `path`, which must end in `NAME.mefd` and must not
    /// exist; its parent must.
    ///
    /// # Errors
    /// [`WriteError::SessionPath`], [`WriteError::Name`], [`WriteError::Text`],
    /// [`WriteError::Exists`] or [`WriteError::Io`].
    pub fn create(path: impl AsRef<Path>, options: SessionOptions) -> Result<Self, WriteError> {
        let folder = path.as_ref();
        let name = folder
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".mefd"))
            .ok_or_else(|| WriteError::SessionPath {
                path: folder.into(),
            })?;
        check_name(name)?;
        metadata::check_session_texts(&options)?;
        create_folder(folder)?;
        let rng = options.seed.map_or_else(Rng::new, Rng::with_seed);
        let session = Session {
            name: name.into(),
            folder: folder.into(),
            options,
        };
        Ok(Self {
            session: Arc::new(session),
            rng,
        })
    }

    /// Adds a time-series channel, whose name must be new in the session.
    ///
    /// # Errors
    /// [`WriteError`] for options that cannot be stored, for a channel that
    /// exists, and from the file system.
    pub fn channel(&mut self, options: ChannelOptions) -> Result<ChannelWriter, WriteError> {
        ChannelWriter::create(Arc::clone(&self.session), options, self.rng.fork())
    }

    /// A writer of records of the session itself: it goes on after those that are
    /// there. One at a time.
    ///
    /// # Errors
    /// [`WriteError`] from the file system, and for record files that cannot be
    /// extended safely.
    pub fn records(&mut self) -> Result<RecordWriter, WriteError> {
        let session = Arc::clone(&self.session);
        self.record_writer(&session.folder, &session.name, "")
    }

    /// A writer of records of a channel, which exists.
    ///
    /// # Errors
    /// As for [`records`](Self::records).
    pub fn channel_records(&mut self, channel: &str) -> Result<RecordWriter, WriteError> {
        check_name(channel)?;
        let folder = self.session.folder.join(format!("{channel}.timd"));
        self.record_writer(&folder, channel, channel)
    }

    fn record_writer(
        &mut self,
        folder: &Path,
        stem: &str,
        channel: &str,
    ) -> Result<RecordWriter, WriteError> {
        if folder.join(format!("{stem}.rdat")).exists() {
            return RecordWriter::open(folder, stem, None, 0, &mut self.rng);
        }
        let template = metadata::record_template(&self.session, channel, &mut self.rng);
        RecordWriter::create(folder, stem, &template, None, 0, &mut self.rng)
    }
}

/// Refuses names that cannot be a folder, that readers skip, or that do not fit
/// the header's field.
fn check_name(name: &str) -> Result<(), WriteError> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.starts_with('.') {
        "starts with a dot"
    } else if name.contains(['/', '\0']) {
        "has a slash or a NUL"
    } else if name.chars().count() > NAME_CHARACTERS {
        "is longer than 63 characters"
    } else {
        return Ok(());
    };
    Err(WriteError::Name {
        name: name.into(),
        reason,
    })
}

fn create_folder(path: &Path) -> Result<(), WriteError> {
    fs::create_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.into() },
        _ => WriteError::io(path)(error),
    })
}

#[cfg(test)]
mod tests;
