//! The native service: stateless calls, errors as statuses with details.

mod annotations;
mod catalog;
mod cursor;
mod describe;
mod envelope;
mod pages;
mod reduced;
mod signal;
mod stats;
pub(super) mod status;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use self::pages::{Page, fingerprint};
use self::signal::{Replies, Signal};
use self::status::{Refusal, status};
use super::ServiceOptions;
use super::access::tokens::Token;
use super::peer::{is_private, reader_of, token_of};
use super::proto::native::server::RecordingService;
use super::proto::native::{
    FollowRequest, FollowResponse, GetRecordingRequest, GetRecordingResponse, GetStatsRequest,
    GetStatsResponse, ListAnnotationsRequest, ListAnnotationsResponse, ListGapsRequest,
    ListGapsResponse, ListRecordingsRequest, ListRecordingsResponse, ListSegmentsRequest,
    ListSegmentsResponse, ReadReducedRequest, ReadReducedResponse, ReadSignalRequest,
    ReadSignalResponse, WatchRecordingRequest, WatchRecordingResponse,
};
use super::proto::native::{ReadEnvelopeRequest, ReadEnvelopeResponse};
use super::roots::resolve;
use crate::actors::file_manager::{Client, RecordingName, Use};
use crate::actors::plan::channel_positions;
use crate::engine::{Engine, Reader, Recording};
use crate::error::Error;
use crate::mef::{OpenOptions, Password};

/// Where the password of a protected recording is: as text, or as the bytes of UTF-8.
const PASSWORD: &str = "x-mef3-password";
const PASSWORD_BYTES: &str = "x-mef3-password-bin";

/// The service.
pub(super) struct Native {
    engine: Engine,
    options: ServiceOptions,
    started: Instant,
}

impl Native {
    pub(super) fn new(engine: Engine, options: ServiceOptions) -> Self {
        Self {
            engine,
            options,
            started: Instant::now(),
        }
    }

    /// Opens the recording of a request, or joins those who have it open.
    async fn open(&self, caller: &Caller, path: &str) -> Result<Recording, Status> {
        if path.is_empty() {
            let text = "recording: a path is needed";
            return Err(Refusal::field("recording", "RECORDING_MISSING", text).into());
        }
        let session = resolve(&self.options, path).map_err(|text| {
            Refusal::new(Code::PermissionDenied, "NOT_PERMITTED", text).at("recording")
        })?;
        self.open_at(caller, path.to_owned(), &session).await
    }

    /// Opens the recording that is at a path of this machine, if the caller's token is
    /// for it.
    async fn open_at(
        &self,
        caller: &Caller,
        name: String,
        session: &Path,
    ) -> Result<Recording, Status> {
        if let Some(token) = &caller.token {
            token.check(session, &name).await.map_err(refused)?;
        }
        let password = caller.password.clone();
        let by = Use {
            recording: RecordingName {
                name,
                options: OpenOptions {
                    password: password.or_else(|| self.options.password.clone()),
                },
            },
            client: Client::Passing,
        };
        let opened = self
            .engine
            .open_as(by.clone(), session.to_path_buf(), None)
            .await;
        let opened = opened.map_err(refused)?;
        Ok(Recording::new(opened.recording, by))
    }

    /// Who calls.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let password = password(request.metadata())?;
        if password.is_some() && !is_private(request) && !self.options.passwords_in_clear {
            let text = "a password came over a connection that anybody can listen to";
            return Err(Refusal::field(PASSWORD, "PASSWORD_IN_CLEAR", text).into());
        }
        Ok(Caller {
            reader: reader_of(request),
            token: token_of(request).cloned(),
            password,
        })
    }
}

/// Who calls, and what opens protected recordings for the call.
struct Caller {
    reader: Reader,
    token: Option<Arc<Token>>,
    password: Option<Password>,
}

/// The password in the metadata of a call.
fn password(metadata: &MetadataMap) -> Result<Option<Password>, Status> {
    let invalid = || {
        let text = "the password is no text of UTF-8, or is empty";
        Status::from(Refusal::field(PASSWORD, "PASSWORD_INVALID", text))
    };
    let text = match (metadata.get(PASSWORD), metadata.get_bin(PASSWORD_BYTES)) {
        (None, None) => return Ok(None),
        (Some(text), _) => text.to_str().map_err(|_| invalid())?.to_owned(),
        (None, Some(bytes)) => {
            let bytes = bytes.to_bytes().map_err(|_| invalid())?;
            String::from_utf8(bytes.to_vec()).map_err(|_| invalid())?
        }
    };
    let text = zeroize::Zeroizing::new(text);
    Password::new(&text).map(Some).ok_or_else(invalid)
}

/// The refusal of a request as a status.
fn refused(error: Error) -> Status {
    status(&error)
}

#[tonic::async_trait]
impl RecordingService for Native {
    type ReadSignalStream = Replies<ReadSignalResponse>;
    type ReadReducedStream = Replies<ReadReducedResponse>;
    type ReadEnvelopeStream = Replies<ReadEnvelopeResponse>;
    type FollowStream = Replies<FollowResponse>;
    type WatchRecordingStream = Replies<WatchRecordingResponse>;

    async fn get_recording(
        &self,
        request: Request<GetRecordingRequest>,
    ) -> Result<Response<GetRecordingResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let list = fingerprint(&request.recording);
        let page = Page::of(&request.page_token, request.page_size, list)?;
        let opened = self.open(&caller, &request.recording).await?;
        let answer = describe::recording(
            request.recording,
            opened.paged(),
            page,
            &self.engine,
            caller.reader,
            self.options.limits.request_message,
        );
        Ok(Response::new(answer))
    }

    async fn list_recordings(
        &self,
        request: Request<ListRecordingsRequest>,
    ) -> Result<Response<ListRecordingsResponse>, Status> {
        let caller = self.caller(&request)?;
        let answer = self.list(&caller, &request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_segments(
        &self,
        request: Request<ListSegmentsRequest>,
    ) -> Result<Response<ListSegmentsResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let list = fingerprint((&request.recording, &request.channels));
        let page = Page::of(&request.page_token, request.page_size, list)?;
        let opened = self.open(&caller, &request.recording).await?;
        let channels = channel_positions(opened.paged(), &request.channels).map_err(refused)?;
        Ok(Response::new(describe::segments(
            opened.paged(),
            &channels,
            page,
        )))
    }

    async fn list_gaps(
        &self,
        request: Request<ListGapsRequest>,
    ) -> Result<Response<ListGapsResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let span = request.span;
        describe::check_span(span, "span")?;
        let ends = span.map(|span| (span.start_uutc, span.end_uutc));
        let list = fingerprint((&request.recording, &request.channels, ends));
        let page = Page::of(&request.page_token, request.page_size, list)?;
        let opened = self.open(&caller, &request.recording).await?;
        let channels = channel_positions(opened.paged(), &request.channels).map_err(refused)?;
        let paged = Arc::clone(opened.paged());
        let gaps =
            tokio::task::spawn_blocking(move || describe::gaps(&paged, &channels, span, page));
        let gaps = gaps.await.map_err(|_| refused(Error::Stopped))?;
        Ok(Response::new(gaps))
    }

    async fn list_annotations(
        &self,
        request: Request<ListAnnotationsRequest>,
    ) -> Result<Response<ListAnnotationsResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        describe::check_span(request.span, "span")?;
        let ends = request.span.map(|span| (span.start_uutc, span.end_uutc));
        let of = (&request.recording, &request.channels, ends, &request.types);
        let page = Page::of(&request.page_token, request.page_size, fingerprint(of))?;
        let mut query = annotations::query(&request, page)?;
        let opened = self.open(&caller, &request.recording).await?;
        loop {
            let records = self
                .engine
                .records(&opened, &query)
                .await
                .map_err(refused)?;
            match annotations::annotations(&records.records) {
                Ok(found) => {
                    return Ok(Response::new(annotations::answer(found, &records, page)));
                }
                // Only the records themselves say where the next page begins.
                Err(room) => query.limit = room,
            }
        }
    }

    async fn read_signal(
        &self,
        request: Request<ReadSignalRequest>,
    ) -> Result<Response<Self::ReadSignalStream>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let opened = self.open(&caller, &request.recording).await?;
        let most = self.engine.settings().channels_per_read;
        let signal = Signal::new(opened.paged(), &request, most)?;
        self.engine
            .check_bytes(signal.bytes(), caller.reader)
            .map_err(refused)?;
        let messages = signal.into_messages(&self.engine, caller.reader)?;
        Ok(Response::new(messages))
    }

    async fn read_reduced(
        &self,
        request: Request<ReadReducedRequest>,
    ) -> Result<Response<Self::ReadReducedStream>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let range = reduced::range(&request)?;
        let opened = self.open(&caller, &request.recording).await?;
        let messages = reduced::messages(&self.engine, &opened, &request, range, caller.reader)?;
        Ok(Response::new(messages))
    }

    async fn read_envelope(
        &self,
        request: Request<ReadEnvelopeRequest>,
    ) -> Result<Response<Self::ReadEnvelopeStream>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let wanted = envelope::wanted(&request)?;
        let opened = self.open(&caller, &request.recording).await?;
        let channels = &request.channels;
        let messages = envelope::messages(&self.engine, &opened, channels, wanted, caller.reader)?;
        Ok(Response::new(messages))
    }

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let opened = self.open(&caller, &request.recording).await?;
        let follow = self
            .engine
            .follow(&opened, request.channels, request.from_uutc);
        let follow = follow.map_err(refused)?;
        Ok(Response::new(watch::blocks(follow)))
    }

    async fn watch_recording(
        &self,
        request: Request<WatchRecordingRequest>,
    ) -> Result<Response<Self::WatchRecordingStream>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let opened = self.open(&caller, &request.recording).await?;
        Ok(Response::new(watch::states(self.engine.clone(), opened)))
    }

    async fn get_stats(
        &self,
        _: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let figures = self.engine.statistics().await.map_err(refused)?;
        Ok(Response::new(stats::answer(
            &figures,
            &self.options.counters.statistics(),
            self.engine.settings().cache_bytes,
            self.started.elapsed(),
        )))
    }
}
