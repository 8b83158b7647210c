//! The native service lists the recordings below its data roots, and reads them by id.

mod common;

use std::fs;
use std::path::Path;

use common::native::{self, Client, by_time, connect};
use common::server::Server;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, ListRecordingsRequest, ListRecordingsResponse, TimeSpan,
};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tonic::{Code, Status};

const START: i64 = 1_700_000_000_000_000;
const HOUR: i64 = 3_600_000_000;

/// A session of one second.
fn write_session(path: &Path, start: i64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    let options = ChannelOptions::new("ch", 100.0);
    let mut channel = session.channel(options).unwrap();
    channel.write(start, &[7; 100]).unwrap();
    channel.finish().unwrap();
}

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (number, name) in ["a", "b/c", "b/d", "e"].iter().enumerate() {
            let path = folder.path().join(format!("eeg/{name}.mefd"));
            write_session(&path, START + number as i64 * HOUR);
        }
        write_session(&folder.path().join("other/z.mefd"), START);
        fs::create_dir(folder.path().join("other/empty.mefd")).unwrap();
        Self { folder }
    }

    fn serve(&self, entries: &str) -> Server {
        let folder = self.folder.path().display();
        let roots = format!("{folder}/eeg:second={folder}/other");
        Server::start_with(|serve| {
            serve
                .env("MEF3_SERVER_PATHS_DATA_ROOTS", roots)
                .env("MEF3_SERVER_LIMITS_LISTING_ENTRIES", entries);
        })
    }
}

async fn page(
    client: &mut Client,
    request: &ListRecordingsRequest,
) -> Result<ListRecordingsResponse, Status> {
    let answer = client.list_recordings(request.clone()).await?;
    Ok(answer.into_inner())
}

/// Ids of all pages, and the problems with them.
async fn all(
    client: &mut Client,
    mut request: ListRecordingsRequest,
) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut problems) = (Vec::new(), Vec::new());
    loop {
        let answer = page(client, &request).await.unwrap();
        for recording in answer.recordings {
            assert_eq!(
                recording.id,
                format!("{}:{}", recording.root, recording.path)
            );
            assert!(recording.modified_uutc > START && !recording.is_archive);
            if !recording.problem.is_empty() {
                problems.push(recording.problem);
            }
            ids.push(recording.id);
        }
        problems.extend(answer.problems);
        if answer.next_page_token.is_empty() {
            return (ids, problems);
        }
        request.page_token = answer.next_page_token;
    }
}

const ALL: [&str; 6] = [
    "eeg:a.mefd",
    "eeg:b/c.mefd",
    "eeg:b/d.mefd",
    "eeg:e.mefd",
    "second:empty.mefd",
    "second:z.mefd",
];

#[tokio::test]
async fn every_recording_is_listed_once_and_read_by_its_id() {
    let lab = Lab::new();
    for entries in ["1", "2", "100000"] {
        let server = lab.serve(entries);
        let mut client = connect(&server).await;
        for page_size in [0, 1, 2, 5] {
            let request = ListRecordingsRequest {
                page_size,
                ..ListRecordingsRequest::default()
            };
            let (ids, problems) = all(&mut client, request).await;
            assert_eq!(ids, ALL, "{entries}, {page_size}");
            assert!(problems.is_empty(), "{problems:?}");
        }
    }
    let server = lab.serve("100000");
    let mut client = connect(&server).await;
    let signal = by_time(
        Path::new("eeg:b/d.mefd"),
        START + 2 * HOUR,
        START + 3 * HOUR,
    );
    let signal = native::read(&mut client, signal, None).await.unwrap();
    assert_eq!(signal.rows[0].cells.len(), 360_000);
    let out = by_time(Path::new("eeg:../../etc/passwd"), START, START + HOUR);
    let refused = native::read(&mut client, out, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_list_is_of_a_root_a_pattern_and_a_span() {
    let lab = Lab::new();
    let server = lab.serve("100000");
    let mut client = connect(&server).await;
    let in_root = |root: &str, pattern: &str| ListRecordingsRequest {
        root: root.into(),
        pattern: pattern.into(),
        ..ListRecordingsRequest::default()
    };
    let (ids, _) = all(&mut client, in_root("second", "")).await;
    assert_eq!(ids, ALL[4..]);
    let (ids, _) = all(&mut client, in_root("", "*.mefd")).await;
    assert_eq!(ids, [ALL[0], ALL[3], ALL[4], ALL[5]]);
    let (ids, _) = all(&mut client, in_root("eeg", "**/{c,e}.mefd")).await;
    assert_eq!(ids, [ALL[1], ALL[3]]);
    let span = |start_uutc, end_uutc| ListRecordingsRequest {
        span: Some(TimeSpan {
            start_uutc,
            end_uutc,
        }),
        ..ListRecordingsRequest::default()
    };
    let (ids, problems) = all(&mut client, span(START + HOUR, START + 2 * HOUR + 1)).await;
    // What cannot be opened may have samples there.
    assert_eq!(ids, [ALL[1], ALL[2], ALL[4]]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let answer = page(&mut client, &span(START, START + 1)).await.unwrap();
    let found = answer.recordings[0].span.unwrap();
    assert_eq!(
        (found.start_uutc, found.end_uutc),
        (START, START + 1_000_000)
    );
}

#[tokio::test]
async fn what_cannot_be_listed_says_why() {
    let lab = Lab::new();
    let server = lab.serve("100000");
    let mut client = connect(&server).await;
    let request = ListRecordingsRequest::default;
    let token = ListRecordingsRequest {
        page_size: 1,
        ..request()
    };
    let token = page(&mut client, &token).await.unwrap().next_page_token;
    let cases = [
        (
            ListRecordingsRequest {
                root: "third".into(),
                ..request()
            },
            Code::NotFound,
        ),
        (
            ListRecordingsRequest {
                pattern: "[".into(),
                ..request()
            },
            Code::InvalidArgument,
        ),
        (
            ListRecordingsRequest {
                page_token: token,
                pattern: "*".into(),
                ..request()
            },
            Code::InvalidArgument,
        ),
        (
            ListRecordingsRequest {
                span: Some(TimeSpan {
                    start_uutc: 1,
                    end_uutc: 1,
                }),
                ..request()
            },
            Code::InvalidArgument,
        ),
    ];
    for (request, code) in cases {
        let refused = page(&mut client, &request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let server = Server::start(&[]);
    let mut rootless = connect(&server).await;
    let refused = page(&mut rootless, &request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // An id means nothing without its root.
    let request = GetRecordingRequest {
        recording: ALL[0].into(),
        ..GetRecordingRequest::default()
    };
    let refused = rootless.get_recording(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
