//! A client of the server, and what it checks in every reply.

use std::fmt::Debug;

use bytemuck::Pod;
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{
    FileInfoRequest, FileInfoResponse, OpenFileRequest, SetActiveChannelsRequest,
    SetSignalSegmentRequest, SignalChunk, SignalChunkRequest, SignalRangeRequest,
};
use tonic::Streaming;
use tonic::transport::Channel;

use super::server::Server;

/// Most bytes of samples in one message of a long reply.
const MESSAGE_BYTES: usize = 131_072;
/// Most bytes of samples of a reply that is one message.
const WHOLE_BYTES: usize = 2_621_440;

/// A type of samples on the wire.
pub trait Sample: Pod + Debug {
    const DTYPE: &'static str;

    /// Bit for bit the same; one NaN is as good as another.
    fn same(self, other: Self) -> bool;
}

impl Sample for f64 {
    const DTYPE: &'static str = "float64";

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

impl Sample for f32 {
    const DTYPE: &'static str = "float32";

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

/// Fails where two rows differ, and says where.
pub fn assert_same<T: Sample>(found: &[T], expected: &[T], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: number of samples");
    let difference = found.iter().zip(expected).position(|(a, b)| !a.same(*b));
    if let Some(column) = difference {
        panic!(
            "{what}, column {column} of {}: found {:?}, expected {:?}",
            found.len(),
            found[column],
            expected[column]
        );
    }
}

/// A whole reply to a read.
#[derive(Debug)]
pub struct Matrix<T> {
    pub rows: Vec<Vec<T>>,
    pub sampling_frequency: f64,
    pub start_uutc: i64,
    pub end_uutc: i64,
    pub messages: usize,
}

/// A client that has one recording open. Every reply but that of a read fails
/// the test where it tells of an error.
pub struct Client {
    service: LegacyClient<Channel>,
    path: String,
    pub info: FileInfoResponse,
}

impl Client {
    /// Connects and opens a session.
    pub async fn open(server: &Server, path: &std::path::Path) -> Self {
        Self::try_open(server, path).await.unwrap()
    }

    /// As `open`, for sessions that may be refused: the error is the server's.
    pub async fn try_open(server: &Server, path: &std::path::Path) -> Result<Self, String> {
        let mut service = LegacyClient::connect(server.url()).await.unwrap();
        let path = path.to_str().unwrap().to_owned();
        let request = OpenFileRequest {
            file_path: path.clone(),
            ..OpenFileRequest::default()
        };
        let info = service.open_file(request).await.unwrap().into_inner();
        if let Some(error) = info.error_message {
            assert!(!info.file_opened);
            return Err(error);
        }
        assert!(info.file_opened, "{info:?}");
        Ok(Self {
            service,
            path,
            info,
        })
    }

    /// Lays a grid over the recording; gives the number of its segments.
    pub async fn close(&mut self) {
        let request = FileInfoRequest {
            file_path: self.path.clone(),
        };
        let reply = self.service.close_file(request).await.unwrap().into_inner();
        assert!(!reply.file_opened);
    }

    pub async fn set_segment_size(&mut self, seconds: i64) -> i64 {
        let request = SetSignalSegmentRequest {
            file_path: self.path.clone(),
            seconds,
        };
        let reply = self.service.set_signal_segment_size(request).await;
        let reply = reply.unwrap().into_inner();
        assert_eq!(reply.error_message.as_deref(), Some(""));
        reply.number_of_segments
    }

    pub async fn set_active_channels(&mut self, names: &[String]) {
        let request = SetActiveChannelsRequest {
            file_path: self.path.clone(),
            channel_names: names.into(),
        };
        let reply = self.service.set_active_channels(request).await;
        let reply = reply.unwrap().into_inner();
        assert_eq!(reply.error_message.as_deref(), Some(""));
        assert_eq!(reply.active_channels, names);
    }

    /// Reads a segment of the grid, whose rows are those of `names`.
    pub async fn segment(&mut self, index: i64, names: &[String]) -> Result<Matrix<f64>, String> {
        let request = SignalChunkRequest {
            file_path: self.path.clone(),
            chunk_idx: index,
        };
        let replies = self.service.get_signal_segment(request).await.unwrap();
        assemble(&self.path, names, replies.into_inner()).await
    }

    /// Reads the half-open window from `start_uutc` to `end_uutc`.
    pub async fn range(
        &mut self,
        names: &[String],
        (start_uutc, end_uutc): (i64, i64),
    ) -> Result<Matrix<f32>, String> {
        let request = SignalRangeRequest {
            file_path: self.path.clone(),
            channel_names: names.into(),
            start_uutc,
            end_uutc,
            n_points: None,
        };
        let replies = self.service.get_signal_range(request).await.unwrap();
        assemble(&self.path, names, replies.into_inner()).await
    }
}

/// Messages that a reply to an only client has.
pub fn messages_of<T: Sample>(rows: usize, columns: usize) -> usize {
    let column_bytes = rows * size_of::<T>();
    if columns * column_bytes <= WHOLE_BYTES {
        return 1;
    }
    columns.div_ceil((MESSAGE_BYTES / column_bytes).max(1))
}

/// Puts the messages of a reply together as clients do. A message that tells of
/// an error is the last one, and has nothing else to tell.
async fn assemble<T: Sample>(
    path: &str,
    names: &[String],
    mut replies: Streaming<SignalChunk>,
) -> Result<Matrix<T>, String> {
    let most_columns = (MESSAGE_BYTES / (names.len() * size_of::<T>())).max(1);
    let mut matrix: Option<Matrix<T>> = None;
    let mut columns_before = most_columns;
    while let Some(message) = replies.message().await.unwrap() {
        assert_eq!(message.file_path, path);
        let error = message.error_message.as_deref();
        let error = error.expect("a chunk always has an error_message");
        if !error.is_empty() {
            assert!(message.array_bytes.is_empty() && message.shape.is_empty());
            assert!(replies.message().await.unwrap().is_none());
            return Err(error.into());
        }
        let samples = samples_of::<T>(&message, names);
        let columns = samples.len() / names.len();
        assert_eq!(columns_before, most_columns, "only the last is short");
        // Where more came, it was all.
        assert!(columns > 0 && (columns <= most_columns || matrix.is_none()));
        columns_before = columns;
        let matrix = matrix.get_or_insert_with(|| Matrix {
            rows: vec![Vec::new(); names.len()],
            sampling_frequency: message.fs,
            start_uutc: message.start_uutc,
            end_uutc: message.start_uutc,
            messages: 0,
        });
        assert_eq!(message.start_uutc, matrix.end_uutc, "times join");
        assert!(message.end_uutc > message.start_uutc);
        assert_eq!(message.fs, matrix.sampling_frequency);
        matrix.end_uutc = message.end_uutc;
        matrix.messages += 1;
        for (row, part) in matrix.rows.iter_mut().zip(samples.chunks_exact(columns)) {
            row.extend_from_slice(part);
        }
    }
    Ok(matrix.expect("a reply has at least one message"))
}

/// The samples of one message, row after row.
fn samples_of<T: Sample>(message: &SignalChunk, names: &[String]) -> Vec<T> {
    assert_eq!(message.channel_names, names);
    assert_eq!(message.dtype, T::DTYPE);
    assert!(message.array_bytes.len() <= WHOLE_BYTES);
    let samples: Vec<T> = bytemuck::pod_collect_to_vec(&message.array_bytes);
    let columns = samples.len() / names.len();
    assert_eq!(message.shape, [names.len() as i64, columns as i64]);
    assert_eq!(
        message.array_bytes.len(),
        names.len() * columns * size_of::<T>()
    );
    samples
}
