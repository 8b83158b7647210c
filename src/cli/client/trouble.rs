//! What a server cannot do, or not for us, in lines that people read.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use mef3_server::grpc::code_name;
use mef3_server::grpc::proto::native::DamageInfo;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;

/// Most details of a status that are read: there are five kinds.
const MOST_DETAILS: usize = 16;
/// What an error of a connection says that has its reason behind it.
const NOTHING: &str = "transport error";

/// Why a command did not get what it asked a server for.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    /// A file of the connection does not serve.
    #[error("{}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    /// There is no connection.
    #[error("{server}: cannot connect: {reason}")]
    Connect { server: String, reason: String },
    /// The server says no.
    #[error("{server}: {}", summary(status))]
    Refused { server: String, status: Box<Status> },
    /// Nothing came in time.
    #[error("{server}: no answer within {seconds} s (--timeout)")]
    Silent { server: String, seconds: u64 },
    /// What came is no answer to what was asked.
    #[error("{server}: the answer makes no sense: {what}")]
    Nonsense { server: String, what: String },
    /// A reply was cut again and again.
    #[error("{source}; gave up after {seconds} s without a sample (--retry-s)")]
    GaveUp { seconds: u64, source: Box<Self> },
    /// Nothing of the server's was ever understood: it may encrypt where we do not, or
    /// the other way round.
    #[error("{source}")]
    Garbled {
        is_encrypted: bool,
        source: Box<Self>,
    },
    /// Not all recordings are listed.
    #[error("{server}: {problems} that cannot be looked into")]
    ListedInPart { server: String, problems: String },
    /// Channels that do not fit one array.
    #[error("the channels have different rates, which one file has no room for: {rates}")]
    Rates { rates: String },
    /// No channel says when it was recorded.
    #[error("{recording}: no channel can be read")]
    NoChannel { recording: String },
    /// One of the channels cannot be read at all.
    #[error("{recording}: channel {channel} cannot be read: {reason}")]
    UnreadableChannel {
        recording: String,
        channel: String,
        reason: String,
    },
    /// All is written, but what is damaged.
    #[error("{recording}: masked: {what}")]
    Masked { recording: String, what: String },
    /// A signal ended it.
    #[error("interrupted: nothing is kept of what was read")]
    Interrupted,
    /// The file cannot be put together.
    #[error("the Arrow file cannot be made: {0}")]
    Arrow(String),
}

impl ClientError {
    /// What there is to say beside the one line, in lines.
    pub(in crate::cli) fn details(&self) -> Vec<String> {
        match self {
            Self::Refused { status, .. } => Details::of(status).lines(),
            Self::GaveUp { source, .. } => source.details(),
            Self::Garbled {
                is_encrypted,
                source,
            } => {
                let mut lines = source.details();
                lines.push(match is_encrypted {
                    true => "  does the server encrypt? if not, use http:// without --ca".into(),
                    false => "  does the server encrypt? if so, use https:// or --ca FILE".into(),
                });
                lines
            }
            Self::Rates { .. } => vec!["  name channels of one rate by --channel".into()],
            _ => Vec::new(),
        }
    }

    /// How long to wait before it is tried again, if that can help: because a connection
    /// was cut, or since the server says so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect { .. } | Self::Silent { .. } => Some(Duration::ZERO),
            Self::Refused { status, .. } => match status.code() {
                // The server's own words come with details, those of a cut connection
                // with the error of that.
                Code::Unavailable | Code::ResourceExhausted => match Details::of(status) {
                    Details {
                        retry: Some(delay), ..
                    } => Some(delay),
                    Details { reason, .. } if reason.is_empty() => Some(Duration::ZERO),
                    _ => None,
                },
                _ => status.source().map(|_| Duration::ZERO),
            },
            Self::Garbled { source, .. } => source.retry_after(),
            _ => None,
        }
    }
}

/// A status in a line: in the words of the server, or of what cut the way to it.
pub(in crate::cli) fn summary(status: &Status) -> String {
    let (code, message) = (code_name(status.code()), status.message());
    let chain = status.source().map(chain).unwrap_or_default();
    match chain.is_empty() || message.contains(&chain) {
        true => format!("{code}: {message}"),
        false if chain.contains(message) || message == NOTHING => format!("{code}: {chain}"),
        false => format!("{code}: {message}: {chain}"),
    }
}

/// An error with those behind it. Each says but its own part.
pub(in crate::cli) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Some repeat what is behind them, and one says nothing.
        if text != NOTHING && !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    match texts.is_empty() {
        true => error.to_string(),
        false => texts.join(": "),
    }
}

/// What a status says beside its code and its text.
#[derive(Debug, Default, PartialEq)]
struct Details {
    reason: String,
    /// Of the reason, by name.
    about: Vec<(String, String)>,
    fields: Vec<String>,
    retry: Option<Duration>,
    damage: Option<DamageInfo>,
}

impl Details {
    /// The details of a status; what is none is left out.
    fn of(status: &Status) -> Self {
        let mut details = Self::default();
        let packed = pb::Status::decode(status.details()).unwrap_or_default();
        for any in packed.details.iter().take(MOST_DETAILS) {
            let value = any.value.as_slice();
            match any.type_url.rsplit('/').next().unwrap_or_default() {
                "google.rpc.ErrorInfo" => {
                    let info = pb::ErrorInfo::decode(value).unwrap_or_default();
                    details.reason = info.reason;
                    details.about = info.metadata.into_iter().collect();
                    details.about.sort();
                }
                "google.rpc.BadRequest" => {
                    let bad = pb::BadRequest::decode(value).unwrap_or_default();
                    let fields = bad.field_violations.into_iter();
                    details.fields = fields.map(|it| it.field).collect();
                }
                "google.rpc.RetryInfo" => {
                    let retry = pb::RetryInfo::decode(value).unwrap_or_default();
                    let delay = retry.retry_delay;
                    details.retry = delay.and_then(|delay| delay.try_into().ok());
                }
                "mef3.v1.DamageInfo" => details.damage = DamageInfo::decode(value).ok(),
                // A quota failure repeats the limit of the reason.
                _ => {}
            }
        }
        details
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.reason.is_empty() {
            lines.push(format!("  reason: {}", self.reason));
        }
        lines.extend(self.fields.iter().map(|field| format!("  field: {field}")));
        let about = |name: &str| {
            let found = self.about.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        if let Some(limit) = about("limit") {
            let value = about("value").unwrap_or_default();
            lines.push(format!("  limit: {limit} = {value}"));
        }
        let others = self.about.iter();
        let others = others.filter(|(key, _)| !["limit", "value"].contains(&key.as_str()));
        lines.extend(others.map(|(key, value)| format!("  {key}: {value}")));
        if let Some(damage) = &self.damage {
            lines.push(format!("  damage: {}", damage_text(damage)));
        }
        if let Some(delay) = self.retry {
            lines.push(format!("  try again in: {} s", delay.as_secs_f64()));
        }
        lines
    }
}

/// What is damaged, and where, in a line.
pub(super) fn damage_text(damage: &DamageInfo) -> String {
    let mut text = format!("channel {}", damage.channel);
    if !damage.segment.is_empty() {
        text += &format!(", segment {}", damage.segment);
    }
    if let Some(block) = damage.block {
        text += &format!(", block {block}");
    }
    if let Some(offset) = damage.file_offset {
        text += &format!(" at byte {offset}");
    }
    if damage.samples > 0 {
        text += &format!(", {} samples", damage.samples);
    }
    if let Some(start) = damage.start_uutc {
        text += &format!(", from {start}");
    }
    format!("{text}: {}", damage.reason)
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn any(name: &str, detail: &impl Message) -> Any {
        Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: detail.encode_to_vec(),
        }
    }

    fn refused(code: Code, details: Vec<Any>) -> ClientError {
        let status = pb::Status {
            code: code as i32,
            message: "why".into(),
            details,
        };
        let details = status.encode_to_vec().into();
        ClientError::Refused {
            server: "there:1".into(),
            status: Box::new(Status::with_details(code, "why", details)),
        }
    }

    fn info(reason: &str, metadata: &[(&str, &str)]) -> Any {
        let metadata = metadata
            .iter()
            .map(|&(key, value)| (key.into(), value.into()));
        let info = pb::ErrorInfo {
            reason: reason.into(),
            domain: "mef3".into(),
            metadata: metadata.collect(),
        };
        any("google.rpc.ErrorInfo", &info)
    }

    #[test]
    fn all_that_a_status_says_is_shown() {
        let retry = pb::RetryInfo {
            retry_delay: prost_types::Duration::try_from(Duration::from_millis(1500)).ok(),
        };
        let bad = pb::BadRequest {
            field_violations: vec![pb::bad_request::FieldViolation {
                field: "span".into(),
                ..pb::bad_request::FieldViolation::default()
            }],
        };
        let damage = DamageInfo {
            channel: "a".into(),
            segment: "a-000001".into(),
            block: Some(7),
            file_offset: Some(1024),
            start_uutc: Some(5),
            samples: 256,
            reason: "its CRC is wrong".into(),
        };
        let error = refused(
            Code::ResourceExhausted,
            vec![
                info(
                    "BUSY",
                    &[("value", "64"), ("limit", "limits.x"), ("file", "/a")],
                ),
                any("google.rpc.RetryInfo", &retry),
                any("google.rpc.BadRequest", &bad),
                any("mef3.v1.DamageInfo", &damage),
                any("google.rpc.Help", &pb::Help::default()),
            ],
        );
        assert_eq!(error.to_string(), "there:1: RESOURCE_EXHAUSTED: why");
        let lines = [
            "  reason: BUSY",
            "  field: span",
            "  limit: limits.x = 64",
            "  file: /a",
            "  damage: channel a, segment a-000001, block 7 at byte 1024, 256 samples, from 5: \
             its CRC is wrong",
            "  try again in: 1.5 s",
        ];
        assert_eq!(error.details(), lines);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let is_tried = |error: ClientError| error.retry_after().is_some();
        assert!(is_tried(refused(Code::Unavailable, Vec::new())));
        assert!(!is_tried(refused(
            Code::ResourceExhausted,
            vec![info("LIMIT_EXCEEDED", &[])]
        )));
        assert!(!is_tried(refused(
            Code::Aborted,
            vec![info("FILES_REPLACED", &[])]
        )));
        assert!(!is_tried(refused(Code::Internal, Vec::new())));
        // What a connection ends in, when it is cut.
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let status = Status::from_error(Box::new(cut));
        assert!(is_tried(ClientError::Refused {
            server: String::new(),
            status: Box::new(status),
        }));
    }

    #[test]
    fn nonsense_for_details_is_no_reason_to_fail() {
        let status = Status::with_details(Code::NotFound, "why", b"nonsense".as_slice().into());
        assert_eq!(Details::of(&status), Details::default());
    }
}
