//! Whoever asks how the server is hears it at once, however much the server has to do.
//!
//! `MEF3_LONG=1 cargo test --release --test ops saturated -- --nocapture` holds every
//! answer to 100 ms; a debug build on a loaded machine has longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::common::chaos::{by_form, is_long, percentile};
use super::common::native::by_time;
use super::common::process::client::soon;
use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, resident, until};
use super::{Admin, launch};

const CONNECTIONS: usize = 20;
const STREAMS: usize = 200;
const MIB: u64 = 1 << 20;
/// What the server may grow by: its cache, what all reads may hold, and what is on its
/// way to each client.
const GROWTH: u64 = 256 * MIB;
/// Answers of each kind that say something.
const LEAST: usize = 50;
/// How long an answer may take.
const PROMISED: Duration = Duration::from_millis(100);

/// Takes one reply after the other, and waits a while before some of the messages.
async fn read(
    channel: Channel,
    session: Arc<KnownSession>,
    pause: Duration,
    over: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
) {
    let all = session.all();
    let mut client = RecordingServiceClient::new(channel);
    while !over.load(Ordering::Relaxed) {
        let request = by_time(&session.path, all.start(), all.end());
        let stream = soon("a reply", client.read_signal(request)).await;
        let mut stream = stream.unwrap().into_inner();
        while soon("a message", stream.message()).await.unwrap().is_some() {
            messages.fetch_add(1, Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Times of answers.
#[derive(Default)]
struct Times {
    livez: Vec<Duration>,
    health: Vec<Duration>,
    /// With a connection made for it.
    connected: Vec<Duration>,
    /// How late a thread of this test wakes: what the machine adds to each.
    late: Vec<Duration>,
}

/// Asks from a thread of its own, so that the readers do not keep the answers waiting.
fn ask(admin: &Admin, url: &str, length: Duration) -> Times {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let connect = || {
        let endpoint = Channel::from_shared(url.to_owned()).unwrap();
        async move { HealthClient::new(soon("connect", endpoint.connect()).await.unwrap()) }
    };
    let check = async |client: &mut HealthClient<Channel>| {
        let answer = soon("check", client.check(HealthCheckRequest::default())).await;
        let status = answer.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    };
    let mut times = Times::default();
    let mut client = runtime.block_on(connect());
    let nap = Duration::from_millis(10);
    let end = Instant::now() + length;
    while Instant::now() < end || times.health.len() < LEAST {
        let began = Instant::now();
        std::thread::sleep(nap);
        times.late.push(began.elapsed().saturating_sub(nap));
        let began = Instant::now();
        assert_eq!(admin.get("/livez").status, 200);
        times.livez.push(began.elapsed());
        let began = Instant::now();
        runtime.block_on(check(&mut client));
        times.health.push(began.elapsed());
        let began = Instant::now();
        runtime.block_on(async { check(&mut connect().await).await });
        times.connected.push(began.elapsed());
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_while_two_hundred_streams_take_all_there_is() {
    let session = Arc::new(KnownSession::write(64, 1000, 30));
    let server = launch()
        // Whatever is read has to be decoded again and again.
        .env("MEF3_SERVER_CACHE_SIZE_MB", "4")
        .env("MEF3_SERVER_HEALTH_PROBE_LIMIT_S", "30")
        .start();
    let admin = Admin::of(&server);
    admin.wait_for_readiness(200);
    let url = format!("http://{}", server.address);
    let before = resident(server.pid());
    let (over, messages) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut readers = Vec::new();
    for number in 0..CONNECTIONS {
        let endpoint = Channel::from_shared(url.clone()).unwrap();
        let channel = soon("connect", endpoint.connect()).await.unwrap();
        for stream in 0..STREAMS / CONNECTIONS {
            // Some take what they can, and others little.
            let pause = Duration::from_millis(20 * (stream as u64 % 3) * (number as u64 % 5));
            let (over, messages) = (Arc::clone(&over), Arc::clone(&messages));
            let session = Arc::clone(&session);
            readers.push(tokio::spawn(read(
                channel.clone(),
                session,
                pause,
                over,
                messages,
            )));
        }
    }
    until("all streams are under way", LIMIT, || {
        admin.metrics().get("mef3_streams") >= STREAMS as f64 * 0.9
    });
    let taken_before = messages.load(Ordering::Relaxed);
    let began = Instant::now();
    let times = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                ask(
                    &admin,
                    &url,
                    by_form(Duration::from_secs(4), Duration::from_secs(30)),
                )
            });
            asking.join().unwrap()
        })
    });
    let (took, taken) = (
        began.elapsed(),
        messages.load(Ordering::Relaxed) - taken_before,
    );
    let grown = resident(server.pid()).saturating_sub(before);
    let streams = admin.metrics().get("mef3_streams");
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    println!(
        "{streams} streams, {taken} messages in {took:?}, memory grown by {} MiB",
        grown / MIB
    );
    let late = percentile(&times.late, 100.0);
    for (what, times) in [
        ("a thread wakes late by", &times.late),
        ("/livez", &times.livez),
        ("Health.Check", &times.health),
        ("connection and Health.Check", &times.connected),
    ] {
        let [half, most, longest] = [50.0, 99.0, 100.0].map(|part| percentile(times, part));
        println!("{what}: median {half:?}, p99 {most:?}, longest {longest:?}");
        let allowed = match is_long() {
            true => PROMISED,
            false => 10 * (PROMISED + late),
        };
        assert!(
            longest <= allowed,
            "{what}: {longest:?}, allowed {allowed:?}"
        );
    }
    // Otherwise nothing was saturated.
    assert!(streams >= STREAMS as f64 * 0.5, "{streams} streams");
    assert!(taken > 200, "{taken} messages");
    assert!(grown <= GROWTH, "{grown} bytes");
}
