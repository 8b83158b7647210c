//! Nothing that a client sends, and no link below the data roots, leads out of them: with
//! workers and, where no worker is confined by the kernel, without.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::corpus::copy_folder;
use common::native::{self, by_time};
use common::server::Server;
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::native::{
    FollowRequest, GetRecordingRequest, ListAnnotationsRequest, ListGapsRequest,
    ListSegmentsRequest, ReadEnvelopeRequest, ReadReducedRequest, TimeSpan, WatchRecordingRequest,
};
use mef3_server::grpc::proto::{
    EnvelopeRequest, FileInfoRequest, OpenFileRequest, SetActiveChannelsRequest,
    SetSignalSegmentRequest, SignalChunkRequest, SignalRangeRequest,
};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const START: i64 = 1_700_000_000_000_000;
const END: i64 = START + 1_000_000;
const WORKERS: [&str; 2] = ["2", "0"];

fn write_session(path: &Path, channel: &str) {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    let options = ChannelOptions::new(channel, 100.0);
    let mut channel = session.channel(options).unwrap();
    channel.write(START, &[12_345; 100]).unwrap();
    channel.finish().unwrap();
}

/// A data root, and a session outside of it.
struct Folders {
    _temporary: tempfile::TempDir,
    root: PathBuf,
    secret: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let (root, secret) = (folder.join("root"), folder.join("outside/secret.mefd"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir(folder.join("outside")).unwrap();
        write_session(&secret, "secret");
        write_session(&root.join("in/good.mefd"), "good");
        Self {
            _temporary: temporary,
            root,
            secret,
        }
    }

    fn serve(&self, workers: &str) -> Server {
        Server::start_with(|serve| {
            serve
                .env("MEF3_SERVER_PATHS_DATA_ROOTS", &self.root)
                .env("N_PROCESS_WORKERS", workers)
                .current_dir(&self.root);
        })
    }

    /// Paths that would lead to the secret, if they were taken at their word.
    fn ways_out(&self) -> Vec<String> {
        let root = self.root.display();
        let secret = self.secret.display();
        let link = |name: &str, target: &Path| symlink(target, self.root.join(name)).unwrap();
        let relative = Path::new("../outside/secret.mefd");
        link("relative.mefd", relative);
        link("absolute.mefd", &self.secret);
        link("folder", Path::new("../outside"));
        link("chain.mefd", Path::new("relative.mefd"));
        link("up", Path::new(".."));
        link("top", Path::new("/"));
        link("process", Path::new("/proc/self/root"));
        link("in/deep.mefd", Path::new("../../outside/secret.mefd"));
        link("loop.mefd", Path::new("loop.mefd"));
        let mut ways = vec![
            format!("{secret}"),
            format!("/{secret}"),
            format!("//{secret}"),
            format!("{secret}/"),
            format!("/.{secret}"),
            format!("/proc/self/root{secret}"),
            format!("/proc/self/cwd/../outside/secret.mefd"),
            format!("/proc/1/root{secret}"),
            format!("/dev/fd/../../..{secret}"),
            format!("{root}/../outside/secret.mefd"),
            format!("{root}/./../outside/secret.mefd"),
            format!("{root}//..//outside//secret.mefd"),
            format!("{root}/in/../../outside/secret.mefd"),
            format!("{root}/in/good.mefd/../../../outside/secret.mefd"),
            format!("{root}/not-there/../../outside/secret.mefd"),
            format!("{root}/../root/../outside/secret.mefd"),
            format!("{root}/..{secret}"),
            format!("{root}/../../../../../../../..{secret}"),
            "../outside/secret.mefd".into(),
            "./../outside/secret.mefd".into(),
            "in/../../outside/secret.mefd".into(),
            "folder/secret.mefd".into(),
            format!("{root}/relative.mefd"),
            format!("{root}/absolute.mefd"),
            format!("{root}/chain.mefd"),
            format!("{root}/folder/secret.mefd"),
            format!("{root}/up/outside/secret.mefd"),
            format!("{root}/up/root/../outside/secret.mefd"),
            format!("{root}/top{secret}"),
            format!("{root}/process{secret}"),
            format!("{root}/in/deep.mefd"),
            format!("{root}/loop.mefd"),
            format!("{root}{secret}"),
            format!("{root}\0{secret}"),
            format!("{secret}\0.mefd"),
            format!("{secret}\0"),
            format!("{root}/%2e%2e/outside/secret.mefd"),
            format!("{root}/..%2foutside%2fsecret.mefd"),
            format!("{root}/%c0%ae%c0%ae/outside/secret.mefd"),
            format!("{root}/\u{ff0e}\u{ff0e}/outside/secret.mefd"),
            format!("{root}\\..\\outside\\secret.mefd"),
            format!("{root}/.. /outside/secret.mefd"),
            format!("{root}/..;/outside/secret.mefd"),
            format!("file://{secret}"),
            format!("~/{secret}"),
            format!("{root}2/secret.mefd"),
        ];
        // Sessions of the root of which a part lies outside.
        let channel = self.secret.join("secret.timd");
        let segment = channel.join("secret-000000.segd");
        let inner = [
            ("channel", "secret.timd", &channel),
            ("segment", "secret.timd/secret-000000.segd", &segment),
        ];
        for (name, part, target) in inner {
            let session = self.root.join(format!("{name}.mefd"));
            fs::create_dir_all(session.join(part).parent().unwrap()).unwrap();
            symlink(target, session.join(part)).unwrap();
            ways.push(session.display().to_string());
        }
        for extension in ["tmet", "tidx", "tdat"] {
            let session = self.root.join(format!("{extension}.mefd"));
            let within = Path::new("secret.timd/secret-000000.segd");
            fs::create_dir_all(session.join(within).parent().unwrap()).unwrap();
            copy_folder(&segment, &session.join(within));
            let file = within.join(format!("secret-000000.{extension}"));
            fs::remove_file(session.join(&file)).unwrap();
            symlink(self.secret.join(&file), session.join(&file)).unwrap();
            ways.push(session.display().to_string());
        }
        ways
    }
}

async fn first<T>(reply: Result<tonic::Response<Streaming<T>>, Status>) -> Result<T, Status> {
    let message = reply?.into_inner().message().await?;
    message.ok_or_else(|| Status::not_found("nothing"))
}

fn assert_refused(outcome: Result<(), Status>, what: &str) {
    let refused = outcome.expect_err(what);
    let refusals = [
        Code::PermissionDenied,
        Code::NotFound,
        Code::InvalidArgument,
        Code::DataLoss,
        Code::Unavailable,
    ];
    assert!(refusals.contains(&refused.code()), "{what}: {refused:?}");
}

/// All calls of the native service that take a path.
async fn try_native(client: &mut native::Client, path: &str) {
    let recording = || path.to_owned();
    let span = Some(TimeSpan {
        start_uutc: START,
        end_uutc: END,
    });
    let signal = by_time(Path::new(path), START, END);
    let read = first(client.read_signal(signal).await).await;
    // The first message says what there is, the second one has samples.
    let mut read = read.map(|_| ());
    if read.is_ok() {
        let signal = by_time(Path::new(path), START, END);
        read = native::read(client, signal, None).await.map(|_| ());
    }
    assert_refused(read, &format!("ReadSignal of {path:?}"));
    let request = ReadReducedRequest {
        recording: recording(),
        span,
        points: 10,
        ..ReadReducedRequest::default()
    };
    let reduced = first(client.read_reduced(request).await).await;
    assert_refused(reduced.map(drop), &format!("ReadReduced of {path:?}"));
    let request = ReadEnvelopeRequest {
        recording: recording(),
        span,
        pixels: 10,
        decode_all: true,
        ..ReadEnvelopeRequest::default()
    };
    let envelope = async {
        let mut messages = client.read_envelope(request).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok(())
    };
    assert_refused(envelope.await, &format!("ReadEnvelope of {path:?}"));
    // What only describes may say that the channel cannot be read.
    let request = GetRecordingRequest {
        recording: recording(),
        ..GetRecordingRequest::default()
    };
    if let Ok(answer) = client.get_recording(request).await {
        let answer = answer.into_inner();
        assert!(
            answer.readable_channels == 0 || path.ends_with("/tdat.mefd"),
            "{path:?}: {answer:?}"
        );
    }
    let request = ListSegmentsRequest {
        recording: recording(),
        ..ListSegmentsRequest::default()
    };
    if let Ok(answer) = client.list_segments(request).await {
        let segments = answer.into_inner().segments;
        assert!(
            segments.iter().all(|it| it.samples == 0),
            "{path:?}: {segments:?}"
        );
    }
    let request = ListGapsRequest {
        recording: recording(),
        ..ListGapsRequest::default()
    };
    if let Ok(answer) = client.list_gaps(request).await {
        let gaps = answer.into_inner().gaps;
        assert!(gaps.is_empty(), "{path:?}: {gaps:?}");
    }
    let request = ListAnnotationsRequest {
        recording: recording(),
        ..ListAnnotationsRequest::default()
    };
    if let Ok(answer) = client.list_annotations(request).await {
        assert!(answer.into_inner().annotations.is_empty(), "{path:?}");
    }
    let request = FollowRequest {
        recording: recording(),
        from_uutc: Some(0),
        ..FollowRequest::default()
    };
    let followed = tokio::time::timeout(Duration::from_millis(200), async {
        first(client.follow(request).await).await
    });
    if let Ok(Ok(message)) = followed.await {
        panic!("{path:?}: {message:?}");
    }
    let request = WatchRecordingRequest {
        recording: recording(),
    };
    let watched = tokio::time::timeout(Duration::from_millis(200), async {
        first(client.watch_recording(request).await).await
    });
    if let Ok(Ok(message)) = watched.await {
        assert!(!format!("{message:?}").contains("12345"), "{message:?}");
    }
}

/// All calls of the legacy service that take a path.
async fn try_legacy(client: &mut LegacyClient<Channel>, path: &str) {
    let file_path = || path.to_owned();
    let request = OpenFileRequest {
        file_path: file_path(),
        ..OpenFileRequest::default()
    };
    let opened = client.open_file(request).await.unwrap().into_inner();
    assert!(
        !opened.file_opened || opened.channel_names.is_empty() || path.ends_with("/tdat.mefd"),
        "{path:?}: {opened:?}"
    );
    let request = FileInfoRequest {
        file_path: file_path(),
    };
    client.file_info(request.clone()).await.unwrap();
    client.get_number_of_segments(request).await.unwrap();
    let request = SetSignalSegmentRequest {
        file_path: file_path(),
        seconds: 1,
    };
    client.set_signal_segment_size(request).await.unwrap();
    let request = SetActiveChannelsRequest {
        file_path: file_path(),
        channel_names: vec!["secret".into()],
    };
    client.set_active_channels(request).await.unwrap();
    let request = SignalChunkRequest {
        file_path: file_path(),
        chunk_idx: 0,
    };
    let segment = first(client.get_signal_segment(request).await).await;
    let request = SignalRangeRequest {
        file_path: file_path(),
        start_uutc: START,
        end_uutc: END,
        ..SignalRangeRequest::default()
    };
    let range = first(client.get_signal_range(request).await).await;
    for chunk in [segment, range].into_iter().flatten() {
        assert!(chunk.array_bytes.is_empty(), "{path:?}: {chunk:?}");
        assert!(
            !chunk.error_message.unwrap_or_default().is_empty(),
            "{path:?}"
        );
    }
    let request = EnvelopeRequest {
        file_path: file_path(),
        start_uutc: Some(START),
        end_uutc: Some(END),
        ..EnvelopeRequest::default()
    };
    if let Ok(envelope) = first(client.get_envelope(request).await).await {
        // The index alone is of the root; what it says of the data was always there.
        let is_known = path.ends_with("/tdat.mefd");
        assert!(
            is_known || envelope.min.is_empty(),
            "{path:?}: {envelope:?}"
        );
    }
}

#[tokio::test]
async fn nothing_leads_out_of_the_roots_by_any_call() {
    let folders = Folders::new();
    let ways = folders.ways_out();
    assert!(ways.len() >= 40, "{}", ways.len());
    for workers in WORKERS {
        let server = folders.serve(workers);
        let mut client = native::connect(&server).await;
        let mut legacy = LegacyClient::connect(server.url()).await.unwrap();
        for path in &ways {
            try_native(&mut client, path).await;
            try_legacy(&mut legacy, path).await;
        }
        // A path is not said to be anything else than out of bounds.
        let absent = folders.secret.with_file_name("absent.mefd");
        for path in [&folders.secret, &absent] {
            let signal = native::read(&mut client, by_time(path, START, END), None).await;
            let refused = signal.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
            assert!(refused.message().ends_with("outside of the data roots"));
        }
        // What lies within is read, by a link within, too.
        let good = folders.root.join("in/good.mefd");
        let link = folders.root.join(format!("link-{workers}.mefd"));
        symlink(&good, &link).unwrap();
        let dotted = folders.root.join("in/../in/good.mefd");
        for path in [good.as_path(), &link, &dotted, Path::new("in/good.mefd")] {
            let signal = native::read(&mut client, by_time(path, START, END), None).await;
            assert_eq!(signal.unwrap().rows[0].cells.len(), 100, "{path:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_turned_round_during_calls_leads_out_of_nothing() {
    let folders = Folders::new();
    let link = folders.root.join("turned.mefd");
    symlink("in/good.mefd", &link).unwrap();
    for workers in WORKERS {
        let server = folders.serve(workers);
        let mut client = native::connect(&server).await;
        let stop = AtomicBool::new(false);
        let turn = || {
            let ends = [folders.secret.as_path(), Path::new("in/good.mefd")];
            for end in ends.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let next = folders.root.join("next");
                symlink(end, &next).unwrap();
                fs::rename(next, &link).unwrap();
            }
        };
        let (mut read, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(turn);
            let calls = async {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(2) {
                    match native::read(&mut client, by_time(&link, START, END), None).await {
                        Ok(signal) => {
                            let names = signal.rows.iter().map(|row| row.channel.as_str());
                            assert!(names.eq(["good"]));
                            read += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(calls));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(read + refused > 20, "{read} read, {refused} refused");
    }
}
