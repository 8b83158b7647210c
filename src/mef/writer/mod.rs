//! Writes sessions, new ones and more of those that exist: lossless, one file set
//! per segment (format sections 1, 3, 6, 7, 8, 10, 13 and the checklist of
//! section 16).
//!
//! A new segment is built in a folder whose name no reader looks at, and that
//! folder is renamed when its data, index and metadata are complete: a segment is
//! there whole or not at all. Once it is there it may grow, data first, so that it
//! is whole after every step. Nothing is ever truncated. The writer does not wait
//! for the disk, so all this holds for a crash of the process, not of the machine.

mod channel;
mod error;
mod existing;
mod file;
mod options;
mod records;
mod segment;
mod template;
mod totals;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use channel::ChannelWriter;
pub use error::WriteError;
use existing::Existing;
use fastrand::Rng;
pub use options::{ChannelOptions, Passwords, SessionOptions};
use options::{check_name, usual_block_samples};
pub use records::{RecordFileFault, RecordWriter};
use template::Template;

use super::red::MAX_BLOCK_SAMPLES;
use super::session::{OpenOptions, channels_of};
use super::store::{Roots, Store};

/// A file of mef3io that says that the session is being renamed
/// (format section 1, rule 9).
const FOREIGN_OPERATION: &str = ".mef3io-operation";

/// A session that takes channels, samples and records.
///
/// It only makes writers, which then live on their own: several threads may
/// write one channel each.
///
/// ```
/// use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, WriteError};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("night.mefd");
/// let mut session = SessionWriter::create(&path, SessionOptions::default())?;
/// let mut channel = session.channel(ChannelOptions {
///     units_conversion_factor: 0.1,
///     ..ChannelOptions::new("LT 1", 250.0)
/// })?;
/// channel.write(1_600_000_000_000_000, &[3, 1, 4, 1, 5])?;
/// // A second later: a gap.
/// channel.write(1_600_000_001_000_000, &[9, 2, 6])?;
/// channel.finish()?;
///
/// // The next day.
/// let mut session = SessionWriter::open(&path, &Default::default())?;
/// let mut channel = session.continue_channel("LT 1")?;
/// channel.write(1_600_086_400_000_000, &[5, 3, 5])?;
/// // Readers see it from here on.
/// channel.flush()?;
/// # Ok::<(), WriteError>(())
/// ```
pub struct SessionWriter {
    name: String,
    folder: PathBuf,
    /// What the session was opened with; a new one needs no password.
    options: OpenOptions,
    template: Template,
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
        options.check()?;
        create_folder(folder)?;
        Ok(Self {
            name: name.into(),
            folder: folder.into(),
            template: Template::of_session(name, &options),
            rng: options.seed.map_or_else(Rng::new, Rng::with_seed),
            options: OpenOptions {
                password: options.passwords.map(|passwords| passwords.level_2.clone()),
            },
        })
    }

    /// Opens the session folder `path` to write more to it. A protected session
    /// needs its level-2 password.
    ///
    /// # Errors
    /// [`WriteError::SessionPath`] for an archive; [`WriteError::Unfinished`];
    /// [`WriteError::Locked`] and [`WriteError::Unreadable`], where the metadata of
    /// no channel can be read, or not with this password.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, WriteError> {
        let path = path.as_ref();
        let (store, name) = Store::open(path, &Roots::default())?;
        if !path.is_dir() {
            return Err(WriteError::SessionPath { path: path.into() });
        }
        let mark = path.join(FOREIGN_OPERATION);
        if mark.symlink_metadata().is_ok() {
            return Err(WriteError::Unfinished { path: mark });
        }
        let mut first_error = None;
        let mut template = None;
        for channel in channels_of(&store)?.into_iter().flatten() {
            match existing::template_of(&store, &channel, options) {
                Ok(None) => {}
                Ok(found) => {
                    template = found;
                    break;
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let template = match (template, first_error) {
            (Some(template), _) => template,
            (None, Some(error)) => return Err(error),
            (None, None) => Template::of_session(&name, &SessionOptions::default()),
        };
        Ok(Self {
            name,
            folder: path.into(),
            options: options.clone(),
            template,
            rng: Rng::new(),
        })
    }

    /// Adds a time-series channel, whose name must be new in the session.
    ///
    /// # Errors
    /// [`WriteError`] for options that cannot be stored, for a channel that
    /// exists, and from the file system.
    pub fn channel(&mut self, options: ChannelOptions) -> Result<ChannelWriter, WriteError> {
        options.check()?;
        let folder = self.channel_folder(&options.name);
        create_folder(&folder)?;
        let stands = Existing {
            folder,
            template: self.template.for_channel(&options),
            run: None,
            next_segment: 0,
            finished_samples: 0,
            segment: None,
        };
        let samples_per_block = options.samples_per_block();
        let rng = self.rng.fork();
        Ok(ChannelWriter::new(
            options.name,
            samples_per_block,
            stands,
            rng,
        ))
    }

    /// Goes on with a channel that exists: rate, units, passwords and recording
    /// time offset stay what they are, and so does the length of its blocks.
    ///
    /// New blocks go to the last segment, whoever wrote it, if its files agree with
    /// each other. One that a crash has torn stays as it is, a warning is logged,
    /// and the channel goes on in a new segment. No other writer of this kind can
    /// have the segment open at the same time; other programs do not look at the
    /// lock.
    ///
    /// # Errors
    /// [`WriteError::NothingToContinue`], [`WriteError::Busy`],
    /// [`WriteError::Locked`], [`WriteError::Unreadable`], [`WriteError::Io`], and
    /// [`WriteError::UnreadableSegment`], where one of the channel's cannot be read.
    pub fn continue_channel(&mut self, name: &str) -> Result<ChannelWriter, WriteError> {
        check_name(name)?;
        let (store, _) = Store::open(&self.folder, &Roots::default())?;
        let stands = existing::open_channel(&store, name, &self.options)?;
        let section = stands.template.section_2();
        let samples_per_block = match section.maximum_block_samples.get() {
            samples @ 1..=MAX_BLOCK_SAMPLES => samples,
            _ => usual_block_samples(section.sampling_frequency.get()),
        };
        let rng = self.rng.fork();
        Ok(ChannelWriter::new(
            name.into(),
            samples_per_block,
            stands,
            rng,
        ))
    }

    /// A writer of records of the session itself: it goes on after those that are
    /// there. One at a time.
    ///
    /// Records of a protected session are encrypted at level 2. pymef cannot read
    /// those, and ends the Python process at a record of a type that it does not
    /// know.
    ///
    /// # Errors
    /// [`WriteError`] from the file system, and for record files that cannot be
    /// extended safely.
    pub fn records(&mut self) -> Result<RecordWriter, WriteError> {
        let (folder, name) = (self.folder.clone(), self.name.clone());
        self.record_writer(&folder, &name, None, &self.template.clone())
    }

    /// A writer of records of a channel, which exists.
    ///
    /// # Errors
    /// As for [`records`](Self::records).
    pub fn channel_records(&mut self, channel: &str) -> Result<RecordWriter, WriteError> {
        check_name(channel)?;
        let (store, _) = Store::open(&self.folder, &Roots::default())?;
        // Times are stored under the offset that the channel's readers know.
        let template = existing::template_of(&store, channel, &self.options)?
            .unwrap_or_else(|| self.template.clone());
        let folder = self.channel_folder(channel);
        self.record_writer(&folder, channel, Some(channel), &template)
    }

    fn record_writer(
        &mut self,
        folder: &Path,
        stem: &str,
        channel: Option<&str>,
        template: &Template,
    ) -> Result<RecordWriter, WriteError> {
        let keys = template.keys().cloned();
        let offset = template.recording_time_offset();
        if folder.join(format!("{stem}.rdat")).exists() {
            return RecordWriter::open(folder, stem, keys, offset, &mut self.rng);
        }
        let header = template.record_header(channel, &mut self.rng);
        RecordWriter::create(folder, stem, &header, keys, offset, &mut self.rng)
    }

    fn channel_folder(&self, channel: &str) -> PathBuf {
        self.folder.join(format!("{channel}.timd"))
    }
}

fn create_folder(path: &Path) -> Result<(), WriteError> {
    fs::create_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.into() },
        _ => WriteError::io(path)(error),
    })
}

#[cfg(test)]
mod tests;
