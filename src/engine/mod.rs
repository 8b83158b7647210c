//! The embedding API: open recordings, read them as streams.
//!
//! An [`Engine`] runs the actors on a thread of its own and the decoding in
//! worker processes. It needs no particular runtime around it: every method is
//! a plain future. It sets nothing global: no signal handler, no subscriber, no
//! exit. The one thing that it asks of a program is
//! [`worker::init`](crate::worker::init) at the start of `main`.

mod blocks;
mod catalog;
mod envelope;
mod follow;
mod permits;
mod points;
mod range;
mod read_ahead;
mod reader;
mod request;
mod served;
mod statistics;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use actix_rt::System;
use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

pub use blocks::{Block, BlockItem, BlockStream};
pub(crate) use catalog::Listing;
pub(crate) use envelope::{EnvelopeItem, EnvelopeRequest, EnvelopeStream};
pub use follow::Follow;
pub use permits::Held;
pub(crate) use range::{RangePlan, RangeRequest, RangeStream, Shape};
pub(crate) use reader::Reader;
pub use request::ReadRequest;
pub use statistics::Statistics;
pub use windows::{Masked, Missing, MissingReason, ScaleChange, Window, WindowStream};
pub(crate) use windows::{StoredBlock, StoredPart, StoredStream};

use self::catalog::Listings;
use self::permits::Permits;
use self::points::PointsRoom;
use self::read_ahead::ReadAhead;
use crate::actors::cache::CountCache;
use crate::actors::coordinator::{CountFlights, ProbeFailure, ProbeReaders, ReadRecords};
use crate::actors::file_manager::{
    Close, CountOpen, Find, Open, Opened, RecordingName, ServedRate, Use,
};
use crate::actors::plan::{ReadPlan, channel_positions};
use crate::actors::prefetcher::CountPredictions;
use crate::actors::settings::Settings;
use crate::actors::supervisor::{CountWorkers, StopWorkers};
use crate::actors::tree::{self, Addresses};
use crate::config::{Config, ConfigError, OnDamage};
use crate::error::Error;
use crate::mef::{
    self, Malformation, MefError, OpenOptions, RecordPage, RecordQuery, RecordReader, SampleValue,
    check_readable,
};
use crate::trace;
use crate::worker::page::{Form, PagedRecording, Revision};

/// How long a shutdown waits for killed workers to be reaped. They are gone within
/// milliseconds, unless storage holds them.
const STOP_LIMIT: Duration = Duration::from_millis(600);
/// Decoded bytes of one message of a stream, unless the request says otherwise.
const MESSAGE_BYTES: usize = 1 << 20;

/// Why an engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The actors' thread cannot be started.
    #[error("the actors' thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The actors ended before they began.
    #[error("the actors did not start")]
    Actors,
}

/// Sets an engine up.
#[derive(Clone, Debug, Default)]
pub struct EngineBuilder {
    config: Config,
}

impl EngineBuilder {
    /// Replaces all settings. Those of the server program (listener, log) mean
    /// nothing to an engine.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Number of worker processes; 0 decodes in this process.
    #[must_use]
    pub fn workers(mut self, processes: usize) -> Self {
        self.config.workers.min = processes;
        self.config.workers.max = processes;
        self
    }

    /// Budget of the page cache in MiB.
    #[must_use]
    pub fn cache_mb(mut self, size_mb: usize) -> Self {
        self.config.cache.size_mb = size_mb;
        self
    }

    /// Starts the actors, and they the workers. Returns at once: what is read
    /// before the first worker is up waits for it.
    ///
    /// # Errors
    /// [`StartError`] where a setting is wrong or no thread can be had.
    pub fn start(self) -> Result<Engine, StartError> {
        self.config.validate()?;
        let settings = Settings::from(&self.config);
        let (started, addresses) = std::sync::mpsc::channel();
        let (stop, stopping) = watch::channel(false);
        let (ended, has_ended) = watch::channel(false);
        let actor_settings = settings.clone();
        thread::Builder::new()
            .name("mef3-actors".into())
            .spawn(move || {
                System::new().block_on(run_actors(actor_settings, started, stopping));
                // Nobody may be waiting.
                let _ = ended.send(true);
            })?;
        let tree = addresses.recv().map_err(|_| StartError::Actors)?;
        let permits = Permits::new(settings.in_flight_bytes, settings.client_bytes);
        Ok(Engine {
            inner: Arc::new(Inner {
                tree,
                permits: Arc::new(permits),
                points: PointsRoom::new(settings.points_mb),
                listings: Listings::new(settings.listings),
                envelopes: envelope::Envelopes::new(&settings),
                settings,
                stop,
                has_ended,
                masked_blocks: Arc::default(),
            }),
        })
    }
}

type Tree = Arc<ArcSwap<Addresses>>;

/// The life of the actors' thread.
async fn run_actors(
    settings: Settings,
    started: std::sync::mpsc::Sender<Tree>,
    mut stopping: watch::Receiver<bool>,
) {
    let tree = Arc::new(ArcSwap::from_pointee(tree::start(&settings)));
    if started.send(Arc::clone(&tree)).is_err() {
        return;
    }
    tokio::select! {
        () = tree::watch(settings, Arc::clone(&tree)) => {}
        // Also ends when the last engine is dropped.
        _ = stopping.wait_for(|&stop| stop) => {}
    }
    let (reply, stopped) = oneshot::channel();
    let supervisor = tree.load().supervisor.clone();
    if supervisor.send(StopWorkers(reply)).await.is_ok()
        && tokio::time::timeout(STOP_LIMIT, stopped).await.is_err()
    {
        tracing::error!("workers could not be ended within {STOP_LIMIT:?}");
    }
}

/// A running engine. Clones share it; it stops when [`shutdown`](Self::shutdown)
/// is called or the last clone is dropped.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    tree: Tree,
    permits: Arc<Permits>,
    points: PointsRoom,
    listings: Listings,
    envelopes: envelope::Envelopes,
    settings: Settings,
    stop: watch::Sender<bool>,
    has_ended: watch::Receiver<bool>,
    masked_blocks: Arc<AtomicU64>,
}

impl Engine {
    /// An engine with default settings.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Opens the session at `path`, or joins those who have it open.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with), of which this is the form without a
    /// password.
    pub async fn open(&self, path: impl AsRef<Path>) -> Result<Recording, Error> {
        self.open_with(path, OpenOptions::default()).await
    }

    /// Opens the session at `path`, or joins those who have it open with the same
    /// password. Who has given none, or another, is answered by what that opens.
    ///
    /// # Cancellation
    /// Dropping the future cancels nothing that others wait for; the session may
    /// be open afterwards.
    ///
    /// # Errors
    /// [`Error::Mef`] where the session cannot be read, and the engine's own.
    pub async fn open_with(
        &self,
        path: impl AsRef<Path>,
        options: OpenOptions,
    ) -> Result<Recording, Error> {
        let path = path.as_ref();
        // Recordings are known by name, and two names must not look the same.
        let key = path
            .to_str()
            .ok_or_else(|| MefError::malformed(path, Malformation::Name))?;
        let name = key.to_owned();
        let by = Use::shared(RecordingName { name, options });
        let opened = self.open_as(by.clone(), path.into(), None).await?;
        Ok(Recording::new(opened.recording, by))
    }

    /// Opens a session under a name of its own, for a client, who may want to be served
    /// at a rate.
    pub(crate) async fn open_as(
        &self,
        by: Use,
        path: PathBuf,
        served_rate: Option<ServedRate>,
    ) -> Result<Opened, Error> {
        let (reply, opened) = oneshot::channel();
        // Until it is answered.
        let trace = trace::current().map(|call| {
            let span = tracing::debug_span!(parent: call.span(), "open", request = %call.id());
            call.part(span)
        });
        let question = Open {
            by,
            path,
            served_rate,
            trace,
            reply,
        };
        let sent = self.addresses().file_manager.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        opened.await.map_err(|_| Error::Stopped)?
    }

    /// Closes the recording that was opened from `path`, for everybody. Streams
    /// and handles that exist go on working.
    ///
    /// # Errors
    /// [`Error::Stopped`]. That nothing was open is none.
    pub async fn close(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let key = path.as_ref().to_string_lossy().into_owned();
        let sent = self.addresses().file_manager.send(Close(key)).await;
        sent.map_err(|_| Error::Stopped)
    }

    /// Reads a window as a stream of messages, each a range of columns for all
    /// rows, while later ones are still being decoded.
    ///
    /// Decoding works a bounded number of bytes ahead of whoever takes the
    /// messages, and no further.
    ///
    /// # Errors
    /// [`Error`] where a channel does not exist or the window has no grid. What
    /// goes wrong later comes through the stream, as its last item.
    pub fn read<T: SampleValue>(&self, request: &ReadRequest) -> Result<WindowStream<T>, Error> {
        let plan = request.plan(self.inner.settings.channels_per_read)?;
        let windows = self.read_plan(
            plan,
            request.reader.into(),
            request.columns_per_message,
            request.on_damage,
        )?;
        Ok(windows.detailed(request.detailed))
    }

    /// Reads a window as a stream of the stored blocks that touch it, whole and
    /// unplaced.
    ///
    /// Damaged blocks are items of the stream, whatever the request says of damage.
    /// A segment that cannot be read has no blocks: the request is refused, or, where
    /// it masks damage, the segment is an item.
    ///
    /// # Errors
    /// As [`read`](Self::read); and [`Error::Read`] for a segment that cannot be read
    /// and is not masked.
    pub fn read_blocks(&self, request: &ReadRequest) -> Result<BlockStream, Error> {
        let plan = request.plan(self.inner.settings.channels_per_read)?;
        let columns = message_columns(plan.channels.len(), size_of::<i32>());
        let on_damage = request.on_damage;
        let reader = request.reader.into();
        self.check_size(&plan, size_of::<i32>(), reader)?;
        let pages = self.read_ahead(plan, reader, columns, on_damage)?;
        Ok(BlockStream::new(pages, on_damage))
    }

    /// Reads records (annotations) of a recording from its files, in the order of
    /// their times. At most [`MAX_RECORDS`](Self::MAX_RECORDS) come at a time.
    ///
    /// # Errors
    /// [`Error::Mef`] where the session cannot be looked into. What is wrong with
    /// single records is in the answer.
    pub async fn records(
        &self,
        recording: &Recording,
        query: &RecordQuery,
    ) -> Result<RecordPage, Error> {
        let found = &recording.paged.recording;
        let (reply, page) = oneshot::channel();
        let question = ReadRecords {
            path: found.path.clone(),
            reader: RecordReader::of(found),
            query: RecordQuery {
                limit: query.limit.min(Self::MAX_RECORDS),
                ..query.clone()
            },
            trace: trace::current(),
            reply,
        };
        let sent = self.addresses().coordinator.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        page.await.map_err(|_| Error::Stopped)?
    }

    /// Most records of one answer.
    pub const MAX_RECORDS: usize = 10_000;

    /// Follows a recording that is written: the blocks of some channels (all,
    /// those that come later, too, where none is named) that end after
    /// `from_uutc` (after all that is known, where it is `None`), and then those
    /// that are added, each within about `live.staleness_ms` of its writing.
    ///
    /// # Errors
    /// [`Error::UnknownChannels`] and [`Error::UnreadableChannel`].
    pub fn follow<N: Into<String>>(
        &self,
        recording: &Recording,
        channels: impl IntoIterator<Item = N>,
        from_uutc: Option<i64>,
    ) -> Result<Follow, Error> {
        let channels: Vec<String> = channels.into_iter().map(Into::into).collect();
        channel_positions(&recording.paged, &channels)?;
        let staleness = self.inner.settings.staleness;
        Ok(Follow::new(
            self.clone(),
            recording,
            channels,
            from_uutc,
            staleness,
        ))
    }

    pub(crate) fn read_plan<T: SampleValue>(
        &self,
        plan: ReadPlan,
        reader: Reader,
        columns_per_message: Option<u64>,
        on_damage: OnDamage,
    ) -> Result<WindowStream<T>, Error> {
        self.check_size(&plan, size_of::<T>(), reader)?;
        self.stream_plan(plan, reader, columns_per_message, on_damage)
    }

    /// The same of a plan that is not larger than it may be, or a part of one.
    pub(crate) fn stream_plan<T: SampleValue>(
        &self,
        plan: ReadPlan,
        reader: Reader,
        columns_per_message: Option<u64>,
        on_damage: OnDamage,
    ) -> Result<WindowStream<T>, Error> {
        let columns = columns_per_message
            .unwrap_or_else(|| message_columns(plan.channels.len(), size_of::<T>()));
        let pages = self.read_ahead(plan, reader, columns, on_damage)?;
        let masked = Arc::clone(&self.inner.masked_blocks);
        Ok(WindowStream::new(pages, on_damage, masked))
    }

    /// The stored blocks of a plan that is not larger than it may be.
    pub(crate) fn stream_stored(
        &self,
        plan: ReadPlan,
        reader: Reader,
        columns_per_message: u64,
        on_damage: OnDamage,
    ) -> Result<StoredStream, Error> {
        let form = Form::Stored;
        let pages = self.read_ahead(
            ReadPlan { form, ..plan },
            reader,
            columns_per_message,
            on_damage,
        )?;
        let masked = Arc::clone(&self.inner.masked_blocks);
        Ok(StoredStream::new(pages, on_damage, masked))
    }

    /// Refuses a read of more samples than one may have, each of so many bytes.
    pub(crate) fn check_size(
        &self,
        plan: &ReadPlan,
        value_bytes: usize,
        reader: Reader,
    ) -> Result<(), Error> {
        let (rows, columns) = (plan.channels.len(), plan.grid.columns());
        self.check_matrix(rows, columns, value_bytes, reader)
    }

    fn check_matrix(
        &self,
        rows: usize,
        columns: u64,
        value_bytes: usize,
        reader: Reader,
    ) -> Result<(), Error> {
        let bytes = columns.saturating_mul(rows as u64);
        self.check_bytes(bytes.saturating_mul(value_bytes as u64), reader)
    }

    /// Refuses a read of more bytes than one may have.
    pub(crate) fn check_bytes(&self, bytes: u64, reader: Reader) -> Result<(), Error> {
        let limit_bytes = reader.request_bytes(self.inner.settings.request_bytes);
        if bytes <= limit_bytes {
            return Ok(());
        }
        Err(Error::RequestTooLarge { bytes, limit_bytes })
    }

    fn read_ahead(
        &self,
        plan: ReadPlan,
        reader: Reader,
        columns: u64,
        on_damage: OnDamage,
    ) -> Result<ReadAhead, Error> {
        if on_damage == OnDamage::Fail {
            for channel in plan.rows() {
                check_readable(channel, plan.span_uutc())?;
            }
        }
        let settings = &self.inner.settings;
        Ok(ReadAhead::new(
            &self.addresses(),
            plan,
            reader.id,
            columns,
            settings,
            self.inner.permits.lease(reader),
        ))
    }

    /// The state of an open recording, at most as old as `live.staleness_ms`.
    pub(crate) async fn find(&self, by: Use) -> Result<Arc<PagedRecording>, Error> {
        let (reply, found) = oneshot::channel();
        let trace = trace::current();
        let question = Find { by, trace, reply };
        let sent = self.addresses().file_manager.send(question);
        sent.await.map_err(|_| Error::Stopped)?;
        found.await.map_err(|_| Error::Stopped)?
    }

    /// Has the files of an open recording looked at, unless they were within
    /// `live.staleness_ms`, and does not wait for it.
    pub(crate) fn look(&self, by: Use) {
        let (reply, _) = oneshot::channel();
        // A file manager without room has better things to do.
        let trace = trace::current();
        let question = Find { by, trace, reply };
        let _ = self.addresses().file_manager.try_send(question);
    }

    /// Looks for what is new in a recording: blocks, segments and channels that
    /// were written since. The files are looked at unless they were within
    /// `live.staleness_ms`.
    ///
    /// What was read before stays true as long as the revision's `opening` is the
    /// same; where it is another, files were replaced or cut.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn refresh(&self, recording: &Recording) -> Result<Recording, Error> {
        let (by, path) = (recording.by.clone(), recording.info().path.clone());
        let opened = self.open_as(by.clone(), path, None).await?;
        Ok(Recording::new(opened.recording, by))
    }

    /// Has a reader (a worker process, or the server itself where it stands in) decode
    /// a built-in block, and waits until one has, however long that takes. It delays no
    /// read: while reads leave no room for it, a page of theirs is as good.
    ///
    /// # Cancellation
    /// Dropping the future forgets the question.
    ///
    /// # Errors
    /// [`ProbeFailure`] where the readers cannot.
    pub async fn probe(&self) -> Result<(), ProbeFailure> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.addresses().coordinator.send(ProbeReaders { reply });
        sent.await.map_err(|_| ProbeFailure::Stopped)?;
        outcome.await.map_err(|_| ProbeFailure::Stopped)?
    }

    /// What the engine has done so far.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        let addresses = self.addresses();
        let stopped = |_| Error::Stopped;
        Ok(Statistics {
            masked_blocks: self.inner.masked_blocks.load(Ordering::Relaxed),
            held: self.inner.permits.held(),
            recordings: addresses
                .file_manager
                .send(CountOpen)
                .await
                .map_err(stopped)?,
            cache: addresses.cache.send(CountCache).await.map_err(stopped)?,
            coordinator: addresses
                .coordinator
                .send(CountFlights)
                .await
                .map_err(stopped)?,
            prefetch: addresses
                .prefetcher
                .send(CountPredictions)
                .await
                .map_err(stopped)?,
            supervisor: addresses
                .supervisor
                .send(CountWorkers)
                .await
                .map_err(stopped)?,
        })
    }

    /// Stops the engine: when this returns, its workers are gone. Requests that
    /// are under way end in [`Error::Stopped`].
    ///
    /// # Cancellation
    /// The engine stops even if the future is dropped after its first poll.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let mut has_ended = self.inner.has_ended.clone();
        // An error says that the thread is gone, which is as good.
        let _ = has_ended.wait_for(|&ended| ended).await;
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn addresses(&self) -> Arc<Addresses> {
        self.inner.tree.load_full()
    }
}

/// Columns of a message of about [`MESSAGE_BYTES`].
fn message_columns(rows: usize, value_bytes: usize) -> u64 {
    (MESSAGE_BYTES / (rows.max(1) * value_bytes)).max(1) as u64
}

/// A recording that was opened. Clones share it; it stays readable after it was
/// closed, as long as its files are the same.
#[derive(Clone, Debug)]
pub struct Recording {
    paged: Arc<PagedRecording>,
    /// Whose it is, and its name.
    by: Use,
}

impl Recording {
    pub(crate) fn new(paged: Arc<PagedRecording>, by: Use) -> Self {
        Self { paged, by }
    }

    pub(crate) fn paged(&self) -> &Arc<PagedRecording> {
        &self.paged
    }

    /// What was found in the session's files.
    pub fn info(&self) -> &mef::Recording {
        &self.paged.recording
    }

    /// Names the state that was found.
    pub fn revision(&self) -> Revision {
        self.paged.revision()
    }
}
