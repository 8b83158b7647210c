//! Records of whole sessions, through the library and the command line.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::corpus::{self, Session};
use common::forge::{Forged, START, passwords};
use mef3_server::mef::{
    ChannelOptions, MefError, NewRecord, OpenOptions, Password, RecordBody, RecordError,
    RecordPage, RecordQuery, RecordType, SessionOptions, SessionWriter, open_session,
};
use mef3_server::{Engine, Error};
use serde_json::{Value, json};

procspawn::enable_test_support!();

fn all() -> RecordQuery {
    RecordQuery {
        limit: usize::MAX,
        ..RecordQuery::default()
    }
}

fn read(session: &Session, password: Option<&str>, query: &RecordQuery) -> RecordPage {
    let options = OpenOptions {
        password: password.and_then(Password::new),
    };
    let recording = open_session(&session.path, &options).unwrap();
    recording.records(query).unwrap()
}

/// (type, time, channel, segment, text), as the truth lists them.
fn listed(page: &RecordPage) -> Vec<Value> {
    let records = page.records.iter().map(|placed| {
        let text = match &placed.record.body {
            RecordBody::Note { text }
            | RecordBody::SystemLog { text }
            | RecordBody::EdfAnnotation { text, .. } => json!(text),
            _ => Value::Null,
        };
        let number = placed.segment.as_ref().map(|stem| {
            let (_, number) = stem.rsplit_once('-').unwrap();
            number.parse::<u64>().unwrap()
        });
        json!([
            placed.record.kind.to_string(),
            placed.record.time_uutc,
            placed.channel,
            number,
            text
        ])
    });
    let mut records: Vec<Value> = records.collect();
    records.sort_by_key(Value::to_string);
    records
}

fn truth(session: &Session) -> Vec<Value> {
    let records = session.facts["records"]["mef3io"].as_array().unwrap();
    let records = records.iter().map(|record| {
        let kind = record["type"].as_str().unwrap();
        let has_text = ["Note", "SyLg", "EDFA"].contains(&kind);
        let text = if has_text {
            record["text"].clone()
        } else {
            Value::Null
        };
        json!([
            kind,
            record["time"],
            record["channel"],
            record["segment"],
            text
        ])
    });
    let mut records: Vec<Value> = records.collect();
    records.sort_by_key(Value::to_string);
    records
}

#[test]
fn all_levels_are_those_that_mef3io_reads() {
    let mut sessions = 0;
    for session in corpus::sessions() {
        if !session.facts["records"]["mef3io"].is_array() {
            continue;
        }
        sessions += 1;
        let page = read(&session, session.password_level_2.as_deref(), &all());
        assert_eq!(page.damaged, [], "{}", session.name);
        assert_eq!(listed(&page), truth(&session), "{}", session.name);
        assert_eq!(page.total as usize, page.records.len());
        assert!(
            page.records
                .is_sorted_by_key(|placed| placed.record.time_uutc)
        );
    }
    assert!(sessions >= 5, "{sessions}");
}

#[test]
fn filters_and_pages_choose_of_them() {
    let session = Session::load(&corpus::folder(), "records_pymef");
    let whole = read(&session, None, &all());
    let mut query = RecordQuery {
        limit: 3,
        ..RecordQuery::default()
    };
    let mut pieced = Vec::new();
    loop {
        let page = read(&session, None, &query);
        assert_eq!(page.total, whole.total);
        assert!((1..=3).contains(&page.records.len()));
        pieced.extend(page.records);
        match page.next {
            Some(next) => query.skip = next,
            None => break,
        }
    }
    assert_eq!(pieced, whole.records);

    let mut query = all();
    query.filter.types = vec![RecordType::NOTE, RecordType::SEIZ];
    query.filter.from_uutc = Some(1_591_000_001_000_000);
    query.filter.until_uutc = Some(1_591_000_005_000_000);
    query.channels = vec!["r1".into()];
    let chosen = read(&session, None, &query);
    let wanted = whole.records.iter().filter(|placed| {
        let time = placed.record.time_uutc.unwrap();
        [RecordType::NOTE, RecordType::SEIZ].contains(&placed.record.kind)
            && (1_591_000_001_000_000..1_591_000_005_000_000).contains(&time)
            && placed.channel.as_deref() == Some("r1")
    });
    assert_eq!(chosen.records, wanted.cloned().collect::<Vec<_>>());
    assert!(!chosen.records.is_empty());
}

#[test]
fn a_level_1_password_shows_that_there_are_records() {
    let session = Session::load(&corpus::folder(), "encrypted_mef3io");
    let full = read(&session, session.password_level_2.as_deref(), &all());
    let locked = read(&session, session.password_level_1.as_deref(), &all());
    assert_eq!(locked.records.len(), full.records.len());
    let bodies = locked.records.iter().map(|placed| &placed.record.body);
    assert!(bodies.into_iter().all(|body| *body == RecordBody::Locked));
}

#[test]
fn one_hostile_record_does_not_cost_the_others() {
    let hostile = corpus::folder().join("hostile/record_body_bytes_huge.mefd");
    let base = Session::load(&corpus::folder().join("hostile/bases"), "base_rec");
    let recording = open_session(&hostile, &OpenOptions::default()).unwrap();
    let page = recording.records(&all()).unwrap();
    assert_eq!(page.damaged.len(), 1);
    let (intact, whole) = (listed(&page), listed(&read(&base, None, &all())));
    assert_eq!(intact.len() + 1, whole.len());
    assert!(intact.iter().all(|record| whole.contains(record)));
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noted.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let mut channel = session.channel(ChannelOptions::new("a", 100.0)).unwrap();
    channel.write(1_600_000_000_000_000, &[1; 100]).unwrap();
    channel.finish().unwrap();
    let note = |second: i64, text: &str| NewRecord::note(1_600_000_000_000_000 + second, text);
    session
        .records()
        .unwrap()
        .append(&[note(2, "second"), note(1, "first")])
        .unwrap();
    session
        .channel_records("a")
        .unwrap()
        .append(&[note(3, "of a")])
        .unwrap();
    session
        .records()
        .unwrap()
        .append(&[note(4, "appended")])
        .unwrap();

    let recording = open_session(&path, &OpenOptions::default()).unwrap();
    let page = recording.records(&all()).unwrap();
    assert_eq!(page.records.len(), 4);
    let by_mef3io = common::run_python("read_records.py", [&path]);
    let mut by_mef3io: Vec<Value> = serde_json::from_str(&by_mef3io).unwrap();
    by_mef3io.sort_by_key(Value::to_string);
    let mut found = listed(&page);
    found.iter_mut().for_each(|record| {
        record.as_array_mut().unwrap().remove(3);
    });
    found.sort_by_key(Value::to_string);
    assert_eq!(found, by_mef3io);
}

#[test]
fn the_command_line_lists_them() {
    let session = Session::load(&corpus::folder(), "records_pymef");
    let info = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        command
            .arg("info")
            .arg(&session.path)
            .arg("--records")
            .args(flags);
        command.output().unwrap()
    };
    let output = info(&["--json", "--type", "Seiz", "--limit", "1"]);
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["records"].as_array().unwrap().len(), 1);
    assert_eq!(report["records"][0]["type"], "Seiz");
    assert_eq!(report["next"], 1);
    assert!(report["total"].as_u64().unwrap() > 1);
    let output = info(&["--limit", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Note  session  a nöte"), "{text}");
    assert!(text.contains("more: --skip 2"), "{text}");
    assert_eq!(info(&["--type", "toolong"]).status.code(), Some(2));
}

/// Copies the pair of record files of `bad` to those of a segment.
fn give_records(forged: &Forged, folder: &str, stem: &str) {
    for extension in ["rdat", "ridx"] {
        let from = forged.path.join(format!("bad.timd/bad.{extension}"));
        let to = forged.path.join(format!("{folder}/{stem}.{extension}"));
        fs::copy(from, to).unwrap();
    }
    forged.settle();
}

fn note_in_bad(forged: &Forged) {
    let mut session = SessionWriter::open(&forged.path, &OpenOptions::default()).unwrap();
    let mut records = session.channel_records("bad").unwrap();
    records.append(&[NewRecord::note(START, "here")]).unwrap();
}

/// Where a record is, and its time.
fn placed(page: &RecordPage) -> Vec<(Option<&str>, i64)> {
    let records = page.records.iter();
    let placed = records.map(|placed| {
        let time = placed.record.time_uutc.unwrap();
        (placed.segment.as_deref(), time)
    });
    placed.collect()
}

fn unresolved(page: &RecordPage) -> Vec<&Path> {
    let unresolved = page.damaged.iter().map(|damaged| {
        assert_eq!(damaged.error, RecordError::UnresolvedTimes);
        damaged.file.as_path()
    });
    unresolved.collect()
}

#[test]
fn records_of_a_segment_go_by_its_own_offset() {
    const OFFSET: i64 = 3_600_000_000;
    let forged = Forged::of_two_segments().with_records(&[NewRecord::note(START, "all")]);
    note_in_bad(&forged);
    for stem in ["bad-000000", "bad-000001"] {
        give_records(&forged, &format!("bad.timd/{stem}.segd"), stem);
    }
    let same = forged.records(None);
    assert_eq!((same.damaged.len(), same.times_unresolved), (0, 0));

    forged.put("tmet", 13312, OFFSET.to_le_bytes());
    let page = forged.records(None);
    let (first, second) = (Some("bad-000000"), Some("bad-000001"));
    let expected = [
        (None, START),
        (None, START),
        (first, START),
        (second, START + OFFSET),
    ];
    assert_eq!(placed(&page), expected);
    // The channel's and the session's own go by none.
    let files = ["forged.rdat", "bad.timd/bad.rdat"].map(|file| forged.path.join(file));
    assert_eq!(
        unresolved(&page),
        files.each_ref().map(|file| file.as_path())
    );
    assert_eq!(page.times_unresolved, 2);
    let marked = page.records.iter().map(|placed| placed.time_unresolved);
    assert_eq!(marked.collect::<Vec<_>>(), [true, true, false, false]);

    // Without its data the segment cannot be read, but its metadata can.
    fs::remove_file(forged.file("tdat")).unwrap();
    let page = forged.records(None);
    assert!(placed(&page).contains(&(second, START + OFFSET)));
    // All that can be read agree.
    assert_eq!(unresolved(&page), [] as [&Path; 0]);
    fs::remove_file(forged.file("tmet")).unwrap();
    let page = forged.records(None);
    let segment = "bad.timd/bad-000001.segd/bad-000001.rdat";
    assert_eq!(unresolved(&page), [forged.path.join(segment)]);
}

#[test]
fn records_beside_a_video_go_by_its_metadata() {
    const OFFSET: i64 = 7_200_000_000;
    let video = Forged::copy("video_pymef", "cam");
    let forged = Forged::new();
    note_in_bad(&forged);
    let segment = "cam.vidd/cam-000000.segd";
    for (folder, stem) in [(segment, "cam-000000"), ("cam.vidd", "cam")] {
        for extension in ["rdat", "ridx"] {
            let from = forged.path.join(format!("bad.timd/bad.{extension}"));
            let to = video.path.join(format!("{folder}/{stem}.{extension}"));
            fs::copy(from, to).unwrap();
        }
    }
    video.settle();
    video.put("vmet", 13312, OFFSET.to_le_bytes());
    let page = video.records(None);
    assert_eq!(page.damaged, []);
    let late = START + OFFSET;
    assert_eq!(placed(&page), [(None, late), (Some("cam-000000"), late)]);
}

#[test]
fn times_under_a_locked_offset_are_marked() {
    const OFFSET: i64 = START - 1_000_000_000;
    let forged = Forged::with(SessionOptions {
        passwords: Some(passwords()),
        recording_time_offset: Some(OFFSET),
        ..SessionOptions::default()
    });
    let options = common::forge::options(Some("second"));
    let mut session = SessionWriter::open(&forged.path, &options).unwrap();
    let mut records = session.records().unwrap();
    records.append(&[NewRecord::note(START, "secret")]).unwrap();
    drop(records);
    forged.settle();

    let full = forged.records(Some("second"));
    assert_eq!(full.times_unresolved, 0);
    assert_eq!(full.records[0].record.time_uutc, Some(START));
    assert!(!full.records[0].time_unresolved);

    let locked = forged.records(Some("first"));
    assert_eq!(locked.damaged, []);
    assert_eq!(locked.times_unresolved, 1);
    assert_eq!(locked.records[0].record.time_uutc, Some(START - OFFSET));
    assert!(locked.records[0].time_unresolved);

    let output = forged.info(&["--records"], Some("first"));
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("1970-01-01T00:16:40"), "{text}");
    assert!(text.contains("Z?  Note  session"), "{text}");
    assert!(text.contains("1 record has a time (marked ?)"), "{text}");
    let output = forged.info(&["--records", "--json"], Some("first"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["times_unresolved"], 1);
    assert_eq!(report["records"][0]["time_unresolved"], true);
}

#[test]
fn an_unknown_channel_is_refused() {
    let session = Session::load(&corpus::folder(), "records_pymef");
    let query = RecordQuery {
        channels: vec!["r1".into(), "typo".into()],
        ..all()
    };
    let recording = open_session(&session.path, &OpenOptions::default()).unwrap();
    let refused = MefError::UnknownChannel {
        session: session.path.clone(),
        channel: "typo".into(),
        known: ["r1", "r2"].map(str::to_owned).into(),
    };
    assert_eq!(recording.records(&query), Err(refused));

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        let path = session.path.as_os_str();
        command.arg(arguments[0]).arg(path).args(&arguments[1..]);
        command.output().unwrap()
    };
    let by_info = run(&["info", "--records", "--channel", "typo"]);
    let by_read = run(&["read", "--channel", "typo", "--format", "csv"]);
    assert_eq!(by_info.status.code(), by_read.status.code());
    let text = String::from_utf8(by_info.stderr).unwrap();
    assert_eq!(text, String::from_utf8(by_read.stderr).unwrap());
    assert!(by_info.stdout.is_empty());
}

#[tokio::test]
async fn the_engine_refuses_an_unknown_channel() {
    mef3_server::worker::init();
    let engine = Engine::builder().workers(1).start().unwrap();
    let path = corpus::folder().join("records_pymef.mefd");
    let recording = engine.open(&path).await.unwrap();
    let query = RecordQuery {
        channels: vec!["typo".into()],
        ..all()
    };
    let refused = engine.records(&recording, &query).await;
    assert!(
        matches!(&refused, Err(Error::Mef(MefError::UnknownChannel { channel, .. })) if **channel == *"typo"),
        "{refused:?}"
    );
    engine.shutdown().await;
}

#[tokio::test]
async fn the_engine_reads_them_in_a_worker() {
    mef3_server::worker::init();
    let engine = Engine::builder().workers(1).start().unwrap();
    for name in ["records_pymef", "encrypted_mef3io", "time_offset_pymef"] {
        let session = Session::load(&corpus::folder(), name);
        let password = session.password_level_2.as_deref();
        let options = OpenOptions {
            password: password.and_then(Password::new),
        };
        let recording = engine.open_with(&session.path, options).await.unwrap();
        let page = engine.records(&recording, &all()).await.unwrap();
        assert_eq!(page, read(&session, password, &all()), "{name}");
    }
    let statistics = engine.statistics().await.unwrap();
    assert!(!statistics.supervisor.in_process);
    engine.shutdown().await;
}
