//! Every error of the native service, over the wire: its status, its reason and its
//! details. What the protocol's document lists, the code can produce, and scenarios here
//! do, is the same.

mod common;

#[path = "native_errors/recordings.rs"]
mod recordings;
#[path = "native_errors/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::corpus::{self, Session};
use common::native::{Client, by_time};
use mef3_server::grpc::proto::native::{
    DamageInfo, GetRecordingRequest, ReadSignalRequest, TimeSpan,
};
use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::pb;

const PROTOCOL: &str = include_str!("../proto/mef3/v1/mef3.proto");
/// What only a defect that nobody knows of ends in.
const DEFECTS: [(&str, &str); 1] = [("INTERNAL", "UNEXPECTED")];
/// Scenarios at a time; each has a server.
const AT_A_TIME: usize = 3;

/// Statuses and reasons that were met and found right.
static PRODUCED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// What a status says beside its code and its text.
#[derive(Debug, Default)]
struct Details {
    reason: String,
    info: Vec<(String, String)>,
    fields: Vec<String>,
    quotas: Vec<String>,
    retry: Option<Duration>,
    damage: Option<DamageInfo>,
    request: String,
}

fn details(status: &Status) -> Details {
    let packed = pb::Status::decode(status.details()).unwrap();
    assert_eq!(packed.code, status.code() as i32);
    assert_eq!(packed.message, status.message());
    let mut details = Details::default();
    for any in packed.details {
        let name = any.type_url.strip_prefix("type.googleapis.com/").unwrap();
        let value = any.value.as_slice();
        match name {
            "google.rpc.ErrorInfo" => {
                let info = pb::ErrorInfo::decode(value).unwrap();
                assert_eq!(info.domain, "mef3");
                details.reason = info.reason;
                details.info = info.metadata.into_iter().collect();
            }
            "google.rpc.BadRequest" => {
                let bad = pb::BadRequest::decode(value).unwrap();
                details.fields = bad
                    .field_violations
                    .into_iter()
                    .map(|it| it.field)
                    .collect();
            }
            "google.rpc.QuotaFailure" => {
                let quota = pb::QuotaFailure::decode(value).unwrap();
                details.quotas = quota.violations.into_iter().map(|it| it.subject).collect();
            }
            "google.rpc.RetryInfo" => {
                let retry = pb::RetryInfo::decode(value).unwrap();
                details.retry = retry.retry_delay.and_then(|it| it.try_into().ok());
            }
            "google.rpc.RequestInfo" => {
                details.request = pb::RequestInfo::decode(value).unwrap().request_id;
            }
            "mef3.v1.DamageInfo" => details.damage = Some(DamageInfo::decode(value).unwrap()),
            other => panic!("{other}"),
        }
    }
    details
}

/// Fails where a status is not this one; gives what else it says.
fn assert_status(status: Status, code: Code, reason: &str) -> Details {
    let found = details(&status);
    assert_eq!(
        (status.code(), found.reason.as_str()),
        (code, reason),
        "{status:?}"
    );
    assert!(!status.message().is_empty());
    assert!(!found.request.is_empty(), "{status:?}");
    if let Some(id) = status.metadata().get("x-request-id") {
        assert_eq!(id, found.request.as_str());
    }
    let produced = (name_of(code), reason.to_owned());
    PRODUCED.lock().unwrap().insert(produced);
    found
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

pub async fn described(client: &mut Client, path: &Path) -> Result<TimeSpan, Status> {
    let request = GetRecordingRequest {
        recording: path.display().to_string(),
        ..GetRecordingRequest::default()
    };
    let answer = client.get_recording(request).await?.into_inner();
    Ok(answer.span.unwrap())
}

/// A healthy session, and a request for all of it.
pub async fn healthy(client: &mut Client) -> (Session, ReadSignalRequest) {
    let session = Session::load(&corpus::folder(), "eight_channels");
    let span = described(client, &session.path).await.unwrap();
    let request = by_time(&session.path, span.start_uutc, span.end_uutc);
    (session, request)
}

pub fn request_of(recording: &str) -> GetRecordingRequest {
    GetRecordingRequest {
        recording: recording.into(),
        ..GetRecordingRequest::default()
    }
}

type Scenario = (
    &'static str,
    fn() -> Pin<Box<dyn Future<Output = ()> + Send>>,
);

macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        [$((stringify!($name), || Box::pin($module::$name())),)*]
    };
}

const SCENARIOS: &[Scenario] = &scenarios![
    recordings::what_is_not_there,
    recordings::what_makes_no_sense,
    recordings::windows_that_no_recording_can_have,
    recordings::limits_are_named,
    recordings::a_path_out_of_the_host_root,
    recordings::damage_is_told_with_its_place,
    recordings::a_channel_of_which_nothing_can_be_read,
    recordings::files_that_are_replaced_while_they_are_read,
    recordings::what_is_protected,
    recordings::lists,
    servers::calls_without_a_right_token,
    servers::secrets_that_anybody_can_hear,
    servers::what_ends_workers,
    servers::nobody_who_may_read,
    servers::storage_that_refuses,
    servers::storage_that_does_not_answer,
    servers::too_much_at_a_time,
    servers::deadlines,
    servers::a_server_that_is_ending,
];

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_error_comes_over_the_wire_and_no_other() {
    let mut running = JoinSet::new();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    for &(name, scenario) in SCENARIOS {
        let places = Arc::clone(&places);
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let outcome = tokio::spawn(scenario()).await;
            outcome.err().map(|error| format!("{name}: {error}"))
        });
    }
    let failures: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert_eq!(failures, [""; 0]);

    let documented = documented();
    let mut met = PRODUCED.lock().unwrap().clone();
    met.extend(DEFECTS.map(|(code, reason)| (code.into(), reason.into())));
    let known = |pairs: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        pairs.iter().map(|(_, reason)| reason.clone()).collect()
    };
    let in_code = in_code();
    let listed = known(&documented);
    let undocumented: Vec<_> = in_code.difference(&listed).collect();
    assert!(
        undocumented.is_empty(),
        "not in the document: {undocumented:?}"
    );
    let unused: Vec<_> = listed.difference(&in_code).collect();
    assert!(unused.is_empty(), "not in the code: {unused:?}");
    let untested: Vec<_> = documented.difference(&met).collect();
    assert!(untested.is_empty(), "in no test: {untested:?}");
    let unlisted: Vec<_> = met.difference(&documented).collect();
    assert!(
        unlisted.is_empty(),
        "of another status than documented: {unlisted:?}"
    );
}

/// Statuses and reasons that the protocol's document lists: a line for each status, and
/// below it, further in, its reasons.
fn documented() -> BTreeSet<(String, String)> {
    let is_name =
        |word: &str| word.len() > 3 && word.bytes().all(|it| it.is_ascii_uppercase() || it == b'_');
    let mut pairs = BTreeSet::new();
    let mut code = String::new();
    let lines = PROTOCOL.lines().take_while(|line| line.starts_with("//"));
    for line in lines {
        if let Some(reasons) = line.strip_prefix("//     ") {
            let reasons: Vec<_> = reasons.trim_end_matches(',').split(", ").collect();
            if reasons.iter().all(|reason| is_name(reason)) {
                pairs.extend(reasons.iter().map(|it| (code.clone(), it.to_string())));
            }
        } else if let Some(status) = line.strip_prefix("//   ") {
            let word = status.split(' ').next().unwrap();
            if is_name(word) {
                code = word.into();
            }
        }
    }
    assert!(pairs.len() > 30, "{pairs:?}");
    pairs
}

/// Reasons in the code of the services: texts of capitals, each the second thing that a
/// refusal is made of.
fn in_code() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grpc")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Names of statuses, and of variables.
            if path.ends_with("metrics.rs") || path.ends_with("proto.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let texts = code.split('"').skip(1).step_by(2);
            let is_reason = |text: &&str| {
                text.len() > 3
                    && text.bytes().all(|it| it.is_ascii_uppercase() || it == b'_')
                    && !text.starts_with("CARGO_")
            };
            reasons.extend(texts.filter(is_reason).map(str::to_owned));
        }
    }
    assert!(reasons.len() > 30, "{reasons:?}");
    reasons
}
