//! Clients that misbehave.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mef3_server::grpc::proto::client::LegacyClient;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// What every HTTP/2 client says first, and settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// How a slow reader reads.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Bytes that it takes at a time.
    pub sip: usize,
    /// The pause after them.
    pub pause: Duration,
}

/// How much a half-open connection says before it says nothing any more.
#[derive(Clone, Copy, Debug)]
pub enum Greeting {
    Nothing,
    HalfAPreface,
    Preface,
    /// All that HTTP/2 asks for; pings are never answered.
    Settings,
}

impl Greeting {
    pub const ALL: [Self; 4] = [
        Self::Nothing,
        Self::HalfAPreface,
        Self::Preface,
        Self::Settings,
    ];

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::HalfAPreface => PREFACE[..12].to_vec(),
            Self::Preface => PREFACE.to_vec(),
            Self::Settings => [PREFACE, SETTINGS].concat(),
        }
    }
}

/// A connection that says its greeting and nothing else, and reads nothing.
pub async fn half_open(address: SocketAddr, greeting: Greeting) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&greeting.bytes()).await.unwrap();
    stream
}

/// A client whose socket is read slowly.
pub async fn slow_client(address: SocketAddr, pace: Pace) -> LegacyClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(Slowly(address, pace)).await;
    LegacyClient::new(channel.unwrap())
}

/// Connects by a socket with a small buffer that is read slowly.
#[derive(Clone)]
struct Slowly(SocketAddr, Pace);

impl tonic::codegen::Service<Uri> for Slowly {
    type Response = TokioIo<SlowSocket>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(address, pace) = *self;
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4 * pace.sip as u32)?;
            Ok(TokioIo::new(SlowSocket {
                stream: socket.connect(address).await?,
                pace,
                // The greetings of both sides are no data.
                budget: 4 * pace.sip,
                pause: Box::pin(sleep(pace.pause)),
            }))
        })
    }
}

pub struct SlowSocket {
    stream: TcpStream,
    pace: Pace,
    budget: usize,
    pause: Pin<Box<Sleep>>,
}

impl AsyncRead for SlowSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget == 0 {
            ready!(self.pause.as_mut().poll(cx));
            self.budget = self.pace.sip;
        }
        let mut sip = vec![0; buffer.remaining().min(self.budget)];
        let mut part = ReadBuf::new(&mut sip);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        self.budget -= part.filled().len();
        if self.budget == 0 {
            self.pause = Box::pin(sleep(self.pace.pause));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SlowSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
