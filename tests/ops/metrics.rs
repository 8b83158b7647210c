//! What `/metrics` says of reads.

use super::common::process::client::Client;
use super::common::process::session::{KnownSession, name};
use super::common::process::{LIMIT, until};
use super::{Admin, launch};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_counted() {
    let session = KnownSession::write(4, 1000, 60);
    let server = launch().start();
    let admin = Admin::of(&server);
    admin.wait_for_readiness(200);
    let before = admin.metrics();
    assert_eq!(before.get("mef3_ready"), 1.0);
    assert_eq!(before.get("mef3_pages_decoded_total"), 0.0);

    let mut client = Client::with_open(server.address, &session).await;
    let all = session.all();
    client.read_right(&session, &all).await;
    client.read_right(&session, &all).await;
    // Cut by the client.
    let mut cut = client.start(&session, &all).await;
    assert!(cut.take().await.unwrap());
    drop(cut);
    let rpc = "rpc=\"gRPCMef3Server/GetSignalRange\"";
    let ended = format!("mef3_calls_total{{{rpc},code=\"OK\"}}");
    until("the reads are counted", LIMIT, || {
        let metrics = admin.metrics();
        metrics.get(&ended) >= 2.0
            && metrics.get(&format!("mef3_calls_running{{{rpc}}}")) == 0.0
            && metrics.get("mef3_permits_ahead_bytes") == 0.0
    });
    let metrics = admin.metrics();
    let calls =
        metrics.get(&ended) + metrics.get(&format!("mef3_calls_total{{{rpc},code=\"CANCELLED\"}}"));
    assert_eq!(calls, 3.0);
    let counted = metrics.get(&format!("mef3_call_latency_seconds_count{{{rpc}}}"));
    assert_eq!(counted, 3.0);
    let sent = metrics.get(&format!("mef3_call_sent_bytes_total{{{rpc}}}"));
    let samples = (4 * 1000 * 60 * size_of::<f32>()) as f64;
    assert!(sent > 2.0 * samples && sent < 3.1 * samples, "{sent}");
    let decoded = metrics.get("mef3_pages_decoded_total");
    assert!(decoded > 10.0);
    assert!(metrics.get("mef3_cache_misses_total") >= decoded);
    assert!(metrics.get("mef3_cache_hits_total") >= decoded);
    assert!(metrics.get("mef3_cache_bytes") > 0.0);
    assert!(metrics.get("mef3_queue_delay_seconds_count") >= decoded);
    assert_eq!(metrics.get("mef3_recordings_open"), 1.0);
    assert_eq!(metrics.get("mef3_workers{state=\"ready\"}"), 2.0);
    assert_eq!(metrics.get("mef3_degraded"), 0.0);
    assert!(metrics.get("mef3_connections_accepted_total") >= 1.0);

    let text = admin.get("/metrics").body;
    for private in [session.key(), "known".into(), name(0)] {
        assert!(!text.contains(&private), "{private} in the metrics");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_workers_are_counted() {
    let server = launch().start();
    let admin = Admin::of(&server);
    let workers = server.workers_up(2);
    super::common::process::signal(workers[0].pid, rustix::process::Signal::KILL);
    until("the restart is counted", LIMIT, || {
        admin.metrics().get("mef3_worker_restarts_total") == 1.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_end_workers_are_counted_as_given_up() {
    let session = KnownSession::write(1, 1000, 60);
    std::fs::write(session.path.join(".fault"), "do abort\nblocks 0..1\n").unwrap();
    let server = launch().start();
    let admin = Admin::of(&server);
    admin.wait_for_readiness(200);
    let mut client = Client::with_open(server.address, &session).await;
    let error = client.read(&session, &session.all()).await.unwrap_err();
    assert!(error.contains("has ended 2 workers"), "{error}");
    let metrics = admin.metrics();
    assert_eq!(metrics.get("mef3_pages_quarantined"), 1.0);
    assert_eq!(metrics.get("mef3_jobs_lost_total"), 2.0);
    assert_eq!(admin.get("/readyz").status, 200);
}
