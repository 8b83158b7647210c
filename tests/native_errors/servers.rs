//! Errors of the server, its workers and its storage.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, GetRecordingResponse, ReadSignalRequest, WatchRecordingRequest,
};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::common::chaos::{mend, spoil};
use super::common::native::{Client, by_time, read};
use super::common::process::client::soon;
use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, Launch, Server};
use super::{assert_status, described, request_of};

/// Nothing is read that was not asked for.
fn launch() -> Launch {
    Launch::new()
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
        .env("MEF3_SERVER_HEALTH_PROBE_INTERVAL_S", "3600")
}

async fn connect(to: SocketAddr) -> Client {
    RecordingServiceClient::connect(format!("http://{to}"))
        .await
        .unwrap()
}

/// A request for one channel.
fn channel_of(session: &KnownSession, number: usize) -> ReadSignalRequest {
    let all = session.all();
    ReadSignalRequest {
        channels: vec![all.names().swap_remove(number)],
        ..by_time(&session.path, all.start(), all.end())
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// A file with a token that opens a folder, by one call at a time.
fn tokens(folder: &Path, token: &str, root: &Path) -> PathBuf {
    let file = folder.join("tokens.toml");
    let hash = Sha256::digest(token);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let entry =
        format!("[[token]]\nname = \"a\"\nsha256 = {hash:?}\nroots = [{root:?}]\ncalls = 1\n");
    fs::write(&file, entry).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

pub async fn calls_without_a_right_token() {
    let session = KnownSession::write(1, 256, 4);
    let folder = tempfile::tempdir().unwrap();
    let root = session.path.parent().unwrap();
    let file = tokens(folder.path(), "first", root);
    let server = launch().env("MEF3_SERVER_AUTH_TOKENS", file).start();
    let mut client = connect(server.address).await;
    let request = || request_of(&session.key());
    let status = client.get_recording(request()).await.unwrap_err();
    assert_status(status, Code::Unauthenticated, "TOKEN_MISSING");
    let status = client.get_recording(with_token(request(), "second")).await;
    assert_status(status.unwrap_err(), Code::Unauthenticated, "TOKEN_UNKNOWN");
    let elsewhere = request_of("/nowhere.mefd");
    let status = client.get_recording(with_token(elsewhere, "first")).await;
    let found = assert_status(status.unwrap_err(), Code::PermissionDenied, "OUTSIDE_ROOTS");
    assert_eq!(found.fields, ["recording"]);

    // The calls before may be leaving still.
    let deadline = Instant::now() + LIMIT;
    let mut watch = loop {
        let request = WatchRecordingRequest {
            recording: session.key(),
        };
        match client.watch_recording(with_token(request, "first")).await {
            Ok(answer) => break answer.into_inner(),
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
    };
    soon("a state", watch.message()).await.unwrap().unwrap();
    let status = client.get_recording(with_token(request(), "first")).await;
    let found = assert_status(status.unwrap_err(), Code::ResourceExhausted, "TOKEN_CALLS");
    assert_eq!(found.quotas, ["calls"]);
    assert!(found.info.contains(&("value".into(), "1".into())));
    assert_eq!(found.retry, Some(Duration::from_secs(1)));
}

/// An address of this machine that others reach.
fn outer_address() -> std::net::IpAddr {
    // Nothing is sent: this asks which way packets would go.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let connected = socket.connect("192.0.2.99:9");
    connected.expect("a machine with an address that others reach");
    socket.local_addr().unwrap().ip()
}

pub async fn secrets_that_anybody_can_hear() {
    let session = KnownSession::write(1, 256, 4);
    let folder = tempfile::tempdir().unwrap();
    let file = tokens(folder.path(), "first", Path::new("/"));
    let launch = || Launch::command(["serve", "--listen", "0.0.0.0:0", "--insecure"]);
    let (ip, request) = (outer_address(), request_of(&session.key()));

    let server = launch().env("MEF3_SERVER_AUTH_TOKENS", file).start();
    let mut client = connect((ip, server.address.port()).into()).await;
    let status = client.get_recording(with_token(request.clone(), "first"));
    let status = status.await.unwrap_err();
    assert_status(status, Code::Unauthenticated, "TOKEN_IN_CLEAR");

    let server = launch().start();
    let mut client = connect((ip, server.address.port()).into()).await;
    let mut request = Request::new(request);
    let password = "secret".parse().unwrap();
    request.metadata_mut().insert("x-mef3-password", password);
    let status = client.get_recording(request).await.unwrap_err();
    let found = assert_status(status, Code::InvalidArgument, "PASSWORD_IN_CLEAR");
    assert_eq!(found.fields, ["x-mef3-password"]);
}

pub async fn what_ends_workers() {
    let server = launch().start();
    let mut client = connect(server.address).await;
    let session = KnownSession::write(2, 256, 40);
    described(&mut client, &session.path).await.unwrap();
    spoil(&session.path, "do panic\nchannel ch 000");
    let request = channel_of(&session, 0);
    let status = read(&mut client, request, None).await.unwrap_err();
    assert_status(status, Code::Internal, "PANIC");
    spoil(&session.path, "do abort\nchannel ch 001\nblocks 0..1");
    let request = channel_of(&session, 1);
    let status = read(&mut client, request, None).await.unwrap_err();
    let found = assert_status(status, Code::DataLoss, "BLOCKS_END_WORKERS");
    let damage = found.damage.unwrap();
    assert_eq!((damage.channel.as_str(), damage.block), ("ch 001", Some(0)));
    let session = KnownSession::write(1, 256, 4);
    spoil(&session.path, "do abort\nat open");
    let status = described(&mut client, &session.path).await.unwrap_err();
    assert_status(status, Code::DataLoss, "SESSION_ENDS_WORKERS");
}

pub async fn nobody_who_may_read() {
    let session = KnownSession::write(1, 256, 4);
    // No worker can be started, and the server must not read by itself.
    let server = launch()
        .env("TMPDIR", "/nonexistent")
        .env("MEF3_SERVER_WORKERS_SANDBOX", "required")
        .start();
    let mut client = connect(server.address).await;
    let status = described(&mut client, &session.path).await.unwrap_err();
    let found = assert_status(status, Code::Unavailable, "NO_WORKER");
    assert_eq!(found.retry, Some(Duration::from_secs(1)));
}

pub async fn storage_that_refuses() {
    let server = launch().start();
    let mut client = connect(server.address).await;
    for (errno, code, reason, retry) in [
        ("EIO", Code::Unavailable, "STORAGE_ERROR", Some(1)),
        ("EACCES", Code::PermissionDenied, "NOT_PERMITTED", None),
    ] {
        let session = KnownSession::write(1, 256, 4);
        described(&mut client, &session.path).await.unwrap();
        spoil(&session.path, &format!("do errno {errno}\ncall open"));
        let request = channel_of(&session, 0);
        let status = read(&mut client, request, None).await.unwrap_err();
        let found = assert_status(status, code, reason);
        assert_eq!(found.retry, retry.map(Duration::from_secs), "{reason}");
        let (key, file) = &found.info[0];
        assert!(
            key == "file" && file.starts_with(&session.key()),
            "{found:?}"
        );
        mend(&session.path);
    }
}

pub async fn storage_that_does_not_answer() {
    let session = KnownSession::write(16, 256, 40);
    let server = launch()
        .env("MEF3_SERVER_WORKERS_STALL_LIMIT_S", "1")
        .start();
    let mut client = connect(server.address).await;
    described(&mut client, &session.path).await.unwrap();
    spoil(&session.path, "do hang\nat page");
    let reads = (0..16).map(|channel| {
        let (mut client, request) = (client.clone(), channel_of(&session, channel));
        tokio::spawn(async move { soon("a read", read(&mut client, request, None)).await })
    });
    let mut stuck = 0;
    for read in reads.collect::<Vec<_>>() {
        let status = read.await.unwrap().unwrap_err();
        // Or a page that two workers got lost in.
        if status.code() == Code::Unavailable {
            let found = assert_status(status, Code::Unavailable, "STORAGE_STUCK");
            assert_eq!(found.retry, Some(Duration::from_secs(60)));
            stuck += 1;
        }
    }
    assert!(stuck > 0);
}

pub async fn too_much_at_a_time() {
    let session = KnownSession::write(4, 256, 40);
    let server = launch().env("MEF3_SERVER_LIMITS_QUEUED_PAGES", "1").start();
    let mut client = connect(server.address).await;
    let all = session.all();
    let request = by_time(&session.path, all.start(), all.end());
    let status = read(&mut client, request, None).await.unwrap_err();
    let found = assert_status(status, Code::ResourceExhausted, "BUSY");
    assert_eq!(found.quotas, ["limits.queued_pages"]);
    assert_eq!(found.retry, Some(Duration::from_secs(1)));

    let server = launch().env("MEF3_SERVER_LIMITS_STREAMS", "1").start();
    let mut client = connect(server.address).await;
    let request = WatchRecordingRequest {
        recording: session.key(),
    };
    let watch = client.watch_recording(request).await.unwrap();
    let status = described(&mut client, &session.path).await.unwrap_err();
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.unwrap(), "1000");
    let found = assert_status(status, Code::ResourceExhausted, "BUSY");
    assert_eq!(found.quotas, ["limits.streams"]);
    assert_eq!(found.retry, Some(Duration::from_secs(1)));
    drop(watch);
}

pub async fn deadlines() {
    let session = KnownSession::write(1, 256, 4);
    let server = launch()
        .env("MEF3_SERVER_SERVER_REQUEST_LIMIT_S", "1")
        .start();
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = RecordingServiceClient::new(channel.clone());
    described(&mut client, &session.path).await.unwrap();
    // One that the client's own timer does not see, since the reply has begun.
    let mut request = Request::new(WatchRecordingRequest {
        recording: session.key(),
    });
    request.set_timeout(Duration::from_secs(1));
    let watch = client.watch_recording(request).await.unwrap();
    let mut watch = watch.into_inner();
    soon("a state", watch.message()).await.unwrap().unwrap();
    let status = soon("the deadline", watch.message()).await.unwrap_err();
    assert_status(status, Code::DeadlineExceeded, "DEADLINE_PASSED");

    // Headers, and no request.
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.unwrap();
    let path = "/mef3.v1.RecordingService/GetRecording".parse().unwrap();
    let nothing = Request::new(tokio_stream::pending::<GetRecordingRequest>());
    let codec = ProstCodec::<GetRecordingRequest, GetRecordingResponse>::default();
    let answer = soon("a refusal", raw.client_streaming(nothing, path, codec)).await;
    let status = answer.unwrap_err();
    assert!(status.message().contains("server.request_limit_s"));
    assert_status(status, Code::DeadlineExceeded, "REQUEST_LATE");
}

/// Passes on what clients and the server say to each other, but for the server's news of
/// its end: clients go on calling. Gives the address that clients connect to.
fn without_goodbye(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(server).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        // Whoever hangs up first ends it.
        let _ = pass_frames(server, client);
    });
    address
}

/// Passes frames of HTTP/2 on, but for GOAWAY, and for PING, whose answer the server
/// would take for the client's last word.
fn pass_frames(mut server: TcpStream, mut client: TcpStream) -> std::io::Result<()> {
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    loop {
        let mut head = [0; 9];
        server.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut frame = vec![0; length as usize];
        server.read_exact(&mut frame)?;
        if head[3] != PING && head[3] != GOAWAY {
            client.write_all(&head)?;
            client.write_all(&frame)?;
        }
    }
}

pub async fn a_server_that_is_ending() {
    let session = KnownSession::write(1, 256, 4);
    let server: Server = launch()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "20")
        .start();
    let mut client = connect(without_goodbye(server.address)).await;
    let request = WatchRecordingRequest {
        recording: session.key(),
    };
    // It keeps the server here.
    let mut watch = client.watch_recording(request).await.unwrap().into_inner();
    soon("a state", watch.message()).await.unwrap().unwrap();
    server.signal(Signal::TERM);
    server.logged("ending");
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        // The signal is logged a moment before calls are refused.
        match soon("a refusal", described(&mut client, &session.path)).await {
            Err(status) => break status,
            Ok(_) => assert!(Instant::now() < deadline),
        }
    };
    let found = assert_status(status, Code::Unavailable, "SERVER_ENDING");
    assert_eq!(found.retry, Some(Duration::from_secs(1)));
}
