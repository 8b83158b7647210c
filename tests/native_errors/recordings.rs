//! Errors of requests and of the recordings that they name.

use std::fs;

use mef3_server::grpc::proto::native::{
    ListAnnotationsRequest, ListGapsRequest, ListRecordingsRequest, OnDamage, ReadEnvelopeRequest,
    ReadReducedRequest, ReadSignalRequest, SampleForm, TimeSpan,
};
use tonic::Code;

use super::common::corpus::{self, Session, copy_folder};
use super::common::native::{by_samples, by_time, connect, in_form, read, with_password};
use super::common::server::Server;
use super::{assert_status, described, healthy, request_of};

pub async fn what_is_not_there() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere.mefd");
    let status = described(&mut client, &nowhere).await.unwrap_err();
    let found = assert_status(status, Code::NotFound, "RECORDING_NOT_FOUND");
    assert_eq!(found.fields, ["recording"]);
    let status = described(&mut client, folder.path()).await.unwrap_err();
    let found = assert_status(status, Code::NotFound, "NOT_A_SESSION");
    assert_eq!(found.fields, ["recording"]);
    let (_, request) = healthy(&mut client).await;
    let channels = vec!["q".into()];
    let unknown = ReadSignalRequest {
        channels,
        ..request
    };
    let status = read(&mut client, unknown, None).await.unwrap_err();
    let found = assert_status(status, Code::NotFound, "CHANNEL_NOT_FOUND");
    assert_eq!(found.fields, ["channels"]);
    assert_eq!(found.info, [("channel".into(), "q".into())]);
}

pub async fn what_makes_no_sense() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let (session, request) = healthy(&mut client).await;
    let recording = session.path.display().to_string();
    let span = |start_uutc, end_uutc| {
        Some(TimeSpan {
            start_uutc,
            end_uutc,
        })
    };
    let bare = ReadSignalRequest {
        recording: recording.clone(),
        ..ReadSignalRequest::default()
    };
    let nameless = ReadSignalRequest {
        recording: String::new(),
        ..request.clone()
    };
    let cursor = ReadSignalRequest {
        cursor: "x".into(),
        ..request.clone()
    };
    for (request, reason, field) in [
        (nameless, "RECORDING_MISSING", "recording"),
        (bare, "WINDOW_MISSING", "window"),
        (by_time(&session.path, 5, 5), "WINDOW_EMPTY", "window"),
        (by_samples(&session.path, 9, 3), "WINDOW_EMPTY", "window"),
        (cursor, "CURSOR_INVALID", "cursor"),
    ] {
        let status = read(&mut client, request, None).await.unwrap_err();
        let found = assert_status(status, Code::InvalidArgument, reason);
        assert_eq!(found.fields, [field], "{reason}");
    }

    let reduced = |points, span| ReadReducedRequest {
        recording: recording.clone(),
        points,
        span,
        ..ReadReducedRequest::default()
    };
    for (request, reason, field) in [
        (reduced(0, span(0, 9)), "NO_POINTS", "points"),
        (reduced(5, span(9, 0)), "WINDOW_EMPTY", "window"),
        (reduced(5, None), "WINDOW_MISSING", "span"),
    ] {
        let status = client.read_reduced(request).await.unwrap_err();
        let found = assert_status(status, Code::InvalidArgument, reason);
        assert_eq!(found.fields, [field], "{reason}");
    }

    let gaps = |span, page_token: &str| ListGapsRequest {
        recording: recording.clone(),
        span,
        page_token: page_token.into(),
        ..ListGapsRequest::default()
    };
    for (request, reason, field) in [
        (gaps(span(9, 0), ""), "WINDOW_EMPTY", "span"),
        (gaps(None, "7-0-0"), "PAGE_TOKEN_INVALID", "page_token"),
    ] {
        let status = client.list_gaps(request).await.unwrap_err();
        let found = assert_status(status, Code::InvalidArgument, reason);
        assert_eq!(found.fields, [field], "{reason}");
    }
    let request = ListAnnotationsRequest {
        recording: recording.clone(),
        types: vec!["toolong".into()],
        ..ListAnnotationsRequest::default()
    };
    let status = client.list_annotations(request).await.unwrap_err();
    let found = assert_status(status, Code::InvalidArgument, "RECORD_TYPE_INVALID");
    assert_eq!(found.fields, ["types"]);

    let envelope = ReadEnvelopeRequest {
        recording: recording.clone(),
        span: span(0, 9),
        ..ReadEnvelopeRequest::default()
    };
    let status = client.read_envelope(envelope).await.unwrap_err();
    let found = assert_status(status, Code::InvalidArgument, "NO_PIXELS");
    assert_eq!(found.fields, ["pixels"]);

    let mut request = with_password(request_of(&recording), None);
    let empty = tonic::metadata::MetadataValue::from_bytes(b"\xFF");
    request
        .metadata_mut()
        .insert_bin("x-mef3-password-bin", empty);
    let status = client.get_recording(request).await.unwrap_err();
    let found = assert_status(status, Code::InvalidArgument, "PASSWORD_INVALID");
    assert_eq!(found.fields, ["x-mef3-password"]);
}

pub async fn windows_that_no_recording_can_have() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let (session, _) = healthy(&mut client).await;
    for (request, reason) in [
        (
            by_time(&session.path, i64::MIN, i64::MAX),
            "WINDOW_TOO_LONG",
        ),
        (
            by_time(&session.path, 0, 1),
            "WINDOW_SHORTER_THAN_ONE_SAMPLE",
        ),
    ] {
        let status = read(&mut client, request, None).await.unwrap_err();
        let found = assert_status(status, Code::OutOfRange, reason);
        assert_eq!(found.fields, ["window"], "{reason}");
    }
}

pub async fn limits_are_named() {
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIMITS_CHANNELS_PER_READ", "9");
        serve.env("MEF3_SERVER_LIMITS_REQUEST_MB", "1");
    });
    let mut client = connect(&server).await;
    let (session, request) = healthy(&mut client).await;
    let channels = session.facts["channels"].as_object().unwrap();
    let wide = ReadSignalRequest {
        channels: channels.keys().cycle().take(10).cloned().collect(),
        ..request
    };
    let status = read(&mut client, wide, None).await.unwrap_err();
    let found = assert_status(status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(found.quotas, ["limits.channels_per_read"]);
    assert!(found.info.contains(&("value".into(), "9".into())));
    assert_eq!(found.retry, None);
    let year = by_time(&session.path, 0, 366 * 86_400_000_000);
    let status = read(&mut client, year, None).await.unwrap_err();
    let found = assert_status(status, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    assert_eq!(found.quotas, ["limits.request_mb"]);
}

pub async fn a_path_out_of_the_host_root() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let server = Server::start(&["--host-root", root]);
    let mut client = connect(&server).await;
    let request = request_of("/../etc/passwd");
    let status = client.get_recording(request).await.unwrap_err();
    let found = assert_status(status, Code::PermissionDenied, "NOT_PERMITTED");
    assert_eq!(found.fields, ["recording"]);
}

pub async fn damage_is_told_with_its_place() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let hostile = corpus::folder().join("hostile");
    for (name, reason) in [
        ("block_payload_flip", "BLOCK_DAMAGED"),
        ("ufact_nan", "SCALE_UNUSABLE"),
        ("middle_segment_index_lost", "SEGMENT_UNREADABLE"),
    ] {
        let path = hostile.join(format!("{name}.mefd"));
        let span = described(&mut client, &path).await.unwrap();
        let request = by_time(&path, span.start_uutc, span.end_uutc);
        let status = read(&mut client, request, None).await.unwrap_err();
        let found = assert_status(status, Code::DataLoss, reason);
        let damage = found.damage.unwrap();
        assert!(
            !damage.channel.is_empty() && !damage.segment.is_empty(),
            "{damage:?}"
        );
        assert_eq!(damage.block.is_some(), reason == "BLOCK_DAMAGED");
    }
    // Counts need no scale.
    let path = hostile.join("ufact_nan.mefd");
    let span = described(&mut client, &path).await.unwrap();
    let request = by_time(&path, span.start_uutc, span.end_uutc);
    let request = in_form(request, SampleForm::Counts, OnDamage::Fail);
    let signal = read(&mut client, request, None).await.unwrap();
    assert!(signal.rows.iter().any(|row| row.factors.contains(&0.0)));
}

pub async fn a_channel_of_which_nothing_can_be_read() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let session = Session::load(&corpus::folder(), "eight_channels");
    let path = folder.path().join("spoilt.mefd");
    copy_folder(&session.path, &path);
    let name = session.facts["channels"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap();
    let segments = path.join(format!("{name}.timd"));
    for segment in fs::read_dir(segments).unwrap() {
        let segment = segment.unwrap().path();
        for file in fs::read_dir(&segment).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|it| it == "tmet") {
                fs::write(file, b"nothing").unwrap();
            }
        }
    }
    let span = described(&mut client, &path).await.unwrap();
    let request = ReadSignalRequest {
        channels: vec![name.clone()],
        ..by_time(&path, span.start_uutc, span.end_uutc)
    };
    let status = read(&mut client, request, None).await.unwrap_err();
    let found = assert_status(status, Code::DataLoss, "CHANNEL_UNREADABLE");
    assert_eq!(&found.damage.unwrap().channel, name);
}

pub async fn files_that_are_replaced_while_they_are_read() {
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_STALENESS_MS", "0");
    });
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let session = Session::load(&corpus::folder(), "eight_channels");
    let path = folder.path().join("known.mefd");
    copy_folder(&session.path, &path);
    let span = described(&mut client, &path).await.unwrap();
    let request = by_time(&path, span.start_uutc, span.end_uutc);
    let mut stream = client
        .read_signal(request.clone())
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    drop(stream);
    fs::remove_dir_all(&path).unwrap();
    copy_folder(&session.path, &path);
    let next = ReadSignalRequest {
        cursor: first.cursor,
        ..request
    };
    let status = client.read_signal(next).await.unwrap_err();
    let found = assert_status(status, Code::Aborted, "FILES_REPLACED");
    assert_eq!(found.retry, None);
}

pub async fn what_is_protected() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "encrypted_blocks");
    let password = session.password_level_2.as_deref();
    let right = with_password(request_of(session.path.to_str().unwrap()), password);
    let span = client.get_recording(right).await.unwrap().into_inner().span;
    let span = span.unwrap();
    let request = by_time(&session.path, span.start_uutc, span.end_uutc);
    for (password, reason) in [
        (None, "PASSWORD_REQUIRED"),
        (Some("not this one"), "PASSWORD_WRONG"),
    ] {
        let status = read(&mut client, request.clone(), password)
            .await
            .unwrap_err();
        let told = format!("{status:?}");
        assert!(!told.contains("not this one"), "{told}");
        let found = assert_status(status, Code::FailedPrecondition, reason);
        assert!(found.info.iter().all(|(key, _)| key == "file"), "{found:?}");
    }
    // Blocks that the password of level 1 does not open are no damage.
    let level_1 = session.password_level_1.as_deref();
    let status = read(&mut client, request, level_1).await.unwrap_err();
    let found = assert_status(status, Code::FailedPrecondition, "PASSWORD_REQUIRED");
    let damage = found.damage.unwrap();
    assert!(
        damage.channel == "level2" && damage.block.is_some(),
        "{damage:?}"
    );

    // What is no archive.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nonsense.mefd.tar");
    fs::write(&path, vec![7; 4096]).unwrap();
    let status = described(&mut client, &path).await.unwrap_err();
    let found = assert_status(status, Code::DataLoss, "FILE_MALFORMED");
    let file = path.display().to_string();
    assert_eq!(found.info, [("file".into(), file)]);
}

pub async fn lists() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let request = ListRecordingsRequest::default;
    let status = client.list_recordings(request()).await.unwrap_err();
    assert_status(status, Code::FailedPrecondition, "NO_DATA_ROOTS");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_PATHS_DATA_ROOTS", folder.path());
    });
    let mut client = connect(&server).await;
    let root = ListRecordingsRequest {
        root: "other".into(),
        ..request()
    };
    let pattern = ListRecordingsRequest {
        pattern: "[".into(),
        ..request()
    };
    let token = ListRecordingsRequest {
        page_token: "7-0-".into(),
        ..request()
    };
    for (request, code, reason, field) in [
        (root, Code::NotFound, "ROOT_NOT_FOUND", "root"),
        (pattern, Code::InvalidArgument, "PATTERN_INVALID", "pattern"),
        (
            token,
            Code::InvalidArgument,
            "PAGE_TOKEN_INVALID",
            "page_token",
        ),
    ] {
        let status = client.list_recordings(request).await.unwrap_err();
        let found = assert_status(status, code, reason);
        assert_eq!(found.fields, [field], "{reason}");
    }
    let status = described(&mut client, "/etc/passwd.mefd".as_ref()).await;
    let found = assert_status(status.unwrap_err(), Code::PermissionDenied, "OUTSIDE_ROOTS");
    assert_eq!(found.fields, ["recording"]);
}
