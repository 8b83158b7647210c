//! Opening and closing: who uses a recording, and when nobody does any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;

use super::clients::{Choices, Client, ServedRate};
use super::{FileManager, OpenFile, RecordingName, Use, Waiting, has_room, log_opened};
use crate::actors::session_state::open_session;
use crate::actors::supervisor::CloseSession;
use crate::error::Error;
use crate::trace::{self, Trace};
use crate::worker::page::PagedRecording;

/// Idle sessions of clients are looked for this often in the time that they may be
/// idle, and at most once a second.
const SWEEPS: u32 = 10;
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Who waits for an opening.
pub(super) struct Opener {
    by: Use,
    served_rate: Option<ServedRate>,
    trace: Option<Trace>,
    reply: oneshot::Sender<Result<Opened, Error>>,
}

impl FileManager {
    /// Opens a recording, or joins those who have it open.
    fn open(&mut self, path: PathBuf, opener: Opener, context: &mut Context<Self>) {
        let name = opener.by.recording.clone();
        if self.files.contains_key(&name) {
            let (state, fresh) = oneshot::channel();
            let trace = opener.trace.clone();
            self.answer_fresh(&name, Waiting::State(state), trace, context);
            let fresh = async move { fresh.await.unwrap_or(Err(Error::Stopped)) };
            context.spawn(fresh.into_actor(self).map(move |state, manager, context| {
                if manager.files.contains_key(&name) {
                    manager.answer_opener(opener, state, true);
                } else {
                    // It was closed meanwhile.
                    manager.open(path, opener, context);
                }
            }));
            return;
        }
        if let Some(openers) = self.opening.get_mut(&name) {
            match has_room(openers.len(), self.settings.waiters) {
                Ok(()) => openers.push(opener),
                Err(busy) => drop(opener.reply.send(Err(busy))),
            }
            return;
        }
        let most = self.settings.open_recordings;
        if self.files.len() + self.opening.len() >= most {
            self.make_room();
        }
        if self.files.len() + self.opening.len() >= most {
            // Whoever asked may be gone.
            let _ = opener.reply.send(Err(Error::LimitExceeded {
                limit: "limits.open_recordings",
                value: most as u64,
            }));
            return;
        }
        let trace = opener.trace.clone();
        self.opening.insert(name.clone(), vec![opener]);
        self.open_session(name, path, trace, context);
    }

    /// Has a worker read the session, and enters the outcome under the name.
    fn open_session(
        &mut self,
        name: RecordingName,
        path: PathBuf,
        trace: Option<Trace>,
        context: &mut Context<Self>,
    ) {
        let options = name.options.clone();
        let asked = open_session(self.coordinator.clone(), path.clone(), options);
        let asked = trace::within(trace.clone(), asked);
        context.spawn(asked.into_actor(self).map(move |outcome, manager, _| {
            let mut openers = manager.opening.remove(&name).unwrap_or_default();
            openers.retain(|opener| !opener.reply.is_closed());
            let outcome = outcome.and_then(|recording| {
                manager.check_metadata(&recording, None)?;
                Ok(recording)
            });
            if let Ok(recording) = &outcome
                && !openers.is_empty()
            {
                let _entered = trace::entered(trace.as_ref());
                manager.enter(name.clone(), path, recording);
            }
            for (opener, number) in openers.into_iter().zip(0..) {
                let opened = outcome.clone();
                manager.answer_opener(opener, opened, number > 0);
            }
            // Nobody may have got what was asked for.
            manager.release([name]);
        }));
    }

    /// Enters a recording that was read.
    fn enter(&mut self, name: RecordingName, path: PathBuf, recording: &Arc<PagedRecording>) {
        log_opened(recording);
        self.next_order += 1;
        let file = OpenFile {
            path,
            recording: Arc::clone(recording),
            looked_at: Instant::now(),
            look_took: Duration::ZERO,
            refused: None,
            order: self.next_order,
            is_shared: false,
            shared: Choices::default(),
            is_passing: false,
            used_at: Instant::now(),
        };
        self.files.insert(name, file);
    }

    /// Makes somebody a user of a recording that is open, and says so.
    fn answer_opener(
        &mut self,
        opener: Opener,
        state: Result<Arc<PagedRecording>, Error>,
        already_open: bool,
    ) {
        let Opener {
            by,
            served_rate,
            reply,
            ..
        } = opener;
        let opened = state.and_then(|recording| {
            if let Some(rate) = served_rate {
                rate.check(&recording.recording)?;
            }
            self.join(&by, served_rate)?;
            Ok(Opened {
                recording,
                already_open,
            })
        });
        // Whoever asked may be gone.
        let _ = reply.send(opened);
    }

    fn join(&mut self, by: &Use, served_rate: Option<ServedRate>) -> Result<(), Error> {
        let file = self.files.get_mut(&by.recording);
        let file = file.ok_or_else(|| Error::NotOpen(by.recording.name.clone()))?;
        let now = Instant::now();
        file.used_at = now;
        match by.client {
            Client::Shared => file.is_shared = true,
            Client::Passing => file.is_passing = true,
            Client::Named(_) => {}
        }
        if let Some(key) = by.session() {
            let rate = served_rate.map(|served| served.rate);
            let made_way = self.sessions.open(key, rate, now);
            self.release(made_way);
        }
        Ok(())
    }

    /// Whether anybody has opened a recording and not closed it.
    fn is_kept(&self, name: &RecordingName, file: &OpenFile) -> bool {
        file.is_shared || self.sessions.use_recording(name)
    }

    /// Closes those of the recordings that nobody uses any more.
    pub(super) fn release(&mut self, names: impl IntoIterator<Item = RecordingName>) {
        for name in names {
            let file = self.files.get(&name);
            if file.is_some_and(|file| !file.is_passing && !self.is_kept(&name, file)) {
                self.close(&name);
            }
        }
    }

    /// Closes a recording for everybody.
    fn close(&mut self, name: &RecordingName) {
        if let Some(file) = self.files.remove(name) {
            self.sessions.forget(name);
            self.forget_pages(file.recording.id);
            self.supervisor.do_send(CloseSession(file.path));
        }
    }

    /// Ends idle sessions of clients from now on, and closes what was opened in passing
    /// and is not used.
    pub(super) fn sweep(&self, context: &mut Context<Self>) {
        let passing = self.settings.passing_limit;
        let limit = self.settings.session_idle_limit.unwrap_or(passing);
        let pause = (limit.min(passing) / SWEEPS).max(SWEEP_PAUSE);
        context.run_interval(pause, move |manager, _| {
            let now = Instant::now();
            let expired = manager.sessions.expire(now);
            if !expired.is_empty() {
                tracing::info!(sessions = expired.len(), "idle sessions of clients ended");
            }
            manager.release(expired);
            let idle = |file: &OpenFile| now.saturating_duration_since(file.used_at) > passing;
            for (name, _) in manager.passing(idle) {
                manager.close(&name);
            }
        });
    }

    /// Those of the recordings that nobody keeps open, and when they were used last.
    fn passing(&self, which: impl Fn(&OpenFile) -> bool) -> Vec<(RecordingName, Instant)> {
        let files = self.files.iter();
        let passing = files.filter(|(name, file)| which(file) && !self.is_kept(name, file));
        passing
            .map(|(name, file)| (name.clone(), file.used_at))
            .collect()
    }

    /// Closes the recording that nobody keeps open and was not used for the longest
    /// time, if there is one.
    fn make_room(&mut self) {
        let oldest = self
            .passing(|_| true)
            .into_iter()
            .min_by_key(|&(_, used)| used);
        if let Some((name, _)) = oldest {
            self.close(&name);
        }
    }
}

/// A recording that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) recording: Arc<PagedRecording>,
    /// It was open before; its grid and its active channels are as they were.
    pub(crate) already_open: bool,
}

/// Opens a recording, for those without an id or for a client of its own.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Open {
    /// Whose it is, and the name under which it is asked for from now on.
    pub(crate) by: Use,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The rate that a client with an id wants to be served at: that of the channels
    /// where it is `None`, whatever it was before.
    pub(crate) served_rate: Option<ServedRate>,
    /// The request that it is opened for.
    pub(crate) trace: Option<Trace>,
    pub(crate) reply: oneshot::Sender<Result<Opened, Error>>,
}

impl Handler<Open> for FileManager {
    type Result = ();

    fn handle(&mut self, open: Open, context: &mut Self::Context) {
        let opener = Opener {
            by: open.by,
            served_rate: open.served_rate,
            trace: open.trace,
            reply: open.reply,
        };
        self.open(open.path, opener, context);
    }
}

/// Closes the recordings of a name for everybody. Reads that are under way finish.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) String);

impl Handler<Close> for FileManager {
    type Result = ();

    fn handle(&mut self, Close(name): Close, _: &mut Self::Context) {
        let of_it: Vec<RecordingName> = self
            .files
            .keys()
            .filter(|open| open.name == name)
            .cloned()
            .collect();
        for name in of_it {
            self.close(&name);
        }
    }
}

/// Ends the use of a recording by a client, or by all who have no id. It is closed
/// where nobody else has opened it. The answer is whether it is still open.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Leave(pub(crate) Use);

impl Handler<Leave> for FileManager {
    type Result = bool;

    fn handle(&mut self, Leave(by): Leave, _: &mut Self::Context) -> Self::Result {
        if let Some(key) = by.session() {
            self.sessions.close(&key);
        } else if let Some(file) = self.files.get_mut(&by.recording) {
            file.is_shared = false;
            // Whoever opens it next begins anew.
            file.shared = Choices::default();
        }
        self.release([by.recording.clone()]);
        self.files.contains_key(&by.recording)
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
        MessageResult(
            files
                .into_iter()
                .map(|(name, _)| name.name.clone())
                .collect(),
        )
    }
}
