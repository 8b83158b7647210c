//! Annotations: what the format calls records.

use serde::Serialize;

use super::pages::{Page, Place};
use super::status::Refusal;
use crate::grpc::proto::native::{Annotation, ListAnnotationsRequest, ListAnnotationsResponse};
use crate::mef::{PlacedRecord, RecordBody, RecordFilter, RecordPage, RecordQuery, RecordType};

/// The longest body that is sent.
const MOST_BODY_BYTES: usize = 1 << 20;
/// Bytes of annotations after which a page ends, one excepted.
const PAGE_BYTES: usize = 512 << 10;
/// Findings that an answer lists, each cut to so many bytes.
const MOST_FINDINGS: usize = 100;
const FINDING_BYTES: usize = 1024;

/// What a request asks the records for.
pub(super) fn query(request: &ListAnnotationsRequest, page: Page) -> Result<RecordQuery, Refusal> {
    let parse = |name: &String| {
        name.parse::<RecordType>().map_err(|error| {
            let text = format!("types: {name:?}: {error}");
            Refusal::field("types", "RECORD_TYPE_INVALID", text)
        })
    };
    Ok(RecordQuery {
        filter: RecordFilter {
            types: request.types.iter().map(parse).collect::<Result<_, _>>()?,
            from_uutc: request.span.map(|span| span.start_uutc),
            until_uutc: request.span.map(|span| span.end_uutc),
        },
        channels: request.channels.clone(),
        skip: page.first.entry,
        limit: page.entries,
    })
}

/// The annotations of a page of records, or how many of them have room in a message.
pub(super) fn annotations(records: &[PlacedRecord]) -> Result<Vec<Annotation>, usize> {
    let mut annotations: Vec<Annotation> = Vec::new();
    let mut bytes = 0;
    for placed in records {
        let annotation = annotation(placed);
        bytes += prost::Message::encoded_len(&annotation);
        if bytes > PAGE_BYTES && !annotations.is_empty() {
            return Err(annotations.len());
        }
        annotations.push(annotation);
    }
    Ok(annotations)
}

/// The answer.
pub(super) fn answer(
    annotations: Vec<Annotation>,
    records: &RecordPage,
    page: Page,
) -> ListAnnotationsResponse {
    let further = records.damaged.len().saturating_sub(MOST_FINDINGS) as u64;
    let damage = records.damaged.iter().take(MOST_FINDINGS);
    let next = records.next.map(|entry| Place { channel: 0, entry });
    ListAnnotationsResponse {
        annotations,
        total: records.total,
        next_page_token: next.map(|place| page.token(place)).unwrap_or_default(),
        damage: damage.map(|finding| cut(finding.to_string())).collect(),
        further_damage: records.further_damage + further,
    }
}

/// A text that has room in a list.
pub(super) fn cut(mut text: String) -> String {
    let most = text.len().min(FINDING_BYTES);
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

/// A body as JSON: raw bytes are hexadecimal.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Raw { raw: String },
    Typed(&'a RecordBody),
}

fn annotation(placed: &PlacedRecord) -> Annotation {
    let record = &placed.record;
    let locked = matches!(record.body, RecordBody::Locked);
    let body = match &record.body {
        RecordBody::Locked => None,
        RecordBody::Unknown(bytes) => Some(Body::Raw {
            raw: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }),
        typed => Some(Body::Typed(typed)),
    };
    // Values of these types always are JSON.
    let json = body.and_then(|body| serde_json::to_string(&body).ok());
    let json = json.unwrap_or_default();
    let (text, duration_us) = told_by(&record.body);
    let is_too_long = json.len() > MOST_BODY_BYTES || text.len() > MOST_BODY_BYTES / 2;
    let omitted_bytes = if is_too_long { json.len() as u64 } else { 0 };
    let kept = |text: &str| if is_too_long { "" } else { text }.to_owned();
    Annotation {
        r#type: record.kind.to_string(),
        time_uutc: record.time_uutc,
        channel: placed.channel.clone().unwrap_or_default(),
        text: kept(text),
        duration_us,
        body_json: kept(&json),
        time_unresolved: placed.time_unresolved,
        locked,
        omitted_bytes,
    }
}

/// The text and the duration of a body, of the types that have them.
fn told_by(body: &RecordBody) -> (&str, Option<i64>) {
    match body {
        RecordBody::Note { text } | RecordBody::SystemLog { text } => (text, None),
        RecordBody::EdfAnnotation { duration_us, text } => (text, *duration_us),
        RecordBody::Seizure(seizure) => (&seizure.annotation, seizure.duration_us),
        RecordBody::Epoch(epoch) => (&epoch.text, epoch.duration_us),
        _ => ("", None),
    }
}
