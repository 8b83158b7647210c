//! What clients count, `/metrics` has counted, too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, ListGapsRequest, ReadSignalRequest, TimeSpan, WatchRecordingRequest,
};
use mef3_server::grpc::proto::{
    FileInfoRequest, OpenFileRequest, SetSignalSegmentRequest, SignalChunkRequest,
    SignalRangeRequest,
};
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::common::chaos::by_form;
use super::common::corpus;
use super::common::native::by_time;
use super::common::process::client::soon;
use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, until};
use super::exposition::Exposition;
use super::{Admin, launch};

const LEGACY: &str = "gRPCMef3Server";
const NATIVE: &str = "mef3.v1.RecordingService";
const HEALTH: &str = "grpc.health.v1.Health";
/// Bytes before each message: whether it is packed, and its length.
const PREFIX: u64 = 5;
const CLIENTS: usize = 4;

/// What clients have met.
#[derive(Debug, Default)]
struct Tally {
    /// By method and status.
    calls: BTreeMap<(String, String), u64>,
    /// Bytes of messages, by method.
    bytes: BTreeMap<String, u64>,
    /// Reads of each kind that were taken to their end.
    reads: [u64; 2],
    /// Sessions that were opened by name and not closed.
    sessions: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (call, times) in other.calls {
            *self.calls.entry(call).or_default() += times;
        }
        for (rpc, bytes) in other.bytes {
            *self.bytes.entry(rpc).or_default() += bytes;
        }
        for (reads, more) in self.reads.iter_mut().zip(other.reads) {
            *reads += more;
        }
        self.sessions += other.sessions;
    }

    fn note(&mut self, rpc: &str, code: Code, bytes: u64) {
        *self.calls.entry((rpc.into(), name_of(code))).or_default() += 1;
        *self.bytes.entry(rpc.into()).or_default() += bytes;
    }

    /// Notes a call with one message.
    fn one<T: Message>(&mut self, rpc: &str, answer: Result<Response<T>, Status>) -> Code {
        let (code, bytes) = match answer {
            Ok(answer) => (Code::Ok, size(answer.get_ref())),
            Err(status) => (status.code(), 0),
        };
        self.note(rpc, code, bytes);
        code
    }

    /// Takes a stream to its end, and notes it.
    async fn all<T: Message>(
        &mut self,
        rpc: String,
        answer: Result<Response<Streaming<T>>, Status>,
    ) -> Code {
        let (code, bytes) = match answer {
            Ok(answer) => taken(answer.into_inner()).await,
            Err(status) => (status.code(), 0),
        };
        self.note(&rpc, code, bytes);
        code
    }
}

/// How a stream ended, and the bytes of its messages.
async fn taken<T: Message>(mut stream: Streaming<T>) -> (Code, u64) {
    let mut bytes = 0;
    loop {
        match soon("a message", stream.message()).await {
            Ok(Some(message)) => bytes += size(&message),
            Ok(None) => return (Code::Ok, bytes),
            Err(status) => return (status.code(), bytes),
        }
    }
}

fn size(message: &impl Message) -> u64 {
    message.encoded_len() as u64 + PREFIX
}

/// `NOT_FOUND` for `NotFound`.
fn name_of(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// What clients ask for.
struct Recordings {
    /// All of it is read, and a part of it.
    good: KnownSession,
    /// Too long to be under way as a whole.
    long: KnownSession,
    damaged: PathBuf,
}

/// The kinds of reads that are counted by their pages.
const WHOLE: usize = 0;
const DAMAGED: usize = 1;

/// A client with a connection of its own.
struct Caller {
    native: RecordingServiceClient<Channel>,
    legacy: LegacyClient<Channel>,
    health: HealthClient<Channel>,
    recordings: Arc<Recordings>,
    tally: Tally,
}

impl Caller {
    async fn connect(url: &str, recordings: &Arc<Recordings>) -> Self {
        let endpoint = Channel::from_shared(url.to_owned()).unwrap();
        let channel = soon("connect", endpoint.connect()).await.unwrap();
        let most = 16 << 20;
        Self {
            native: RecordingServiceClient::new(channel.clone()),
            legacy: LegacyClient::new(channel.clone()).max_decoding_message_size(most),
            health: HealthClient::new(channel),
            recordings: Arc::clone(recordings),
            tally: Tally::default(),
        }
    }

    async fn read(&mut self, kind: usize) {
        let (path, expected) = match kind {
            WHOLE => (&self.recordings.good.path, Code::Ok),
            _ => (&self.recordings.damaged, Code::DataLoss),
        };
        let request = GetRecordingRequest {
            recording: path.display().to_string(),
            ..GetRecordingRequest::default()
        };
        let answer = self.native.get_recording(request).await;
        let span = answer.as_ref().unwrap().get_ref().span.unwrap();
        self.tally.one(&format!("{NATIVE}/GetRecording"), answer);
        let request = by_time(path, span.start_uutc, span.end_uutc);
        let answer = self.native.read_signal(request).await;
        let code = self.tally.all(format!("{NATIVE}/ReadSignal"), answer);
        assert_eq!(code.await, expected);
        self.tally.reads[kind] += 1;
    }

    /// Calls of the native service that are answered, or refused.
    async fn native(&mut self) {
        let good = self.recordings.good.path.clone();
        let nowhere = good.with_file_name("nowhere.mefd");
        for (path, expected) in [(&good, Code::Ok), (&nowhere, Code::NotFound)] {
            let request = GetRecordingRequest {
                recording: path.display().to_string(),
                ..GetRecordingRequest::default()
            };
            let answer = self.native.get_recording(request).await;
            let code = self.tally.one(&format!("{NATIVE}/GetRecording"), answer);
            assert_eq!(code, expected);
        }
        let empty = by_time(&good, 9, 9);
        let beyond = ReadSignalRequest {
            channels: vec!["q".into()],
            ..by_time(&good, 0, 9)
        };
        for (request, expected) in [(empty, Code::InvalidArgument), (beyond, Code::NotFound)] {
            let answer = self.native.read_signal(request).await;
            let code = self.tally.all(format!("{NATIVE}/ReadSignal"), answer);
            assert_eq!(code.await, expected);
        }
        let gaps = |span| ListGapsRequest {
            recording: good.display().to_string(),
            span,
            ..ListGapsRequest::default()
        };
        let backward = TimeSpan {
            start_uutc: 9,
            end_uutc: 0,
        };
        for (span, expected) in [(None, Code::Ok), (Some(backward), Code::InvalidArgument)] {
            let answer = self.native.list_gaps(gaps(span)).await;
            let code = self.tally.one(&format!("{NATIVE}/ListGaps"), answer);
            assert_eq!(code, expected);
        }
    }

    /// A stream with one message at once and no other, which its client leaves.
    async fn leave_watch(&mut self) {
        let request = WatchRecordingRequest {
            recording: self.recordings.good.key(),
        };
        let answer = self.native.watch_recording(request).await;
        let mut stream = answer.unwrap().into_inner();
        let message = soon("a state", stream.message()).await.unwrap().unwrap();
        let rpc = format!("{NATIVE}/WatchRecording");
        self.tally.note(&rpc, Code::Cancelled, size(&message));
    }

    /// Calls of the older service: what is wrong is told in the messages.
    async fn legacy(&mut self) {
        let all = self.recordings.good.all();
        let range = |file_path: String, start_uutc, end_uutc| SignalRangeRequest {
            file_path,
            start_uutc,
            end_uutc,
            ..SignalRangeRequest::default()
        };
        let key = self.recordings.good.key();
        for request in [
            range(key.clone(), all.start(), all.end()),
            range(key.clone(), 9, 9),
            range("nowhere.mefd".into(), 0, 9),
        ] {
            let is_whole = request.end_uutc == all.end();
            let answer = self.legacy.get_signal_range(request).await;
            let code = self.tally.all(format!("{LEGACY}/GetSignalRange"), answer);
            assert_eq!(code.await, Code::Ok);
            self.tally.reads[WHOLE] += u64::from(is_whole);
        }
        let info = FileInfoRequest { file_path: key };
        let answer = self.legacy.file_info(info).await;
        self.tally.one(&format!("{LEGACY}/FileInfo"), answer);
    }

    /// A session of a client with a name, which may be closed again.
    async fn session(&mut self, name: &str, closes: bool) {
        let key = self.recordings.good.key();
        let named = |request: &mut tonic::metadata::MetadataMap| {
            request.insert("x-mef3io-client-id", name.parse().unwrap());
        };
        let mut open = Request::new(OpenFileRequest {
            file_path: key.clone(),
            ..OpenFileRequest::default()
        });
        named(open.metadata_mut());
        let answer = self.legacy.open_file(open).await;
        assert!(answer.as_ref().unwrap().get_ref().file_opened);
        self.tally.one(&format!("{LEGACY}/OpenFile"), answer);
        if closes {
            let mut close = Request::new(FileInfoRequest { file_path: key });
            named(close.metadata_mut());
            let answer = self.legacy.close_file(close).await;
            self.tally.one(&format!("{LEGACY}/CloseFile"), answer);
        } else {
            self.tally.sessions += 1;
        }
    }

    async fn others(&mut self) {
        for (service, expected) in [("", Code::Ok), ("nothing", Code::NotFound)] {
            let request = HealthCheckRequest {
                service: service.into(),
            };
            let answer = self.health.check(request).await;
            let code = self.tally.one(&format!("{HEALTH}/Check"), answer);
            assert_eq!(code, expected);
        }
    }

    /// All of it, some times.
    async fn run(mut self, number: usize, rounds: usize) -> Tally {
        for round in 0..rounds {
            self.read(WHOLE).await;
            self.native().await;
            self.leave_watch().await;
            self.read(DAMAGED).await;
            self.legacy().await;
            let name = format!("client {number} {round}");
            self.session(&name, round % 2 == 0).await;
            self.others().await;
        }
        self.tally
    }
}

/// Scrapes until told to stop: how often, and the last answer.
fn scrape(admin: &Admin, over: &AtomicBool) -> (usize, Exposition) {
    let mut last = Exposition::default();
    for scrapes in 1.. {
        let stops = over.load(Ordering::Relaxed);
        let next = admin.metrics();
        assert_eq!(next.shrunk_since(&last), None);
        last = next;
        if stops {
            return (scrapes, last);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    unreachable!("numbers do not end")
}

/// Pages that reads have asked for.
fn asked_pages(metrics: &Exposition) -> u64 {
    ["cache_hits", "cache_misses", "pages_joined"]
        .map(|name| metrics.get(&format!("mef3_{name}_total")) as u64)
        .iter()
        .sum()
}

/// The figures once no call is under way.
fn at_rest(admin: &Admin) -> Exposition {
    let mut metrics = admin.metrics();
    until("all calls have left", LIMIT, || {
        metrics = admin.metrics();
        ["mef3_streams", "mef3_unsent_bytes", "mef3_pages_in_flight"]
            .iter()
            .all(|name| metrics.get(name) == 0.0)
            && metrics.sum("mef3_calls_running", &[]) == 0.0
    });
    metrics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_clients_have_counted_is_what_is_told() {
    let recordings = Arc::new(Recordings {
        good: KnownSession::write(4, 1000, 60),
        long: KnownSession::write(16, 1000, 60),
        damaged: corpus::folder().join("hostile/block_payload_flip.mefd"),
    });
    let server = launch()
        // No read has to drop what it needs again.
        .env("MEF3_SERVER_LIMITS_IN_FLIGHT_MB", "1024")
        .env("MEF3_SERVER_LIMITS_CLIENT_MB", "256")
        .start();
    let url = format!("http://{}", server.address);
    let admin = Arc::new(Admin::of(&server));
    admin.wait_for_readiness(200);
    let mut tally = Tally::default();
    // Opened once, so that the older calls find it.
    let mut first = Caller::connect(&url, &recordings).await;
    let open = OpenFileRequest {
        file_path: recordings.good.key(),
        ..OpenFileRequest::default()
    };
    let answer = first.legacy.open_file(open).await;
    first.tally.one(&format!("{LEGACY}/OpenFile"), answer);

    // What one read of each kind asks for.
    let mut pages = [0; 2];
    for (kind, pages) in pages.iter_mut().enumerate() {
        let before = asked_pages(&at_rest(&admin));
        first.read(kind).await;
        *pages = asked_pages(&at_rest(&admin)) - before;
        assert!(*pages > 0);
    }
    tally.add(first.tally);

    let over = Arc::new(AtomicBool::new(false));
    let scraper = {
        let (admin, over) = (Arc::clone(&admin), Arc::clone(&over));
        std::thread::spawn(move || scrape(&admin, &over))
    };
    let rounds = by_form(4, 100);
    let mut callers = Vec::new();
    for number in 0..CLIENTS {
        let caller = Caller::connect(&url, &recordings).await;
        callers.push(tokio::spawn(caller.run(number, rounds)));
    }
    for caller in callers {
        tally.add(caller.await.unwrap());
    }
    let metrics = tokio::task::block_in_place(|| at_rest(&admin));
    over.store(true, Ordering::Relaxed);
    let (scrapes, last) = tokio::task::block_in_place(|| scraper.join().unwrap());
    println!("{scrapes} scrapes while {CLIENTS} clients made {rounds} rounds");
    assert!(scrapes > 3);
    assert_eq!(last.shrunk_since(&metrics), None);

    assert_told(&metrics, &tally);
    let expected = tally.reads.iter().zip(pages);
    let expected: u64 = expected.map(|(reads, pages)| reads * pages).sum();
    assert_eq!(
        asked_pages(&metrics),
        expected,
        "{:?} of {pages:?}",
        tally.reads
    );
    assert!(metrics.get("mef3_cache_hits_total") > metrics.get("mef3_cache_misses_total"));
    assert_eq!(
        metrics.get("mef3_client_sessions"),
        tally.sessions as f64,
        "sessions"
    );
    // Read once and closed never: the good one, and the damaged one in passing.
    assert_eq!(metrics.get("mef3_recordings_open"), 2.0);
    assert_eq!(
        metrics.get("mef3_connections_accepted_total"),
        (CLIENTS + 1) as f64
    );
    for held in [
        "permits_awaited_bytes",
        "permits_ahead_bytes",
        "jobs_lost_total",
    ] {
        assert_eq!(metrics.get(&format!("mef3_{held}")), 0.0, "{held}");
    }

    leave_long_replies(&url, &recordings, &admin).await;
}

/// Holds the figures of calls against what clients have met.
fn assert_told(metrics: &Exposition, tally: &Tally) {
    for ((rpc, code), times) in &tally.calls {
        let told = metrics.get(&format!(
            "mef3_calls_total{{rpc=\"{rpc}\",code=\"{code}\"}}"
        ));
        assert_eq!(told, *times as f64, "{rpc} {code}");
    }
    let all: u64 = tally.calls.values().sum();
    assert_eq!(metrics.sum("mef3_calls_total", &[]), all as f64, "calls");
    let timed = metrics.sum("mef3_call_latency_seconds_count", &[]);
    assert_eq!(timed, all as f64, "latencies");
    for rpc in metrics.values("mef3_call_sent_bytes_total", "rpc") {
        let told = metrics.get(&format!("mef3_call_sent_bytes_total{{rpc=\"{rpc}\"}}"));
        let got = tally.bytes.get(&rpc).copied().unwrap_or_default();
        assert_eq!(told, got as f64, "bytes of {rpc}");
    }
}

/// Replies that their clients leave after the first message: what was sent of them is
/// no less than what was taken, and no more than there is.
async fn leave_long_replies(url: &str, recordings: &Arc<Recordings>, admin: &Admin) {
    const LEFT: u64 = 3;
    let mut caller = Caller::connect(url, recordings).await;
    let file_path = recordings.long.key();
    let open = OpenFileRequest {
        file_path: file_path.clone(),
        ..OpenFileRequest::default()
    };
    let info = caller.legacy.open_file(open).await.unwrap().into_inner();
    assert!(info.file_opened, "{info:?}");
    let grid = SetSignalSegmentRequest {
        file_path: file_path.clone(),
        seconds: recordings.long.seconds,
    };
    caller.legacy.set_signal_segment_size(grid).await.unwrap();
    let mut got = 0;
    for _ in 0..LEFT {
        let request = SignalChunkRequest {
            file_path: file_path.clone(),
            chunk_idx: 0,
        };
        let stream = caller.legacy.get_signal_segment(request).await;
        let mut stream = stream.unwrap().into_inner();
        let message = soon("a message", stream.message()).await.unwrap().unwrap();
        got += size(&message);
    }
    let metrics = tokio::task::block_in_place(|| at_rest(admin));
    let rpc = format!("{LEGACY}/GetSignalSegment");
    let told = metrics.sum("mef3_calls_total", &[("rpc", &rpc)]);
    let left = metrics.get(&format!(
        "mef3_calls_total{{rpc=\"{rpc}\",code=\"CANCELLED\"}}"
    ));
    assert_eq!((told, left), (LEFT as f64, LEFT as f64));
    let sent = metrics.sum("mef3_call_sent_bytes_total", &[("rpc", &rpc)]);
    let samples = recordings.long.rate * recordings.long.seconds;
    let all = LEFT as f64 * recordings.long.channels() as f64 * samples as f64 * 8.0;
    println!("{got} bytes taken, {sent} sent of {all}");
    assert!(sent >= got as f64 && sent < all, "{got} taken, {sent} sent");
    for held in ["permits_awaited_bytes", "permits_ahead_bytes"] {
        assert_eq!(metrics.get(&format!("mef3_{held}")), 0.0, "{held}");
    }
}

/// Calls that are refused before any service sees them are calls, too.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_taken_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let hash = "a".repeat(64);
    let entry = format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroots = [\"/\"]\n");
    std::fs::write(&tokens, entry).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).unwrap();
    let server = launch().env("MEF3_SERVER_AUTH_TOKENS", &tokens).start();
    let admin = Admin::of(&server);
    let url = format!("http://{}", server.address);
    let mut client = RecordingServiceClient::connect(url).await.unwrap();
    let mut tally = Tally::default();
    for _ in 0..3 {
        let answer = client.get_recording(GetRecordingRequest::default()).await;
        let code = tally.one(&format!("{NATIVE}/GetRecording"), answer);
        assert_eq!(code, Code::Unauthenticated);
    }
    assert_told(&at_rest(&admin), &tally);
}
