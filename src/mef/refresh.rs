//! What is new in a session that was opened before (format section 13.2).
//!
//! Recordings grow at their ends only. Whoever looks again asks for the status
//! of every file, which is cheap, and reads only what has moved: new blocks of a
//! data file, each with its checksum, new segments and new channels. Anything
//! else that is not as it was makes it another recording.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::MefError;
use super::identity::{FileIdentity, SegmentIdentity};
use super::index::{BlockEntry, BlockIndex, duration_us};
use super::layout::{HEADER_BYTES, INDEX_ENTRY_BYTES};
use super::path_bytes;
use super::reconcile::Reconciler;
use super::recording::{Channel, Recording, Segment, UnreadableChannel};
use super::segment::{SegmentFiles, channel_folder, is_growing, read_metadata};
use super::session::{
    OpenOptions, Outcome, Segments, changing_rate, channels_of, number_of, read_segment_or_reason,
    segments_of,
};
use super::store::{FileStatus, ReadAt, Roots, Store};
use super::video_channel::{VideoChannel, read_video_channels, video_print};

/// Some writers cut a file and write it anew: how often, and after what pause,
/// it is looked at again.
const RETRIES: u32 = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Entries at the end of an index that are looked at for a damaged block.
const LAST_ENTRIES: u64 = 1024;

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

/// Looks at a session again.
pub(crate) fn refresh(
    path: &Path,
    options: &OpenOptions,
    known: &Known,
    roots: &Roots,
    progress: &mut dyn FnMut(),
) -> Result<Refresh, MefError> {
    if let Some(same) = known.is_in_archive(path, roots)? {
        return Ok(match same {
            true => Refresh::Unchanged,
            false => Refresh::Replaced(path.to_owned()),
        });
    }
    let (store, _) = Store::open(path, roots)?;
    let mut growth = Growth::default();
    let mut before = known.channels.iter().peekable();
    let mut changed = false;
    let print = video_print(&store)?;
    if print != known.video_print {
        changed = true;
        let videos = read_video_channels(&store, options, progress)?;
        growth.videos = Some((print, videos));
    }
    for channel in channels_of(&store)? {
        let name = match channel {
            Ok(name) => name,
            Err(unreadable) => {
                growth.unreadable.push(unreadable);
                continue;
            }
        };
        let known = before.next_if(|known| known.name == name);
        if let Some(gone) = before.peek().filter(|known| known.name < name) {
            return Ok(Refresh::Replaced(path.join(channel_folder(&gone.name))));
        }
        let mut news = Vec::new();
        let folder = channel_folder(&name);
        let found = segments_of(&store, &folder);
        let found = match (found, known) {
            (Ok(found), _) => found,
            // What the system does not let us look at may be as it was.
            (Err(error @ MefError::Io { .. }), _) => return Err(error),
            (Err(_), Some(_)) => return Ok(Refresh::Replaced(path.join(folder))),
            (Err(error), None) => {
                growth.unreadable.push(UnreadableChannel { name, error });
                continue;
            }
        };
        let segments = known.map_or(&[][..], |known| &known.segments);
        let mut segments = segments.iter().peekable();
        let mut unreadable = Vec::new();
        for (number, stem) in found {
            let Some(segment) = segments.next_if(|known| known.stem == stem) else {
                let place = (number, stem.as_str());
                let outcome = read_segment_or_reason(&store, &name, place, options, progress);
                match &outcome {
                    Outcome::Unreadable { stem, .. } => unreadable.push(stem.clone()),
                    Outcome::Readable(_) => changed |= known.is_some(),
                }
                news.push(SegmentNews::Found(Box::new(outcome)));
                progress();
                continue;
            };
            let looked_at = look_again(&store, &name, segment, options, progress);
            match looked_at {
                Ok(Some(SegmentNews::Known)) => news.push(SegmentNews::Known),
                Ok(Some(longer)) => {
                    changed = true;
                    news.push(longer);
                }
                // As above.
                Err(error @ MefError::Io { .. }) => return Err(error),
                Ok(None) | Err(_) => {
                    let segment = SegmentFiles::new(&name, &segment.stem);
                    return Ok(Refresh::Replaced(path.join(segment.folder())));
                }
            }
            progress();
        }
        if let Some(gone) = segments.next() {
            let segment = SegmentFiles::new(&name, &gone.stem);
            return Ok(Refresh::Replaced(path.join(segment.folder())));
        }
        changed |= known.is_some_and(|known| known.unreadable != unreadable);
        if known.is_some() {
            growth.channels.push((name, news));
        } else if let Some(refused) = refusal(&name, &news) {
            growth.unreadable.push(refused);
        } else if !news.is_empty() {
            changed = true;
            growth.channels.push((name, news));
        }
    }
    if let Some(gone) = before.next() {
        return Ok(Refresh::Replaced(path.join(channel_folder(&gone.name))));
    }
    changed |= growth
        .unreadable
        .iter()
        .map(|channel| &channel.name)
        .ne(&known.unreadable);
    Ok(if changed {
        Refresh::Grown(Box::new(growth))
    } else {
        Refresh::Unchanged
    })
}

/// Why a channel that was not known cannot be read, as at an opening: the first
/// reason stands for it.
fn refusal(name: &str, news: &[SegmentNews]) -> Option<UnreadableChannel> {
    let mut reason = None;
    let mut rates = Vec::new();
    for news in news {
        let SegmentNews::Found(outcome) = news else {
            continue;
        };
        match &**outcome {
            Outcome::Readable(found) => {
                let segment = &found.segment;
                let rate = segment.acquisition.sampling_frequency;
                rates.push((segment.stem.as_str(), rate));
            }
            Outcome::Unreadable { error, .. } => {
                reason.get_or_insert(error);
            }
        }
    }
    let error = match rates.is_empty() {
        true => reason.cloned(),
        false => changing_rate(name, rates.into_iter()),
    };
    Some(UnreadableChannel {
        name: name.to_owned(),
        error: error?,
    })
}

/// What has become of a segment; `None` where it is another.
fn look_again(
    store: &Store,
    channel: &str,
    known: &KnownSegment,
    options: &OpenOptions,
    progress: &mut dyn FnMut(),
) -> Result<Option<SegmentNews>, MefError> {
    let files = SegmentFiles::new(channel, &known.stem);
    let mut identity = known.identity;
    let status = |extension| store.status(files.name(extension));
    let as_it_was = identity.index.has_status(&status("tidx")?)
        && identity.metadata.has_status(&status("tmet")?)
        && identity.data.has_status(&status("tdat")?);
    if as_it_was {
        // Nobody has finished the block at the end: now it is known to be cut off,
        // which an opening tells.
        let cut_off = known.unsettled && !is_growing(&store.file(files.name("tdat"))?);
        return Ok((!cut_off).then_some(SegmentNews::Known));
    }
    match index_now(store, &files, &known.identity.index, progress)? {
        Now::Continued(now) => identity.index = now,
        Now::Unsettled => {}
        Now::Another => return Ok(None),
    }
    match metadata_now(store, &files, known, options, progress)? {
        Now::Continued(now) => identity.metadata = now,
        Now::Unsettled => {}
        Now::Another => return Ok(None),
    }
    let data = store.file(files.name("tdat"))?;
    let now = FileIdentity::of(&data)?;
    if !now.continues(&identity.data) {
        return Ok(None);
    }
    identity.data = now;
    let io_error = |error| data.error(&error);
    let times = (known.recording_time_offset, known.sampling_frequency);
    let mut reconciler = Reconciler::new(&data, times, 0, 0, progress).map_err(io_error)?;
    let mut blocks = reconciler.blocks_from(known.data_end).map_err(io_error)?;
    let end = blocks.last().map_or(known.data_end, BlockEntry::file_end);
    // Nothing goes past a block that is not whole, unless the index knows of a
    // whole one behind it: then it will not become whole any more.
    if end < identity.data.size()
        && let Some(damaged) = indexed_block(store, &files, known, end)?
    {
        let after = reconciler
            .blocks_from(damaged.file_end())
            .map_err(io_error)?;
        if !after.is_empty() {
            blocks.push(damaged);
            blocks.extend(after);
        }
    }
    let longer = Longer { identity, blocks };
    Ok(Some(SegmentNews::Longer(Box::new(longer))))
}

/// A file that was touched.
enum Now {
    /// It is the same, or says the same.
    Continued(FileIdentity),
    /// Somebody is in the middle of writing it: what was read before still holds.
    Unsettled,
    /// It is another.
    Another,
}

/// Looks at an index that was touched. Old writers cut it and write it anew.
fn index_now(
    store: &Store,
    files: &SegmentFiles,
    known: &FileIdentity,
    progress: &mut dyn FnMut(),
) -> Result<Now, MefError> {
    let mut attempt = 0;
    loop {
        let file = store.file(files.name("tidx"))?;
        let now = FileIdentity::of(&file)?;
        if now.continues(known) {
            return Ok(Now::Continued(now));
        }
        if attempt == RETRIES {
            return Ok(if is_growing(&file) && now.is_same_file(known) {
                Now::Unsettled
            } else {
                Now::Another
            });
        }
        attempt += 1;
        thread::sleep(RETRY_PAUSE);
        progress();
    }
}

/// Reads metadata that were touched. Writers put another file in their place at
/// every append, or cut them and write them anew.
fn metadata_now(
    store: &Store,
    files: &SegmentFiles,
    known: &KnownSegment,
    options: &OpenOptions,
    progress: &mut dyn FnMut(),
) -> Result<Now, MefError> {
    for _ in 0..RETRIES {
        let read = read_metadata(store, files, options.password.as_ref());
        if let Err(error @ MefError::Io { .. }) = read {
            return Err(error);
        }
        if let Ok((file, metadata)) = read {
            let acquisition = &metadata.acquisition;
            let same = metadata.recording_time_offset.unwrap_or(0) == known.recording_time_offset
                && acquisition.sampling_frequency == known.sampling_frequency
                && acquisition.units_conversion_factor.to_bits() == known.factor_bits;
            return Ok(match same {
                true => Now::Continued(FileIdentity::of(&file)?),
                false => Now::Another,
            });
        }
        thread::sleep(RETRY_PAUSE);
        progress();
    }
    let settled = match store.file(files.name("tmet")) {
        Ok(file) => !is_growing(&file),
        Err(_) => true,
    };
    Ok(if settled {
        Now::Another
    } else {
        Now::Unsettled
    })
}

/// What the end of the index says of the block at an offset of the data file.
fn indexed_block(
    store: &Store,
    files: &SegmentFiles,
    known: &KnownSegment,
    offset: u64,
) -> Result<Option<BlockEntry>, MefError> {
    let file = store.file(files.name("tidx"))?;
    let size = file.size().map_err(|error| file.error(&error))?;
    let header = HEADER_BYTES as u64;
    let entries = size.saturating_sub(header) / INDEX_ENTRY_BYTES as u64;
    let first = entries.saturating_sub(LAST_ENTRIES);
    let bytes = file.read(
        header + first * INDEX_ENTRY_BYTES as u64,
        LAST_ENTRIES * INDEX_ENTRY_BYTES as u64,
    )?;
    let times = (known.recording_time_offset, known.sampling_frequency);
    let index = BlockIndex::parse(&bytes, times.0, times.1);
    Ok(index.iter().find(|entry| entry.file_offset == offset))
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
mod tests {
    use super::*;
    use crate::mef::{ChannelOptions, ChannelWriter, SessionOptions, SessionWriter, open_session};

    const START: i64 = 1_600_000_000_000_000;

    /// What is said, and how.
    type Lie = (&'static str, fn(&mut Growth));

    /// Writes two blocks, of a second each.
    fn write(mut channel: ChannelWriter, from_s: i64) {
        let start = START + from_s * 1_000_000;
        channel.write(start, &[1; 200]).unwrap();
        channel.finish().unwrap();
    }

    fn growth(news: Refresh) -> Growth {
        match news {
            Refresh::Grown(growth) => *growth,
            other => panic!("{other:?}"),
        }
    }

    fn longer(growth: &mut Growth) -> &mut Longer {
        match &mut growth.channels[0].1[0] {
            SegmentNews::Longer(longer) => longer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn news_that_no_honest_worker_has_do_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
        let channel = |name| ChannelOptions {
            block_samples: Some(100),
            ..ChannelOptions::new(name, 100.0)
        };
        write(session.channel(channel("a")).unwrap(), 0);
        write(session.channel(channel("b")).unwrap(), 0);
        let options = OpenOptions::default();
        let before = open_session(&path, &options).unwrap();
        let known = Known::of(&before);
        write(session.continue_channel("a").unwrap(), 2);
        write(session.channel(channel("c")).unwrap(), 0);
        let news = refresh(&path, &options, &known, &Roots::default(), &mut || {}).unwrap();
        assert!(news.fits(&known));
        let honest = growth(news);
        let grown = before.grown(honest.clone()).unwrap();
        assert!(Refresh::Unchanged.fits(&known) && Refresh::Replaced(path.clone()).fits(&known));
        // They are told to somebody who has them already.
        assert!(!honest.fits(&Known::of(&grown)));

        let lies: [Lie; 12] = [
            ("a channel is missing", |it| drop(it.channels.remove(1))),
            ("channels change places", |it| it.channels.swap(0, 1)),
            ("a channel comes twice", |it| {
                let twice = it.channels[2].clone();
                it.channels.push(twice);
            }),
            ("a new channel is empty", |it| it.channels[2].1.clear()),
            ("a segment is missing", |it| it.channels[0].1.clear()),
            ("a segment too many", |it| {
                it.channels[1].1.push(SegmentNews::Known);
            }),
            ("a new channel was known", |it| {
                it.channels[2].1 = vec![SegmentNews::Known];
            }),
            ("a segment comes twice", |it| {
                let found = it.channels[2].1[0].clone();
                it.channels[2].1.push(found);
            }),
            ("a block lies in another", |it| {
                let longer = longer(it);
                longer.blocks[0].file_offset -= 1;
            }),
            ("blocks change places", |it| longer(it).blocks.reverse()),
            ("the file is another", |it| {
                let longer = longer(it);
                longer.identity.data = longer.identity.metadata;
            }),
            ("videos are new and the same", |it| {
                it.videos = Some((0, Vec::new()));
            }),
        ];
        for (lie, tell) in lies {
            let mut spoilt = honest.clone();
            tell(&mut spoilt);
            let known = Known {
                video_print: 0,
                ..known.clone()
            };
            assert!(!spoilt.fits(&known), "{lie}");
        }
    }
}
