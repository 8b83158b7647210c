//! What a request is called: by its client, who finds it again in the log, or by the
//! server.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tracing::field::Empty;

use crate::trace::Trace;

/// The metadata with the name, of a request and of its reply.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// Where a client of W3C Trace Context says what the request is a part of.
const TRACE_PARENT: &str = "traceparent";
/// Longest name, in bytes.
const MOST_BYTES: usize = 128;

/// Names a request: as the client does, where that can be written into a line; otherwise
/// after its trace; and otherwise by a number.
///
/// The span is one of the highest level: its fields belong to each line of the log that
/// is about the request, however few are written.
pub(super) fn trace_of(headers: &HeaderMap) -> Trace {
    let parent = headers.get(TRACE_PARENT).and_then(trace_parent);
    let given = headers.get(REQUEST_ID).and_then(name);
    let id: Arc<str> = match (given, &parent) {
        (Some(given), _) => given.into(),
        (None, Some(parent)) => parent.trace.into(),
        (None, None) => format!("{:032x}", fastrand::u128(..)).into(),
    };
    let span = tracing::error_span!("call", request = %id, trace = Empty, rpc = Empty);
    if let Some(parent) = parent {
        span.record("trace", parent.trace);
        #[cfg(feature = "otlp")]
        super::remote_parent::adopt(&span, headers);
    }
    Trace::new(id, span)
}

/// The name of a request for its reply.
pub(super) fn header_of(trace: &Trace) -> Option<HeaderValue> {
    HeaderValue::from_str(trace.id()).ok()
}

/// A name that a client gives, if it is short and printable.
fn name(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let fits = !text.is_empty() && text.len() <= MOST_BYTES;
    // A job names several, with commas between them.
    let is_fine = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    (fits && text.bytes().all(is_fine)).then_some(text)
}

/// What a request is a part of.
#[derive(Debug, PartialEq, Eq)]
struct TraceParent<'a> {
    /// 32 digits.
    trace: &'a str,
}

/// Reads `VERSION-TRACE-SPAN-FLAGS`. Later versions may have more behind it.
fn trace_parent(value: &HeaderValue) -> Option<TraceParent<'_>> {
    let text = value.to_str().ok()?;
    let mut parts = text.splitn(5, '-');
    let mut next = |digits: usize| {
        let part = parts.next()?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (part.len() == digits && part.bytes().all(is_hex)).then_some(part)
    };
    let (version, trace, span, _) = (next(2)?, next(32)?, next(16)?, next(2)?);
    let is_null = |id: &str| id.bytes().all(|digit| digit == b'0');
    let is_sound = version != "ff" && !is_null(trace) && !is_null(span);
    let is_whole = version != "00" || parts.next().is_none();
    (is_sound && is_whole).then_some(TraceParent { trace })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn id_of(headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            map.insert(*name, value);
        }
        trace_of(&map).id().to_string()
    }

    #[test]
    fn the_name_is_the_clients_or_its_traces_or_the_servers() {
        assert_eq!(id_of(&[("x-request-id", "night-7/a")]), "night-7/a");
        assert_eq!(id_of(&[("traceparent", PARENT)]), TRACE);
        let both = [("traceparent", PARENT), ("x-request-id", "b")];
        assert_eq!(id_of(&both), "b");
        let longest = "a".repeat(MOST_BYTES);
        assert_eq!(id_of(&[("x-request-id", &longest)]), longest);
        let (one, other) = (id_of(&[]), id_of(&[]));
        assert!(one.len() == 32 && one != other, "{one}, {other}");
    }

    #[test]
    fn names_that_no_line_should_have_are_replaced() {
        let long = "a".repeat(MOST_BYTES + 1);
        for bad in ["", " ", "a b", "a,b", "a\tb", "\u{e4}", &long] {
            let id = id_of(&[("x-request-id", bad), ("traceparent", PARENT)]);
            assert_eq!(id, TRACE, "{bad:?}");
        }
    }

    #[test]
    fn parents_are_read_strictly() {
        let later = format!("cc{}-what the future brings", &PARENT[2..]);
        assert_eq!(id_of(&[("traceparent", &later)]), TRACE);
        for bad in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT[..54],
            &format!("{PARENT}-x"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.replace(TRACE, &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
        ] {
            assert_ne!(id_of(&[("traceparent", bad)]), TRACE, "{bad}");
        }
    }
}
