//! The look itself: the status of every file, and what has moved.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Growth, Known, KnownSegment, Longer, Refresh, SegmentNews};
use crate::mef::error::MefError;
use crate::mef::identity::FileIdentity;
use crate::mef::index::{BlockEntry, BlockIndex};
use crate::mef::layout::{HEADER_BYTES, INDEX_ENTRY_BYTES};
use crate::mef::reconcile::Reconciler;
use crate::mef::recording::UnreadableChannel;
use crate::mef::segment::{SegmentFiles, channel_folder, is_growing, read_metadata};
use crate::mef::session::{
    OpenOptions, Outcome, changing_rate, channels_of, read_segment_or_reason, segments_of,
};
use crate::mef::store::{ReadAt, Roots, Store};
use crate::mef::video_channel::{read_video_channels, video_print};

/// Some writers cut a file and write it anew: how often, and after what pause,
/// it is looked at again.
const RETRIES: u32 = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Entries at the end of an index that are looked at for a damaged block.
const LAST_ENTRIES: u64 = 1024;

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
