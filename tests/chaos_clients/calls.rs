//! Calls: stalled, too many, past their deadline, or never made wholly.

use std::time::{Duration, Instant};

use mef3_server::Engine;
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{
    FileInfoRequest, FileInfoResponse, SignalChunk, SignalRangeRequest,
};
use mef3_server::grpc::{self, ConnectionCounters, ConnectionLimits, ServiceOptions};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::common::chaos::by_form;
use super::common::process::client::{Client, soon};
use super::common::process::session::{KnownSession, assert_same};
use super::common::process::{LIMIT, until};
use super::load::connect_narrowly;
use super::peers::{Pace, slow_client};
use super::{cuts, end_cleanly, launch, session};

fn whole(session: &KnownSession) -> SignalRangeRequest {
    let all = session.all();
    SignalRangeRequest {
        file_path: session.key(),
        channel_names: all.names(),
        start_uutc: all.start(),
        end_uutc: all.end(),
        n_points: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_ends_and_its_neighbour_goes_on() {
    let session = session();
    let server = launch()
        .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", "1")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut stalled = client.start(&session, &session.all()).await;
    assert!(stalled.take().await.unwrap());
    let mut live = client.start(&session, &session.all()).await;
    let began = Instant::now();
    // Slower than the other may be, and never as slow as the limit.
    while began.elapsed() < Duration::from_secs(3) {
        assert!(live.take().await.unwrap());
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
    assert_eq!(
        server
            .records_of("reply is given up: nothing is taken")
            .len(),
        1
    );
    let rows = live.finish().await.unwrap();
    assert_same(&rows, &session.expected(&session.all()));
    // It is not taken for complete, and the connection serves on.
    stalled.finish().await.unwrap_err();
    client.read_right(&session, &session.all()).await;
    assert_eq!(cuts(&server), [""; 0]);
    end_cleanly(server);
}

/// The reply has left the server's hands, but not the transport's: no stream is left
/// that could be reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_reply_that_nobody_takes_costs_its_connection() {
    let session = session();
    let server = launch()
        .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", "1")
        .start();
    let mut client = connect_narrowly(server.address, &session, 16 << 10).await;
    let one_message = session.span(0..16, 0, 1);
    let reading = client.start(&session, &one_message).await;
    until("the connection is cut", LIMIT, || !cuts(&server).is_empty());
    assert_eq!(cuts(&server), ["nothing is taken"]);
    reading.finish().await.unwrap_err();
    // The next call makes another.
    client.read_right(&session, &one_message).await;
    end_cleanly(server);
}

/// Of a long message, what has not left yet is no piece that stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_that_takes_one_large_message_steadily_gets_it() {
    let session = session();
    // 20 KB a second, or 20 times as much: seven seconds and more for a piece, or a third
    // of one.
    let (limit_s, pause) = by_form(("2", 25), ("20", 500));
    let pace = Pace {
        sip: 10_000,
        pause: Duration::from_millis(pause),
    };
    let server = launch()
        .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", limit_s)
        .start();
    let mut service = slow_client(server.address, pace).await;
    let mut client = Client::connect_by(service.clone());
    soon("open", client.open(&session.key())).await.unwrap();
    let span = session.span(0..16, 0, 40);
    let request = SignalRangeRequest {
        end_uutc: span.end(),
        ..whole(&session)
    };
    let began = Instant::now();
    let stream = service.get_signal_range(request).await.unwrap();
    let mut stream = stream.into_inner();
    let message = stream.message().await.unwrap().unwrap();
    let took = began.elapsed();
    println!("2.5 MB were taken within {took:?}");
    assert_eq!(message.array_bytes.len(), 16 * 40_000 * 4);
    assert!(took > by_form(Duration::from_secs(4), Duration::from_secs(80)));
    assert!(stream.message().await.unwrap().is_none());
    let given_up = server.records_of("reply is given up: nothing is taken");
    assert_eq!(given_up.len(), 0);
    end_cleanly(server);
}

/// All that was handed out is gone, and the client takes nothing of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_of_which_a_whole_piece_is_taken_stalls_too() {
    let session = session();
    let server = launch()
        .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", "1")
        .start();
    let mut client = connect_narrowly(server.address, &session, 144 << 10).await;
    let one_message = session.span(0..16, 0, 40);
    let reading = client.start(&session, &one_message).await;
    server.logged("reply is given up: nothing is taken");
    reading.finish().await.unwrap_err();
    client.read_right(&session, &one_message).await;
    assert_eq!(cuts(&server), [""; 0]);
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_refused_with_a_hint() {
    let session = session();
    let server = launch().env("MEF3_SERVER_LIMITS_STREAMS", "2").start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut others = Client::with_open(server.address, &session).await;
    let mut first = client.start(&session, &session.all()).await;
    let mut second = others.start(&session, &session.all()).await;
    assert!(first.take().await.unwrap() && second.take().await.unwrap());

    let mut third = LegacyClient::connect(format!("http://{}", server.address))
        .await
        .unwrap();
    let status = soon("the refusal", third.get_signal_range(whole(&session)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("limits.streams: 2"), "{status}");
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    assert!(pushback > 0);

    let expected = session.expected(&session.all());
    for reading in [first, second] {
        let rows = reading.finish().await.unwrap();
        assert_same(&rows, &expected);
    }
    client.read_right(&session, &session.all()).await;
    end_cleanly(server);
}

/// A server in this process, whose figures can be seen.
struct Within {
    session: std::sync::Arc<KnownSession>,
    client: LegacyClient<Channel>,
    counters: ConnectionCounters,
    engine: Engine,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Result<(), grpc::ServeError>>,
}

impl Within {
    async fn start() -> Self {
        // Its workers would run the tests again.
        let engine = Engine::builder().workers(0).start().unwrap();
        let listener = grpc::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = ConnectionCounters::default();
        let options = ServiceOptions {
            limits: ConnectionLimits {
                write_stall: Duration::from_secs(60),
                keepalive: Duration::from_secs(1),
                ..ConnectionLimits::default()
            },
            counters: counters.clone(),
            ..ServiceOptions::default()
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(grpc::serve(engine.clone(), listener, options, async {
            stopped.await.unwrap();
        }));
        let session = session();
        let _ = Client::with_open(address, &session).await;
        let client = LegacyClient::connect(format!("http://{address}")).await;
        Self {
            session,
            client: client.unwrap(),
            counters,
            engine,
            stop,
            serving,
        }
    }

    /// Starts to read everything, within a time.
    async fn read_within(&mut self, given: Duration) -> Streaming<SignalChunk> {
        let mut request = Request::new(whole(&self.session));
        request.set_timeout(given);
        let stream = soon("read", self.client.get_signal_range(request)).await;
        stream.unwrap().into_inner()
    }

    fn streams(&self) -> usize {
        self.counters.statistics().streams
    }

    async fn end(self) {
        drop(self.client);
        self.stop.send(()).unwrap();
        soon("the end", self.serving).await.unwrap().unwrap();
        assert_eq!(self.counters.statistics().connections, 0);
        self.engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_ends_at_the_deadline_of_its_client() {
    let mut server = Within::start().await;
    let given = Duration::from_millis(1500);
    let began = Instant::now();
    let mut stream = server.read_within(given).await;
    let mut taken = 0;
    let status = loop {
        match soon("a message", stream.message()).await {
            Ok(message) => assert!(message.is_some(), "it came in time"),
            Err(status) => break status,
        }
        taken += 1;
        tokio::time::sleep(Duration::from_millis(110)).await;
    };
    assert!((1..32).contains(&taken), "{taken} messages");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let took = began.elapsed();
    assert!(took >= given && took < given * 3, "{took:?}");
    until("the stream is gone", LIMIT, || server.streams() == 0);
    assert_eq!(server.counters.statistics().streams_past_deadline, 1);

    let mut client = Client::connect_by(server.client.clone());
    let session = server.session.clone();
    client.read_right(&session, &session.all()).await;
    server.end().await;
}

/// Nobody asks its stream for more, so that nobody hears of the deadline there.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_nobody_takes_ends_at_its_deadline_too() {
    let mut server = Within::start().await;
    let mut stream = server.read_within(Duration::from_millis(300)).await;
    let began = Instant::now();
    until("the stream is gone", LIMIT, || server.streams() == 0);
    println!("gone after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3));
    let figures = server.counters.statistics();
    assert_eq!(
        (figures.streams_past_deadline, figures.streams_stalled),
        (1, 0)
    );
    let status = loop {
        match soon("a message", stream.message()).await {
            Ok(message) => assert!(message.is_some(), "it looks complete"),
            Err(status) => break status,
        }
    };
    println!("{status}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_its_request_is_refused_after_a_while() {
    let session = session();
    let server = launch()
        .env("MEF3_SERVER_SERVER_REQUEST_LIMIT_S", "1")
        .start();
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<FileInfoRequest, FileInfoResponse>::default();
    let nothing = Request::new(tokio_stream::pending());
    let path = "/gRPCMef3Server/OpenFile".parse().unwrap();
    let began = Instant::now();
    let refused: Result<_, Status> =
        soon("the refusal", grpc.streaming(nothing, path, codec)).await;
    let status = match refused {
        Ok(stream) => soon("the status", stream.into_inner().message())
            .await
            .unwrap_err(),
        Err(status) => status,
    };
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(
        status.message().contains("server.request_limit_s"),
        "{status}"
    );
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    end_cleanly(server);
}
