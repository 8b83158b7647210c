//! Errors as gRPC statuses with details (google.rpc).
//!
//! Each code has one meaning, which `proto/mef3/v1/mef3.proto` states.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb::{self, bad_request, quota_failure};

use crate::error::Error;
use crate::grpc::proto::native::DamageInfo;
use crate::mef::{BlockError, DamagedBlock, MefError, ReadError, WindowError};
use crate::trace;

/// The domain of all reasons.
const DOMAIN: &str = "mef3";
/// How long to wait where nothing better is known.
pub(in crate::grpc) const RETRY: Duration = Duration::from_secs(1);
/// How long to wait for storage that does not answer.
const STORAGE_RETRY: Duration = Duration::from_secs(60);

/// A status in the making.
#[derive(Debug)]
pub(in crate::grpc) struct Refusal {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: Vec<(&'static str, String)>,
    details: Vec<Any>,
}

impl Refusal {
    pub(in crate::grpc) fn new(
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            reason,
            metadata: Vec::new(),
            details: Vec::new(),
        }
    }

    /// A field of the request makes no sense.
    pub(super) fn field(field: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message).at(field)
    }

    /// Names the field at fault.
    pub(super) fn at(mut self, field: &str) -> Self {
        let violation = bad_request::FieldViolation {
            field: field.into(),
            description: self.message.clone(),
            reason: self.reason.into(),
            localized_message: None,
        };
        let detail = pb::BadRequest {
            field_violations: vec![violation],
        };
        self.pack("google.rpc.BadRequest", &detail);
        self
    }

    /// Names the limit that is reached, and its value.
    pub(in crate::grpc) fn limit(mut self, name: &str, value: u64) -> Self {
        self.metadata.push(("limit", name.into()));
        self.metadata.push(("value", value.to_string()));
        let violation = quota_failure::Violation {
            subject: name.into(),
            description: self.message.clone(),
            ..quota_failure::Violation::default()
        };
        let detail = pb::QuotaFailure {
            violations: vec![violation],
        };
        self.pack("google.rpc.QuotaFailure", &detail);
        self
    }

    /// Says when it may be tried again.
    pub(in crate::grpc) fn retry(mut self, after: Duration) -> Self {
        let detail = pb::RetryInfo {
            retry_delay: prost_types::Duration::try_from(after).ok(),
        };
        self.pack("google.rpc.RetryInfo", &detail);
        self
    }

    fn damage(mut self, damage: &DamageInfo) -> Self {
        self.pack("mef3.v1.DamageInfo", damage);
        self
    }

    fn about(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    fn pack(&mut self, name: &str, detail: &impl Message) {
        self.details.push(Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: detail.encode_to_vec(),
        });
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let metadata = refusal.metadata.into_iter();
        let info = pb::ErrorInfo {
            reason: refusal.reason.into(),
            domain: DOMAIN.into(),
            metadata: metadata.map(|(key, value)| (key.into(), value)).collect(),
        };
        let mut details = vec![Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        }];
        details.extend(refusal.details);
        if let Some(trace) = trace::current() {
            let request = pb::RequestInfo {
                request_id: trace.id().to_string(),
                serving_data: String::new(),
            };
            details.push(Any {
                type_url: "type.googleapis.com/google.rpc.RequestInfo".into(),
                value: request.encode_to_vec(),
            });
        }
        let status = pb::Status {
            code: refusal.code as i32,
            message: refusal.message.clone(),
            details,
        };
        Self::with_details(refusal.code, refusal.message, status.encode_to_vec().into())
    }
}

/// The status of an error, and a line in the log where it is the server's.
pub(super) fn status(error: &Error) -> Status {
    let refusal = refusal(error);
    match refusal.code {
        Code::Internal | Code::DataLoss | Code::Unavailable | Code::Aborted => {
            tracing::warn!(%error, reason = refusal.reason, "call failed");
        }
        _ => tracing::info!(%error, reason = refusal.reason, "call refused"),
    }
    refusal.into()
}

fn refusal(error: &Error) -> Refusal {
    let text = error.to_string();
    let new = |code, reason| Refusal::new(code, reason, text.clone());
    match error {
        Error::Mef(error) | Error::Read(ReadError::Mef(error)) => of_session(error, &text),
        Error::Read(error) => of_read(error, &text),
        Error::UnknownChannels(names) => new(Code::NotFound, "CHANNEL_NOT_FOUND")
            .about("channel", names.first().cloned().unwrap_or_default())
            .at("channels"),
        Error::UnreadableChannel { channel, .. } => {
            let damage = DamageInfo {
                channel: channel.clone(),
                reason: text.clone(),
                ..DamageInfo::default()
            };
            new(Code::DataLoss, "CHANNEL_UNREADABLE").damage(&damage)
        }
        Error::Window(WindowError::Empty) => {
            new(Code::InvalidArgument, "WINDOW_EMPTY").at("window")
        }
        Error::Window(WindowError::TooLong { .. }) => {
            new(Code::OutOfRange, "WINDOW_TOO_LONG").at("window")
        }
        Error::ShorterThanOneSample => {
            new(Code::OutOfRange, "WINDOW_SHORTER_THAN_ONE_SAMPLE").at("window")
        }
        Error::NoPoints => new(Code::InvalidArgument, "NO_POINTS").at("points"),
        Error::PoisonedPage { place, .. } => {
            let damage = DamageInfo {
                channel: place.channel.clone(),
                segment: place.segment.clone(),
                block: Some(place.first_block.into()),
                reason: text.clone(),
                ..DamageInfo::default()
            };
            new(Code::DataLoss, "BLOCKS_END_WORKERS").damage(&damage)
        }
        Error::PoisonedSession { .. } => new(Code::DataLoss, "SESSION_ENDS_WORKERS"),
        Error::DecoderPanicked { .. } | Error::OpeningPanicked { .. } => {
            new(Code::Internal, "PANIC")
        }
        Error::NoWorker { .. } => new(Code::Unavailable, "NO_WORKER").retry(RETRY),
        Error::StuckStorage { .. } => new(Code::Unavailable, "STORAGE_STUCK").retry(STORAGE_RETRY),
        Error::RequestTooLarge { limit_bytes, .. } => {
            new(Code::ResourceExhausted, "REQUEST_TOO_LARGE")
                .limit("limits.request_mb", limit_bytes >> 20)
        }
        Error::OutsideRoots { .. } => new(Code::PermissionDenied, "OUTSIDE_ROOTS").at("recording"),
        Error::LimitExceeded { limit, value } => {
            new(Code::ResourceExhausted, "LIMIT_EXCEEDED").limit(limit, *value)
        }
        Error::Busy { limit, value } => new(Code::ResourceExhausted, "BUSY")
            .limit(limit, *value)
            .retry(RETRY),
        Error::Stopped => new(Code::Unavailable, "SERVER_ENDING").retry(RETRY),
        // What only the calls of the older clients end in.
        Error::NotOpen(_)
        | Error::MixedRates(_)
        | Error::NoSuchSegment { .. }
        | Error::NoSegmentSize
        | Error::ServedRate(_)
        | Error::ServedRateTooHigh { .. }
        | Error::SegmentSize(_) => new(Code::Internal, "UNEXPECTED"),
    }
}

fn of_session(error: &MefError, text: &str) -> Refusal {
    let new = |code, reason| Refusal::new(code, reason, text);
    let file = error.file().display().to_string();
    match error {
        MefError::NotFound { .. } => new(Code::NotFound, "RECORDING_NOT_FOUND").at("recording"),
        MefError::NotASession { .. } => new(Code::NotFound, "NOT_A_SESSION").at("recording"),
        MefError::UnknownChannel { .. } => new(Code::NotFound, "CHANNEL_NOT_FOUND").at("channels"),
        MefError::Encrypted { .. } => new(Code::FailedPrecondition, "PASSWORD_REQUIRED"),
        MefError::WrongPassword { .. } => new(Code::FailedPrecondition, "PASSWORD_WRONG"),
        MefError::OutsideRoots { .. } => {
            new(Code::PermissionDenied, "OUTSIDE_ROOTS").at("recording")
        }
        MefError::Malformed { .. } => new(Code::DataLoss, "FILE_MALFORMED"),
        MefError::Changed { .. } => new(Code::Aborted, "FILES_REPLACED").retry(RETRY),
        MefError::Io { os_error, .. } => match os_error {
            Some(libc::EACCES | libc::EPERM) => {
                new(Code::PermissionDenied, "NOT_PERMITTED").at("recording")
            }
            _ => new(Code::Unavailable, "STORAGE_ERROR").retry(RETRY),
        },
    }
    .about("file", file)
}

fn of_read(error: &ReadError, text: &str) -> Refusal {
    let new = |reason| Refusal::new(Code::DataLoss, reason, text);
    match error {
        ReadError::Mef(error) => of_session(error, text),
        ReadError::Damaged(block) => {
            let refusal = match block.damage.error {
                BlockError::Encrypted { .. } => {
                    Refusal::new(Code::FailedPrecondition, "PASSWORD_REQUIRED", text)
                }
                _ => new("BLOCK_DAMAGED"),
            };
            refusal.damage(&damaged_block(block))
        }
        ReadError::UnreadableSegment {
            channel,
            segment,
            error,
        } => {
            let damage = DamageInfo {
                channel: channel.clone(),
                segment: segment.clone(),
                reason: error.to_string(),
                ..DamageInfo::default()
            };
            new("SEGMENT_UNREADABLE").damage(&damage)
        }
        ReadError::ConversionFactor {
            channel, segment, ..
        } => {
            let damage = DamageInfo {
                channel: channel.clone(),
                segment: segment.clone(),
                reason: text.into(),
                ..DamageInfo::default()
            };
            new("SCALE_UNUSABLE").damage(&damage)
        }
    }
}

/// A damaged block as it is told.
pub(super) fn damaged_block(block: &DamagedBlock) -> DamageInfo {
    DamageInfo {
        channel: block.channel.clone(),
        segment: block.segment.clone(),
        block: Some(block.block.into()),
        file_offset: Some(block.damage.file_offset),
        start_uutc: Some(block.start_uutc),
        samples: block.damage.samples.into(),
        reason: block.damage.error.to_string(),
    }
}
