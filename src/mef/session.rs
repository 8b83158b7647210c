//! Opening a session: discovery of channels and segments, and their metadata
//! and indices (format sections 1, 6 and 7).
//!
//! One bad segment never costs its neighbours: it is recorded with the reason,
//! and the rest of the session stays readable. A session of which nothing can be
//! read without a password is refused.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::crypto::{Access, Password};
use super::error::{Malformation, MefError};
use super::metadata::Subject;
use super::recording::{Channel, Recording, Segment, UnreadableChannel, UnreadableSegment};
use super::segment::{FoundSegment, SegmentFiles, channel_folder, read_segment};
use super::store::{Roots, Store};
use super::video_channel::{read_video_channels, video_print};

/// How a session is to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenOptions {
    /// The level-1 or level-2 password of a protected session; one that is given
    /// for another is ignored.
    pub password: Option<Password>,
}

/// Opens the session at `path` and reads all of its metadata and indices.
///
/// # Errors
/// [`MefError`] where the path is not a session, holds no channel, or nothing of
/// it can be read without the right password. Unreadable segments are listed in
/// the result instead.
pub fn open_session(path: &Path, options: &OpenOptions) -> Result<Recording, MefError> {
    open_session_watched(path, options, &Roots::default(), &mut || {})
}

/// As [`open_session`], of what lies below the roots, and calls `progress` after each
/// segment.
pub(crate) fn open_session_watched(
    path: &Path,
    options: &OpenOptions,
    roots: &Roots,
    progress: &mut dyn FnMut(),
) -> Result<Recording, MefError> {
    let (store, name) = Store::open(path, roots)?;
    let mut recording = Recording {
        password: options.password.clone(),
        store: Some(store.clone()),
        ..Recording::empty(name, path)
    };
    // Before the files are read: what changes meanwhile is noticed later.
    recording.video_print = video_print(&store)?;
    recording.video_channels = read_video_channels(&store, options, progress)?;
    let channels = channels_of(&store)?;
    let is_empty = channels.is_empty() && recording.video_channels.is_empty();
    for channel in channels {
        let name = match channel {
            Ok(name) => name,
            Err(unreadable) => {
                recording.unreadable.push(unreadable);
                continue;
            }
        };
        match read_segments(&store, &name, options, progress) {
            Ok(outcomes) => recording.add(name, outcomes),
            Err(error) => recording.unreadable.push(UnreadableChannel { name, error }),
        }
    }
    if !recording.channels.is_empty() {
        return Ok(recording);
    }
    match recording.unreadable.first() {
        // Annotated before there are data, or with nothing but videos.
        None if !is_empty => Ok(recording),
        None => Err(MefError::NotASession {
            path: path.into(),
            reason: "no time-series channel in the session directory".into(),
        }),
        Some(channel) if channel.error.is_about_password() => Err(channel.error.clone()),
        Some(_) => Ok(recording),
    }
}

/// The names of the `.timd` folders, in their order.
pub(crate) fn channels_of(
    store: &Store,
) -> Result<Vec<Result<String, UnreadableChannel>>, MefError> {
    let items = store.list("")?.into_iter();
    let folders = items.filter(|item| item.is_folder).filter_map(|item| {
        let path = Path::new(&item.name);
        if path.extension() != Some("timd".as_ref()) {
            return None;
        }
        let stem = path.file_stem().unwrap_or_default();
        let name = stem.to_str().map(str::to_owned);
        Some(name.ok_or_else(|| UnreadableChannel {
            name: stem.to_string_lossy().into_owned(),
            error: MefError::malformed(&store.path(path), Malformation::Name),
        }))
    });
    let mut channels: Vec<_> = folders.collect();
    // The folders' order is not the names': a dot comes after a space.
    channels.sort_by(|a, b| a.as_ref().ok().cmp(&b.as_ref().ok()));
    Ok(channels)
}

/// What became of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Readable(Box<FoundSegment>),
    Unreadable {
        number: u64,
        stem: String,
        error: MefError,
    },
}

/// Reads a channel by its name; nothing, where it has no segment.
pub(crate) fn read_channel(
    store: &Store,
    name: &str,
    options: &OpenOptions,
) -> Result<Option<Result<Channel, UnreadableChannel>>, MefError> {
    let mut segments = Segments::default();
    for outcome in read_segments(store, name, options, &mut || {})? {
        segments.add_outcome(outcome);
    }
    Ok(segments.into_channel(name.to_owned()))
}

/// Reads all segments of a channel, in order of their numbers.
fn read_segments(
    store: &Store,
    channel: &str,
    options: &OpenOptions,
    progress: &mut dyn FnMut(),
) -> Result<Vec<Outcome>, MefError> {
    let mut outcomes = Vec::new();
    for (number, stem) in segments_of(store, channel_folder(channel))? {
        outcomes.push(read_segment_or_reason(
            store,
            channel,
            (number, &stem),
            options,
            progress,
        ));
        progress();
    }
    Ok(outcomes)
}

/// Reads a segment, or finds out why it cannot be read.
pub(crate) fn read_segment_or_reason(
    store: &Store,
    channel: &str,
    (number, stem): (u64, &str),
    options: &OpenOptions,
    progress: &mut dyn FnMut(),
) -> Outcome {
    let password = options.password.as_ref();
    match read_segment(store, channel, (number, stem), password, progress) {
        Ok(found) => Outcome::Readable(Box::new(found)),
        Err(error) => Outcome::Unreadable {
            number,
            stem: stem.to_owned(),
            error,
        },
    }
}

/// What the metadata of a segment say of the session.
struct Told {
    access: Access,
    by_fallback: bool,
    subject: Option<Subject>,
}

/// The segments of a channel as they were found.
#[derive(Default)]
pub(crate) struct Segments {
    readable: Vec<Arc<Segment>>,
    unreadable: Vec<UnreadableSegment>,
    /// Earliest start and latest end of the readable ones.
    span: Option<(i64, i64)>,
}

impl Segments {
    /// Adds the segment that is next by its number.
    pub(crate) fn add(&mut self, segment: Arc<Segment>) {
        // What is unreadable before this segment ends where this one begins.
        for waiting in self.unreadable.iter_mut().filter(|u| u.not_after.is_none()) {
            waiting.not_after = Some(segment.start_uutc);
        }
        self.unreadable.extend(segment.unknown.iter().cloned());
        let (start, end) = segment.span_uutc;
        let (first, last) = self.span.unwrap_or((start, end));
        let first = first.min(start);
        // Metadata may name an end before the start; nothing is reversed here.
        self.span = Some((first, last.max(end).max(first)));
        self.readable.push(segment);
    }

    /// Adds the segment that is next by its number, and cannot be read.
    pub(crate) fn add_unreadable(&mut self, number: u64, stem: String, error: MefError) {
        self.unreadable.push(UnreadableSegment {
            number,
            stem,
            error,
            not_before: self.readable.last().map(|segment| segment.end_uutc),
            not_after: None,
        });
    }

    /// Adds what is next by its number; gives what the metadata of a readable
    /// segment say of the session.
    fn add_outcome(&mut self, outcome: Outcome) -> Option<Told> {
        match outcome {
            Outcome::Readable(found) => {
                let FoundSegment {
                    segment,
                    access,
                    by_fallback,
                    subject,
                } = *found;
                self.add(Arc::new(segment));
                Some(Told {
                    access,
                    by_fallback,
                    subject,
                })
            }
            Outcome::Unreadable {
                number,
                stem,
                error,
            } => {
                self.add_unreadable(number, stem, error);
                None
            }
        }
    }

    /// The channel of these segments, if it can be read; nothing, where there is
    /// no segment: the channel was annotated before there were data.
    pub(crate) fn into_channel(self, name: String) -> Option<Result<Channel, UnreadableChannel>> {
        let first = self.readable.first();
        let rate = first.map(|segment| segment.acquisition.sampling_frequency);
        let (Some(sampling_frequency), Some((start_uutc, end_uutc))) = (rate, self.span) else {
            let error = self.unreadable.into_iter().next()?.error;
            return Some(Err(UnreadableChannel { name, error }));
        };
        let rates = self.readable.iter().map(|segment| {
            (
                segment.stem.as_str(),
                segment.acquisition.sampling_frequency,
            )
        });
        if let Some(error) = changing_rate(&name, rates) {
            return Some(Err(UnreadableChannel { name, error }));
        }
        Some(Ok(Channel {
            name,
            sampling_frequency,
            start_uutc,
            end_uutc,
            segments: self.readable,
            unreadable: self.unreadable,
        }))
    }
}

impl Recording {
    /// Adds a channel, among the readable ones if it has a readable segment.
    fn add(&mut self, name: String, outcomes: Vec<Outcome>) {
        let mut segments = Segments::default();
        let mut first = None;
        for outcome in outcomes {
            let told = segments.add_outcome(outcome);
            first = first.or(told);
        }
        match segments.into_channel(name) {
            None => {}
            Some(Err(unreadable)) => self.unreadable.push(unreadable),
            Some(Ok(channel)) => {
                if let (true, Some(told)) = (self.channels.is_empty(), first) {
                    self.subject = told.subject;
                    self.access = told.access;
                    self.password_by_old_mapping = told.by_fallback;
                }
                self.channels.push(channel);
            }
        }
    }
}

/// The error for segments, given as stem and rate, of different rates, which have
/// no common grid (format section 11.1).
pub(crate) fn changing_rate<'a>(
    channel: &str,
    mut rates: impl Iterator<Item = (&'a str, f64)>,
) -> Option<MefError> {
    let (_, rate) = rates.next()?;
    let (stem, other) = rates.find(|&(_, other)| other != rate)?;
    let file = SegmentFiles::new(channel, stem).name("tmet");
    let reason = Malformation::RateChanges(rate, other);
    Some(MefError::malformed(&file, reason))
}

/// Segments in a channel's folder as (number, stem), by number. A name that is no
/// Unicode finds no file, so that its segment is known to be unreadable.
pub(crate) fn segments_of(
    store: &Store,
    folder: impl AsRef<Path>,
) -> Result<Vec<(u64, String)>, MefError> {
    let mut segments: Vec<_> = store
        .list(folder)?
        .into_iter()
        .filter(|item| item.is_folder)
        .filter_map(|item| {
            let name = item.name.to_string_lossy();
            let stem = name.strip_suffix(".segd")?.to_owned();
            Some((number_of(&stem)?, stem))
        })
        .collect();
    segments.sort();
    Ok(segments)
}

/// The number of a segment, by its stem.
pub(crate) fn number_of(stem: &str) -> Option<u64> {
    stem.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let options = OpenOptions::default();
        let recording =
            open_session_watched(&path, &options, &Roots::default(), &mut || signs += 1).unwrap();
        assert!(signs >= 4, "{signs}");
        assert_eq!(recording.channels.len(), 2);
    }
}
