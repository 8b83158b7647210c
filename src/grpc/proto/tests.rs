//! The wire form of every message, which deployed clients rely on: field
//! numbers, wire types and presence.

use prost::Message;
use prost::bytes::Bytes;

use super::*;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;

/// Field numbers and wire types in an encoded message, as they come.
fn fields(message: &impl Message) -> Vec<(u64, u64)> {
    let mut bytes = &message.encode_to_vec()[..];
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = prost::decode_length_delimiter(&mut bytes).unwrap() as u64;
        let skipped = match tag & 7 {
            VARINT => bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1,
            FIXED_64 => 8,
            LENGTH => prost::decode_length_delimiter(&mut bytes).unwrap(),
            other => panic!("wire type {other}"),
        };
        bytes = &bytes[skipped..];
        fields.push((tag >> 3, tag & 7));
    }
    fields
}

fn text() -> String {
    "x".into()
}

fn no_error() -> Option<String> {
    // Empty and set is another message than unset.
    Some(String::new())
}

#[test]
fn the_service_has_no_package() {
    assert_eq!(server::SERVICE_NAME, "gRPCMef3Server");
}

#[test]
fn the_descriptor_set_tells_the_service() {
    let name = server::SERVICE_NAME.as_bytes();
    assert!(
        DESCRIPTOR_SET
            .windows(name.len())
            .any(|window| window == name)
    );
}

#[test]
fn an_unset_message_takes_no_bytes() {
    assert_eq!(fields(&OpenFileRequest::default()), []);
    assert_eq!(fields(&FileInfoResponse::default()), []);
    assert_eq!(fields(&SignalRangeRequest::default()), []);
    assert_eq!(fields(&EnvelopeRequest::default()), []);
    assert_eq!(fields(&ListOpenFilesRequest {}), []);
}

#[test]
fn optional_fields_keep_a_set_zero() {
    let request = OpenFileRequest {
        cache_fs: Some(0.0),
        allow_mixed_rates: Some(false),
        ..OpenFileRequest::default()
    };
    assert_eq!(fields(&request), [(2, FIXED_64), (3, VARINT)]);
    let reply = FileInfoResponse {
        number_of_channels: Some(0),
        start_uutc: Some(0),
        end_uutc: Some(0),
        duration_s: Some(0.0),
        cache_fs: Some(0.0),
        error_message: no_error(),
        ..FileInfoResponse::default()
    };
    assert_eq!(
        fields(&reply),
        [
            (3, VARINT),
            (6, VARINT),
            (7, VARINT),
            (8, FIXED_64),
            (12, FIXED_64),
            (99, LENGTH)
        ]
    );
    let request = SignalRangeRequest {
        n_points: Some(0),
        ..SignalRangeRequest::default()
    };
    assert_eq!(fields(&request), [(5, VARINT)]);
    let request = EnvelopeRequest {
        start_uutc: Some(0),
        end_uutc: Some(0),
        ..EnvelopeRequest::default()
    };
    assert_eq!(fields(&request), [(3, VARINT), (4, VARINT)]);
}

#[test]
fn messages_of_opening_and_closing() {
    let request = OpenFileRequest {
        file_path: text(),
        cache_fs: Some(1.0),
        allow_mixed_rates: Some(true),
    };
    assert_eq!(fields(&request), [(1, LENGTH), (2, FIXED_64), (3, VARINT)]);
    assert_eq!(
        fields(&FileInfoRequest { file_path: text() }),
        [(1, LENGTH)]
    );
    assert_eq!(
        fields(&CloseFileRequest { file_path: text() }),
        [(1, LENGTH)]
    );
    let reply = CloseFileResponse {
        file_path: text(),
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (99, LENGTH)]);
    let reply = FileInfoResponse {
        file_path: text(),
        file_opened: true,
        number_of_channels: Some(1),
        channel_names: vec![text()],
        channel_sampling_rates: vec![256.0],
        start_uutc: Some(1),
        end_uutc: Some(2),
        duration_s: Some(3.0),
        channel_start_uutc: vec![1],
        channel_end_uutc: vec![2],
        channel_served_sampling_rates: vec![256.0],
        cache_fs: Some(1.0),
        error_message: no_error(),
    };
    assert_eq!(
        fields(&reply),
        [
            (1, LENGTH),
            (2, VARINT),
            (3, VARINT),
            (4, LENGTH),
            (5, LENGTH),
            (6, VARINT),
            (7, VARINT),
            (8, FIXED_64),
            (9, LENGTH),
            (10, LENGTH),
            (11, LENGTH),
            (12, FIXED_64),
            (99, LENGTH),
        ]
    );
    // The native rates have 32 bits, the served ones 64.
    let rates = FileInfoResponse {
        channel_sampling_rates: vec![256.0],
        channel_served_sampling_rates: vec![256.0],
        ..FileInfoResponse::default()
    };
    assert_eq!(rates.encoded_len(), (2 + 4) + (2 + 8));
    let reply = ListOpenFilesResponse {
        file_paths: vec![text()],
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (99, LENGTH)]);
}

#[test]
fn messages_of_segments_and_active_channels() {
    let request = SetSignalSegmentRequest {
        file_path: text(),
        seconds: 1,
    };
    assert_eq!(fields(&request), [(1, LENGTH), (2, VARINT)]);
    let reply = SetSignalSegmentResponse {
        file_path: text(),
        number_of_segments: 1,
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (2, VARINT), (99, LENGTH)]);
    let reply = GetNumberOfSegmentsResponse {
        file_path: text(),
        number_of_segments: 1,
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (2, VARINT), (99, LENGTH)]);
    let request = SignalChunkRequest {
        file_path: text(),
        chunk_idx: 1,
    };
    assert_eq!(fields(&request), [(1, LENGTH), (2, VARINT)]);
    let request = SetActiveChannelsRequest {
        file_path: text(),
        channel_names: vec![text()],
    };
    assert_eq!(fields(&request), [(1, LENGTH), (2, LENGTH)]);
    let reply = SetActiveChannelsResponse {
        file_path: text(),
        active_channels: vec![text()],
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (2, LENGTH), (99, LENGTH)]);
    assert_eq!(
        fields(&GetActiveChannelsRequest { file_path: text() }),
        [(1, LENGTH)]
    );
    let reply = GetActiveChannelsResponse {
        file_path: text(),
        active_channels: vec![text()],
        error_message: no_error(),
    };
    assert_eq!(fields(&reply), [(1, LENGTH), (2, LENGTH), (99, LENGTH)]);
}

#[test]
fn messages_of_samples() {
    let request = SignalRangeRequest {
        file_path: text(),
        channel_names: vec![text()],
        start_uutc: 1,
        end_uutc: 2,
        n_points: Some(3),
    };
    assert_eq!(
        fields(&request),
        [
            (1, LENGTH),
            (2, LENGTH),
            (3, VARINT),
            (4, VARINT),
            (5, VARINT)
        ]
    );
    let chunk = SignalChunk {
        file_path: text(),
        array_bytes: Bytes::from_static(&[1]),
        dtype: text(),
        shape: vec![1, 2],
        start_uutc: 1,
        end_uutc: 2,
        fs: 3.0,
        channel_names: vec![text()],
        error_message: no_error(),
    };
    assert_eq!(
        fields(&chunk),
        [
            (1, LENGTH),
            (2, LENGTH),
            (3, LENGTH),
            (4, LENGTH),
            (5, VARINT),
            (6, VARINT),
            (7, FIXED_64),
            (8, LENGTH),
            (99, LENGTH),
        ]
    );
}

#[test]
fn requests_may_be_as_long_as_any_that_can_be_answered() {
    let limits = crate::config::Limits::default();
    // A file system has 255 bytes for "NAME-000000.segd", and 4096 for a path.
    let name = "x".repeat(255 - "-000000.segd".len());
    let request = SignalRangeRequest {
        file_path: "x".repeat(4096),
        channel_names: vec![name; limits.channels_per_read],
        start_uutc: i64::MIN,
        end_uutc: i64::MAX,
        n_points: Some(i64::MAX),
    };
    assert!(request.encoded_len() <= limits.request_message_bytes());
}

#[test]
fn messages_of_envelopes() {
    let request = EnvelopeRequest {
        file_path: text(),
        channel_names: vec![text()],
        start_uutc: Some(1),
        end_uutc: Some(2),
    };
    assert_eq!(
        fields(&request),
        [(1, LENGTH), (2, LENGTH), (3, VARINT), (4, VARINT)]
    );
    let envelope = ChannelEnvelope {
        file_path: text(),
        channel_name: text(),
        start_uutc: vec![1],
        end_uutc: vec![2],
        min: vec![1.0],
        max: vec![2.0],
        error_message: no_error(),
    };
    assert_eq!(
        fields(&envelope),
        [
            (1, LENGTH),
            (2, LENGTH),
            (3, LENGTH),
            (4, LENGTH),
            (5, LENGTH),
            (6, LENGTH),
            (99, LENGTH),
        ]
    );
}
