//! How long pages may take, and how much they may hold.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use mef3_server::grpc::proto::native::WatchRecordingRequest;
use tonic::Code;

use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, until};
use super::page::{Form, send};
use super::{FORMS, GET, READ, all_of, launch, page, recording};

const WATCH: &str = "/mef3.v1.RecordingService/WatchRecording";

fn watch(session: &KnownSession) -> WatchRecordingRequest {
    WatchRecordingRequest {
        recording: session.key(),
    }
}

#[test]
fn who_waits_over_http_1_is_not_taken_for_gone_and_hears_of_the_deadline() {
    let session = KnownSession::write(1, 256, 10);
    let server = launch()
        .env("MEF3_SERVER_SERVER_KEEPALIVE_INTERVAL_S", "1")
        .env("MEF3_SERVER_SERVER_KEEPALIVE_LIMIT_S", "1")
        .start();
    for form in FORMS {
        let page = page(&server, form).with("grpc-timeout", "4S");
        let begun = Instant::now();
        let reply = page.call(WATCH, &watch(&session));
        assert!(begun.elapsed() >= Duration::from_secs(4));
        assert_eq!(reply.messages.len(), 1);
        assert!(reply.trailers.is_some());
        assert_eq!(reply.code(), Code::DeadlineExceeded);
    }
    assert_eq!(server.records_of("connection is cut").len(), 0);
}

#[test]
fn pages_have_the_limits_of_others() {
    let session = KnownSession::write(1, 256, 10);
    let server = launch()
        .env("MEF3_SERVER_LIMITS_STREAMS", "1")
        .env("MEF3_SERVER_LIMITS_REQUEST_MESSAGE_KB", "1")
        .env("MEF3_SERVER_SERVER_REQUEST_LIMIT_S", "1")
        .env("MEF3_SERVER_SERVER_HANDSHAKE_LIMIT_S", "1")
        .start();
    for form in FORMS {
        let page = page(&server, form);
        let long = recording("/a".repeat(2000));
        assert_eq!(page.call(GET, &long).code(), Code::OutOfRange);

        // One that says where it is all the time is the only one.
        let mut waiting = page.connect();
        waiting
            .write_all(&page.request(WATCH, &watch(&session)))
            .unwrap();
        waiting.read_exact(&mut [0; 64]).unwrap();
        let refused = page.call(GET, &recording(&session.path));
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.headers.contains_key("grpc-retry-pushback-ms"));
        drop(waiting);
        until("its place is free", LIMIT, || {
            page.call(GET, &recording(&session.path)).code() == Code::Ok
        });

        // A request that never comes wholly, and one that does not even begin.
        let whole = page.request(GET, &recording(&session.path));
        let cut = send(page.connect(), &whole[..whole.len() - 4]).unwrap();
        assert_eq!(page.reply(cut).code(), Code::DeadlineExceeded);
        send(page.connect(), &whole[..40])
            .map(|answer| panic!("{answer:?}"))
            .unwrap_err();
    }
    // An open connection that nobody uses.
    let mut idle = page(&server, Form::Binary).connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: mef3\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    // It may be reset.
    let _ = idle.read_to_end(&mut rest);
    assert!(rest.starts_with(b"HTTP/1.1 415"));
}

#[test]
fn a_page_that_takes_nothing_holds_nothing() {
    let session = KnownSession::write(16, 1000, 600);
    let server = launch()
        .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", "1")
        .start();
    for form in FORMS {
        let page = page(&server, form);
        let mut stream = page.connect();
        let request = page.request(READ, &all_of(&session));
        stream.write_all(&request).unwrap();
        let times = 1 + usize::from(form == Form::Text);
        until("the connection is cut", LIMIT, || {
            server.records_of("connection is cut").len() == times
        });
        // The end is missing, so that nobody takes it for the whole.
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        assert!(ended.is_err() || !bytes.ends_with(b"0\r\n\r\n"));
    }
    let reason = &server.records_of("connection is cut")[0]["reason"];
    assert_eq!(reason, "nothing is taken");
    assert_eq!(
        server
            .records_of("reply is given up: nothing is taken")
            .len(),
        2
    );
}
