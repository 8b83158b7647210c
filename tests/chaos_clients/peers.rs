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
/// Bytes that a slow reader takes at a time, and the pause after them.
const SIP: usize = 1024;
const PAUSE: Duration = Duration::from_secs(1);

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

/// A client whose socket takes a kilobyte a second.
pub async fn slow_client(address: SocketAddr) -> LegacyClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(Slowly(address)).await;
    LegacyClient::new(channel.unwrap())
}

/// Connects by a socket with the smallest buffer that is read slowly.
#[derive(Clone)]
struct Slowly(SocketAddr);

impl tonic::codegen::Service<Uri> for Slowly {
    type Response = TokioIo<SlowSocket>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            Ok(TokioIo::new(SlowSocket {
                stream: socket.connect(address).await?,
                // The greetings of both sides are no data.
                budget: 4 * SIP,
                pause: Box::pin(sleep(PAUSE)),
            }))
        })
    }
}

pub struct SlowSocket {
    stream: TcpStream,
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
            self.budget = SIP;
        }
        let mut sip = [0; 4 * SIP];
        let room = buffer.remaining().min(self.budget);
        let mut part = ReadBuf::new(&mut sip[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        self.budget -= part.filled().len();
        if self.budget == 0 {
            self.pause = Box::pin(sleep(PAUSE));
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
