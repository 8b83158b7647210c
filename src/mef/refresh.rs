//! What is new in a session that was opened before (format section 13.2).
//!
//! Recordings grow at their ends only. Whoever looks again asks for the status
//! of every file, which is cheap, and reads only what has moved: new blocks of a
//! data file, each with its checksum, new segments and new channels. Anything
//! else that is not as it was makes it another recording.

mod look;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::look::refresh;
use super::error::MefError;
use super::identity::SegmentIdentity;
use super::index::{BlockEntry, duration_us};
use super::path_bytes;
use super::recording::{Channel, Recording, Segment, UnreadableChannel};
use super::session::{Outcome, Segments, number_of};
use super::store::{FileStatus, Roots};
use super::video_channel::VideoChannel;

/// What was known of a session, as far as it takes to find what is new.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    channels: Vec<KnownChannel>,
    /// Names of the channels that could not be read.
    unreadable: Vec<String>,
    video_print: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct KnownChannel {
    name: String,
    segments: Vec<KnownSegment>,
    /// Stems of the segments that could not be read.
    unreadable: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct KnownSegment {
    stem: String,
    identity: SegmentIdentity,
    recording_time_offset: i64,
    sampling_frequency: f64,
    /// Units per count, bit for bit: it may be no number.
    factor_bits: u64,
    /// The byte after the last known block in the data file.
    data_end: u64,
    /// There was something behind it that somebody was still writing.
    unsettled: bool,
}

impl Known {
    pub(crate) fn of(recording: &Recording) -> Self {
        let segment = |segment: &Arc<Segment>| KnownSegment {
            stem: segment.stem.clone(),
            identity: segment.identity,
            recording_time_offset: segment.recording_time_offset.unwrap_or(0),
            sampling_frequency: segment.acquisition.sampling_frequency,
            factor_bits: segment.acquisition.units_conversion_factor.to_bits(),
            data_end: segment.index.data_end(),
            unsettled: segment.unsettled,
        };
        let has_segment = |channel: &Channel, stem: &str| {
            let mut segments = channel.segments.iter();
            segments.any(|segment| segment.stem == stem)
        };
        let channels = recording.channels.iter().map(|channel| KnownChannel {
            name: channel.name.clone(),
            segments: channel.segments.iter().map(segment).collect(),
            unreadable: channel
                .unreadable
                .iter()
                // Not those of which a stretch is unreadable.
                .filter(|unreadable| !has_segment(channel, &unreadable.stem))
                .map(|segment| segment.stem.clone())
                .collect(),
        });
        Self {
            channels: channels.collect(),
            unreadable: recording
                .unreadable
                .iter()
                .map(|channel| channel.name.clone())
                .collect(),
            video_print: recording.video_print,
        }
    }
}

impl Known {
    /// Whether the archive at `path` is the one that was known; `None` where it
    /// was no archive.
    fn is_in_archive(&self, path: &Path, roots: &Roots) -> Result<Option<bool>, MefError> {
        let segments = self.channels.iter().flat_map(|channel| &channel.segments);
        let Some(segment) = segments.into_iter().next() else {
            return Ok(None);
        };
        let status = FileStatus::at(path, roots).map_err(|error| MefError::io(path, &error))?;
        Ok(segment.identity.data.is_in_archive(&status))
    }
}

/// How a session stands to what was known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Refresh {
    /// Nothing has happened.
    Unchanged,
    /// There is more of it.
    Grown(Box<Growth>),
    /// Something that was known is not there any more, or is another: this file or
    /// folder, by its path.
    Replaced(#[serde(with = "path_bytes")] PathBuf),
}

/// The session as it is now, without what was known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Growth {
    channels: Vec<(String, Vec<SegmentNews>)>,
    unreadable: Vec<UnreadableChannel>,
    /// All video channels, where their files were touched.
    videos: Option<(u64, Vec<VideoChannel>)>,
}

/// A segment as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum SegmentNews {
    /// As it was.
    Known,
    /// As it was, with more blocks.
    Longer(Box<Longer>),
    /// Found for the first time, or looked at again because it could not be read.
    Found(Box<Outcome>),
}

/// What was added to a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Longer {
    identity: SegmentIdentity,
    blocks: Vec<BlockEntry>,
}

impl Refresh {
    /// Whether these can be the news of a session of which so much was known; news
    /// that came from another process are checked before they are used.
    pub(crate) fn fits(&self, known: &Known) -> bool {
        match self {
            Self::Unchanged | Self::Replaced(_) => true,
            Self::Grown(growth) => growth.fits(known),
        }
    }
}

impl Growth {
    /// Every channel that was known is still there, and has all that it had.
    fn fits(&self, known: &Known) -> bool {
        let mut segments = known.channels.iter().flat_map(|it| &it.segments);
        let in_archive = segments.any(|segment| segment.identity.data.is_archived());
        let sorted = self.channels.is_sorted_by(|(a, _), (b, _)| a < b);
        let mut before = known.channels.iter().peekable();
        let continue_it = self.channels.iter().all(|(name, news)| {
            let known = before.next_if(|known| known.name == *name);
            let segments = known.map_or(&[][..], |known| &known.segments);
            (known.is_some() || !news.is_empty()) && are_news_of(news, segments)
        });
        let videos = self.videos.as_ref();
        let other_videos = videos.is_none_or(|(print, _)| *print != known.video_print);
        !in_archive && sorted && continue_it && before.next().is_none() && other_videos
    }
}

/// Whether all segments that were known are among these, in the order of all.
fn are_news_of(news: &[SegmentNews], known: &[KnownSegment]) -> bool {
    let mut known = known.iter();
    let mut last = None;
    let follow = news.iter().all(|news| {
        let Some(stem) = news.stem_of_true(&mut known) else {
            return false;
        };
        let place = number_of(stem).map(|number| (number, stem));
        // Folders whose names are no Unicode may have one name in it, and are unreadable.
        let follows = place > last || place == last && news.is_unreadable();
        let follows = place.is_some() && follows;
        last = place;
        follows
    });
    follow && known.next().is_none()
}

impl SegmentNews {
    fn is_unreadable(&self) -> bool {
        let Self::Found(outcome) = self else {
            return false;
        };
        matches!(**outcome, Outcome::Unreadable { .. })
    }

    /// The stem of the segment, where this can be true of it. The known segments
    /// come one after the other.
    fn stem_of_true<'a>(
        &'a self,
        known: &mut impl Iterator<Item = &'a KnownSegment>,
    ) -> Option<&'a str> {
        match self {
            Self::Known => Some(&known.next()?.stem),
            Self::Longer(more) => {
                let known = known.next()?;
                more.fits(known).then_some(&known.stem)
            }
            Self::Found(outcome) => match &**outcome {
                Outcome::Readable(found) => {
                    let segment = &found.segment;
                    let rate = segment.acquisition.sampling_frequency;
                    let is_whole = segment.index.is_consistent()
                        && rate.is_finite()
                        && rate > 0.0
                        && number_of(&segment.stem) == Some(segment.number);
                    is_whole.then_some(&segment.stem)
                }
                Outcome::Unreadable { number, stem, .. } => {
                    (number_of(stem) == Some(*number)).then_some(stem)
                }
            },
        }
    }
}

impl Longer {
    /// The files are those that were known, and the blocks lie behind each other and
    /// behind those that were known.
    fn fits(&self, known: &KnownSegment) -> bool {
        let before = &known.identity;
        let mut end = known.data_end;
        let behind = self.blocks.iter().all(|block| {
            let behind = block.file_offset >= end;
            end = end.max(block.file_end());
            behind
        });
        behind
            && self.identity.data.continues(&before.data)
            && self.identity.index.continues(&before.index)
    }
}

impl Recording {
    /// This recording with what is new. `None` where the two do not fit
    /// together, which no honest worker says.
    pub(crate) fn grown(&self, growth: Growth) -> Option<Self> {
        let mut grown = Self {
            channels: Vec::with_capacity(growth.channels.len()),
            unreadable: growth.unreadable,
            ..self.without_channels()
        };
        if let Some((print, videos)) = growth.videos {
            (grown.video_print, grown.video_channels) = (print, videos);
        }
        for (name, news) in growth.channels {
            let known = self.channel_position(&name);
            let known = known.and_then(|position| self.channels.get(position));
            let known = known.map_or(&[][..], |channel| &channel.segments);
            let mut known = known.iter();
            let mut segments = Segments::default();
            for news in news {
                match news {
                    SegmentNews::Known => segments.add(Arc::clone(known.next()?)),
                    SegmentNews::Longer(more) => {
                        segments.add(Arc::new(known.next()?.with(&more)?));
                    }
                    SegmentNews::Found(outcome) => match *outcome {
                        Outcome::Readable(found) => segments.add(Arc::new(found.segment)),
                        Outcome::Unreadable {
                            number,
                            stem,
                            error,
                        } => segments.add_unreadable(number, stem, error),
                    },
                }
            }
            match segments.into_channel(name) {
                None => {}
                Some(Ok(channel)) => grown.channels.push(channel),
                Some(Err(unreadable)) => grown.unreadable.push(unreadable),
            }
        }
        grown.is_consistent().then_some(grown)
    }
}

impl Segment {
    /// This segment with more blocks; `None` where they are not new.
    fn with(&self, more: &Longer) -> Option<Self> {
        let mut segment = self.clone();
        segment.identity = more.identity;
        for &block in &more.blocks {
            if block.file_offset < segment.index.data_end() {
                return None;
            }
            segment
                .index
                .push(block, self.acquisition.sampling_frequency);
        }
        let end = segment.index.end_uutc().unwrap_or(segment.end_uutc);
        segment.end_uutc = segment.end_uutc.max(end);
        segment.unsettled = more.identity.data.size() > segment.index.data_end();
        let (start, last) = segment.span_uutc;
        let sample = duration_us(1, self.acquisition.sampling_frequency).max(1);
        // As at an opening: writers round, and a microsecond is no news.
        if end > last.saturating_add(sample) {
            segment.span_uutc = (start, end);
        }
        Some(segment)
    }
}

#[cfg(test)]
mod tests;
