//! Tokens: who may call, what opens which recordings, and how much may be asked for.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::native::{Client, by_time};
use common::process::session::{KnownSession, START};
use common::process::{LIMIT, Launch, Server, until};
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, ListRecordingsRequest, ReadSignalRequest, TimeSpan, WatchRecordingRequest,
};
use mef3_server::grpc::proto::{
    FileInfoRequest, ListOpenFilesRequest, OpenFileRequest, SignalRangeRequest,
};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// A server with a file of tokens.
struct Guarded {
    server: Server,
    file: PathBuf,
    _folder: TempDir,
}

impl Guarded {
    fn start(tokens: &str) -> Self {
        Self::launch(tokens, Launch::new())
    }

    fn launch(tokens: &str, launch: Launch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        write(&file, tokens);
        Self {
            server: launch.env("MEF3_SERVER_AUTH_TOKENS", &file).start(),
            file,
            _folder: folder,
        }
    }

    async fn client(&self) -> Client {
        RecordingServiceClient::new(self.channel().await)
    }

    async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.server.address);
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }
}

fn write(file: &Path, tokens: &str) {
    fs::write(file, tokens).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// An entry of the file.
fn entry(name: &str, token: &str, root: &Path, more: &str) -> String {
    let hash = Sha256::digest(token);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[token]]\nname = {name:?}\nsha256 = {hash:?}\nroots = [{root:?}]\n{more}\n")
}

/// A message with a token.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn recording(path: impl AsRef<Path>) -> GetRecordingRequest {
    GetRecordingRequest {
        recording: path.as_ref().display().to_string(),
        ..GetRecordingRequest::default()
    }
}

fn assert_status(status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let found = details.error_info().map(|info| info.reason.as_str());
    assert_eq!((status.code(), found), (code, Some(reason)), "{status:?}");
}

fn all_of(session: &KnownSession) -> ReadSignalRequest {
    by_time(&session.path, START, START + session.seconds * 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_need_a_token_that_the_server_knows() {
    let session = KnownSession::write(2, 256, 10);
    let guarded = Guarded::start(&entry("a", "first", Path::new("/"), ""));
    let mut client = guarded.client().await;
    let status = client.get_recording(recording(&session.path)).await;
    assert_status(&status.unwrap_err(), Code::Unauthenticated, "TOKEN_MISSING");
    let status = client.get_recording(by("firsT", recording(&session.path)));
    let status = status.await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "TOKEN_UNKNOWN");
    assert!(!format!("{status:?}").contains("firsT"));
    let answer = client.get_recording(by("first", recording(&session.path)));
    assert_eq!(answer.await.unwrap().into_inner().channels.len(), 2);

    let mut legacy = LegacyClient::new(guarded.channel().await);
    let open = OpenFileRequest {
        file_path: session.key(),
        ..OpenFileRequest::default()
    };
    let status = legacy.open_file(open.clone()).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "TOKEN_MISSING");
    let answer = legacy.open_file(by("first", open)).await.unwrap();
    assert!(answer.into_inner().file_opened);
    let log = format!("{:?}", guarded.server.records());
    assert!(!log.contains("firs\"") && !log.contains("firsT"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_is_below_its_roots() {
    let (mine, other) = (
        KnownSession::write(2, 256, 10),
        KnownSession::write(2, 256, 10),
    );
    let root = mine.path.parent().unwrap();
    symlink(&other.path, root.join("link.mefd")).unwrap();
    symlink(&mine.path, root.join("same.mefd")).unwrap();
    let tokens = entry("a", "first", root, "") + &entry("b", "second", Path::new("/"), "");
    let guarded = Guarded::start(&tokens);
    let mut client = guarded.client().await;
    for path in [mine.path.clone(), root.join("same.mefd")] {
        client
            .get_recording(by("first", recording(path)))
            .await
            .unwrap();
    }
    let name = other.path.file_name().unwrap();
    let out = root
        .join("..")
        .join(other.path.parent().unwrap().file_name().unwrap());
    let outside = [
        other.path.clone(),
        root.join("link.mefd"),
        out.join(name),
        "/etc/passwd".into(),
        "/nowhere.mefd".into(),
        "known.mefd".into(),
    ];
    for path in &outside {
        let status = client.get_recording(by("first", recording(path))).await;
        assert_status(
            &status.unwrap_err(),
            Code::PermissionDenied,
            "OUTSIDE_ROOTS",
        );
    }
    // The other token is not held by that, nor are streams by what it has opened.
    client
        .get_recording(by("second", recording(&other.path)))
        .await
        .unwrap();
    let status = client
        .read_signal(by("first", all_of(&other)))
        .await
        .unwrap_err();
    assert_status(&status, Code::PermissionDenied, "OUTSIDE_ROOTS");
    let missing = recording(root.join("missing.mefd"));
    let status = client
        .get_recording(by("first", missing))
        .await
        .unwrap_err();
    assert_status(&status, Code::NotFound, "RECORDING_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_names_what_the_token_opens_and_nothing_else() {
    let (mine, other) = (
        KnownSession::write(1, 256, 4),
        KnownSession::write(1, 256, 4),
    );
    let folders = [&mine, &other].map(|session| session.path.parent().unwrap());
    for (folder, name) in folders.iter().zip(["own", "secret"]) {
        // A recording that leads nowhere, and a folder that leads to itself.
        symlink("nowhere", folder.join(format!("{name} lost.mefd"))).unwrap();
        fs::create_dir(folder.join(format!("{name} ward"))).unwrap();
        let inner = folder.join(format!("{name} ward/{name} loop.mefd"));
        symlink(&inner, &inner).unwrap();
    }
    let roots = format!(
        "mine={}:theirs={}",
        folders[0].display(),
        folders[1].display()
    );
    let tokens = entry("a", "first", folders[0], "") + &entry("b", "second", Path::new("/"), "");
    let launch = Launch::new().env("MEF3_SERVER_PATHS_DATA_ROOTS", roots);
    let guarded = Guarded::launch(&tokens, launch);
    let mut client = guarded.client().await;
    let mut all = async |token: &str, request: ListRecordingsRequest| {
        let (mut ids, mut texts, mut next) = (Vec::new(), Vec::new(), request);
        loop {
            let answer = client.list_recordings(by(token, next.clone())).await;
            let answer = answer.unwrap().into_inner();
            texts.push(format!("{answer:?}"));
            ids.extend(answer.recordings.into_iter().map(|it| it.id));
            next.page_token = answer.next_page_token;
            if next.page_token.is_empty() {
                return (ids, texts.concat());
            }
        }
    };
    let span = TimeSpan {
        start_uutc: START,
        end_uutc: START + 1_000_000,
    };
    for (root, page_size, span) in [
        ("", 0, None),
        ("", 1, None),
        ("theirs", 0, None),
        ("", 0, Some(span)),
    ] {
        let request = ListRecordingsRequest {
            root: root.into(),
            page_size,
            span,
            ..ListRecordingsRequest::default()
        };
        let (ids, text) = all("first", request.clone()).await;
        let expected: &[&str] = if root.is_empty() {
            &["mine:known.mefd"]
        } else {
            &[]
        };
        assert_eq!(ids, expected, "{root:?}, {page_size}");
        for elsewhere in ["theirs:", "secret", folders[1].to_str().unwrap()] {
            assert!(!text.contains(elsewhere), "{elsewhere} in {text}");
        }
        // There is something to hide, which who may see it is told.
        let (ids, text) = all("second", request).await;
        assert!(ids.contains(&"theirs:known.mefd".into()), "{ids:?}");
        for problem in ["secret lost.mefd", "secret loop.mefd"] {
            assert!(text.contains(problem), "no {problem} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_older_services_are_told_in_band() {
    let (mine, other) = (
        KnownSession::write(2, 256, 10),
        KnownSession::write(2, 256, 10),
    );
    let root = mine.path.parent().unwrap();
    let tokens = entry("a", "first", root, "") + &entry("b", "second", Path::new("/"), "");
    let guarded = Guarded::start(&tokens);
    let mut client = LegacyClient::new(guarded.channel().await);
    let open = |session: &KnownSession| OpenFileRequest {
        file_path: session.key(),
        ..OpenFileRequest::default()
    };
    for session in [&mine, &other] {
        let opened = client.open_file(by("second", open(session))).await.unwrap();
        assert!(opened.into_inner().file_opened);
    }
    let outside = format!("{}: outside of the roots of the token", other.key());
    let refused = client.open_file(by("first", open(&other))).await.unwrap();
    let refused = refused.into_inner();
    assert!(!refused.file_opened && refused.number_of_channels.is_none());
    assert_eq!(refused.error_message.as_ref(), Some(&outside));
    let info = FileInfoRequest {
        file_path: other.key(),
    };
    let refused = client.file_info(by("first", info.clone())).await.unwrap();
    assert_eq!(refused.into_inner().error_message.as_ref(), Some(&outside));
    let refused = client.close_file(by("first", info.clone())).await.unwrap();
    assert_eq!(refused.into_inner().error_message.as_ref(), Some(&outside));
    let range = |session: &KnownSession| SignalRangeRequest {
        file_path: session.key(),
        start_uutc: START,
        end_uutc: START + 1_000_000,
        ..SignalRangeRequest::default()
    };
    for (session, expected) in [(&mine, ""), (&other, outside.as_str())] {
        let stream = client.get_signal_range(by("first", range(session))).await;
        let chunk = stream
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        assert_eq!(chunk.error_message.as_deref(), Some(expected));
        assert_eq!(chunk.array_bytes.is_empty(), !expected.is_empty());
    }
    for (token, expected) in [
        ("first", vec![mine.key()]),
        ("second", vec![mine.key(), other.key()]),
    ] {
        let list = client
            .list_open_files(by(token, ListOpenFilesRequest {}))
            .await;
        assert_eq!(list.unwrap().into_inner().file_paths, expected);
    }
    // It is still open for those who may use it.
    let info = client.file_info(by("second", info)).await.unwrap();
    assert!(info.into_inner().file_opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_limits_of_its_own() {
    let session = KnownSession::write(8, 1000, 60);
    let root = Path::new("/");
    let tokens = entry("small", "first", root, "request_mb = 1\ncalls = 1")
        + &entry("large", "second", root, "client_mb = 1");
    let guarded = Guarded::start(&tokens);
    let mut client = guarded.client().await;
    let limits = client
        .get_recording(by("first", recording(&session.path)))
        .await;
    let limits = limits.unwrap().into_inner().limits.unwrap();
    assert_eq!(limits.request_bytes, 1 << 20);
    until_free(&mut client, &session).await;
    let status = client
        .read_signal(by("first", all_of(&session)))
        .await
        .unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    let mut legacy = LegacyClient::new(guarded.channel().await);
    let range = SignalRangeRequest {
        file_path: session.key(),
        start_uutc: START,
        end_uutc: START + 60_000_000,
        ..SignalRangeRequest::default()
    };
    let stream = legacy.get_signal_range(by("first", range)).await;
    let chunk = stream
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let told = chunk.error_message.unwrap();
    assert!(told.contains("limits.request_mb"), "{told}");

    // The other token's client holds little, and reads all the same.
    let stream = client.read_signal(by("second", all_of(&session))).await;
    let mut stream = stream.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.unwrap() {
        bytes += message.chunk.map_or(0, |chunk| chunk.samples.len());
    }
    assert_eq!(bytes, 8 * 1000 * 60 * 4);

    until_free(&mut client, &session).await;
    let watch = || WatchRecordingRequest {
        recording: session.key(),
    };
    let mut watched = client
        .watch_recording(by("first", watch()))
        .await
        .unwrap()
        .into_inner();
    watched.message().await.unwrap().unwrap();
    // In another connection, too.
    let mut another = guarded.client().await;
    let status = another
        .watch_recording(by("first", watch()))
        .await
        .unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "TOKEN_CALLS");
    another
        .watch_recording(by("second", watch()))
        .await
        .unwrap();
    drop(watched);
    until_free(&mut another, &session).await;
}

/// Waits until the last call of the first token has left.
async fn until_free(client: &mut Client, session: &KnownSession) {
    let deadline = std::time::Instant::now() + LIMIT;
    while let Err(status) = client
        .get_recording(by("first", recording(&session.path)))
        .await
    {
        assert_status(&status, Code::ResourceExhausted, "TOKEN_CALLS");
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The call that found this out leaves soon.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_replaced_while_the_server_runs() {
    let session = KnownSession::write(2, 256, 10);
    let guarded = Guarded::start(&entry("a", "first", Path::new("/"), ""));
    let mut client = guarded.client().await;
    let mut takes = async |token: &str| {
        let answer = client.get_recording(by(token, recording(&session.path)));
        answer.await.is_ok()
    };
    assert!(takes("first").await && !takes("second").await);
    write(&guarded.file, &entry("a", "second", Path::new("/"), ""));
    guarded.server.signal(Signal::HUP);
    guarded.server.logged("read again");
    assert!(!takes("first").await && takes("second").await);
    let kept = "not read again: what was before is in force";
    write(&guarded.file, "[[token]]\ntoken = \"third\"");
    for (times, mode) in [(1, 0o600), (2, 0o644)] {
        fs::set_permissions(&guarded.file, Permissions::from_mode(mode)).unwrap();
        guarded.server.signal(Signal::HUP);
        until("it is told", LIMIT, || {
            guarded.server.records_of(kept).len() == times
        });
        assert!(takes("second").await && !takes("third").await);
    }
    let log = format!("{:?}", guarded.server.records());
    assert!(log.contains("chmod 600") && !log.contains("third"), "{log}");
}

#[test]
fn a_file_that_does_not_serve_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    write(&file, &entry("a", "first", Path::new("/"), ""));
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let ended = Launch::new().env("MEF3_SERVER_AUTH_TOKENS", &file).run();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in [file.to_str().unwrap(), "chmod 600"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// An address of this machine that others reach, where it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: this asks which way packets would go.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.99:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_not_taken_where_anybody_can_listen() {
    let Some(ip) = outer_address() else {
        eprintln!("this machine has no address that others reach: nothing was tested");
        return;
    };
    let session = KnownSession::write(2, 256, 10);
    let tokens = entry("a", "first", Path::new("/"), "");
    for (in_clear, expected) in [("false", Some("TOKEN_IN_CLEAR")), ("true", None)] {
        let launch = Launch::command(["serve", "--listen", "0.0.0.0:0", "--insecure"])
            .env("MEF3_SERVER_SERVER_PASSWORDS_IN_CLEAR", in_clear);
        let guarded = Guarded::launch(&tokens, launch);
        let url = format!("http://{ip}:{}", guarded.server.address.port());
        let mut client = RecordingServiceClient::connect(url).await.unwrap();
        let answer = client
            .get_recording(by("first", recording(&session.path)))
            .await;
        match expected {
            Some(reason) => assert_status(&answer.unwrap_err(), Code::Unauthenticated, reason),
            None => drop(answer.unwrap()),
        }
        // From this machine it is none of anybody's business.
        let near = format!("http://127.0.0.1:{}", guarded.server.address.port());
        let mut client = RecordingServiceClient::connect(near).await.unwrap();
        client
            .get_recording(by("first", recording(&session.path)))
            .await
            .unwrap();
    }
}
