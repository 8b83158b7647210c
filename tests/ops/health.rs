//! `grpc.health.v1`, and readiness that is found out by decoding.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::common::process::client::{Client, soon};
use super::common::process::session::{KnownSession, assert_same};
use super::common::process::{LIMIT, Server, signal};
use super::{Admin, launch};

/// Names of what is served only while something can be decoded.
const READY_NAMES: [&str; 4] = [
    "",
    "readiness",
    "gRPCMef3Server",
    "mef3.v1.RecordingService",
];

struct Health(HealthClient<Channel>);

impl Health {
    async fn of(server: &Server) -> Self {
        let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
        let channel = soon("connect", endpoint.connect()).await.unwrap();
        Self(HealthClient::new(channel))
    }

    async fn check(&mut self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = soon("check", self.0.check(request)).await;
        let answer = answer.map_err(|status| status.code())?;
        Ok(answer.into_inner().status())
    }

    async fn check_all(&mut self, expected: ServingStatus) {
        for name in READY_NAMES {
            assert_eq!(self.check(name).await, Ok(expected), "{name}");
        }
        assert_eq!(self.check("liveness").await, Ok(Serving));
    }

    async fn watch(&mut self, service: &str) -> Watch {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        Watch(self.0.watch(request).await.unwrap().into_inner())
    }
}

struct Watch(Streaming<HealthCheckResponse>);

impl Watch {
    /// The next status; nothing at the end of the stream.
    async fn next(&mut self) -> Option<ServingStatus> {
        let message = soon("news", self.0.message()).await.unwrap();
        message.map(|message| message.status())
    }

    /// Waits for a status.
    async fn until(&mut self, status: ServingStatus) {
        while self.next().await.expect("it ends") != status {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_while_its_workers_decode() {
    let server = launch().start();
    let admin = Admin::of(&server);
    let workers = server.workers_up(2);
    let mut health = Health::of(&server).await;
    let mut watch = health.watch("").await;
    watch.until(Serving).await;
    assert_eq!(admin.get("/readyz").status, 200);
    health.check_all(Serving).await;
    assert_eq!(health.check("nothing").await, Err(Code::NotFound));

    // One that hangs is no reason to send requests elsewhere.
    signal(workers[0].pid, Signal::STOP);
    tokio::time::sleep(Duration::from_secs(3)).await;
    health.check_all(Serving).await;
    signal(workers[1].pid, Signal::STOP);
    watch.until(NotServing).await;
    health.check_all(NotServing).await;
    let answer = admin.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no reader has answered"), "{answer:?}");
    assert_eq!(admin.get("/livez").status, 200);

    for worker in workers {
        signal(worker.pid, Signal::CONT);
    }
    watch.until(Serving).await;
    health.check_all(Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_are_replaced_before_anybody_is_sent_elsewhere() {
    let server = launch()
        .env("MEF3_SERVER_HEALTH_PROBE_LIMIT_S", "10")
        .start();
    let admin = Admin::of(&server);
    let workers = server.workers_up(2);
    admin.wait_for_readiness(200);
    for worker in &workers {
        signal(worker.pid, Signal::KILL);
    }
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(admin.get("/readyz").status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_the_server_itself_is_asked() {
    for (name, value) in [
        ("N_PROCESS_WORKERS", "0"),
        // No worker can be started, and the server stands in.
        ("TMPDIR", "/nonexistent"),
    ] {
        let server = launch().env(name, value).start();
        Admin::of(&server).wait_for_readiness(200);
        Health::of(&server).await.check_all(Serving).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_where_nobody_may_decode() {
    // No worker can be started, and the server must not stand in.
    let server = launch()
        .env("TMPDIR", "/nonexistent")
        .env("MEF3_SERVER_WORKERS_SANDBOX", "required")
        .start();
    let admin = Admin::of(&server);
    server.logged("the server is not ready");
    let answer = admin.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no worker can run"), "{answer:?}");
    assert_eq!(admin.get("/livez").status, 200);
    let mut health = Health::of(&server).await;
    health.check_all(NotServing).await;
    assert_eq!(health.watch("").await.next().await, Some(NotServing));
    assert_eq!(health.watch("liveness").await.next().await, Some(Serving));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_at_once_and_nobody_who_watches_delays_it() {
    let session = KnownSession::write(32, 1000, 120);
    let mut server = launch()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "20")
        .start();
    let admin = Admin::of(&server);
    admin.wait_for_readiness(200);
    let mut health = Health::of(&server).await;
    let mut watches = [health.watch("").await, health.watch("readiness").await];
    for watch in &mut watches {
        assert_eq!(watch.next().await, Some(Serving));
    }
    let mut liveness = health.watch("liveness").await;
    assert_eq!(liveness.next().await, Some(Serving));
    // A reply under way keeps the server here.
    let mut client = Client::with_open(server.address, &session).await;
    let mut reading = client.start(&session, &session.all()).await;
    assert!(reading.take().await.unwrap());

    let told = Instant::now();
    server.signal(Signal::TERM);
    for watch in &mut watches {
        assert_eq!(watch.next().await, Some(NotServing));
    }
    let took = told.elapsed();
    println!("the end was told within {took:?}");
    assert!(took < Duration::from_millis(100), "{took:?}");
    for watch in watches.iter_mut().chain([&mut liveness]) {
        assert_eq!(watch.next().await, None);
    }
    let answer = admin.get("/readyz");
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "the server is ending\n")
    );
    assert_eq!(admin.get("/livez").status, 200);

    let rows = reading.finish().await.unwrap();
    assert_same(&rows, &session.expected(&session.all()));
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    let cut = server.records_of("connections are cut at the end of the grace");
    assert_eq!(cut.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_watches_does_not_delay_the_end() {
    let mut server = launch()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "20")
        .start();
    let mut health = Health::of(&server).await;
    let mut watch = health.watch("").await;
    watch.until(Serving).await;
    let told = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(watch.next().await, Some(NotServing));
}
