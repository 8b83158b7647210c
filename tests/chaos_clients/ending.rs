//! The end of a server under clients of all kinds.

use std::time::{Duration, Instant};

use mef3_server::grpc::proto::ListOpenFilesRequest;
use mef3_server::grpc::proto::client::LegacyClient;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::common::process::session::assert_same;
use super::common::process::{LIMIT, all_gone};
use super::load::connect_narrowly;
use super::peers::{Greeting, half_open};
use super::{is_long, launch, session};

#[tokio::test(flavor = "multi_thread")]
async fn an_end_under_many_streams_finishes_those_that_are_read() {
    let session = session();
    let (streams, seconds, grace) = if is_long() {
        (100, 128, 20)
    } else {
        // Each longer than what is one message.
        (12, 48, 8)
    };
    let span = session.span(0..16, 0, seconds);
    let grace = Duration::from_secs(grace);
    let mut server = launch()
        .env(
            "MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S",
            grace.as_secs().to_string(),
        )
        .start();
    let workers = server.workers_up(2);
    let expected = session.expected(&span);
    let (begin, begun) = watch::channel(false);
    let mut readers = JoinSet::new();
    let mut never = None;
    let mut client = connect_narrowly(server.address, &session, 65_535).await;
    for number in 0..streams {
        // Ten streams to a connection, of a client that takes little unasked.
        if number % 10 == 0 {
            client = connect_narrowly(server.address, &session, 65_535).await;
        }
        let mut reading = client.start(&session, &span).await;
        assert!(reading.take().await.unwrap());
        if number == 0 {
            never = Some(reading);
            continue;
        }
        let mut begun = begun.clone();
        let expected = expected.clone();
        readers.spawn(async move {
            begun.wait_for(|&begun| begun).await.unwrap();
            let began = Instant::now();
            let rows = reading.finish().await;
            let rows = rows.unwrap_or_else(|error| panic!("{error} after {:?}", began.elapsed()));
            assert_same(&rows, &expected);
        });
    }
    let mut idle = LegacyClient::connect(format!("http://{}", server.address))
        .await
        .unwrap();
    let silent = half_open(server.address, Greeting::HalfAPreface).await;
    idle.list_open_files(ListOpenFilesRequest {}).await.unwrap();

    server.signal(Signal::TERM);
    let ended = Instant::now();
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(ended.elapsed() < Duration::from_secs(1), "still serving");
    }
    let closed = ended.elapsed();
    let refused = idle.list_open_files(ListOpenFilesRequest {}).await;
    // By status UNAVAILABLE, or by the goodbye of the connection, for which this client
    // has several codes.
    refused.unwrap_err();
    let refused = ended.elapsed();
    println!("not serving after {closed:?}, a call is refused after {refused:?}");
    assert!(refused < Duration::from_millis(100), "{refused:?}");

    begin.send_replace(true);
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    println!(
        "{} streams are complete after {:?}",
        streams - 1,
        ended.elapsed()
    );
    let status = server.wait(LIMIT);
    let took = ended.elapsed();
    println!("ended after {took:?}, with a grace of {grace:?}");
    assert_eq!(status.code(), Some(0), "{:#?}", server.records());
    assert!(took <= grace + Duration::from_secs(1), "{took:?}");
    assert!(all_gone(&workers), "{workers:?} outlive the server");
    assert_eq!(server.left_behind(), [""; 0]);
    assert_eq!(server.records_of("ended").len(), 1);
    // What is cut must not look complete.
    never.unwrap().finish().await.unwrap_err();
    drop(silent);
}
