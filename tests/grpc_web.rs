//! Pages in browsers: gRPC-Web over HTTP/1.1 and HTTP/2, and who may use it.

mod common;

#[path = "grpc_web/limits.rs"]
mod limits;
#[path = "grpc_web/page.rs"]
mod page;

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use common::certificates::{Authority, Files};
use common::native::{Cell, by_time, read};
use common::process::session::{KnownSession, START, assert_same};
use common::process::{LIMIT, Launch, Server};
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, GetRecordingResponse, ReadSignalRequest, ReadSignalResponse,
};
use mef3_server::grpc::proto::{FileInfoResponse, OpenFileRequest};
use page::{Form, Page, Reply, send};
use prost::Message;
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::pb;
use tonic_web::GrpcWebClientService;

const ORIGIN: &str = "https://viewer.example";
const FORMS: [Form; 2] = [Form::Binary, Form::Text];
const GET: &str = "/mef3.v1.RecordingService/GetRecording";
const READ: &str = "/mef3.v1.RecordingService/ReadSignal";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const OPEN: &str = "/gRPCMef3Server/OpenFile";

/// A server for pages of two origins.
fn launch() -> Launch {
    let origins = format!("{ORIGIN},http://localhost:5173");
    Launch::new().env("MEF3_SERVER_SERVER_WEB_ORIGINS", origins)
}

fn page(server: &Server, form: Form) -> Page {
    Page::new(server.address, form, ORIGIN)
}

fn recording(path: impl AsRef<Path>) -> GetRecordingRequest {
    GetRecordingRequest {
        recording: path.as_ref().display().to_string(),
        ..GetRecordingRequest::default()
    }
}

fn all_of(session: &KnownSession) -> ReadSignalRequest {
    by_time(&session.path, START, START + session.seconds * 1_000_000)
}

/// The samples of a reply, row after row.
fn rows(reply: &Reply, channels: usize) -> Vec<Vec<f32>> {
    let mut rows = vec![Vec::new(); channels];
    for message in &reply.messages {
        let message = ReadSignalResponse::decode(&message[..]).unwrap();
        let Some(chunk) = message.chunk else { continue };
        let samples: Vec<f32> = bytemuck::pod_collect_to_vec(&chunk.samples);
        let columns = samples.chunks_exact(chunk.columns as usize);
        assert_eq!(columns.len(), channels);
        for (row, samples) in rows.iter_mut().zip(columns) {
            row.extend(samples);
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_gets_what_other_clients_get() {
    let session = KnownSession::write(3, 1000, 120);
    let mut server = launch().start();
    for form in FORMS {
        let page = page(&server, form);
        let got: GetRecordingResponse = page.call(GET, &recording(&session.path)).only();
        assert_eq!(got.channels.len(), 3, "{form:?}");

        let reply = page.call(READ, &all_of(&session));
        assert_eq!(reply.code(), Code::Ok);
        assert!(reply.trailers.is_some() && !reply.headers.contains_key("grpc-status"));
        assert!(reply.messages.len() > 1);
        assert_same(&rows(&reply, 3), &session.expected(&session.all()));

        let request = OpenFileRequest {
            file_path: session.key(),
            ..OpenFileRequest::default()
        };
        let opened: FileInfoResponse = page.call(OPEN, &request).only();
        assert!(opened.file_opened, "{opened:?}");
        let request = HealthCheckRequest {
            service: "liveness".into(),
        };
        let health: HealthCheckResponse = page.call(CHECK, &request).only();
        assert_eq!(health.status, 1);
    }
    // Clients of gRPC itself are served as ever.
    let url = format!("http://{}", server.address);
    let mut client = RecordingServiceClient::connect(url).await.unwrap();
    let signal = read(&mut client, all_of(&session), None).await.unwrap();
    let is_value = |cell: &Cell| matches!(cell, Cell::Value(_));
    assert!(signal.rows.iter().all(|row| row.cells.iter().all(is_value)));
    drop(client);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
}

/// HTTP/2 with bodies of any kind.
#[derive(Clone)]
struct Http2(Channel);

impl<B> Service<Request<B>> for Http2
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = <Channel as Service<Request<Body>>>::Response;
    type Error = <Channel as Service<Request<Body>>>::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request.map(Body::new))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_of_http_2_are_served_too() {
    let session = KnownSession::write(1, 256, 10);
    let url = |server: &Server| format!("http://{}", server.address);
    let connect = async |server: &Server| {
        let channel = Channel::from_shared(url(server)).unwrap().connect().await;
        RecordingServiceClient::new(GrpcWebClientService::new(Http2(channel.unwrap())))
    };
    let server = launch().start();
    let mut client = connect(&server).await;
    let mut stream = client
        .read_signal(all_of(&session))
        .await
        .unwrap()
        .into_inner();
    let mut messages = 0;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.header.is_some() || message.chunk.is_some());
        messages += 1;
    }
    assert!(messages > 1);
    let status = client
        .get_recording(recording("/nowhere.mefd"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    // Where it is off, it is over HTTP/2 as well.
    let server = Launch::new().start();
    let mut client = connect(&server).await;
    client
        .get_recording(recording(&session.path))
        .await
        .unwrap_err();
}

#[test]
fn errors_have_their_status_where_pages_see_it() {
    let session = KnownSession::write(1, 1000, 60);
    let server = launch().start();
    for form in FORMS {
        let page = page(&server, form);
        let reply = page.call(GET, &recording("/nowhere.mefd"));
        assert_eq!(reply.code(), Code::NotFound);
        assert!(reply.messages.is_empty());
        assert!(reply.headers.contains_key("grpc-message"));
        assert!(reply.headers.contains_key("grpc-status-details-bin"));
        assert!(reply.headers.contains_key("x-request-id"));
    }
    spoil(&session.path);
    for form in FORMS {
        let reply = page(&server, form).call(READ, &all_of(&session));
        // The header of the signal came before anybody knew of the damage.
        assert!(!reply.messages.is_empty());
        assert_eq!(reply.code(), Code::DataLoss);
        let trailers = reply.trailers.unwrap();
        let details = tonic::metadata::MetadataMap::from_headers(trailers);
        let details = details.get_bin("grpc-status-details-bin").unwrap();
        let packed = pb::Status::decode(details.to_bytes().unwrap()).unwrap();
        assert_eq!(packed.code, Code::DataLoss as i32);
        // Also of what was read long after the call began.
        let mut kinds = packed.details.iter().map(|detail| &detail.type_url);
        assert!(
            kinds.any(|kind| kind.ends_with("RequestInfo")),
            "{packed:?}"
        );
    }
}

/// Damages the last block of a session's only channel.
fn spoil(session: &Path) {
    let path = data_file(session).unwrap();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::End(-40)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::End(-40)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
}

fn data_file(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in entries {
        if path.extension().is_some_and(|it| it == "tdat") {
            return Some(path);
        }
        let below = path.is_dir().then(|| data_file(&path)).flatten();
        if below.is_some() {
            return below;
        }
    }
    None
}

#[test]
fn browsers_are_told_which_pages_may_call_and_with_what() {
    let server = launch().start();
    let wanted = "content-type,x-grpc-web,x-user-agent,grpc-timeout,authorization,\
                  x-mef3io-client-id,x-mef3-password,x-mef3-password-bin";
    for origin in [ORIGIN, "http://localhost:5173"] {
        let page = Page::new(server.address, Form::Binary, origin);
        let answer = page.preflight(READ, wanted);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["access-control-allow-origin"], origin);
        assert_eq!(answer.headers["access-control-allow-methods"], "POST");
        let allowed = answer.headers["access-control-allow-headers"]
            .to_str()
            .unwrap();
        let allowed: Vec<&str> = allowed.split(',').collect();
        for name in wanted.split(',') {
            assert!(allowed.contains(&name), "{name} in {allowed:?}");
        }
        assert!(answer.headers.contains_key("access-control-max-age"));
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials")
        );
    }
    for origin in ["https://other.example", "http://viewer.example", "null"] {
        let page = Page::new(server.address, Form::Binary, origin);
        let answers = [
            page.preflight(READ, wanted),
            page.ask(GET, &recording("/a.mefd")),
        ];
        for answer in answers {
            assert_eq!(answer.status, 403, "{origin}: {answer:?}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
            assert_eq!(answer.headers["grpc-status"], "7");
        }
    }
    let refused = server.logged("call is not taken");
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("https://other.example")
    );
}

#[test]
fn http_1_is_spoken_to_browsers_only_and_where_it_is_on() {
    let session = KnownSession::write(1, 256, 10);
    let server = Launch::new().start();
    for form in FORMS {
        let page = page(&server, form);
        let request = page.request(GET, &recording(&session.path));
        // What HTTP/2 says at its end may come; no answer does, nor a long wait.
        let begun = Instant::now();
        send(page.connect(), &request)
            .map(|answer| panic!("{answer:?}"))
            .unwrap_err();
        assert!(begun.elapsed() < LIMIT);
    }
    let server = launch().start();
    for request in [
        "GET / HTTP/1.1\r\nhost: mef3\r\nconnection: close\r\n\r\n",
        "POST /mef3.v1.RecordingService/GetRecording HTTP/1.1\r\nhost: mef3\r\n\
         content-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ] {
        let answer = send(page(&server, Form::Binary).connect(), request.as_bytes()).unwrap();
        assert_eq!(answer.status, 415, "{answer:?}");
    }
}

#[test]
fn pages_need_a_token_where_others_do() {
    let session = KnownSession::write(1, 256, 10);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let hash = Sha256::digest("open sesame");
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let root = session.path.parent().unwrap();
    let entry = format!("[[token]]\nname = \"viewer\"\nsha256 = {hash:?}\nroots = [{root:?}]\n");
    fs::write(&file, entry).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let server = launch().env("MEF3_SERVER_AUTH_TOKENS", &file).start();
    for form in FORMS {
        let page = page(&server, form);
        // The browser asks without one, and may.
        assert_eq!(page.preflight(GET, "authorization").status, 200);
        let request = recording(&session.path);
        assert_eq!(page.call(GET, &request).code(), Code::Unauthenticated);
        let wrong = page.clone().with("authorization", "Bearer guess");
        assert_eq!(wrong.call(GET, &request).code(), Code::Unauthenticated);
        let right = page.clone().with("authorization", "Bearer open sesame");
        let got: GetRecordingResponse = right.call(GET, &request).only();
        assert_eq!(got.channels.len(), 1);
        assert_eq!(
            right.call(GET, &recording("/a.mefd")).code(),
            Code::PermissionDenied
        );
        let open = HealthCheckRequest::default();
        assert_eq!(page.call(CHECK, &open).code(), Code::Ok);
    }
}

#[test]
fn what_pages_send_is_encrypted_where_that_of_others_is() {
    let session = KnownSession::write(1, 256, 10);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = Files::write(folder.path(), &authority.issue());
    let encrypting = |launch: Launch| {
        launch
            .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
            .env("MEF3_SERVER_TLS_KEY", files.key())
            .start()
    };
    let pem = authority.pem();
    let mut trusted = RootCertStore::empty();
    trusted
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let connect = |server: &Server| {
        let name = server.address.ip().into();
        let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        StreamOwned::new(connection, stream)
    };

    let server = encrypting(launch());
    let page = page(&server, Form::Binary);
    let request = page.request(GET, &recording(&session.path));
    let reply = page.reply(send(connect(&server), &request).unwrap());
    assert_eq!(reply.only::<GetRecordingResponse>().channels.len(), 1);
    send(page.connect(), &request)
        .map(|answer| panic!("{answer:?}"))
        .unwrap_err();

    let server = encrypting(Launch::new());
    send(connect(&server), &request)
        .map(|answer| panic!("{answer:?}"))
        .unwrap_err();
}
