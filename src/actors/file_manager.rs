//! The file manager.
//!
//! Owns the open recordings and what clients have set on them: segment grid and
//! active channels. It checks reads and plans them. It touches no file: opening
//! is a job for a worker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;

use super::cache::{Cache, Purge};
use super::coordinator::{CancelPredictions, Coordinator, OpenSession};
use super::plan::{Pattern, ReadPlan, channel_positions};
use super::prefetcher::{Observed, Prefetcher};
use super::settings::Settings;
use super::supervisor::{CloseSession, WorkerSupervisor};
use crate::error::Error;
use crate::mef::{Channel, Rule};
use crate::worker::page::{PagedRecording, RecordingId};

/// A recording that somebody has opened.
struct OpenFile {
    path: PathBuf,
    recording: Arc<PagedRecording>,
    /// Files are listed in the order in which they were opened.
    order: u64,
    /// Length of a segment of the grid in microseconds.
    segment_us: Option<i64>,
    /// Names of the active channels; all, where none were set.
    active: Option<Vec<String>>,
}

/// Who waits for an opening.
type OpenReply = oneshot::Sender<Result<Opened, Error>>;

/// The file manager actor.
pub(crate) struct FileManager {
    coordinator: Addr<Coordinator>,
    cache: Addr<Cache>,
    prefetcher: Addr<Prefetcher>,
    supervisor: Addr<WorkerSupervisor>,
    settings: Settings,
    files: HashMap<String, OpenFile>,
    /// Sessions that are being read, and who has asked for each: nobody, where
    /// its files were seen to have changed.
    opening: HashMap<String, Vec<OpenReply>>,
    next_order: u64,
}

/// The other actors that the file manager talks to.
pub(crate) struct FileManagerPeers {
    pub(crate) coordinator: Addr<Coordinator>,
    pub(crate) cache: Addr<Cache>,
    pub(crate) prefetcher: Addr<Prefetcher>,
    pub(crate) supervisor: Addr<WorkerSupervisor>,
}

impl FileManager {
    pub(crate) fn new(settings: &Settings, peers: FileManagerPeers) -> Self {
        Self {
            coordinator: peers.coordinator,
            cache: peers.cache,
            prefetcher: peers.prefetcher,
            supervisor: peers.supervisor,
            settings: settings.clone(),
            files: HashMap::new(),
            opening: HashMap::new(),
            next_order: 0,
        }
    }

    fn file(&self, key: &str) -> Result<&OpenFile, Error> {
        self.files
            .get(key)
            .ok_or_else(|| Error::NotOpen(key.into()))
    }

    fn file_mut(&mut self, key: &str) -> Result<&mut OpenFile, Error> {
        self.files
            .get_mut(key)
            .ok_or_else(|| Error::NotOpen(key.into()))
    }

    /// Has a worker read the session, and enters the outcome under the key.
    fn open_session(&mut self, key: String, path: PathBuf, context: &mut Context<Self>) {
        let (reply, opened) = oneshot::channel();
        let coordinator = self.coordinator.clone();
        let session = path.clone();
        let asked = async move {
            let question = OpenSession {
                path: session,
                reply,
            };
            coordinator
                .send(question)
                .await
                .map_err(|_| Error::Stopped)?;
            opened.await.map_err(|_| Error::Stopped)?
        };
        context.spawn(asked.into_actor(self).map(move |outcome, manager, _| {
            let mut waiting = manager.opening.remove(&key).unwrap_or_default();
            waiting.retain(|reply| !reply.is_closed());
            if let Ok(recording) = &outcome {
                manager.enter(key, path, recording, !waiting.is_empty());
            }
            for (reply, number) in waiting.into_iter().zip(0..) {
                let opened = outcome.clone().map(|recording| Opened {
                    recording,
                    already_open: number > 0,
                });
                // Whoever asked may be gone.
                let _ = reply.send(opened);
            }
        }));
    }

    /// Enters a recording that was read: in place of an earlier state of it, or
    /// anew where somebody waits for it. What was closed meanwhile, or is
    /// wanted by nobody any more, stays closed.
    fn enter(&mut self, key: String, path: PathBuf, recording: &Arc<PagedRecording>, wanted: bool) {
        if let Some(file) = self.files.get_mut(&key) {
            log_opened(recording);
            let old = std::mem::replace(&mut file.recording, Arc::clone(recording));
            self.forget_pages(old.id);
            return;
        }
        if !wanted {
            return;
        }
        log_opened(recording);
        self.next_order += 1;
        self.files.insert(
            key,
            OpenFile {
                path,
                recording: Arc::clone(recording),
                order: self.next_order,
                segment_us: None,
                active: None,
            },
        );
    }

    fn forget_pages(&self, id: RecordingId) {
        // Sent without waiting for room: one each for an opening or closing.
        self.coordinator.do_send(CancelPredictions(id));
        self.cache.do_send(Purge(id));
    }

    /// Refuses more names than a read may have, before they are looked for.
    fn check_channels(&self, names: usize) -> Result<(), Error> {
        let most = self.settings.channels_per_read;
        if names <= most {
            return Ok(());
        }
        Err(Error::LimitExceeded {
            limit: "limits.channels_per_read",
            value: most as u64,
        })
    }

    fn plan(
        &self,
        file: &OpenFile,
        channels: Vec<u32>,
        window: (i64, i64),
        rule: Rule,
        pattern: Pattern,
    ) -> Result<ReadPlan, Error> {
        let most_channels = self.settings.channels_per_read;
        ReadPlan::new(
            &file.recording,
            channels,
            window,
            rule,
            pattern,
            most_channels,
        )
    }
}

fn log_opened(recording: &PagedRecording) {
    let PagedRecording { id, recording, .. } = recording;
    tracing::info!(
        path = %recording.path.display(),
        %id,
        channels = recording.channels.len(),
        "recording opened"
    );
    for channel in &recording.unreadable {
        tracing::warn!(channel = channel.name, error = %channel.error, "channel cannot be read");
    }
    for channel in &recording.channels {
        for segment in &channel.unreadable {
            let error = &segment.error;
            tracing::warn!(segment = segment.stem, %error, "segment cannot be read");
        }
    }
}

impl OpenFile {
    fn positions(&self, names: &[String]) -> Result<Vec<u32>, Error> {
        channel_positions(&self.recording, names)
    }

    fn channel_names(&self) -> Vec<String> {
        let channels: &[Channel] = &self.recording.recording.channels;
        channels
            .iter()
            .map(|channel| channel.name.clone())
            .collect()
    }

    /// Number of segments of the grid: the last, shorter one counts.
    fn segments(&self) -> u64 {
        let recording = &self.recording.recording;
        let (Some(start), Some(end), Some(length)) = (
            recording.start_uutc(),
            recording.end_uutc(),
            self.segment_us,
        ) else {
            return 0;
        };
        end.abs_diff(start).div_ceil(length.unsigned_abs().max(1))
    }

    /// The window of a segment of the grid.
    fn segment(&self, index: i64) -> Result<(i64, i64), Error> {
        let length = self.segment_us.ok_or(Error::NoSegmentSize)?;
        let count = self.segments();
        let recording = &self.recording.recording;
        let exists = u64::try_from(index).is_ok_and(|index| index < count);
        let (Some(first), Some(last), true) =
            (recording.start_uutc(), recording.end_uutc(), exists)
        else {
            return Err(Error::NoSuchSegment { index, count });
        };
        let start = first.saturating_add(index.saturating_mul(length));
        Ok((start, start.saturating_add(length).min(last)))
    }
}

impl Actor for FileManager {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.settings.mailbox);
    }
}

/// A recording that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) recording: Arc<PagedRecording>,
    /// It was open before; its grid and its active channels are as they were.
    pub(crate) already_open: bool,
}

/// Opens a recording.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Open {
    /// The name under which it is asked for from now on.
    pub(crate) key: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    pub(crate) reply: OpenReply,
}

impl Handler<Open> for FileManager {
    type Result = ();

    fn handle(&mut self, Open { key, path, reply }: Open, context: &mut Self::Context) {
        if let Some(file) = self.files.get(&key) {
            let recording = Arc::clone(&file.recording);
            // Whoever asked may be gone.
            let _ = reply.send(Ok(Opened {
                recording,
                already_open: true,
            }));
            return;
        }
        if let Some(waiting) = self.opening.get_mut(&key) {
            waiting.push(reply);
            return;
        }
        let most = self.settings.open_recordings;
        if self.files.len() + self.opening.len() >= most {
            let _ = reply.send(Err(Error::LimitExceeded {
                limit: "limits.open_recordings",
                value: most as u64,
            }));
            return;
        }
        self.opening.insert(key.clone(), vec![reply]);
        self.open_session(key, path, context);
    }
}

/// Closes a recording for everybody. Reads that are under way finish.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) String);

impl Handler<Close> for FileManager {
    type Result = ();

    fn handle(&mut self, Close(key): Close, _: &mut Self::Context) {
        if let Some(file) = self.files.remove(&key) {
            self.forget_pages(file.recording.id);
            self.supervisor.do_send(CloseSession(file.path));
        }
    }
}

/// Asks for an open recording.
#[derive(Message)]
#[rtype(result = "Option<Arc<PagedRecording>>")]
pub(crate) struct Find(pub(crate) String);

impl Handler<Find> for FileManager {
    type Result = MessageResult<Find>;

    fn handle(&mut self, Find(key): Find, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.files.get(&key).map(|file| Arc::clone(&file.recording)))
    }
}

/// Asks for the names of all open recordings, oldest first.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub(crate) struct ListOpen;

impl Handler<ListOpen> for FileManager {
    type Result = MessageResult<ListOpen>;

    fn handle(&mut self, _: ListOpen, _: &mut Self::Context) -> Self::Result {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(_, file)| file.order);
        MessageResult(files.into_iter().map(|(key, _)| key.clone()).collect())
    }
}

/// Lays a grid of segments over a recording, and expects it to be read from
/// the start. The answer is the number of segments.
#[derive(Message)]
#[rtype(result = "Result<u64, Error>")]
pub(crate) struct SetSegmentSize {
    pub(crate) key: String,
    pub(crate) seconds: i64,
    pub(crate) reader: u64,
}

impl Handler<SetSegmentSize> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, message: SetSegmentSize, _: &mut Self::Context) -> Self::Result {
        let SetSegmentSize {
            key,
            seconds,
            reader,
        } = message;
        let length = (seconds > 0).then(|| seconds.saturating_mul(1_000_000));
        let file = self.file_mut(&key)?;
        file.segment_us = Some(length.ok_or(Error::SegmentSize(seconds))?);
        let file = self.file(&key)?;
        // As if the segment before the first had just been read.
        let active = file.positions(file.active.as_deref().unwrap_or_default());
        let before = file
            .segment(0)
            .map(|(start, end)| (start.saturating_sub(end.saturating_sub(start)), start));
        if let (Ok(channels), Ok(window)) = (active, before)
            && let Ok(plan) = self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
        {
            // A prefetcher without room has better things to do.
            let _ = self.prefetcher.try_send(Observed { reader, plan });
        }
        Ok(file.segments())
    }
}

/// Asks for the number of segments: none where no size was set.
#[derive(Message)]
#[rtype(result = "Result<u64, Error>")]
pub(crate) struct CountSegments(pub(crate) String);

impl Handler<CountSegments> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, CountSegments(key): CountSegments, _: &mut Self::Context) -> Self::Result {
        self.file(&key).map(OpenFile::segments)
    }
}

/// The active channels after a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActiveChannels {
    pub(crate) active: Vec<String>,
    /// Names of the request that are no channel.
    pub(crate) unknown: Vec<String>,
    /// Whether the request changed the set.
    pub(crate) changed: bool,
}

/// Sets the active channels; all, where the list is empty. Unknown names are
/// left out, and a list of nothing else changes nothing.
#[derive(Message)]
#[rtype(result = "Result<ActiveChannels, Error>")]
pub(crate) struct SetActiveChannels {
    pub(crate) key: String,
    pub(crate) names: Vec<String>,
}

impl Handler<SetActiveChannels> for FileManager {
    type Result = Result<ActiveChannels, Error>;

    fn handle(&mut self, message: SetActiveChannels, _: &mut Self::Context) -> Self::Result {
        self.check_channels(message.names.len())?;
        let file = self.file_mut(&message.key)?;
        let recording = &file.recording.recording;
        let (known, unknown): (Vec<_>, Vec<_>) = message
            .names
            .into_iter()
            .partition(|name| recording.channel_position(name).is_some());
        let changed = !known.is_empty() || unknown.is_empty();
        if changed {
            file.active = (!known.is_empty()).then_some(known);
        }
        Ok(ActiveChannels {
            active: file.active.clone().unwrap_or_else(|| file.channel_names()),
            unknown,
            changed,
        })
    }
}

/// Asks for the active channels.
#[derive(Message)]
#[rtype(result = "Result<Vec<String>, Error>")]
pub(crate) struct GetActiveChannels(pub(crate) String);

impl Handler<GetActiveChannels> for FileManager {
    type Result = Result<Vec<String>, Error>;

    fn handle(&mut self, message: GetActiveChannels, _: &mut Self::Context) -> Self::Result {
        let file = self.file(&message.0)?;
        Ok(file.active.clone().unwrap_or_else(|| file.channel_names()))
    }
}

/// Plans the read of a segment of the grid: the active channels, by pymef's
/// rule.
#[derive(Message)]
#[rtype(result = "Result<ReadPlan, Error>")]
pub(crate) struct PlanSegment {
    pub(crate) key: String,
    pub(crate) index: i64,
}

impl Handler<PlanSegment> for FileManager {
    type Result = Result<ReadPlan, Error>;

    fn handle(
        &mut self,
        PlanSegment { key, index }: PlanSegment,
        _: &mut Self::Context,
    ) -> Self::Result {
        let file = self.file(&key)?;
        let window = file.segment(index)?;
        let channels = file.positions(file.active.as_deref().unwrap_or_default())?;
        self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
    }
}

/// Plans the read of a time range: the named channels (all, where none is
/// named), by a rule.
#[derive(Message)]
#[rtype(result = "Result<ReadPlan, Error>")]
pub(crate) struct PlanRange {
    pub(crate) key: String,
    pub(crate) channels: Vec<String>,
    pub(crate) start_uutc: i64,
    pub(crate) end_uutc: i64,
    pub(crate) rule: Rule,
}

impl Handler<PlanRange> for FileManager {
    type Result = Result<ReadPlan, Error>;

    fn handle(&mut self, range: PlanRange, _: &mut Self::Context) -> Self::Result {
        let file = self.file(&range.key)?;
        self.check_channels(range.channels.len())?;
        let channels = file.positions(&range.channels)?;
        let window = (range.start_uutc, range.end_uutc);
        self.plan(file, channels, window, range.rule, Pattern::Windows)
    }
}

/// Says that a recording's files are not the ones that were opened: it is
/// opened anew, and keeps its grid and its active channels.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RecordingChanged(pub(crate) RecordingId);

impl Handler<RecordingChanged> for FileManager {
    type Result = ();

    fn handle(&mut self, RecordingChanged(id): RecordingChanged, context: &mut Self::Context) {
        let changed = self.files.iter().find(|(_, file)| file.recording.id == id);
        let Some((key, path)) = changed.map(|(key, file)| (key.clone(), file.path.clone())) else {
            return;
        };
        if self.opening.contains_key(&key) {
            return;
        }
        tracing::warn!(path = %path.display(), %id, "recording changed and is opened anew");
        self.opening.insert(key.clone(), Vec::new());
        self.open_session(key, path, context);
    }
}
