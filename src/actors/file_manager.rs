//! The file manager.
//!
//! Owns the open recordings, who uses them, and what clients have set on them: segment
//! grid, active channels and served rate. It checks reads and plans them. It touches no
//! file: opening is a job for a worker.

mod clients;
mod grid;
mod opening;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;

use self::clients::{Choices, Sessions};
pub(crate) use self::clients::{Client, ClientId, ServedRate};
pub(crate) use self::grid::{
    CountSegments, GetActiveChannels, PlanSegment, SetActiveChannels, SetSegmentSize,
};
use self::opening::Opener;
pub(crate) use self::opening::{Close, Leave, ListOpen, Open, Opened};
use super::cache::{Cache, Purge};
use super::coordinator::{CancelPredictions, Coordinator};
use super::plan::{Pattern, ReadPlan, channel_positions};
use super::prefetcher::Prefetcher;
use super::session_state::{news_of, state_now};
use super::settings::Settings;
use super::supervisor::WorkerSupervisor;
use crate::error::Error;
use crate::mef::{MefError, OpenOptions, Refresh, Rule};
use crate::trace::{self, Trace};
use crate::worker::page::{PagedRecording, RecordingId};

/// Figures of the open recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordingStatistics {
    /// Recordings that are open.
    pub open: u64,
    /// Bytes that their indices take.
    pub metadata_bytes: u64,
    /// Sessions of clients that have given an id.
    pub client_sessions: u64,
}

/// The name under which a recording is open. Who has given another password, or
/// none, has opened another recording.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecordingName {
    pub(crate) name: String,
    pub(crate) options: OpenOptions,
}

/// A client's use of an open recording.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) recording: RecordingName,
    pub(crate) client: Client,
}

impl Use {
    /// Of clients that give no id.
    pub(crate) fn shared(recording: RecordingName) -> Self {
        Self {
            recording,
            client: Client::Shared,
        }
    }

    /// The name of the client's session, if it has one.
    fn session(&self) -> Option<(ClientId, RecordingName)> {
        match &self.client {
            Client::Named(id) => Some((id.clone(), self.recording.clone())),
            Client::Shared | Client::Passing => None,
        }
    }
}

/// Looking at a recording's files takes at most one part in so many of the time.
const LOOKS_SHARE: u32 = 10;

/// A recording that somebody has opened.
struct OpenFile {
    path: PathBuf,
    recording: Arc<PagedRecording>,
    /// When its files were last looked at.
    looked_at: Instant,
    /// How long that took.
    look_took: Duration,
    /// Why what they are now is not what is known of them.
    refused: Option<Error>,
    /// Files are listed in the order in which they were opened.
    order: u64,
    /// Whether somebody without an id has opened it and not closed it.
    is_shared: bool,
    /// What those have set who have no session.
    shared: Choices,
    /// Whether somebody has opened it in passing.
    is_passing: bool,
    /// When it was used last.
    used_at: Instant,
}

/// Who waits for a second look at a recording.
enum Waiting {
    /// Wants its state.
    State(oneshot::Sender<Result<Arc<PagedRecording>, Error>>),
    /// Wants to know whether it is still this opening.
    Same(RecordingId, oneshot::Sender<Result<(), Error>>),
}

impl Waiting {
    /// Whether nobody waits any more, or ever did.
    fn is_over(&self) -> bool {
        match self {
            Self::State(reply) => reply.is_closed(),
            Self::Same(_, reply) => reply.is_closed(),
        }
    }

    /// Whoever asked may be gone.
    fn answer(self, state: Result<Arc<PagedRecording>, Error>) {
        match self {
            Self::State(reply) => drop(reply.send(state)),
            Self::Same(id, reply) => drop(reply.send(state.and_then(|now| now.must_be(id)))),
        }
    }

    /// Answers by the state that the files are in, of which the newest may be refused.
    /// What was there before it is as good as it was.
    fn answer_in(self, now: &Arc<PagedRecording>, refused: Option<&Error>) {
        match (&self, refused) {
            (Self::State(_), Some(error)) => self.answer(Err(error.clone())),
            _ => self.answer(Ok(Arc::clone(now))),
        }
    }
}

/// The file manager actor.
pub(crate) struct FileManager {
    coordinator: Addr<Coordinator>,
    cache: Addr<Cache>,
    prefetcher: Addr<Prefetcher>,
    supervisor: Addr<WorkerSupervisor>,
    settings: Settings,
    files: HashMap<RecordingName, OpenFile>,
    /// Who uses them, of those who have an id.
    sessions: Sessions,
    /// Sessions that are being read, and who has asked for each.
    opening: HashMap<RecordingName, Vec<Opener>>,
    /// Recordings whose files are being looked at again, and who waits for it.
    refreshing: HashMap<RecordingName, Vec<Waiting>>,
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
            sessions: Sessions::new(settings.client_sessions, settings.session_idle_limit),
            opening: HashMap::new(),
            refreshing: HashMap::new(),
            next_order: 0,
        }
    }

    fn file(&self, key: &RecordingName) -> Result<&OpenFile, Error> {
        self.files
            .get(key)
            .ok_or_else(|| Error::NotOpen(key.name.clone()))
    }

    /// Refuses a recording whose indices would be more than there may be, beside those
    /// of the others, and in the place of `before`.
    fn check_metadata(
        &self,
        recording: &PagedRecording,
        before: Option<&PagedRecording>,
    ) -> Result<(), Error> {
        let others = self
            .metadata_bytes()
            .saturating_sub(before.map_or(0, PagedRecording::memory));
        let bytes = others + recording.memory();
        if bytes <= self.settings.metadata_bytes {
            return Ok(());
        }
        Err(Error::LimitExceeded {
            limit: "limits.metadata_mb",
            value: (self.settings.metadata_bytes >> 20) as u64,
        })
    }

    /// Bytes that the indices of all open recordings take.
    fn metadata_bytes(&self) -> usize {
        let files = self.files.values();
        files.map(|file| file.recording.memory()).sum()
    }

    /// What holds for a client: what it has set itself, if it has a session, and what
    /// all without one have set otherwise.
    fn choices(&self, by: &Use) -> Result<&Choices, Error> {
        let shared = &self.file(&by.recording)?.shared;
        let own = by.session().and_then(|key| self.sessions.choices(&key));
        Ok(own.unwrap_or(shared))
    }

    fn choices_mut(&mut self, by: &Use) -> Result<&mut Choices, Error> {
        let file = self.files.get_mut(&by.recording);
        let file = file.ok_or_else(|| Error::NotOpen(by.recording.name.clone()))?;
        let session = by.session();
        let own = session.and_then(|key| self.sessions.choices_mut(&key));
        Ok(own.unwrap_or(&mut file.shared))
    }

    /// Says that a client uses an open recording now: a session that was ended for the
    /// client goes on as it was.
    fn touch(&mut self, by: &Use) {
        let Some(file) = self.files.get_mut(&by.recording) else {
            return;
        };
        let now = Instant::now();
        file.used_at = now;
        if let Some(key) = by.session() {
            let made_way = self.sessions.touch(&key, now);
            self.release(made_way);
        }
    }

    /// Answers with a recording's state, which is at most as old as allowed.
    fn answer_fresh(
        &mut self,
        key: &RecordingName,
        waiting: Waiting,
        trace: Option<Trace>,
        context: &mut Context<Self>,
    ) {
        let Some(file) = self.files.get(key) else {
            return waiting.answer(Err(Error::NotOpen(key.name.clone())));
        };
        if let Some(refreshing) = self.refreshing.get_mut(key) {
            if waiting.is_over() {
                return;
            }
            match has_room(refreshing.len(), self.settings.waiters) {
                Ok(()) => refreshing.push(waiting),
                Err(busy) => waiting.answer(Err(busy)),
            }
            return;
        }
        if file.looked_at.elapsed() < file.may_be_old(self.settings.staleness) {
            return waiting.answer_in(&file.recording, file.refused.as_ref());
        }
        self.refreshing.insert(key.clone(), vec![waiting]);
        self.look_again(key.clone(), trace, context);
    }

    /// Has a worker look for what is new in an open recording.
    fn look_again(
        &mut self,
        key: RecordingName,
        trace: Option<Trace>,
        context: &mut Context<Self>,
    ) {
        let Some(file) = self.files.get(&key) else {
            return;
        };
        let begun = Instant::now();
        let before = Arc::clone(&file.recording);
        let looked = state_now(
            self.coordinator.clone(),
            file.path.clone(),
            key.options.clone(),
            Arc::clone(&before),
        );
        let looked = trace::within(trace.clone(), looked);
        context.spawn(looked.into_actor(self).map(move |state, manager, _| {
            let waiting = manager.refreshing.remove(&key).unwrap_or_default();
            // What was closed meanwhile stays closed, and what was opened anew is
            // newer than this.
            let now = match state {
                Ok(now) => now,
                Err(error) => {
                    let refused = |waiting: Waiting| waiting.answer(Err(error.clone()));
                    return waiting.into_iter().for_each(refused);
                }
            };
            let refused = manager.check_metadata(&now, Some(&before)).err();
            let replaced = now.id != before.id;
            let file = manager.files.get_mut(&key);
            if let Some(file) = file.filter(|file| file.recording.id == before.id) {
                file.look_took = begun.elapsed();
                file.refused.clone_from(&refused);
                // One that was replaced and has no room is looked for every time.
                if refused.is_none() || !replaced {
                    file.looked_at = begun;
                }
                if refused.is_none() {
                    file.recording = Arc::clone(&now);
                    if replaced {
                        let _entered = trace::entered(trace.as_ref());
                        tracing::warn!(id = %before.id, "recording was replaced");
                        log_opened(&now);
                        manager.forget_pages(before.id);
                    }
                }
            }
            for waiting in waiting {
                waiting.answer_in(&now, refused.as_ref());
            }
        }));
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

/// Refuses one more where so many wait for the same.
fn has_room(waiting: usize, limit: usize) -> Result<(), Error> {
    if waiting < limit {
        return Ok(());
    }
    Err(Error::Busy {
        limit: "limits.waiters",
        value: limit as u64,
    })
}

fn log_opened(recording: &PagedRecording) {
    let PagedRecording { id, recording, .. } = recording;
    tracing::info!(
        path = %recording.path.display(),
        %id,
        channels = recording.channels.len(),
        "recording opened"
    );
    if recording.password_by_old_mapping {
        tracing::warn!("the password is right only as mef3io up to 1.2.0 took it");
    }
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
    /// How long ago its files may have been looked at. A look at very many files
    /// takes long, and must not be all that the workers do.
    fn may_be_old(&self, staleness: Duration) -> Duration {
        if staleness.is_zero() {
            return staleness;
        }
        staleness.max(self.look_took.saturating_mul(LOOKS_SHARE))
    }

    fn positions(&self, names: &[String]) -> Result<Vec<u32>, Error> {
        channel_positions(&self.recording, names)
    }
}

impl Actor for FileManager {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.settings.mailbox);
        self.sweep(context);
    }
}

/// Asks for the state of an open recording, at most as old as allowed, for a client
/// who uses it now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Find {
    pub(crate) by: Use,
    /// The request that wants to know it.
    pub(crate) trace: Option<Trace>,
    pub(crate) reply: oneshot::Sender<Result<Arc<PagedRecording>, Error>>,
}

impl Handler<Find> for FileManager {
    type Result = ();

    fn handle(&mut self, find: Find, context: &mut Self::Context) {
        let Find { by, trace, reply } = find;
        self.touch(&by);
        self.answer_fresh(&by.recording, Waiting::State(reply), trace, context);
    }
}

/// Asks whether the files of a recording are still those that it was read from,
/// which it was at most as long ago as allowed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Check {
    pub(crate) recording: Arc<PagedRecording>,
    /// The request that wants to know it.
    pub(crate) trace: Option<Trace>,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

impl Handler<Check> for FileManager {
    type Result = ();

    fn handle(&mut self, check: Check, context: &mut Self::Context) {
        let Check {
            recording,
            trace,
            reply,
        } = check;
        let id = recording.id;
        let open = self.files.iter().find(|(_, file)| file.recording.id == id);
        if let Some((key, _)) = open {
            let key = key.clone();
            return self.answer_fresh(&key, Waiting::Same(id, reply), trace, context);
        }
        // Closed, or opened anew: whoever still has it is answered for itself.
        let path = recording.recording.path.clone();
        let options = OpenOptions {
            password: recording.recording.password.clone(),
        };
        let news = news_of(self.coordinator.clone(), path, options, recording.clone());
        let news = trace::within(trace, news);
        let answer = async move {
            let same = news.await.and_then(|news| match news {
                Refresh::Replaced(file) => Err(Error::Mef(MefError::Changed { file })),
                Refresh::Unchanged | Refresh::Grown(_) => Ok(()),
            });
            // Whoever asked may be gone.
            let _ = reply.send(same);
        };
        context.spawn(answer.into_actor(self));
    }
}

/// Finds channels of an open recording (all, where none is named) for a client who
/// reads them now.
#[derive(Message)]
#[rtype(result = "Result<Selection, Error>")]
pub(crate) struct Select {
    pub(crate) by: Use,
    pub(crate) channels: Vec<String>,
}

/// Channels of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) recording: Arc<PagedRecording>,
    /// Their positions, in the order of the names; repeats are legal.
    pub(crate) channels: Vec<u32>,
    /// Rate in Hz to which the client wants those reduced that have more.
    pub(crate) served_rate: Option<f64>,
}

impl Handler<Select> for FileManager {
    type Result = Result<Selection, Error>;

    fn handle(&mut self, Select { by, channels }: Select, _: &mut Self::Context) -> Self::Result {
        self.touch(&by);
        let file = self.file(&by.recording)?;
        self.check_channels(channels.len())?;
        Ok(Selection {
            channels: file.positions(&channels)?,
            recording: Arc::clone(&file.recording),
            served_rate: self.choices(&by)?.served_rate,
        })
    }
}

/// Asks for the rate in Hz to which a client has channels reduced that have more.
#[derive(Message)]
#[rtype(result = "Option<f64>")]
pub(crate) struct GetServedRate(pub(crate) Use);

impl Handler<GetServedRate> for FileManager {
    type Result = Option<f64>;

    fn handle(&mut self, GetServedRate(by): GetServedRate, _: &mut Self::Context) -> Self::Result {
        self.choices(&by)
            .ok()
            .and_then(|choices| choices.served_rate)
    }
}

/// Says that a recording's files are not the ones that were opened: they are
/// looked at again. The recording keeps its grid and its active channels.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RecordingChanged(pub(crate) RecordingId);

impl Handler<RecordingChanged> for FileManager {
    type Result = ();

    fn handle(&mut self, RecordingChanged(id): RecordingChanged, context: &mut Self::Context) {
        let changed = self.files.iter().find(|(_, file)| file.recording.id == id);
        let Some(key) = changed.map(|(key, _)| key.clone()) else {
            return;
        };
        if !self.refreshing.contains_key(&key) {
            self.refreshing.insert(key.clone(), Vec::new());
            self.look_again(key, None, context);
        }
    }
}

/// Asks for the file manager's figures.
#[derive(Message)]
#[rtype(result = "RecordingStatistics")]
pub(crate) struct CountOpen;

impl Handler<CountOpen> for FileManager {
    type Result = MessageResult<CountOpen>;

    fn handle(&mut self, _: CountOpen, _: &mut Self::Context) -> Self::Result {
        MessageResult(RecordingStatistics {
            open: self.files.len() as u64,
            metadata_bytes: self.metadata_bytes() as u64,
            client_sessions: self.sessions.len() as u64,
        })
    }
}
