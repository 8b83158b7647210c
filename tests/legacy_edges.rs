//! The legacy service where data are short, damaged, locked, gone or replaced:
//! an answer that says so, never NaN in their place.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::corpus;
use common::server::Server;
use common::wire::Client;
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{FileInfoResponse, OpenFileRequest, SignalChunkRequest};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tonic::Request;

const START: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;

/// Writes a session of one channel "ch" with these samples.
fn write_session(path: &Path, rate: f64, samples: &[i32]) {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    let mut channel = session.channel(ChannelOptions::new("ch", rate)).unwrap();
    channel.write(START, samples).unwrap();
    channel.finish().unwrap();
}

fn names() -> [String; 1] {
    ["ch".into()]
}

/// Opens a path as a client of mef3io-server does, named or not.
async fn open(server: &Server, path: &str, client_id: Option<&str>) -> FileInfoResponse {
    let mut service = LegacyClient::connect(server.url()).await.unwrap();
    let mut request = Request::new(OpenFileRequest {
        file_path: path.into(),
        ..OpenFileRequest::default()
    });
    if let Some(id) = client_id {
        let id = id.parse().unwrap();
        request.metadata_mut().insert("x-mef3io-client-id", id);
    }
    service.open_file(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_last_segment_without_a_sample_is_an_empty_array() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slow.mefd");
    // 33.3 s: beyond the first 33 s there is no tenth of a sample.
    write_session(&path, 0.3, &[1; 10]);
    let server = Server::start(&[]);
    let mut client = Client::open(&server, &path).await;
    assert_eq!(client.set_segment_size(33).await, 2);
    assert_eq!(client.segment(0, &names()).await.unwrap().rows[0].len(), 10);
    let mut service = LegacyClient::connect(server.url()).await.unwrap();
    let request = SignalChunkRequest {
        file_path: path.display().to_string(),
        chunk_idx: 1,
    };
    let mut replies = service
        .get_signal_segment(request)
        .await
        .unwrap()
        .into_inner();
    let message = replies.message().await.unwrap().unwrap();
    assert_eq!((message.shape, message.array_bytes.len()), (vec![1, 0], 0));
    assert_eq!(message.error_message.as_deref(), Some(""));
    assert!(replies.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_client_of_long_reads_alone_sees_what_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grows.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let mut add = |name: &str| {
        let mut channel = session.channel(ChannelOptions::new(name, 100.0)).unwrap();
        channel.write(START, &[5; 1000]).unwrap();
        channel.finish().unwrap();
    };
    add("ch");
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_STALENESS_MS", "0");
    });
    let mut client = Client::open(&server, &path).await;
    add("late");
    // Nothing else would look at the files.
    let three_hours = (START, START + 3 * 3600 * SECOND);
    let read = client.range(&["late".into()], three_hours).await.unwrap();
    assert_eq!(
        read.rows[0].iter().filter(|value| !value.is_nan()).count(),
        1000
    );
}

#[tokio::test]
async fn a_read_that_would_be_refused_by_what_is_gone_is_served_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replaced.mefd");
    write_session(&path, 20_000.0, &[5; 1000]);
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_STALENESS_MS", "0");
        serve.env("MEF3_SERVER_LIMITS_REQUEST_MB", "1");
    });
    let mut client = Client::open(&server, &path).await;
    fs::rename(&path, folder.path().join("old.mefd")).unwrap();
    write_session(&path, 100.0, &[5; 1000]);
    let minute = (START, START + 60 * SECOND);
    let begun = Instant::now();
    // Nothing else would look at the files.
    while let Err(error) = client.range(&names(), minute).await {
        assert!(error.contains("limits.request_mb"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_damaged_block_is_named_and_the_rest_is_served() {
    let session = corpus::folder().join("hostile/block_payload_flip.mefd");
    for workers in ["2", "0"] {
        let server = Server::start(&["--workers", workers]);
        let mut client = Client::open(&server, &session).await;
        let (start, end) = (
            client.info.start_uutc.unwrap(),
            client.info.end_uutc.unwrap(),
        );
        let error = client
            .range(&["bad".into()], (start, end))
            .await
            .err()
            .unwrap();
        for part in ["bad-000000.tdat", "channel bad", "block 2", "CRC mismatch"] {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
        let good = client.range(&["good".into()], (start, end)).await.unwrap();
        assert!(good.rows[0].iter().any(|value| !value.is_nan()));
    }
}

#[tokio::test]
async fn masked_damage_is_nan_where_it_is_and_a_line_in_the_log() {
    let session = corpus::folder().join("hostile/block_payload_flip.mefd");
    let healthy = corpus::folder().join("hostile/bases/base_two.mefd");
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LEGACY_ON_DAMAGE", "mask");
    });
    let mut client = Client::open(&server, &session).await;
    let window = (
        client.info.start_uutc.unwrap(),
        client.info.end_uutc.unwrap(),
    );
    let masked = client.range(&["bad".into()], window).await.unwrap();
    let mut client = Client::open(&server, &healthy).await;
    let whole = client.range(&["bad".into()], window).await.unwrap();
    let (masked, whole) = (&masked.rows[0], &whole.rows[0]);
    assert_eq!(masked.len(), whole.len());
    let lost: Vec<usize> = (0..whole.len())
        .filter(|&column| masked[column].to_bits() != whole[column].to_bits())
        .collect();
    // The block is a whole one, and nothing but it is lost.
    assert!(!lost.is_empty() && lost.len() < whole.len() / 2);
    assert!(lost.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(lost.iter().all(|&column| masked[column].is_nan()));
    let log = server.log();
    for part in ["damage is masked", "channel bad", "block 2", "CRC mismatch"] {
        assert!(log.contains(part), "{part:?} is not in the log:\n{log}");
    }
}

#[tokio::test]
async fn sessions_that_cannot_be_opened_say_why() {
    let server = Server::start(&[]);
    let corpus = corpus::folder();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.mefd");
    fs::create_dir(&empty).unwrap();
    let text = |path: &Path| path.display().to_string();
    let missing = "/no/such/session.mefd".to_owned();
    for (path, reason) in [
        (missing.clone(), format!("File does not exist: {missing}")),
        (
            text(folder.path()),
            format!(
                "session directory must end with .mefd: {}",
                text(folder.path())
            ),
        ),
        (
            text(&empty),
            format!(
                "no time-series channel in the session directory: {}",
                text(&empty)
            ),
        ),
    ] {
        let reply = open(&server, &path, None).await;
        assert_eq!(
            (reply.file_opened, reply.error_message),
            (false, Some(reason))
        );
    }
    let reply = open(&server, &text(&corpus.join("encrypted_mef3io.mefd")), None).await;
    let reason = reply.error_message.unwrap();
    assert!(!reply.file_opened);
    assert!(
        reason.ends_with("tmet is encrypted and the password is missing or incorrect"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_client_that_names_itself_is_not_told_that_the_file_is_open() {
    let server = Server::start(&[]);
    let path = corpus::folder()
        .join("plain_single.mefd")
        .display()
        .to_string();
    let first = open(&server, &path, None).await;
    assert_eq!((first.file_opened, &first.error_message), (true, &None));
    let second = open(&server, &path, None).await;
    assert_eq!(
        second.error_message,
        Some(format!("File already open: {path}"))
    );
    let named = open(&server, &path, Some("viewer-1")).await;
    assert_eq!(named, first);
}

/// Reads until it succeeds, as a client would; what it reads on the way must be
/// errors.
async fn read_until_good(client: &mut Client, window: (i64, i64)) -> (usize, Vec<f32>) {
    let begin = Instant::now();
    let mut errors = 0;
    loop {
        match client.range(&names(), window).await {
            Ok(matrix) => return (errors, matrix.rows.into_iter().next().unwrap()),
            Err(error) => assert!(
                error.contains(".tdat") || error.contains(".tidx"),
                "{error}"
            ),
        }
        errors += 1;
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "it never recovered"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_replaced_recording_is_an_error_and_then_the_new_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mefd");
    let window = (START, START + 10 * SECOND);
    for workers in ["1", "0"] {
        write_session(&path, 100.0, &[1; 1000]);
        let server = Server::start_with(|serve| {
            // Only what is asked for comes into the cache.
            serve.args(["--workers", workers]);
            serve
                .env("PREFETCH_AHEAD_WINDOWS", "0")
                .env("PREFETCH_BEHIND_WINDOWS", "0");
        });
        let mut client = Client::open(&server, &path).await;
        assert_eq!(
            client.range(&names(), window).await.unwrap().rows[0],
            [1.0; 1000]
        );
        // Another recording under the same name, closed and opened again.
        fs::remove_dir_all(&path).unwrap();
        write_session(&path, 100.0, &[2; 20_000]);
        let late = (START + 190 * SECOND, START + 200 * SECOND);
        client.close().await;
        let mut client = Client::open(&server, &path).await;
        assert_eq!(
            client.range(&names(), late).await.unwrap().rows[0],
            [2.0; 1000]
        );

        // Replaced under an open recording, and nothing of it in the cache.
        fs::remove_dir_all(&path).unwrap();
        write_session(&path, 100.0, &[3; 20_000]);
        let (errors, row) = read_until_good(&mut client, window).await;
        assert!(errors > 0, "the first read must tell of the change");
        assert_eq!(row, [3.0; 1000]);
        fs::remove_dir_all(&path).unwrap();
    }
}

#[tokio::test]
async fn a_vanished_recording_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gone.mefd");
    write_session(&path, 100.0, &[1; 1000]);
    let server = Server::start(&[]);
    let mut client = Client::open(&server, &path).await;
    fs::remove_dir_all(&path).unwrap();
    let error = client
        .range(&names(), (START, START + 10 * SECOND))
        .await
        .err()
        .unwrap();
    assert!(
        error.contains("gone.mefd") && error.contains("no such file"),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_root_is_looked_up_below_and_never_left_upwards() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("data/s.mefd");
    fs::create_dir(folder.path().join("data")).unwrap();
    write_session(&path, 100.0, &[1; 100]);
    let root = folder.path().display().to_string();
    let server = Server::start(&["--host-root", &root]);
    let reply = open(&server, "/data/s.mefd", None).await;
    assert_eq!(
        (reply.file_opened, reply.file_path.as_str()),
        (true, "/data/s.mefd")
    );
    // A relative path is no way around it.
    assert!(open(&server, "data/s.mefd", None).await.file_opened);
    let reply = open(&server, "/data/../data/s.mefd", None).await;
    assert!(!reply.file_opened && reply.error_message.unwrap().contains("'..'"));
    let reply = open(&server, "/data/t.mefd", None).await;
    assert_eq!(
        reply.error_message.unwrap(),
        "File does not exist: /data/t.mefd"
    );
}
