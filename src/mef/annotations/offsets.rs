//! The offsets that stored times of a session are relative to (format section 5).

use serde::{Deserialize, Serialize};

use crate::mef::recording::Recording;
use crate::mef::segment::channel_folder;

/// What is known of the offset of some times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TimeOffset {
    /// In microseconds; zero where there is none.
    Known(i64),
    /// It is in a section that the password does not open.
    Locked,
    /// It is in metadata that cannot be read, or that contradict each other.
    Unresolved,
}

impl TimeOffset {
    /// That of metadata that could be read.
    pub(crate) fn of(recording_time_offset: Option<i64>) -> Self {
        recording_time_offset.map_or(Self::Locked, Self::Known)
    }

    pub(crate) fn known(self) -> Option<i64> {
        match self {
            Self::Known(offset) => Some(offset),
            Self::Locked | Self::Unresolved => None,
        }
    }
}

/// The offsets of all segments of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TimeOffsets {
    channels: Vec<ChannelOffsets>,
}

/// The offsets of a channel's segments, which are nearly always the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ChannelOffsets {
    /// The channel's folder.
    folder: String,
    /// That of the first readable segment; unresolved, where there is none.
    first: TimeOffset,
    /// Segments that have another, by stem; unreadable ones are unresolved.
    others: Vec<(String, TimeOffset)>,
}

impl TimeOffsets {
    pub(crate) fn of(recording: &Recording) -> Self {
        let readable = recording.channels.iter().map(|channel| {
            let segments = channel.segments.iter();
            ChannelOffsets::new(
                channel_folder(&channel.name),
                segments.map(|segment| (&segment.stem, segment.recording_time_offset)),
                channel.unreadable.iter().map(|segment| &segment.stem),
            )
        });
        let unreadable = recording.unreadable.iter().map(|channel| {
            let folder = channel_folder(&channel.name);
            ChannelOffsets::new(folder, std::iter::empty(), std::iter::empty())
        });
        // A video channel without any segment says as little as one of samples.
        let videos = recording
            .video_channels
            .iter()
            .filter(|channel| !channel.segments.is_empty() || !channel.unreadable.is_empty())
            .map(|channel| {
                let segments = channel.segments.iter();
                ChannelOffsets::new(
                    format!("{}.vidd", channel.name),
                    segments.map(|segment| (&segment.stem, segment.metadata.recording_time_offset)),
                    channel.unreadable.iter().map(|segment| &segment.stem),
                )
            });
        Self {
            channels: readable.chain(unreadable).chain(videos).collect(),
        }
    }

    /// That of the session's own times, where its channels of samples agree. Video
    /// writers leave the offset out where the others have one.
    pub(crate) fn of_session(&self) -> TimeOffset {
        let mut channels = self.channels.iter();
        let of_samples = |channel: &&ChannelOffsets| channel.folder.ends_with(".timd");
        let known = channels.clone().filter(of_samples);
        match common(known.flat_map(ChannelOffsets::known)) {
            Some(offset) => offset,
            None if channels.any(|channel| of_samples(&channel)) => TimeOffset::Unresolved,
            // Where there is no channel, there is no offset.
            None => TimeOffset::Known(0),
        }
    }

    /// That of a channel's own times, where its segments agree. One that was
    /// annotated before there were data goes by the session.
    pub(crate) fn of_channel(&self, folder: &str) -> TimeOffset {
        match self.channel(folder) {
            Some(channel) => common(channel.known()).unwrap_or(TimeOffset::Unresolved),
            None => self.of_session(),
        }
    }

    /// That of a segment's times.
    pub(crate) fn of_segment(&self, folder: &str, stem: &str) -> TimeOffset {
        let Some(channel) = self.channel(folder) else {
            return TimeOffset::Unresolved;
        };
        let mut others = channel.others.iter();
        let other = others.find(|(other, _)| other == stem);
        other.map_or(channel.first, |&(_, offset)| offset)
    }

    fn channel(&self, folder: &str) -> Option<&ChannelOffsets> {
        self.channels
            .iter()
            .find(|channel| channel.folder == folder)
    }
}

impl ChannelOffsets {
    fn new<'a>(
        folder: String,
        readable: impl Iterator<Item = (&'a String, Option<i64>)>,
        unreadable: impl Iterator<Item = &'a String>,
    ) -> Self {
        let mut readable = readable
            .map(|(stem, offset)| (stem.clone(), TimeOffset::of(offset)))
            .peekable();
        let first = readable.peek().map(|&(_, offset)| offset);
        let first = first.unwrap_or(TimeOffset::Unresolved);
        let mut others: Vec<_> = readable.filter(|&(_, offset)| offset != first).collect();
        others.extend(unreadable.map(|stem| (stem.clone(), TimeOffset::Unresolved)));
        Self {
            folder,
            first,
            others,
        }
    }

    /// Those that readable segments have.
    fn known(&self) -> impl Iterator<Item = TimeOffset> {
        let others = self.others.iter().map(|&(_, offset)| offset);
        std::iter::once(self.first)
            .chain(others)
            .filter(|&offset| offset != TimeOffset::Unresolved)
    }
}

/// The offset that all have; unresolved, where they differ.
fn common(mut offsets: impl Iterator<Item = TimeOffset>) -> Option<TimeOffset> {
    let first = offsets.next()?;
    let same = offsets.all(|offset| offset == first);
    Some(if same { first } else { TimeOffset::Unresolved })
}
