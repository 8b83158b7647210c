//! A client of the legacy service that never waits for ever.

use std::net::SocketAddr;
use std::time::Duration;

use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{
    FileInfoRequest, FileInfoResponse, OpenFileRequest, SetActiveChannelsRequest,
    SetSignalSegmentRequest, SignalChunk, SignalChunkRequest, SignalRangeRequest,
};
use tonic::Streaming;
use tonic::transport::Channel;

use super::session::{KnownSession, Span, assert_same};

/// How long a call, or the next message of a stream, may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Waits for a reply, within the limit.
pub async fn soon<T>(what: &str, reply: impl Future<Output = T>) -> T {
    let reply = tokio::time::timeout(CALL_LIMIT, reply).await;
    reply.unwrap_or_else(|_| panic!("{what}: not within {CALL_LIMIT:?}"))
}

/// A connection of its own.
#[derive(Clone)]
pub struct Client(LegacyClient<Channel>);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// Connects, where the server lets it.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, tonic::transport::Error> {
        let client = LegacyClient::connect(format!("http://{address}"));
        soon("connect", client).await.map(Self)
    }

    /// Uses a connection that there is.
    pub fn connect_by(client: LegacyClient<Channel>) -> Self {
        Self(client)
    }

    /// Connects, and opens the session.
    pub async fn with_open(address: SocketAddr, session: &KnownSession) -> Self {
        let mut client = Self::connect(address).await;
        let info = client.open(&session.key()).await.unwrap();
        assert_eq!(info, session.channels() as i64);
        client
    }

    /// Opens a session: its number of channels, or the server's reason.
    pub async fn open(&mut self, path: &str) -> Result<i64, String> {
        let info = self.try_open(path).await.unwrap();
        match info.number_of_channels {
            Some(channels) if info.file_opened => Ok(channels),
            _ => Err(info.error_message.unwrap_or_default()),
        }
    }

    /// Opens a session, if it is answered at all.
    pub async fn try_open(&mut self, path: &str) -> Result<FileInfoResponse, tonic::Status> {
        let request = OpenFileRequest {
            file_path: path.into(),
            ..OpenFileRequest::default()
        };
        let info = soon("open", self.0.open_file(request)).await;
        info.map(tonic::Response::into_inner)
    }

    /// Closes a session.
    pub async fn close(&mut self, path: &str) {
        let request = FileInfoRequest {
            file_path: path.into(),
        };
        soon("close", self.0.close_file(request)).await.unwrap();
    }

    /// Lays a grid of segments over a session, of some channels.
    pub async fn set_segments(&mut self, session: &KnownSession, seconds: i64, names: &[String]) {
        let request = SetSignalSegmentRequest {
            file_path: session.key(),
            seconds,
        };
        let reply = soon("grid", self.0.set_signal_segment_size(request)).await;
        assert_eq!(reply.unwrap().into_inner().error_message.unwrap(), "");
        let request = SetActiveChannelsRequest {
            file_path: session.key(),
            channel_names: names.into(),
        };
        let reply = soon("channels", self.0.set_active_channels(request)).await;
        assert_eq!(reply.unwrap().into_inner().error_message.unwrap(), "");
    }

    /// Asks for a segment of the grid: its first message.
    pub async fn segment(
        &mut self,
        session: &KnownSession,
        index: i64,
    ) -> Result<SignalChunk, String> {
        let request = SignalChunkRequest {
            file_path: session.key(),
            chunk_idx: index,
        };
        let stream = soon("segment", self.0.get_signal_segment(request)).await;
        let mut stream = stream.unwrap().into_inner();
        let chunk = soon("a message", stream.message()).await.unwrap().unwrap();
        match chunk.error_message.as_deref() {
            Some(error) if !error.is_empty() => Err(error.into()),
            _ => Ok(chunk),
        }
    }

    /// Starts to read a span.
    pub async fn start(&mut self, session: &KnownSession, span: &Span) -> Reading {
        let request = SignalRangeRequest {
            file_path: session.key(),
            channel_names: span.names(),
            start_uutc: span.start(),
            end_uutc: span.end(),
            n_points: None,
        };
        let stream = soon("read", self.0.get_signal_range(request)).await;
        Reading {
            stream: stream.unwrap().into_inner(),
            rows: vec![Vec::new(); span.channels.len()],
        }
    }

    /// Reads a span within a time, by the server's clock as well as our own.
    pub async fn read_within(
        &mut self,
        given: Duration,
        session: &KnownSession,
        span: &Span,
    ) -> Result<Vec<Vec<f32>>, String> {
        let mut request = tonic::Request::new(SignalRangeRequest {
            file_path: session.key(),
            channel_names: span.names(),
            start_uutc: span.start(),
            end_uutc: span.end(),
            n_points: None,
        });
        // The client's own timer would hide the server's.
        let text = format!("{}m", given.as_millis());
        request
            .metadata_mut()
            .insert("grpc-timeout", text.parse().unwrap());
        let stream = soon("read", self.0.get_signal_range(request)).await;
        let reading = Reading {
            stream: stream.map_err(|status| status.to_string())?.into_inner(),
            rows: vec![Vec::new(); span.channels.len()],
        };
        reading.finish().await
    }

    /// Reads a span; row after row.
    pub async fn read(
        &mut self,
        session: &KnownSession,
        span: &Span,
    ) -> Result<Vec<Vec<f32>>, String> {
        self.start(session, span).await.finish().await
    }

    /// Reads a span and checks every sample.
    ///
    /// # Panics
    /// Where it fails or is wrong.
    pub async fn read_right(&mut self, session: &KnownSession, span: &Span) {
        let rows = self.read(session, span).await.unwrap();
        assert_same(&rows, &session.expected(span));
    }
}

/// A reply that is on its way.
pub struct Reading {
    stream: Streaming<SignalChunk>,
    rows: Vec<Vec<f32>>,
}

impl Reading {
    /// Takes one message; `false` after the last.
    pub async fn take(&mut self) -> Result<bool, String> {
        let message = soon("the next message", self.stream.message()).await;
        let Some(chunk) = message.map_err(|status| status.to_string())? else {
            return Ok(false);
        };
        if let Some(error) = chunk.error_message.filter(|error| !error.is_empty()) {
            return Err(error);
        }
        let columns = usize::try_from(chunk.shape[1]).unwrap();
        let values: Vec<f32> = chunk
            .array_bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(values.len(), self.rows.len() * columns);
        for (row, values) in self.rows.iter_mut().zip(values.chunks_exact(columns)) {
            row.extend(values);
        }
        Ok(true)
    }

    /// Takes the rest: all rows.
    pub async fn finish(mut self) -> Result<Vec<Vec<f32>>, String> {
        while self.take().await? {}
        Ok(self.rows)
    }
}
