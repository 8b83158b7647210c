//! A session as it was found: channels, segments, block indices. Immutable, and
//! shared by everybody who reads from it.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::crypto::{Access, Password};
use super::error::MefError;
use super::identity::SegmentIdentity;
use super::index::{BlockEntry, BlockIndex, duration_us};
use super::metadata::{Acquisition, Subject};
use super::reconcile::IndexRepairs;
use super::segment::SegmentFiles;
use super::store::{Roots, Store};
use super::video_channel::VideoChannel;

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// The session folder's name without `.mefd`.
    pub name: String,
    /// The session folder or archive, as it was asked for.
    pub path: PathBuf,
    /// Readable time-series channels in byte order of their names.
    pub channels: Vec<Channel>,
    /// Channels that stand in the folder and cannot be read, with the reason.
    pub unreadable: Vec<UnreadableChannel>,
    /// Video channels, which have no samples, in byte order of their names.
    pub video_channels: Vec<VideoChannel>,
    /// By which a change of the video channels' files is noticed.
    pub(crate) video_print: u64,
    /// What the password opens, by the first channel.
    pub access: Access,
    /// The password opens the session only in the form that mef3io up to 1.2.0 gave
    /// to characters beyond ASCII; other programs will refuse it.
    pub password_by_old_mapping: bool,
    /// Subject metadata of the first channel; `None` where they are locked.
    pub subject: Option<Subject>,
    /// What the session was opened with. It goes from process to process with
    /// the work that needs it, and never with what was found.
    #[serde(skip)]
    pub(crate) password: Option<Password>,
    /// Where the files are, in the process that has opened them.
    #[serde(skip)]
    pub(crate) store: Option<Store>,
}

impl Recording {
    /// A recording without channels.
    pub(crate) fn empty(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            channels: Vec::new(),
            unreadable: Vec::new(),
            video_channels: Vec::new(),
            video_print: 0,
            access: Access::Unprotected,
            password_by_old_mapping: false,
            subject: None,
            password: None,
            store: None,
        }
    }

    /// The same recording without its channels.
    pub(crate) fn without_channels(&self) -> Self {
        Self {
            name: self.name.clone(),
            path: self.path.clone(),
            channels: Vec::new(),
            unreadable: Vec::new(),
            video_channels: self.video_channels.clone(),
            video_print: self.video_print,
            access: self.access,
            password_by_old_mapping: self.password_by_old_mapping,
            subject: self.subject.clone(),
            password: self.password.clone(),
            store: self.store.clone(),
        }
    }

    /// The data file of segment `stem` of the channel named `channel`.
    pub fn data_file(&self, channel: &str, stem: &str) -> PathBuf {
        self.path
            .join(SegmentFiles::new(channel, stem).name("tdat"))
    }

    pub(crate) fn store(&self) -> Result<Store, MefError> {
        match &self.store {
            Some(store) => Ok(store.clone()),
            None => Ok(Store::open(&self.path, &Roots::default())?.0),
        }
    }

    /// Position of the channel named `name`.
    pub fn channel_position(&self, name: &str) -> Option<usize> {
        self.channels
            .binary_search_by(|channel| channel.name.as_str().cmp(name))
            .ok()
    }

    /// Earliest start of a channel, absolute uUTC.
    pub fn start_uutc(&self) -> Option<i64> {
        self.channels.iter().map(|channel| channel.start_uutc).min()
    }

    /// Latest end of a channel, absolute uUTC, exclusive.
    pub fn end_uutc(&self) -> Option<i64> {
        self.channels.iter().map(|channel| channel.end_uutc).max()
    }

    /// Bytes that the block indices take in memory.
    pub fn memory(&self) -> usize {
        let segments = self.channels.iter().flat_map(|channel| &channel.segments);
        segments.map(|segment| segment.index.memory()).sum()
    }

    /// Whether the parts belong together; a recording that came from another
    /// process is checked before it is used.
    pub(crate) fn is_consistent(&self) -> bool {
        let sorted = self.channels.is_sorted_by(|a, b| a.name < b.name);
        sorted
            && self.channels.iter().all(|channel| {
                !channel.segments.is_empty()
                    && channel.sampling_frequency.is_finite()
                    && channel.sampling_frequency > 0.0
                    && channel.start_uutc <= channel.end_uutc
                    && channel.segments.iter().all(|s| s.index.is_consistent())
            })
    }
}

/// A channel without a single readable segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadableChannel {
    /// The channel's name.
    pub name: String,
    /// What is wrong with its first segment.
    pub error: MefError,
}

/// A time-series channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The channel folder's name without `.timd`.
    pub name: String,
    /// Samples a second in Hz, the same in all segments.
    pub sampling_frequency: f64,
    /// Start of the first sample by the metadata, absolute uUTC.
    pub start_uutc: i64,
    /// The instant just after the last sample by the metadata, absolute uUTC.
    pub end_uutc: i64,
    /// Readable segments in order of their numbers.
    pub segments: Vec<Arc<Segment>>,
    /// Segments that stand in the folder and cannot be read.
    pub unreadable: Vec<UnreadableSegment>,
}

impl Channel {
    /// Technical metadata, by the first segment.
    pub fn acquisition(&self) -> Option<&Acquisition> {
        self.segments.first().map(|segment| &segment.acquisition)
    }

    /// The offset that hides the date is in a locked section, so that times are
    /// relative to an origin that nobody knows.
    pub fn times_unresolved(&self) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.recording_time_offset.is_none())
    }

    /// The instant just after the last sample of a block, absolute uUTC.
    pub fn end_of(&self, block: &BlockEntry) -> i64 {
        let duration = duration_us(block.samples, self.sampling_frequency);
        block.start_uutc.saturating_add(duration)
    }

    /// Number of stored samples; gaps are not stored.
    pub fn stored_samples(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.index.total_samples())
            .sum()
    }

    /// The unreadable segments that may hold samples of the window
    /// `[from, until)`, since a window over them must not pass for a gap.
    pub fn unreadable_within(
        &self,
        from: i64,
        until: i64,
    ) -> impl Iterator<Item = &UnreadableSegment> {
        self.unreadable.iter().filter(move |segment| {
            segment.not_before.is_none_or(|start| start < until)
                && segment.not_after.is_none_or(|end| end > from)
        })
    }
}

/// A segment of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Number from the folder's name.
    pub number: u64,
    /// Name of the folder and of its files, without extension.
    pub stem: String,
    /// Start by the data file's header and index, absolute uUTC.
    pub start_uutc: i64,
    /// End by the data file's header and index, absolute uUTC.
    pub end_uutc: i64,
    /// Technical metadata.
    pub acquisition: Acquisition,
    /// Offset that stored times are relative to, in microseconds (format
    /// section 5); `None` where it is in a section that is locked.
    pub recording_time_offset: Option<i64>,
    /// Which files these were.
    pub identity: SegmentIdentity,
    /// The blocks.
    pub index: BlockIndex,
    /// What was put right in the index.
    pub repairs: IndexRepairs,
    /// Span by the metadata and the index, uUTC.
    pub(crate) span_uutc: (i64, i64),
    /// Stretches of the data file that nothing is known of.
    pub(crate) unknown: Vec<UnreadableSegment>,
    /// The data file ended within a block, and somebody was writing it.
    pub(crate) unsettled: bool,
}

/// A segment that cannot be read. Its time span is unknown, and can only lie
/// between its neighbours by number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadableSegment {
    /// Number from the folder's name.
    pub number: u64,
    /// Name of the folder and of its files, without extension.
    pub stem: String,
    /// What is wrong with it.
    pub error: MefError,
    /// End of the readable segment before it, if there is one.
    pub not_before: Option<i64>,
    /// Start of the readable segment after it, if there is one.
    pub not_after: Option<i64>,
}
