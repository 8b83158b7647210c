//! The legacy service: what clients of brainmaze-mef3-server and mef3io-server
//! call. Errors are in-band, with gRPC status OK.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::ServiceOptions;
use super::proto::server::LegacyService;
use super::proto::{
    ChannelEnvelope, EnvelopeRequest, FileInfoRequest, FileInfoResponse, GetActiveChannelsRequest,
    GetActiveChannelsResponse, GetNumberOfSegmentsResponse, ListOpenFilesRequest,
    ListOpenFilesResponse, OpenFileRequest, SetActiveChannelsRequest, SetActiveChannelsResponse,
    SetSignalSegmentRequest, SetSignalSegmentResponse, SignalChunk, SignalChunkRequest,
    SignalRangeRequest,
};
use super::texts;
use super::transport::Room;
use crate::actors::file_manager::{
    CountSegments, GetActiveChannels, ListOpen, PlanRange, PlanSegment, RecordingName,
    SetActiveChannels, SetSegmentSize,
};
use crate::actors::plan::ReadPlan;
use crate::engine::{Engine, Masked, Window, WindowStream};
use crate::error::Error;
use crate::mef::{OpenOptions, Rule, SampleValue};
use crate::worker::page::PagedRecording;

/// Bytes of samples in one message of a long reply. A client that stops reading holds two
/// or three of them, which are in the hands of HTTP/2. A twentieth of what the existing
/// servers send, and no slower.
const MESSAGE_BYTES: usize = 128 << 10;
/// Bytes of a reply that is one message, where there is room: each message more costs
/// a Python client a tenth of a millisecond. As much as the existing servers send at a
/// time, and below the 4 MiB that a client accepts unless told otherwise.
const WHOLE_BYTES: u64 = 2_621_440;
/// Header by which a client of mef3io-server 3.1 names itself.
const CLIENT_ID: &str = "x-mef3io-client-id";
const MAX_CLIENT_ID: usize = 128;

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(super) struct Legacy {
    engine: Engine,
    options: ServiceOptions,
}

impl Legacy {
    pub(super) fn new(engine: Engine, options: ServiceOptions) -> Self {
        Self { engine, options }
    }

    /// The name of a recording by a client's path for it.
    fn name(&self, file_path: &str) -> RecordingName {
        RecordingName {
            name: file_path.to_owned(),
            // This protocol has no passwords.
            options: OpenOptions {
                password: self.options.password.clone(),
            },
        }
    }

    /// Where a client's path is on this machine.
    ///
    /// Below a host root nothing may climb out by `..`.
    fn resolve(&self, path: &str) -> Result<PathBuf, String> {
        let path = Path::new(path);
        let Some(root) = &self.options.host_root else {
            return Ok(path.into());
        };
        if path
            .components()
            .any(|component| component == Component::ParentDir)
        {
            return Err(format!("path must not contain '..': {}", path.display()));
        }
        Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
    }

    /// Asks the file manager.
    async fn ask<M>(&self, question: M) -> Result<M::Result, Error>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        crate::actors::file_manager::FileManager: actix::Handler<M>,
        actix::Context<crate::actors::file_manager::FileManager>:
            actix::dev::ToEnvelope<crate::actors::file_manager::FileManager, M>,
    {
        let answer = self.engine.addresses().file_manager.send(question).await;
        answer.map_err(|_| Error::Stopped)
    }

    /// Plans a segment and starts to read it.
    async fn segment(
        &self,
        request: &SignalChunkRequest,
        caller: Caller,
    ) -> Result<Reading<f64>, Error> {
        let ask = || self.plan_segment(request);
        let plan = self.plan(&request.file_path, size_of::<f64>(), ask).await?;
        self.start(request.file_path.clone(), plan, caller)
    }

    /// Plans a time range and starts to read it.
    async fn range(
        &self,
        request: SignalRangeRequest,
        caller: Caller,
    ) -> Result<Reading<f32>, Error> {
        let ask = || self.plan_range(&request);
        let plan = self.plan(&request.file_path, size_of::<f32>(), ask).await?;
        self.start(request.file_path, plan, caller)
    }

    /// Plans a read of samples of so many bytes by what is known of the recording, and
    /// once more where a look at its files finds news. What is beyond a limit is
    /// refused without that look, which waits for a worker.
    async fn plan<P>(
        &self,
        file_path: &str,
        value_bytes: usize,
        ask: impl Fn() -> P,
    ) -> Result<ReadPlan, Error>
    where
        P: Future<Output = Result<ReadPlan, Error>>,
    {
        let known = ask().await.and_then(|plan| {
            self.engine.check_size(&plan, value_bytes)?;
            Ok(plan)
        });
        if let Err(error @ (Error::RequestTooLarge { .. } | Error::LimitExceeded { .. })) = known {
            // What is known may be old: the next one is judged by what there is now.
            self.engine.look(self.name(file_path));
            return Err(error);
        }
        let now = self.engine.find(self.name(file_path)).await?;
        match known {
            Ok(plan) if Arc::ptr_eq(&plan.recording, &now) => Ok(plan),
            // What has just appeared may be what was asked for.
            _ => ask().await,
        }
    }

    async fn plan_segment(&self, request: &SignalChunkRequest) -> Result<ReadPlan, Error> {
        let question = PlanSegment {
            key: self.name(&request.file_path),
            index: request.chunk_idx,
        };
        self.ask(question).await?
    }

    async fn plan_range(&self, request: &SignalRangeRequest) -> Result<ReadPlan, Error> {
        let question = PlanRange {
            key: self.name(&request.file_path),
            channels: request.channel_names.clone(),
            start_uutc: request.start_uutc,
            end_uutc: request.end_uutc,
            rule: Rule::Mef3io,
        };
        self.ask(question).await?
    }

    fn start<T: SampleValue>(
        &self,
        file_path: String,
        plan: ReadPlan,
        caller: Caller,
    ) -> Result<Reading<T>, Error> {
        let column_bytes = (plan.channels.len().max(1) * size_of::<T>()) as u64;
        let whole = plan.grid.columns().saturating_mul(column_bytes);
        let columns = if whole <= WHOLE_BYTES && caller.has_room(whole) {
            plan.grid.columns().max(1)
        } else {
            (MESSAGE_BYTES as u64 / column_bytes).max(1)
        };
        let channel_names = plan.rows().map(|channel| channel.name.clone()).collect();
        let on_damage = self.options.on_damage;
        let reader = caller.reader;
        let windows = self
            .engine
            .read_plan(plan, reader, Some(columns), on_damage)?;
        Ok(Reading {
            windows,
            file_path,
            channel_names,
        })
    }
}

/// A read whose windows become messages.
struct Reading<T> {
    windows: WindowStream<T>,
    file_path: String,
    channel_names: Vec<String>,
}

impl<T: WireValue> Reading<T> {
    /// The messages, made as the client takes them. An error is the last one.
    fn into_messages(self) -> Replies<SignalChunk> {
        if self.windows.grid().columns() == 0 {
            // An array without columns is an answer; no message is none.
            let message = self.message(Window {
                first_column: 0,
                rows: self.channel_names.len(),
                columns: 0,
                samples: Vec::new(),
                masked: Vec::new(),
            });
            return stream::iter([Ok(message)]).boxed();
        }
        let messages = stream::unfold(self, |mut reading| async move {
            let window = reading.windows.next().await?;
            let message = match window {
                Ok(window) => {
                    log_masked(&reading.file_path, &window.masked);
                    reading.message(window)
                }
                Err(error) => {
                    tracing::warn!(path = reading.file_path, %error, "read failed");
                    error_chunk(reading.file_path.clone(), error.to_string())
                }
            };
            Some((Ok(message), reading))
        });
        messages.boxed()
    }

    fn message(&self, window: Window<T>) -> SignalChunk {
        let grid = self.windows.grid();
        let columns = window.columns as u64;
        SignalChunk {
            file_path: self.file_path.clone(),
            shape: vec![window.rows as i64, window.columns as i64],
            dtype: T::DTYPE.into(),
            start_uutc: self.time_of(window.first_column),
            end_uutc: self.time_of(window.first_column + columns),
            fs: grid.sampling_frequency(),
            channel_names: self.channel_names.clone(),
            array_bytes: Bytes::from_owner(SampleBytes(window.samples)),
            error_message: Some(String::new()),
        }
    }

    /// The time of a column, as a share of the whole window, cut to whole
    /// microseconds.
    fn time_of(&self, column: u64) -> i64 {
        let grid = self.windows.grid();
        let share = column as f64 / grid.columns().max(1) as f64;
        let span = grid.end_uutc().saturating_sub(grid.start_uutc()) as f64;
        grid.start_uutc().saturating_add((share * span) as i64)
    }
}

/// Says what clients of this protocol are not told.
fn log_masked(path: &str, masked: &[Masked]) {
    for masked in masked {
        match masked {
            Masked::Block(block) => tracing::warn!(path, damage = %block, "damage is masked"),
            Masked::Segment { channel, segment } => {
                let (segment, error) = (&segment.stem, &segment.error);
                tracing::warn!(path, channel, segment, %error, "unreadable segment is masked");
            }
        }
    }
}

/// Samples as the bytes of a message, without a copy.
struct SampleBytes<T>(Vec<T>);

impl<T: SampleValue> AsRef<[u8]> for SampleBytes<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

// The wire is little-endian.
#[cfg(target_endian = "big")]
compile_error!("messages carry samples in the byte order of the machine");

/// A sample type that numpy has a name for.
trait WireValue: SampleValue {
    const DTYPE: &'static str;
}

impl WireValue for f64 {
    const DTYPE: &'static str = "float64";
}

impl WireValue for f32 {
    const DTYPE: &'static str = "float32";
}

fn error_chunk(file_path: String, error_message: String) -> SignalChunk {
    SignalChunk {
        file_path,
        error_message: Some(error_message),
        ..SignalChunk::default()
    }
}

/// A stream of one error message.
fn refuse(file_path: String, error_message: String) -> Response<Replies<SignalChunk>> {
    tracing::info!(path = file_path, error = error_message, "read refused");
    Response::new(stream::iter([Ok(error_chunk(file_path, error_message))]).boxed())
}

/// What a recording is, without an error message: clients compare the replies of
/// OpenFile and FileInfo field by field.
fn file_info(file_path: String, recording: &PagedRecording) -> FileInfoResponse {
    let recording = &recording.recording;
    let channels = &recording.channels;
    let (start, end) = (recording.start_uutc(), recording.end_uutc());
    let duration = start
        .zip(end)
        .map(|(start, end)| end.saturating_sub(start) as f64 / 1e6);
    FileInfoResponse {
        file_path,
        file_opened: true,
        number_of_channels: Some(channels.len() as i64),
        channel_names: channels
            .iter()
            .map(|channel| channel.name.clone())
            .collect(),
        channel_sampling_rates: channels
            .iter()
            .map(|c| c.sampling_frequency as f32)
            .collect(),
        start_uutc: start,
        end_uutc: end,
        duration_s: duration,
        channel_start_uutc: channels.iter().map(|channel| channel.start_uutc).collect(),
        channel_end_uutc: channels.iter().map(|channel| channel.end_uutc).collect(),
        channel_served_sampling_rates: channels.iter().map(|c| c.sampling_frequency).collect(),
        cache_fs: None,
        error_message: None,
    }
}

fn not_opened(file_path: String, error_message: String) -> Response<FileInfoResponse> {
    tracing::info!(path = file_path, error = error_message, "open refused");
    Response::new(FileInfoResponse {
        file_path,
        file_opened: false,
        error_message: Some(error_message),
        ..FileInfoResponse::default()
    })
}

/// Whether the caller names itself: 1 to 128 printable characters.
fn has_client_id<T>(request: &Request<T>) -> bool {
    let id = request
        .metadata()
        .get(CLIENT_ID)
        .and_then(|id| id.to_str().ok());
    id.is_some_and(|id| {
        (1..=MAX_CLIENT_ID).contains(&id.len()) && !id.chars().any(char::is_control)
    })
}

/// Who asks for samples.
struct Caller {
    reader: u64,
    room: Option<Room>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Self {
        Self {
            reader: reader_of(request),
            room: request.extensions().get().cloned(),
        }
    }

    /// Whether the reply may be one message of so many bytes.
    fn has_room(&self, bytes: u64) -> bool {
        let room = self.room.as_ref();
        bytes <= MESSAGE_BYTES as u64 || room.is_some_and(|room| room.take(bytes as usize))
    }
}

/// Tells readers apart, for the predictions: a connection is one.
fn reader_of<T>(request: &Request<T>) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(request.remote_addr())
}

#[tonic::async_trait]
impl LegacyService for Legacy {
    type GetSignalSegmentStream = Replies<SignalChunk>;
    type GetSignalRangeStream = Replies<SignalChunk>;
    type GetEnvelopeStream = Replies<ChannelEnvelope>;

    async fn open_file(
        &self,
        request: Request<OpenFileRequest>,
    ) -> Result<Response<FileInfoResponse>, Status> {
        let named = has_client_id(&request);
        let request = request.into_inner();
        let path = request.file_path;
        if request.cache_fs.is_some() {
            let reason = if named {
                "cache_fs is not supported by this server"
            } else {
                "cache_fs needs a client id: send the x-mef3io-client-id header"
            };
            return Ok(not_opened(path, reason.into()));
        }
        let session = match self.resolve(&path) {
            Ok(session) => session,
            Err(reason) => return Ok(not_opened(path, reason)),
        };
        let opened = self.engine.open_as(self.name(&path), session.clone());
        match opened.await {
            Ok(opened) => {
                let mut info = file_info(path, &opened.recording);
                if opened.already_open && !named {
                    info.error_message = Some(texts::already_open(&info.file_path));
                }
                Ok(Response::new(info))
            }
            Err(error) => {
                let text = texts::open_error(&path, &session, &error);
                Ok(not_opened(path, text))
            }
        }
    }

    async fn close_file(
        &self,
        request: Request<FileInfoRequest>,
    ) -> Result<Response<FileInfoResponse>, Status> {
        let file_path = request.into_inner().file_path;
        let closed = self.engine.close(&file_path).await;
        Ok(Response::new(FileInfoResponse {
            file_path,
            file_opened: false,
            error_message: Some(
                closed
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default(),
            ),
            ..FileInfoResponse::default()
        }))
    }

    async fn file_info(
        &self,
        request: Request<FileInfoRequest>,
    ) -> Result<Response<FileInfoResponse>, Status> {
        let file_path = request.into_inner().file_path;
        let info = match self.engine.find(self.name(&file_path)).await {
            Ok(recording) => file_info(file_path, &recording),
            Err(Error::NotOpen(_)) => FileInfoResponse {
                file_path,
                ..FileInfoResponse::default()
            },
            Err(error) => return Ok(not_opened(file_path, error.to_string())),
        };
        Ok(Response::new(info))
    }

    async fn list_open_files(
        &self,
        _: Request<ListOpenFilesRequest>,
    ) -> Result<Response<ListOpenFilesResponse>, Status> {
        let (file_paths, error) = match self.ask(ListOpen).await {
            Ok(file_paths) => (file_paths, String::new()),
            Err(error) => (Vec::new(), error.to_string()),
        };
        Ok(Response::new(ListOpenFilesResponse {
            file_paths,
            error_message: Some(error),
        }))
    }

    async fn set_signal_segment_size(
        &self,
        request: Request<SetSignalSegmentRequest>,
    ) -> Result<Response<SetSignalSegmentResponse>, Status> {
        let reader = reader_of(&request);
        let SetSignalSegmentRequest { file_path, seconds } = request.into_inner();
        let question = SetSegmentSize {
            key: self.name(&file_path),
            seconds,
            reader,
        };
        let (segments, error) = match self.ask(question).await.flatten() {
            Ok(segments) => (segments, String::new()),
            Err(error) => (0, texts::segment_size_error(&error)),
        };
        Ok(Response::new(SetSignalSegmentResponse {
            file_path,
            number_of_segments: i64::try_from(segments).unwrap_or(i64::MAX),
            error_message: Some(error),
        }))
    }

    async fn get_number_of_segments(
        &self,
        request: Request<FileInfoRequest>,
    ) -> Result<Response<GetNumberOfSegmentsResponse>, Status> {
        let file_path = request.into_inner().file_path;
        let (segments, error) = match self
            .ask(CountSegments(self.name(&file_path)))
            .await
            .flatten()
        {
            Ok(segments) => (segments, String::new()),
            // Not open and no size set are told apart by nobody here.
            Err(Error::NotOpen(_)) => (0, String::new()),
            Err(error) => (0, error.to_string()),
        };
        Ok(Response::new(GetNumberOfSegmentsResponse {
            file_path,
            number_of_segments: i64::try_from(segments).unwrap_or(i64::MAX),
            error_message: Some(error),
        }))
    }

    async fn get_signal_segment(
        &self,
        request: Request<SignalChunkRequest>,
    ) -> Result<Response<Self::GetSignalSegmentStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        match self.segment(&request, caller).await {
            Ok(reading) => Ok(Response::new(reading.into_messages())),
            Err(error) => {
                let text = texts::segment_error(&request.file_path, &error);
                Ok(refuse(request.file_path, text))
            }
        }
    }

    async fn set_active_channels(
        &self,
        request: Request<SetActiveChannelsRequest>,
    ) -> Result<Response<SetActiveChannelsResponse>, Status> {
        let SetActiveChannelsRequest {
            file_path,
            channel_names,
        } = request.into_inner();
        let question = SetActiveChannels {
            key: self.name(&file_path),
            names: channel_names,
        };
        let (active_channels, error) = match self.ask(question).await.flatten() {
            Ok(outcome) => {
                let text = texts::unknown_active(&outcome.unknown, outcome.changed);
                (outcome.active, text)
            }
            Err(error) => (Vec::new(), error.to_string()),
        };
        Ok(Response::new(SetActiveChannelsResponse {
            file_path,
            active_channels,
            error_message: Some(error),
        }))
    }

    async fn get_active_channels(
        &self,
        request: Request<GetActiveChannelsRequest>,
    ) -> Result<Response<GetActiveChannelsResponse>, Status> {
        let file_path = request.into_inner().file_path;
        let answer = self.ask(GetActiveChannels(self.name(&file_path))).await;
        let (active_channels, error) = match answer.flatten() {
            Ok(active) => (active, String::new()),
            Err(error) => (Vec::new(), error.to_string()),
        };
        Ok(Response::new(GetActiveChannelsResponse {
            file_path,
            active_channels,
            error_message: Some(error),
        }))
    }

    async fn get_signal_range(
        &self,
        request: Request<SignalRangeRequest>,
    ) -> Result<Response<Self::GetSignalRangeStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let file_path = request.file_path.clone();
        match request.n_points {
            Some(..=0) => return Ok(refuse(file_path, "n_points must be positive".into())),
            // Answering with all samples would look like an answer.
            Some(_) => {
                let text = "n_points is not supported by this server".into();
                return Ok(refuse(file_path, text));
            }
            None => {}
        }
        match self.range(request, caller).await {
            Ok(reading) => Ok(Response::new(reading.into_messages())),
            Err(error) => Ok(refuse(file_path, error.to_string())),
        }
    }

    async fn get_envelope(
        &self,
        _: Request<EnvelopeRequest>,
    ) -> Result<Response<Self::GetEnvelopeStream>, Status> {
        Err(Status::unimplemented("GetEnvelope is not served yet"))
    }
}
