//! The records of a whole session: its own, its channels' and its segments'
//! (format sections 1, 5 and 9).

mod offsets;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::crypto::{Access, Keys, Password};
use super::error::MefError;
use super::header::{header_crc_is_right, parse_header};
use super::layout::{HEADER_BYTES, METADATA_BYTES, UniversalHeader};
use super::recording::Recording;
use super::records::{
    DamagedRecord, Record, RecordError, RecordFiles, RecordFilter, RecordPosition, load, scan,
};
use super::segment::{SegmentFiles, is_growing, read_metadata};
use super::session::segments_of;
use super::store::{Item, ReadAt, Store, StoredFile, stem_of};
use super::video::parse_video_metadata;
pub(crate) use offsets::{TimeOffset, TimeOffsets};

/// Bodies in one answer, one record excepted.
const MAX_PAGE_BYTES: u64 = 16 << 20;
/// Findings that an answer lists at most.
const MAX_DAMAGE: usize = 1000;

/// Which records of a session are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordQuery {
    /// By type and time.
    pub filter: RecordFilter,
    /// Only those of these channels and their segments; all, and the session's
    /// own, where none is named.
    pub channels: Vec<String>,
    /// Records to leave out, from the earliest on.
    pub skip: u64,
    /// Most records of the answer. There may be fewer if they are long: 16 MiB of
    /// bodies, or one record, end it.
    pub limit: usize,
}

/// A record, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedRecord {
    /// Name of the channel; `None` for a record of the session.
    pub channel: Option<String>,
    /// Stem of the segment; `None` for a record of the channel or the session.
    pub segment: Option<String>,
    /// The record.
    pub record: Record,
    /// Its time is relative to an offset that is not known, as if that were zero,
    /// and so may be the times that it tells.
    pub time_unresolved: bool,
}

/// Some records of a session, in the order of their times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordPage {
    /// Those that were wanted, from the first that was not skipped on.
    pub records: Vec<PlacedRecord>,
    /// Number of all that match the query, however many of them are here.
    pub total: u64,
    /// How many to skip for those behind this page; `None` where it is the last. One
    /// that cannot be read has a place like any other, so that this may be more than
    /// the records that are here.
    pub next: Option<u64>,
    /// How many of all those are plain text in a protected session, where anybody can
    /// read them without a password: the legacy writer encrypts no record.
    pub plain_in_protected: u64,
    /// Records whose times are relative to an offset that is not known, whatever was
    /// wanted: a filter by time compares what is left of them.
    pub times_unresolved: u64,
    /// What cannot be read, whatever was wanted.
    pub damaged: Vec<DamagedRecord>,
    /// Findings beyond those that are listed.
    pub further_damage: u64,
}

/// A pair of record files.
struct Source {
    channel: Option<String>,
    segment: Option<String>,
    /// The data file, relative to the session.
    data: PathBuf,
    /// What stored times are relative to.
    offset: TimeOffset,
}

/// What must be known of a session to read its records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RecordReader {
    /// The session's name.
    name: String,
    /// What the stored times of its parts are relative to.
    offsets: TimeOffsets,
    password: Option<Password>,
    /// The session has passwords.
    protected: bool,
}

impl Recording {
    /// Reads records of the session from its files.
    ///
    /// The memory that it takes is that of the answer and 48 bytes for each record
    /// that matches.
    ///
    /// # Errors
    /// [`MefError::UnknownChannel`]; [`MefError`] where the session cannot be looked
    /// into. What is wrong with single records and files is in the answer.
    pub fn records(&self, query: &RecordQuery) -> Result<RecordPage, MefError> {
        RecordReader::of(self).read(&self.store()?, query, &mut || {})
    }
}

impl RecordReader {
    pub(crate) fn of(recording: &Recording) -> Self {
        Self {
            name: recording.name.clone(),
            offsets: TimeOffsets::of(recording),
            password: recording.password.clone(),
            protected: recording.access != Access::Unprotected,
        }
    }

    /// Reads records, and calls `progress` now and then.
    pub(crate) fn read(
        &self,
        store: &Store,
        query: &RecordQuery,
        progress: &mut dyn FnMut(),
    ) -> Result<RecordPage, MefError> {
        let mut page = RecordPage::default();
        let sources = self.sources(store, query, &mut page)?;
        let mut found: Vec<(RecordPosition, u32)> = Vec::new();
        for (source, number) in sources.iter().zip(0u32..) {
            match self.scan(store, source, &query.filter, &mut page) {
                Ok(positions) => found.extend(positions.into_iter().map(|p| (p, number))),
                Err(error) => page.add(finding(store, source, error)),
            }
            progress();
        }
        found.sort_by_key(|(position, _)| position.time_uutc);
        page.total = found.len() as u64;
        let skip = usize::try_from(query.skip).unwrap_or(usize::MAX);
        let mut bytes = 0u64;
        let mut next = query.skip;
        for (position, number) in found.into_iter().skip(skip).take(query.limit) {
            bytes += u64::from(position.body_bytes);
            if bytes > MAX_PAGE_BYTES && !page.records.is_empty() {
                break;
            }
            next += 1;
            let Some(source) = sources.get(number as usize) else {
                continue;
            };
            match self.load(store, source, &position) {
                Ok(record) => page.records.push(PlacedRecord {
                    channel: source.channel.clone(),
                    segment: source.segment.clone(),
                    record,
                    time_unresolved: position.relative && source.offset.known().is_none(),
                }),
                Err(error) => page.add(DamagedRecord {
                    file: store.path(&source.data),
                    file_offset: position.file_offset,
                    error,
                }),
            }
            progress();
        }
        page.next = (next < page.total).then_some(next);
        Ok(page)
    }

    /// The pairs of record files that the query may be about.
    fn sources(
        &self,
        store: &Store,
        query: &RecordQuery,
        page: &mut RecordPage,
    ) -> Result<Vec<Source>, MefError> {
        let items = store.list("")?;
        check_names(store, &items, &query.channels)?;
        let mut sources = Vec::new();
        let files = items.iter().filter(|item| !item.is_folder);
        let stems_of = |extension| -> Vec<&str> {
            let stems = files.clone();
            stems
                .filter_map(|item| stem_of(&item.name, extension))
                .collect()
        };
        // An index without its data is a loss, which reading them will say.
        let stems = match stems_of("rdat") {
            none if none.is_empty() => stems_of("ridx"),
            stems => stems,
        };
        let own = match stems.iter().find(|stem| **stem == self.name) {
            Some(stem) => Some(*stem),
            // A folder may have been renamed without its files.
            None if stems.len() > 1 => {
                page.add(DamagedRecord {
                    file: store.path(format!("{}.rdat", self.name)),
                    file_offset: 0,
                    error: RecordError::Ambiguous(stems.len()),
                });
                None
            }
            None => stems.first().copied(),
        };
        if let (Some(own), true) = (own, query.channels.is_empty()) {
            sources.push(Source {
                channel: None,
                segment: None,
                data: format!("{own}.rdat").into(),
                offset: self.offsets.of_session(),
            });
        }
        for item in items.iter().filter(|item| item.is_folder) {
            let Some(name) = channel_of(item).filter(|name| {
                query.channels.is_empty() || query.channels.iter().any(|wanted| wanted == name)
            }) else {
                continue;
            };
            let source = |segment: Option<String>, data: PathBuf, offset: TimeOffset| Source {
                channel: Some(name.to_owned()),
                segment,
                data,
                offset,
            };
            let folder_name = item.name.to_str().unwrap_or_default();
            let folder = Path::new(&item.name);
            let own = folder.join(format!("{name}.rdat"));
            if has_records(store, &own) {
                sources.push(source(None, own, self.offsets.of_channel(folder_name)));
            }
            for (_, stem) in segments_of(store, folder)? {
                let files = SegmentFiles::in_folder(folder, &stem);
                let data = files.name("rdat");
                if has_records(store, &data) {
                    let offset = match self.offsets.of_segment(folder_name, &stem) {
                        TimeOffset::Unresolved => self.offset_in(store, folder, &files),
                        known => known,
                    };
                    sources.push(source(Some(stem), data, offset));
                }
            }
        }
        Ok(sources)
    }

    /// The offset in the metadata of a segment that cannot be read: it may be its
    /// data that are at fault.
    fn offset_in(&self, store: &Store, channel: &Path, files: &SegmentFiles) -> TimeOffset {
        let password = self.password.as_ref();
        let of_video = || {
            let file = store.file(files.name("vmet"))?;
            let bytes = file.read(0, METADATA_BYTES as u64)?;
            let metadata = parse_video_metadata(&bytes, file.path(), password)?;
            Ok::<_, MefError>(metadata.recording_time_offset)
        };
        let offset = if channel.extension() == Some("vidd".as_ref()) {
            of_video()
        } else {
            let found = read_metadata(store, files, password);
            found.map(|(_, metadata)| metadata.recording_time_offset)
        };
        offset.map_or(TimeOffset::Unresolved, TimeOffset::of)
    }

    fn scan(
        &self,
        store: &Store,
        source: &Source,
        filter: &RecordFilter,
        page: &mut RecordPage,
    ) -> Result<Vec<RecordPosition>, MefError> {
        let data = store.file(&source.data)?;
        let index = store.file(source.data.with_extension("ridx")).ok();
        let files = RecordFiles {
            data: &data,
            index: index.as_ref().map(|index| index as &dyn ReadAt),
            path: data.path(),
            recording_time_offset: source.offset.known().unwrap_or(0),
            // Counted records are whole: the header is written after them.
            growing: is_growing(&data) && !counts_records(&data)?,
        };
        let found = scan(&files, filter)?;
        if source.offset.known().is_none() {
            page.times_unresolved += found.relative;
        }
        // What a password locks is nothing that is wrong.
        if source.offset == TimeOffset::Unresolved && found.relative > 0 {
            page.add(DamagedRecord {
                file: data.path().into(),
                file_offset: 0,
                error: RecordError::UnresolvedTimes,
            });
        }
        if self.protected {
            page.plain_in_protected += found.plain;
        }
        page.further_damage += found.damage.further;
        for damaged in found.damage.listed {
            page.add(damaged);
        }
        Ok(found.positions)
    }

    fn load(
        &self,
        store: &Store,
        source: &Source,
        position: &RecordPosition,
    ) -> Result<Record, RecordError> {
        let io_error = |error: MefError| RecordError::Io(error.to_string());
        let data = store.file(&source.data).map_err(io_error)?;
        let keys = self.keys_of(&data).map_err(io_error)?;
        load(&data, position, &keys, source.offset.known().unwrap_or(0))
    }

    /// The keys for a file's records: none, where the password is not its.
    fn keys_of(&self, data: &StoredFile) -> Result<Keys, MefError> {
        let bytes = data.read(0, HEADER_BYTES as u64)?;
        let header = parse_header(&bytes, "rdat", data.path())?;
        let unlocked = Keys::unlock(header, self.password.as_ref());
        Ok(unlocked.map(|(_, keys)| keys).unwrap_or_default())
    }
}

/// The name of the channel whose folder this is.
fn channel_of(item: &Item) -> Option<&str> {
    let name = stem_of(&item.name, "timd").or_else(|| stem_of(&item.name, "vidd"));
    name.filter(|_| item.is_folder)
}

/// Checks that channels are those of the session.
fn check_names(store: &Store, items: &[Item], names: &[String]) -> Result<(), MefError> {
    let known = || items.iter().filter_map(channel_of);
    let mut names = names.iter();
    match names.find(|&name| !known().any(|known| known == name)) {
        None => Ok(()),
        Some(name) => Err(MefError::UnknownChannel {
            // Without a slash at its end.
            session: store.path("").components().collect(),
            channel: name.as_str().into(),
            known: known().map(str::to_owned).collect(),
        }),
    }
}

/// Whether one of the two record files is there, by the name of the data file.
fn has_records(store: &Store, data: &Path) -> bool {
    store.has_file(data) || store.has_file(data.with_extension("ridx"))
}

/// Whether the header says how many records there are, and can be believed.
fn counts_records(data: &StoredFile) -> Result<bool, MefError> {
    let bytes = data.read(0, HEADER_BYTES as u64)?;
    let header = UniversalHeader::ref_from_bytes(&bytes).ok();
    Ok(header
        .is_some_and(|header| header_crc_is_right(header) && header.number_of_entries.get() >= 0))
}

fn finding(store: &Store, source: &Source, error: MefError) -> DamagedRecord {
    DamagedRecord {
        file: store.path(&source.data),
        file_offset: 0,
        error: match error {
            MefError::Malformed { reason, .. } => RecordError::FileHeader(reason),
            other => RecordError::Io(other.to_string()),
        },
    }
}

impl RecordPage {
    /// Whether this can be the answer to a query; one that came from another process
    /// is checked before it is used.
    pub(crate) fn answers(&self, query: &RecordQuery) -> bool {
        let here = self.records.len() as u64;
        let limit = query.limit as u64;
        let behind = self.total.saturating_sub(query.skip);
        // Those that cannot be read have a place, too.
        let places = match self.next {
            Some(next) => next.checked_sub(query.skip).filter(|&it| it < behind),
            None => Some(behind),
        };
        let in_places = places.is_some_and(|places| {
            let goes_on = places > 0 || limit == 0 || self.next.is_none();
            here <= places && places <= limit && goes_on
        });
        let is_wanted = |placed: &PlacedRecord| {
            let PlacedRecord {
                channel, record, ..
            } = placed;
            let channel = channel.as_ref();
            let names = &query.channels;
            (names.is_empty() || channel.is_some_and(|name| names.contains(name)))
                && query.filter.matches(record.kind, record.time_uutc)
                && record.body.kind().is_none_or(|kind| kind == record.kind)
        };
        let in_order = self.records.is_sorted_by_key(|it| it.record.time_uutc);
        in_places
            && in_order
            && self.records.iter().all(is_wanted)
            && self.plain_in_protected <= self.total
            && self.damaged.len() <= MAX_DAMAGE
    }

    fn add(&mut self, damaged: DamagedRecord) {
        if self.damaged.len() < MAX_DAMAGE {
            self.damaged.push(damaged);
        } else {
            self.further_damage += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mef::{
        ChannelOptions, NewRecord, OpenOptions, SessionOptions, SessionWriter, open_session,
    };

    const START: i64 = 1_600_000_000_000_000;

    /// Whoever goes from page to page meets every record once.
    #[test]
    fn a_record_that_cannot_be_loaded_has_a_place_in_the_pages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
        let mut channel = session.channel(ChannelOptions::new("a", 100.0)).unwrap();
        channel.write(START, &[1; 100]).unwrap();
        channel.finish().unwrap();
        let notes: Vec<_> = (0..4).map(|n| NewRecord::note(START + n, "note")).collect();
        session.records().unwrap().append(&notes).unwrap();
        let recording = open_session(&path, &OpenOptions::default()).unwrap();
        let (reader, store) = (RecordReader::of(&recording), recording.store().unwrap());

        let data = path.join("s.rdat");
        let whole = fs::read(&data).unwrap();
        let mut damaged = whole.clone();
        // The text of the second note.
        damaged[HEADER_BYTES + 40 + 24] ^= 1;
        let mut query = RecordQuery {
            limit: 1,
            ..RecordQuery::default()
        };
        let mut pages = Vec::new();
        loop {
            fs::write(&data, &whole).unwrap();
            // It was whole when it was found.
            let mut spoil = || fs::write(&data, &damaged).unwrap();
            let page = reader.read(&store, &query, &mut spoil).unwrap();
            pages.push((page.records.len(), page.damaged.len()));
            match page.next {
                Some(next) => query.skip = next,
                None => break,
            }
        }
        assert_eq!(pages, [(1, 0), (0, 1), (1, 0), (1, 0)]);
    }
}
