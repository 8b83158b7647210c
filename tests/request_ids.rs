//! A request has a name, by which it is found again: in its reply, in what goes wrong, and
//! in each line of the log that is about it, also of the worker that has decoded for it.

mod common;

use common::chaos::spoil;
use common::native::{Client, by_time, with_password};
use common::process::client::soon;
use common::process::session::{KnownSession, START};
use common::process::{LIMIT, Launch, Server, until};
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::{GetRecordingRequest, GetStatsRequest, ReadSignalRequest};
use mef3_server::grpc::proto::{ListOpenFilesRequest, OpenFileRequest};
use mef3_server::mef::{ChannelOptions, Passwords, SessionOptions, SessionWriter};
use rustix::process::Signal;
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn launch(level: &str) -> Launch {
    Launch::new()
        .env("MEF3_SERVER_LOG_LEVEL", level)
        // What is decoded is decoded for the request that wants it.
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
}

async fn connect(server: &Server) -> Client {
    let url = format!("http://{}", server.address);
    RecordingServiceClient::connect(url).await.unwrap()
}

fn named<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", id.parse().unwrap());
    request
}

fn id_in(metadata: &MetadataMap) -> String {
    let id = metadata.get("x-request-id").expect("an id in the reply");
    id.to_str().unwrap().to_owned()
}

fn whole(session: &KnownSession) -> ReadSignalRequest {
    let all = session.all();
    by_time(&session.path, all.start(), all.end())
}

/// Takes a whole reply: its id, and how it has ended.
async fn read(
    client: &mut Client,
    request: Request<ReadSignalRequest>,
) -> (String, Result<(), Status>) {
    let answer = soon("a reply", client.read_signal(request)).await.unwrap();
    let id = id_in(answer.metadata());
    let mut stream = answer.into_inner();
    loop {
        match soon("a message", stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return (id, Ok(())),
            Err(status) => return (id, Err(status)),
        }
    }
}

/// Records with this message that are about a request.
fn about(server: &Server, message: &str, id: &str) -> Vec<Value> {
    let is_about = |record: &Value| {
        let names = |field: &Value| {
            let ids = field.as_str().unwrap_or_default();
            ids.split(',').any(|it| it == id)
        };
        let span = &record["span"];
        names(&span["request"]) || names(&span["requests"]) || names(&record["requests"])
    };
    let mut records = server.records_of(message);
    records.retain(is_about);
    records
}

/// The first of them, when it comes.
fn logged(server: &Server, message: &str, id: &str) -> Value {
    until(&format!("{message:?} of {id}"), LIMIT, || {
        !about(server, message, id).is_empty()
    });
    about(server, message, id).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_again_from_its_reply_to_its_worker() {
    let server = launch("debug").start();
    let workers = server.workers_up(2);
    let session = KnownSession::write(2, 256, 40);
    let mut client = connect(&server).await;
    let (id, read_well) = read(&mut client, named("night-7/a", whole(&session))).await;
    read_well.unwrap();
    assert_eq!(id, "night-7/a");
    let ended = logged(&server, "call has ended", &id);
    assert_eq!(ended["code"], "OK");
    assert_eq!(ended["span"]["rpc"], "mef3.v1.RecordingService/ReadSignal");
    logged(&server, "recording opened", &id);
    for work in ["open", "decode"] {
        until(work, LIMIT, || {
            let jobs = about(&server, "job has ended", &id);
            jobs.iter().any(|job| job["span"]["work"] == work)
        });
    }
    for job in about(&server, "job has ended", &id) {
        assert!(workers.iter().any(|it| job["pid"] == it.pid), "{job}");
        assert_eq!(job["level"], "DEBUG");
    }

    // Another request is not taken for it, and has a name without having given one.
    let begun = about(&server, "job has ended", &id).len();
    let (other, _) = read(&mut client, Request::new(whole(&session))).await;
    assert_eq!(other.len(), 32);
    logged(&server, "call has ended", &other);
    assert_eq!(about(&server, "job has ended", &id).len(), begun);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_workers_names_the_request() {
    let server = launch("info").start();
    let workers = server.workers_up(2);
    let mut client = connect(&server).await;
    let session = KnownSession::write(1, 256, 40);
    spoil(&session.path, "do panic");
    let (id, outcome) = read(&mut client, named("panics", whole(&session))).await;
    let status = outcome.unwrap_err();
    // Also where there are no lines of parts.
    logged(&server, "recording opened", &id);
    assert_eq!(status.code(), Code::Internal);
    let details = status.get_error_details();
    assert_eq!(details.request_info().unwrap().request_id, id);
    let line = logged(&server, "worker panicked", &id);
    assert!(workers.iter().any(|it| line["pid"] == it.pid), "{line}");
    assert!(line["at"].as_str().unwrap().contains("faults.rs"), "{line}");
    for message in ["decoder panicked", "page is given up", "call failed"] {
        logged(&server, message, &id);
    }
    assert!(server.records_of("job has ended").is_empty());

    let session = KnownSession::write(1, 256, 40);
    spoil(&session.path, "do abort\nblocks 0..1");
    let (id, outcome) = read(&mut client, named("aborts", whole(&session))).await;
    assert_eq!(outcome.unwrap_err().code(), Code::DataLoss);
    let lost = logged(&server, "job has lost its reader", &id);
    assert_eq!(lost["level"], "WARN");
    logged(&server, "page is given up", &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_has_a_name_and_a_bad_one_is_replaced() {
    let server = launch("info").start();
    let mut client = connect(&server).await;
    let mut called = async |name: &str, value: &str| {
        let mut request = Request::new(GetStatsRequest {});
        let value = value.parse().unwrap();
        let key: tonic::metadata::AsciiMetadataKey = name.parse().unwrap();
        request.metadata_mut().insert(key, value);
        id_in(client.get_stats(request).await.unwrap().metadata())
    };
    assert_eq!(called("x-request-id", "a-b_c.1").await, "a-b_c.1");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    assert_eq!(called("traceparent", &parent).await, trace);
    for bad in ["two words", "", &"x".repeat(129)] {
        let id = called("x-request-id", bad).await;
        assert!(id.len() == 32 && id != trace, "{bad:?}: {id}");
    }
    // What is refused, by a service and before it, and what the older one answers.
    let request = named("refused", GetRecordingRequest::default());
    let status = client.get_recording(request).await.unwrap_err();
    assert_eq!(id_in(status.metadata()), "refused");
    let info = status.get_error_details();
    assert_eq!(info.request_info().unwrap().request_id, "refused");
    let url = format!("http://{}", server.address);
    let mut legacy = LegacyClient::connect(url).await.unwrap();
    let request = named("old", ListOpenFilesRequest {});
    let answer = legacy.list_open_files(request).await.unwrap();
    assert_eq!(id_in(answer.metadata()), "old");
    let open = OpenFileRequest {
        file_path: "nowhere.mefd".into(),
        ..OpenFileRequest::default()
    };
    legacy
        .open_file(named("old open", open.clone()))
        .await
        .unwrap();
    legacy.open_file(named("old-open", open)).await.unwrap();
    logged(&server, "open refused", "old-open");
    assert!(about(&server, "open refused", "old open").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_holds_a_password_or_who_was_recorded() {
    let mut server = launch("trace").start();
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("protected.mefd");
    let password = "second-word-789";
    let names = ["Weatherwax-Esme", "Of-Lancre-County", "patient-4711"];
    let options = SessionOptions {
        passwords: Some(Passwords::new("first-word-123", password).unwrap()),
        subject_name_1: names[0].into(),
        subject_name_2: names[1].into(),
        subject_id: names[2].into(),
        ..SessionOptions::default()
    };
    let mut session = SessionWriter::create(&path, options).unwrap();
    let mut channel = session.channel(ChannelOptions::new("ch", 100.0)).unwrap();
    channel.write(START, &[7; 1000]).unwrap();
    channel.finish().unwrap();
    let request = || GetRecordingRequest {
        recording: path.display().to_string(),
        ..GetRecordingRequest::default()
    };
    let answer = client.get_recording(with_password(request(), Some(password)));
    let answer = answer.await.unwrap().into_inner();
    let (span, subject) = (answer.span.unwrap(), answer.subject.unwrap());
    let mut all = with_password(
        by_time(&path, span.start_uutc, span.end_uutc),
        Some(password),
    );
    all.metadata_mut()
        .insert("x-request-id", "secret-keeper".parse().unwrap());
    let (id, read_well) = read(&mut client, all).await;
    read_well.unwrap();
    let wrong = with_password(request(), Some("not-this-one"));
    client.get_recording(wrong).await.unwrap_err();
    logged(&server, "job has ended", &id);
    server.signal(Signal::TERM);
    server.wait(LIMIT);
    let log = Value::Array(server.records()).to_string();
    assert_eq!([subject.name_1, subject.name_2, subject.id], names);
    for text in names.into_iter().chain([password, "not-this-one"]) {
        assert!(!log.contains(text), "{text:?} is in the log");
    }
}
