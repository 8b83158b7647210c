//! Work follows demand: what nobody wants is left off, a prediction makes way for a
//! request, and there are as many workers as there is work for.
//!
//! With `MEF3_LONG=1` there are more rounds and the limits of time are those that the
//! server promises; otherwise a loaded machine and a debug build are allowed for.

mod common;

use std::time::{Duration, Instant};

use common::chaos::{is_long, percentile, spoil};
use common::engine::{
    Served, idle, opened, pages_of, reach, read_right, request, rest_of, start, statistics,
    with_workers,
};
use common::process::client::{Client, soon};
use common::process::session::{KnownSession, assert_same};
use mef3_server::Statistics;

procspawn::enable_test_support!();

/// A session whose every page takes a worker so many milliseconds.
fn slow_session(channels: u32, milliseconds: u32) -> KnownSession {
    let session = KnownSession::write(channels, 1024, 64);
    spoil(&session.path, &format!("do slow {milliseconds}\n"));
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_dropped_stops_the_worker_before_its_next_page() {
    let session = slow_session(16, 10);
    let engine = start(with_workers(1, 1));
    let recording = opened(&engine, &session).await;
    let rounds = if is_long() { 300 } else { 20 };
    let mut took = Vec::new();
    for round in 0..rounds {
        let before = statistics(&engine).await.coordinator.decoded;
        // Another channel each time, or the cache would have it.
        let channel = round % 16;
        let span = session.span(channel..channel + 1, 0, 64);
        let mut windows = engine.read::<f32>(&request(&recording, &span)).unwrap();
        let waiting = tokio::spawn(async move { windows.next().await.is_some() });
        reach(&engine, "the worker is at it", |now| {
            now.supervisor.workers[0].jobs > 0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(15)).await;
        let dropped = Instant::now();
        waiting.abort();
        let now = reach(&engine, "nothing is in flight", |now| {
            now.coordinator.in_flight == 0 && now.supervisor.workers[0].jobs == 0
        })
        .await;
        took.push(dropped.elapsed());
        let decoded = now.coordinator.decoded - before;
        assert!(decoded < 16, "all {decoded} pages were decoded");
        // So that the next round finds nothing of this one.
        soon("close", engine.close(&session.path)).await.unwrap();
        let again = opened(&engine, &session).await;
        assert_eq!(again.info().channels.len(), 16);
    }
    let p99 = percentile(&took, 99.0);
    println!("{rounds} reads dropped: workers idle after {p99:?} (p99)");
    let limit = if is_long() { 100 } else { 1000 };
    assert!(p99 < Duration::from_millis(limit), "{p99:?}");
    assert!(statistics(&engine).await.coordinator.cancelled_jobs > 0);
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_reaches_the_worker() {
    let session = slow_session(16, 10);
    let engine = start(with_workers(1, 1));
    let served = Served::start(&engine);
    let mut client = Client::with_open(served.address, &session).await;
    let rounds = if is_long() { 100 } else { 5 };
    let given = Duration::from_millis(100);
    let mut late = Vec::new();
    for channel in (0..16).cycle().take(rounds) {
        let span = session.span(channel..channel + 1, 0, 64);
        let began = Instant::now();
        let ended = client.read_within(given, &session, &span).await;
        let text = ended.unwrap_err();
        assert!(text.contains("deadline"), "{text}");
        reach(&engine, "nothing is in flight", |now| {
            now.coordinator.in_flight == 0 && now.supervisor.workers[0].jobs == 0
        })
        .await;
        late.push(began.elapsed().saturating_sub(given));
        client.close(&session.key()).await;
        client.open(&session.key()).await.unwrap();
    }
    let p99 = percentile(&late, 99.0);
    println!("{rounds} deadlines: workers idle {p99:?} after them (p99)");
    let limit = if is_long() { 100 } else { 1000 };
    assert!(p99 < Duration::from_millis(limit), "{p99:?}");
    drop(client);
    served.end().await;
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_read_wants_goes_on_and_is_decoded_once() {
    let session = slow_session(4, 5);
    let span = session.all();
    let pages = pages_of(&session, &span).await;
    let engine = start(with_workers(1, 1));
    let recording = opened(&engine, &session).await;
    let mut dropped = engine.read::<f32>(&request(&recording, &span)).unwrap();
    let kept = engine.read::<f32>(&request(&recording, &span)).unwrap();
    let waiting = tokio::spawn(async move { dropped.next().await.is_some() });
    let kept = tokio::spawn(rest_of(kept, 4));
    reach(&engine, "both wait", |now| now.coordinator.joined > 0).await;
    waiting.abort();
    let rows = kept.await.unwrap().unwrap();
    assert_same(&rows, &session.expected(&span));
    let coordinator = idle(&engine).await.coordinator;
    assert_eq!(coordinator.decoded, pages, "{coordinator:?}");
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_makes_way_for_a_request_and_is_finished_later() {
    let session = slow_session(16, 20);
    let mut config = with_workers(1, 1);
    config.prefetch.max_mb = 64;
    config.prefetch.ahead_windows = 1;
    config.prefetch.behind_windows = 0;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    // After this, the next page of 15 channels is predicted.
    let shown = request(&recording, &session.span(0..15, 0, 4)).reader(1);
    rest_of(engine.read(&shown).unwrap(), 15).await.unwrap();
    reach(&engine, "the prediction is under way", |now| {
        now.prefetch.predicted_windows > 0 && now.supervisor.workers[0].jobs > 0
    })
    .await;
    let span = session.span(15..16, 40, 41);
    let asked = Instant::now();
    let wanted = request(&recording, &span).reader(2);
    let rows = rest_of(engine.read(&wanted).unwrap(), 1).await.unwrap();
    let took = asked.elapsed();
    assert_same(&rows, &session.expected(&span));
    // The page at hand and its own, not the whole job of 15.
    let limit = if is_long() { 100 } else { 250 };
    println!("a request behind a prediction: {took:?}");
    assert!(took < Duration::from_millis(limit), "{took:?}");
    let now = idle(&engine).await;
    assert!(now.coordinator.cancelled_jobs > 0, "{now:#?}");
    assert!(now.coordinator.decoded_for_predictions > 0, "{now:#?}");
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_while_requests_wait_and_go_when_there_is_nothing_to_do() {
    let session = std::sync::Arc::new(slow_session(16, 5));
    let mut config = with_workers(1, 3);
    config.workers.shrink_idle_s = 1;
    let engine = start(config);
    opened(&engine, &session).await;
    let ready = |now: &Statistics| {
        let workers = now.supervisor.workers.iter();
        workers.filter(|worker| worker.pid.is_some()).count()
    };
    assert_eq!(ready(&statistics(&engine).await), 1);
    let readers: Vec<_> = (0..8)
        .map(|number| {
            let (engine, session) = (engine.clone(), session.clone());
            tokio::spawn(async move {
                let span = session.span(number * 2..number * 2 + 2, 0, 64);
                read_right(&engine, &session, &span).await;
            })
        })
        .collect();
    let grown = reach(&engine, "three workers", |now| ready(now) == 3).await;
    assert_eq!(grown.supervisor.grown, 2);
    for reader in readers {
        reader.await.unwrap();
    }
    let shrunk = reach(&engine, "one worker", |now| ready(now) == 1).await;
    assert_eq!(shrunk.supervisor.shrunk, 2);
    assert!(!shrunk.supervisor.in_process);
    let restarts = shrunk.supervisor.workers.iter().map(|it| it.restarts);
    assert_eq!(restarts.sum::<u64>(), 0, "{:#?}", shrunk.supervisor);
    read_right(&engine, &session, &session.span(0..1, 10, 20)).await;
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_behind_a_page_that_hangs() {
    let bad = KnownSession::write(1, 1024, 4);
    spoil(&bad.path, "do loop\n");
    let good = KnownSession::write(16, 1024, 64);
    // The page is not found out before the end of the test.
    let mut config = with_workers(2, 2);
    config.workers.stall_limit_s = 600;
    let engine = start(config);
    let recording = opened(&engine, &bad).await;
    opened(&engine, &good).await;
    let hangs = request(&recording, &bad.all());
    let mut hangs = engine.read::<f32>(&hangs).unwrap();
    let hanging = tokio::spawn(async move { hangs.next().await.is_some() });
    reach(&engine, "a worker hangs", |now| {
        now.supervisor.workers.iter().any(|worker| worker.jobs > 0)
    })
    .await;
    let mut longest = Duration::ZERO;
    for second in 0..64 {
        let asked = Instant::now();
        read_right(&engine, &good, &good.span(0..16, second, second + 1)).await;
        longest = longest.max(asked.elapsed());
    }
    println!("beside a page that hangs: the longest read took {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert!(!hanging.is_finished());
    hanging.abort();
    soon("shutdown", engine.shutdown()).await;
}
