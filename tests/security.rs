//! Who may connect and call: encryption, certificates of clients, and the socket of
//! this machine.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use common::certificates::{Authority, Files, Pair};
use common::process::client::Client;
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch, Server, until};
use mef3_server::grpc::proto::client::LegacyClient;
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// What is written where files could not be read again.
const KEPT: &str = "not read again: what was before is in force";

/// A server that encrypts, and what belongs to it.
struct Encrypted {
    server: Server,
    authority: Authority,
    files: Files,
    _folder: TempDir,
}

impl Encrypted {
    fn launch(adjust: impl FnOnce(Launch, &Path) -> Launch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let files = Files::write(folder.path(), &authority.issue());
        let launch = Launch::new()
            .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
            .env("MEF3_SERVER_TLS_KEY", files.key());
        let server = adjust(launch, folder.path()).start();
        assert_eq!(server.logged("listening")["encrypted"], true);
        Self {
            server,
            authority,
            files,
            _folder: folder,
        }
    }

    fn start() -> Self {
        Self::launch(|launch, _| launch)
    }

    async fn connect(&self, tls: ClientTlsConfig) -> Result<Client, String> {
        connect(&self.server, tls).await
    }

    fn trusting(&self) -> ClientTlsConfig {
        self.authority.client(None)
    }

    /// Has the files read again, and waits for what becomes of it.
    fn reload(&self, outcome: &str, times: usize) {
        self.server.signal(Signal::HUP);
        until("files are read again", LIMIT, || {
            self.server.records_of(outcome).len() == times
        });
    }
}

/// A client that has made a call: the handshake of TLS 1.3 tells clients with the first
/// answer only that they are refused.
async fn connect(server: &Server, tls: ClientTlsConfig) -> Result<Client, String> {
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await;
    called(channel.map_err(|error| format!("{error:?}"))?).await
}

async fn called(channel: Channel) -> Result<Client, String> {
    let mut client = Client::connect_by(LegacyClient::new(channel));
    let answer = client.try_open("/nowhere.mefd").await;
    answer.map_err(|error| format!("{error:?}"))?;
    Ok(client)
}

async fn read_all(client: &mut Client, session: &KnownSession) {
    client.open(&session.key()).await.unwrap();
    client.read_right(session, &session.all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_encrypted_is_what_was_written() {
    let session = KnownSession::write(4, 1000, 60);
    let encrypted = Encrypted::start();
    let mut client = encrypted.connect(encrypted.trusting()).await.unwrap();
    read_all(&mut client, &session).await;
    let mut server = encrypted.server;
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_encryption_and_of_other_authorities_get_nothing() {
    let encrypted = Encrypted::start();
    let plain = Channel::from_shared(format!("http://{}", encrypted.server.address)).unwrap();
    if let Ok(channel) = plain.connect().await {
        called(channel).await.map(drop).unwrap_err();
    }
    let stranger = Authority::new().client(None);
    encrypted.connect(stranger).await.map(drop).unwrap_err();
    encrypted
        .connect(encrypted.trusting())
        .await
        .map(drop)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_where_it_is_asked_for() {
    let clients = Authority::new();
    let encrypted = Encrypted::launch(|launch, folder| {
        let path = folder.join("clients.pem");
        fs::write(&path, clients.pem()).unwrap();
        launch.env("MEF3_SERVER_TLS_CLIENT_CA", path)
    });
    let connect = async |own: Option<Pair>| {
        let tls = encrypted.authority.client(own.as_ref());
        encrypted.connect(tls).await.map(drop)
    };
    connect(None).await.unwrap_err();
    connect(Some(Authority::new().issue())).await.unwrap_err();
    // That of the server is of another authority than that of the clients.
    connect(Some(encrypted.authority.issue()))
        .await
        .unwrap_err();
    connect(Some(clients.issue())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_have_expired_are_refused_by_either_side() {
    let clients = Authority::new();
    let encrypted = Encrypted::launch(|launch, folder| {
        let path = folder.join("clients.pem");
        fs::write(&path, clients.pem()).unwrap();
        launch.env("MEF3_SERVER_TLS_CLIENT_CA", path)
    });
    let connect = async |own: Pair| {
        let tls = encrypted.authority.client(Some(&own));
        encrypted.connect(tls).await.map(drop)
    };
    connect(clients.issue()).await.unwrap();
    connect(clients.issue_expired()).await.unwrap_err();
    // The server's own: whoever connects does not trust it.
    encrypted
        .files
        .replace(&encrypted.authority.issue_expired());
    encrypted.reload("read again", 1);
    let refused = connect(clients.issue()).await.unwrap_err();
    assert!(refused.contains("Expired"), "{refused}");
    encrypted.files.replace(&encrypted.authority.issue());
    encrypted.reload("read again", 2);
    connect(clients.issue()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_connections_go_on() {
    let session = KnownSession::write(2, 256, 10);
    let encrypted = Encrypted::start();
    let mut before = encrypted.connect(encrypted.trusting()).await.unwrap();
    let next = Authority::new();
    encrypted.files.replace(&next.issue());
    encrypted
        .connect(next.client(None))
        .await
        .map(drop)
        .unwrap_err();
    encrypted.reload("read again", 1);
    encrypted
        .connect(next.client(None))
        .await
        .map(drop)
        .unwrap();
    encrypted
        .connect(encrypted.trusting())
        .await
        .map(drop)
        .unwrap_err();
    read_all(&mut before, &session).await;

    // What does not serve changes nothing: nonsense, no file, a key of another one.
    for (times, spoil) in [
        (
            1,
            (|files: &Files| fs::write(files.certificate(), "nonsense")) as fn(&Files) -> _,
        ),
        (2, |files| fs::remove_file(files.certificate())),
        (3, |files| {
            fs::write(files.certificate(), Authority::new().issue().certificate)
        }),
    ] {
        spoil(&encrypted.files).unwrap();
        encrypted.reload(KEPT, times);
        encrypted
            .connect(next.client(None))
            .await
            .map(drop)
            .unwrap();
    }
    let told = encrypted.server.records_of(KEPT);
    let path = encrypted.files.certificate();
    for record in told {
        assert_eq!(record["level"], "ERROR");
        let error = record["error"].as_str().unwrap();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    read_all(&mut before, &session).await;
}

#[test]
fn files_that_do_not_serve_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Authority::new().issue();
    let files = Files::write(folder.path(), &pair);
    let run = || {
        let ended = Launch::new()
            .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
            .env("MEF3_SERVER_TLS_KEY", files.key())
            .run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        ended.stderr
    };
    let start = &pair.key[..60];
    for key in [
        String::new(),
        pair.certificate.clone(),
        start.into(),
        "nonsense".into(),
    ] {
        fs::write(files.key(), key).unwrap();
        let told = run();
        assert!(told.contains(files.key().to_str().unwrap()), "{told}");
        assert!(!told.contains(&start[30..]), "{told}");
    }
    fs::write(files.key(), Authority::new().issue().key).unwrap();
    assert!(run().contains(files.key().to_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_not_finished_are_cut_and_hold_nobody_up() {
    let encrypted =
        Encrypted::launch(|launch, _| launch.env("MEF3_SERVER_SERVER_HANDSHAKE_LIMIT_S", "2"));
    let address = encrypted.server.address;
    let begun = Instant::now();
    let half_open: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // The beginning of a record that never ends.
    for mut stream in &half_open[..100] {
        std::io::Write::write_all(&mut stream, &[0x16, 3, 1, 2, 0, 1]).unwrap();
    }
    encrypted
        .connect(encrypted.trusting())
        .await
        .map(drop)
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for mut stream in half_open {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let ended = stream.read(&mut [0; 64]);
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
        assert!(begun.elapsed() >= Duration::from_secs(2));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    let cut = encrypted.server.records_of("connection is cut");
    assert!(!cut.is_empty());
    assert_eq!(cut[0]["reason"], "no HTTP/2 was spoken");
    encrypted
        .connect(encrypted.trusting())
        .await
        .map(drop)
        .unwrap();
}

#[test]
fn what_others_reach_is_encrypted_or_allowed() {
    for (arguments, name, value) in [
        (["serve", "--listen", "0.0.0.0:0"], "TERM", "dumb"),
        (["serve", "--log-format", "json"], "PORT", "0"),
        (["demo", "--listen", "0.0.0.0:0"], "TERM", "dumb"),
    ] {
        let ended = Launch::command(arguments).env(name, value).run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        for part in [
            "server.listen",
            "tls.certificate",
            "server.insecure",
            "--insecure",
        ] {
            assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
        }
    }
    let launch = Launch::command(["serve", "--listen", "0.0.0.0:0"]);
    let server = launch.arg("--insecure").start();
    assert_eq!(server.logged("listening")["encrypted"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_this_machine_have_a_socket() {
    let session = KnownSession::write(4, 1000, 60);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mef3.sock");
    // Of a server that is no more.
    drop(UnixListener::bind(&path).unwrap());
    let mut server = Launch::new()
        .env("MEF3_SERVER_SERVER_UNIX_SOCKET", &path)
        .start();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let mut client = called(endpoint.connect().await.unwrap()).await.unwrap();
    read_all(&mut client, &session).await;
    // The port is there, too.
    read_all(&mut Client::connect(server.address).await, &session).await;

    let second = Launch::new()
        .env("MEF3_SERVER_SERVER_UNIX_SOCKET", &path)
        .run();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.stderr.contains(path.to_str().unwrap()),
        "{}",
        second.stderr
    );
    read_all(&mut client, &session).await;

    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn silence_at_the_socket_is_cut_and_ends_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mef3.sock");
    let mut server = Launch::new()
        .env("MEF3_SERVER_SERVER_UNIX_SOCKET", &path)
        .env("MEF3_SERVER_SERVER_HANDSHAKE_LIMIT_S", "1")
        .start();
    let begun = Instant::now();
    let mut silent = UnixStream::connect(&path).unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    let mut rest = Vec::new();
    // The server's greeting may be there; after it comes the end.
    silent.read_to_end(&mut rest).unwrap();
    assert!((1..10).contains(&begun.elapsed().as_secs()));
    let cut = server.logged("connection is cut");
    assert!(cut["peer"].as_str().unwrap().starts_with("unix:"), "{cut}");
    server.signal(Signal::INT);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(!path.exists());
}
