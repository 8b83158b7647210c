//! The embedding API, with worker processes and without.
mod common;
use common::corpus;
use mef3_server::mef::{Rule, SampleValue};
use mef3_server::{Engine, ReadRequest};

procspawn::enable_test_support!();

fn engine(workers: usize) -> Engine {
    mef3_server::worker::init();
    Engine::builder()
        .workers(workers)
        .cache_mb(64)
        .start()
        .unwrap()
}

async fn read<T: SampleValue>(
    engine: &Engine,
    s: &corpus::Session,
    w: &corpus::Window,
    rule: Rule,
) -> Vec<T> {
    let recording = engine.open(&s.path).await.unwrap();
    let request = ReadRequest::new(&recording, w.start_uutc, w.end_uutc)
        .channels([w.channel.as_str()])
        .rule(rule)
        .columns_per_message(1000);
    let mut stream = engine.read::<T>(&request).unwrap();
    let mut all = Vec::new();
    while let Some(window) = stream.next().await {
        all.extend(window.unwrap().samples);
    }
    all
}

async fn corpus_through(engine: Engine) {
    for s in corpus::plain_sessions() {
        for w in s.windows() {
            let f: Vec<f64> = read(&engine, &s, &w, Rule::Mef3io).await;
            assert_eq!(
                f.len(),
                w.mef3io.len(),
                "{} {} {}",
                s.name,
                w.channel,
                w.kind
            );
            for (i, (a, b)) in f.iter().zip(&w.mef3io).enumerate() {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{} {} {} {i}: {a} {b}",
                    s.name,
                    w.channel,
                    w.kind
                );
            }
        }
    }
    println!("{:#?}", engine.statistics().await.unwrap());
    engine.shutdown().await;
}
#[tokio::test]
async fn with_workers() {
    corpus_through(engine(2)).await
}
#[tokio::test]
async fn in_process() {
    corpus_through(engine(0)).await
}
