//! The legacy service: what clients of brainmaze-mef3-server and mef3io-server
//! call. Errors are in-band, with gRPC status OK.

mod caller;
mod envelope;
mod permitted;
mod reading;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use self::caller::Caller;
use self::envelope::Envelope;
use self::reading::{Reading, Replies, message_columns, refuse};
use super::ServiceOptions;
use super::proto::server::LegacyService;
use super::proto::{
    ChannelEnvelope, EnvelopeRequest, FileInfoRequest, FileInfoResponse, GetActiveChannelsRequest,
    GetActiveChannelsResponse, GetNumberOfSegmentsResponse, ListOpenFilesRequest,
    ListOpenFilesResponse, OpenFileRequest, SetActiveChannelsRequest, SetActiveChannelsResponse,
    SetSignalSegmentRequest, SetSignalSegmentResponse, SignalChunk, SignalChunkRequest,
    SignalRangeRequest,
};
use super::roots::resolve;
use super::texts;
use crate::actors::file_manager::{
    CountSegments, GetActiveChannels, GetServedRate, Leave, PlanSegment, Select, ServedRate,
    SetActiveChannels, SetSegmentSize, Use,
};
use crate::actors::plan::ReadPlan;
use crate::engine::{Engine, RangePlan, RangeRequest, RangeStream, Reader, Shape, WindowStream};
use crate::error::Error;
use crate::worker::page::PagedRecording;

/// The service.
pub(super) struct Legacy {
    engine: Engine,
    options: ServiceOptions,
}

impl Legacy {
    pub(super) fn new(engine: Engine, options: ServiceOptions) -> Self {
        Self { engine, options }
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
        caller: &Caller,
    ) -> Result<Reading<WindowStream<f64>>, Error> {
        let by = self.by(caller, &request.file_path).await?;
        let ask = || {
            let question = PlanSegment {
                by: by.clone(),
                index: request.chunk_idx,
            };
            async move { self.ask(question).await? }
        };
        let plan: ReadPlan = self.plan(by.clone(), caller.reader, ask).await?;
        let shape = Shape::of(&plan);
        let columns = message_columns::<f64>(plan.channels.len(), &shape, caller);
        let channel_names = plan.rows().map(|channel| channel.name.clone()).collect();
        let on_damage = self.options.on_damage;
        let read = self
            .engine
            .read_plan(plan, caller.reader, Some(columns), on_damage);
        Ok(Reading {
            source: read?,
            shape,
            file_path: request.file_path.clone(),
            channel_names,
        })
    }

    /// Plans a time range and starts to read it.
    async fn range(
        &self,
        request: &SignalRangeRequest,
        caller: &Caller,
    ) -> Result<Reading<RangeStream>, Error> {
        let range = RangeRequest {
            start_uutc: request.start_uutc,
            end_uutc: request.end_uutc,
            points: request.n_points.map(|n| u64::try_from(n).unwrap_or(0)),
        };
        // Before the recording, as in the existing servers.
        range.check_points()?;
        let by = self.by(caller, &request.file_path).await?;
        let ask = || {
            let question = Select {
                by: by.clone(),
                channels: request.channel_names.clone(),
            };
            async move {
                let selection = self.ask(question).await??;
                self.engine.plan_range(selection, range)
            }
        };
        let plan: RangePlan = self.plan(by.clone(), caller.reader, ask).await?;
        let shape = plan.shape();
        let columns = message_columns::<f32>(plan.channels().len(), &shape, caller);
        let channel_names = plan.rows().map(|channel| channel.name.clone()).collect();
        let on_damage = self.options.on_damage;
        let read = self
            .engine
            .read_range(plan, caller.reader, columns, on_damage);
        Ok(Reading {
            source: read?,
            shape,
            file_path: request.file_path.clone(),
            channel_names,
        })
    }

    /// Plans a read by what is known of the recording, and once more where a look at
    /// its files finds news. What is beyond a limit is refused without that look, which
    /// waits for a worker.
    async fn plan<P: Plan, F>(
        &self,
        by: Use,
        reader: Reader,
        ask: impl Fn() -> F,
    ) -> Result<P, Error>
    where
        F: Future<Output = Result<P, Error>>,
    {
        let known = ask().await.and_then(|plan| {
            plan.check_size(&self.engine, reader)?;
            Ok(plan)
        });
        if let Err(error @ (Error::RequestTooLarge { .. } | Error::LimitExceeded { .. })) = known {
            // What is known may be old: the next one is judged by what there is now.
            self.engine.look(by);
            return Err(error);
        }
        let now = self.engine.find(by).await?;
        match known {
            Ok(plan) if Arc::ptr_eq(plan.recording(), &now) => Ok(plan),
            // What has just appeared may be what was asked for.
            _ => ask().await,
        }
    }

    /// The extrema of blocks.
    async fn envelope(&self, request: EnvelopeRequest, caller: &Caller) -> Result<Envelope, Error> {
        let by = self.by(caller, &request.file_path).await?;
        self.engine.find(by.clone()).await?;
        let question = Select {
            by,
            channels: request.channel_names,
        };
        let selection = self.ask(question).await??;
        Ok(Envelope {
            file_path: request.file_path,
            recording: selection.recording,
            channels: selection.channels,
            from: request.start_uutc,
            until: request.end_uutc,
        })
    }
}

/// A read that was checked.
trait Plan {
    fn recording(&self) -> &Arc<PagedRecording>;

    /// Refuses it where it is larger than a read may be.
    fn check_size(&self, engine: &Engine, reader: Reader) -> Result<(), Error>;
}

impl Plan for ReadPlan {
    fn recording(&self) -> &Arc<PagedRecording> {
        &self.recording
    }

    fn check_size(&self, engine: &Engine, reader: Reader) -> Result<(), Error> {
        engine.check_size(self, size_of::<f64>(), reader)
    }
}

impl Plan for RangePlan {
    fn recording(&self) -> &Arc<PagedRecording> {
        self.recording()
    }

    fn check_size(&self, engine: &Engine, reader: Reader) -> Result<(), Error> {
        engine.check_range_size(self, reader)
    }
}

/// What a recording is, without an error message: clients compare the replies of
/// OpenFile and FileInfo field by field.
///
/// Channels are served at a rate in Hz where they have more.
fn file_info(
    file_path: String,
    recording: &PagedRecording,
    served_rate: Option<f64>,
) -> FileInfoResponse {
    let recording = &recording.recording;
    let channels = &recording.channels;
    let served = |native: f64| served_rate.map_or(native, |rate| rate.min(native));
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
        channel_served_sampling_rates: channels
            .iter()
            .map(|c| served(c.sampling_frequency))
            .collect(),
        cache_fs: served_rate,
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

#[tonic::async_trait]
impl LegacyService for Legacy {
    type GetSignalSegmentStream = Replies<SignalChunk>;
    type GetSignalRangeStream = Replies<SignalChunk>;
    type GetEnvelopeStream = Replies<ChannelEnvelope>;

    async fn open_file(
        &self,
        request: Request<OpenFileRequest>,
    ) -> Result<Response<FileInfoResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let path = request.file_path;
        let served_rate = request.cache_fs.map(|rate| ServedRate {
            rate,
            may_be_less: request.allow_mixed_rates.unwrap_or(false),
        });
        if served_rate.is_some() && !caller.is_named() {
            let reason = "cache_fs needs a client id: send the x-mef3io-client-id header";
            return Ok(not_opened(path, reason.into()));
        }
        let session = match resolve(&self.options, &path) {
            Ok(session) => session,
            Err(reason) => return Ok(not_opened(path, reason)),
        };
        if let Err(refused) = self.check(&caller, &path).await {
            return Ok(not_opened(path, refused.to_string()));
        }
        let by = self.unchecked(&caller, &path);
        let opened = self.engine.open_as(by, session.clone(), served_rate);
        match opened.await {
            Ok(opened) => {
                let mut info = file_info(path, &opened.recording, request.cache_fs);
                if opened.already_open && !caller.is_named() {
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
        let caller = Caller::of(&request);
        let file_path = request.into_inner().file_path;
        let left = match self.by(&caller, &file_path).await {
            Ok(by) => self.ask(Leave(by)).await,
            Err(refused) => Err(refused),
        };
        let (file_opened, error) = match left {
            Ok(is_open) => (is_open, String::new()),
            Err(error) => (false, error.to_string()),
        };
        Ok(Response::new(FileInfoResponse {
            file_path,
            file_opened,
            error_message: Some(error),
            ..FileInfoResponse::default()
        }))
    }

    async fn file_info(
        &self,
        request: Request<FileInfoRequest>,
    ) -> Result<Response<FileInfoResponse>, Status> {
        let caller = Caller::of(&request);
        let file_path = request.into_inner().file_path;
        let by = match self.by(&caller, &file_path).await {
            Ok(by) => by,
            Err(refused) => return Ok(not_opened(file_path, refused.to_string())),
        };
        let found = self.engine.find(by.clone()).await;
        let served_rate = self.ask(GetServedRate(by)).await;
        let info = match found.and_then(|recording| Ok((recording, served_rate?))) {
            Ok((recording, served_rate)) => file_info(file_path, &recording, served_rate),
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
        request: Request<ListOpenFilesRequest>,
    ) -> Result<Response<ListOpenFilesResponse>, Status> {
        let (file_paths, error) = match self.list_open(&Caller::of(&request)).await {
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
        let caller = Caller::of(&request);
        let SetSignalSegmentRequest { file_path, seconds } = request.into_inner();
        let question = |by| SetSegmentSize {
            by,
            seconds,
            reader: caller.reader.id,
        };
        let (segments, error) = match self.ask_by(&caller, &file_path, question).await {
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
        let caller = Caller::of(&request);
        let file_path = request.into_inner().file_path;
        let counted = self.ask_by(&caller, &file_path, CountSegments).await;
        let (segments, error) = match counted {
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
        match self.segment(&request, &caller).await {
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
        let caller = Caller::of(&request);
        let SetActiveChannelsRequest {
            file_path,
            channel_names,
        } = request.into_inner();
        let question = |by| SetActiveChannels {
            by,
            names: channel_names,
        };
        let (active_channels, error) = match self.ask_by(&caller, &file_path, question).await {
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
        let caller = Caller::of(&request);
        let file_path = request.into_inner().file_path;
        let answer = self.ask_by(&caller, &file_path, GetActiveChannels).await;
        let (active_channels, error) = match answer {
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
        match self.range(&request, &caller).await {
            Ok(reading) => Ok(Response::new(reading.into_messages())),
            Err(error) => Ok(refuse(request.file_path, error.to_string())),
        }
    }

    async fn get_envelope(
        &self,
        request: Request<EnvelopeRequest>,
    ) -> Result<Response<Self::GetEnvelopeStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let file_path = request.file_path.clone();
        let messages = match self.envelope(request, &caller).await {
            Ok(envelope) => envelope.into_messages(),
            Err(error) => envelope::refuse(file_path, error.to_string()),
        };
        Ok(Response::new(messages))
    }
}
