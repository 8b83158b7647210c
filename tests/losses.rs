//! What is lost is told: each of these was once passed over in silence, and was
//! found by the mutants of `mutations.rs` or by a review.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::corpus;
use common::patch::{repair, units};
use mef3_server::config::OnDamage;
use mef3_server::mef::{
    ChannelOptions, ChannelReader, Finding, Grid, Malformation, MefError, NewRecord, OpenOptions,
    ReadError, RecordBody, RecordError, RecordPage, RecordQuery, RecordType, Rule, SessionOptions,
    SessionWriter, check_session, open_session,
};
use mef3_server::{Engine, Masked, ReadRequest};
use tempfile::TempDir;

procspawn::enable_test_support!();

const START: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;
const RATE: f64 = 100.0;

/// A session of one channel "ch": three segments of five blocks of a second, each
/// with samples of its own.
fn session() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let options = ChannelOptions {
        block_samples: Some(100),
        ..ChannelOptions::new("ch", RATE)
    };
    let mut channel = session.channel(options).unwrap();
    for segment in 0..3 {
        if segment > 0 {
            channel.new_segment().unwrap();
        }
        let samples: Vec<i32> = (0..500)
            .map(|sample| segment * 1000 + sample % 97)
            .collect();
        let start = START + i64::from(segment) * 5 * SECOND;
        channel.write(start, &samples).unwrap();
    }
    channel.finish().unwrap();
    let mut records = session.records().unwrap();
    let note = |number: i64| {
        let text = "note ".repeat(number as usize + 1);
        let time = START + number * SECOND;
        NewRecord::new(RecordType::NOTE, time, RecordBody::Note { text })
    };
    records
        .append(&(0..4).map(note).collect::<Vec<_>>())
        .unwrap();
    drop(records);
    (folder, path)
}

/// A file of a segment.
fn file(session: &Path, segment: u32, extension: &str) -> PathBuf {
    let stem = format!("ch-{segment:06}");
    session.join(format!("ch.timd/{stem}.segd/{stem}.{extension}"))
}

/// Changes a file, which then looks as if nobody were writing it.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    age(path);
}

fn age(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(hour_ago))
        .unwrap();
}

/// The whole of the channel by a rule.
fn read(session: &Path, rule: Rule) -> Result<Vec<f64>, ReadError> {
    let recording = open_session(session, &OpenOptions::default()).unwrap();
    let grid = Grid::new(rule, START, START + 15 * SECOND, RATE).unwrap();
    let mut row = vec![0.0; grid.columns() as usize];
    ChannelReader::new(&recording, &recording.channels[0], grid)?.read(0, &mut row)?;
    Ok(row)
}

fn records(session: &Path) -> RecordPage {
    let recording = open_session(session, &OpenOptions::default()).unwrap();
    let query = RecordQuery {
        limit: 100,
        ..RecordQuery::default()
    };
    recording.records(&query).unwrap()
}

fn swap(bytes: &mut [u8], one: (usize, usize), other: (usize, usize)) {
    assert_eq!(one.1, other.1);
    let first = bytes[one.0..one.0 + one.1].to_vec();
    bytes.copy_within(other.0..other.0 + other.1, one.0);
    bytes[other.0..other.0 + other.1].copy_from_slice(&first);
}

#[test]
fn entries_that_changed_places_hide_no_block() {
    let (_folder, session) = session();
    let whole = read(&session, Rule::Pymef).unwrap();
    change(&file(&session, 1, "tidx"), |bytes| {
        let entries = units("tidx", bytes);
        swap(bytes, entries[1], entries[4]);
    });
    for rule in [Rule::Mef3io, Rule::Pymef] {
        assert_eq!(read(&session, rule).unwrap(), whole, "{rule:?}");
    }
}

#[test]
fn blocks_that_changed_places_hide_no_block() {
    let (_folder, session) = session();
    let whole = read(&session, Rule::Pymef).unwrap();
    change(&file(&session, 2, "tdat"), |bytes| {
        let blocks = units("tdat", bytes);
        let same = |other: &&(usize, usize)| other.0 != blocks[4].0 && other.1 == blocks[4].1;
        let other = *blocks.iter().find(same).unwrap();
        swap(bytes, other, blocks[4]);
    });
    for rule in [Rule::Mef3io, Rule::Pymef] {
        assert_eq!(read(&session, rule).unwrap(), whole, "{rule:?}");
    }
}

#[test]
fn a_channel_of_nothing_is_a_finding() {
    let (_folder, session) = session();
    let findings = || {
        let mut found = Vec::new();
        let mut note = |finding: Finding| found.push((finding.file, finding.problem.to_string()));
        check_session(&session, &OpenOptions::default(), false, &mut note).unwrap();
        found
    };
    assert_eq!(findings(), []);
    let empty = session.join("lost.timd");
    fs::create_dir(&empty).unwrap();
    let expected = [(empty.clone(), "channel without a segment".to_owned())];
    assert_eq!(findings(), expected);
    // What a writer has not finished is none, either.
    fs::create_dir(empty.join("lost-000000.segd.partial")).unwrap();
    assert_eq!(findings(), expected);
}

#[test]
fn a_block_over_another_is_damage_and_no_gap() {
    let (_folder, session) = session();
    change(&file(&session, 1, "tdat"), |bytes| {
        let blocks = units("tdat", bytes);
        let same = |other: &&(usize, usize)| other.0 != blocks[3].0 && other.1 == blocks[3].1;
        let from = *blocks.iter().find(same).unwrap();
        bytes.copy_within(from.0..from.0 + from.1, blocks[3].0);
    });
    let error = read(&session, Rule::Mef3io).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(_)), "{error}");
}

#[test]
fn what_stands_behind_an_index_hides_no_block() {
    let (_folder, session) = session();
    let whole = read(&session, Rule::Pymef).unwrap();
    change(&file(&session, 1, "tidx"), |bytes| {
        let mut rng = fastrand::Rng::with_seed(3);
        bytes.extend((0..2262).map(|_| rng.u8(..)));
    });
    for rule in [Rule::Mef3io, Rule::Pymef] {
        assert_eq!(read(&session, rule).unwrap(), whole, "{rule:?}");
    }
}

#[test]
fn a_segment_of_an_undecodable_name_is_an_unreadable_one() {
    let (_folder, session) = session();
    let folder = session.join("ch.timd");
    let name = OsStr::from_bytes(b"c\xC3-000001.segd");
    fs::rename(folder.join("ch-000001.segd"), folder.join(name)).unwrap();
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    assert_eq!(recording.channels[0].unreadable[0].number, 1);
    let error = read(&session, Rule::Mef3io).unwrap_err();
    assert!(
        matches!(error, ReadError::UnreadableSegment { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_recording_with_undecodable_names_grows_like_any_other() {
    let (_folder, session) = session();
    let folder = session.join("ch.timd");
    for (segment, name) in [(0, b"c\xC3-000001.segd"), (1, b"c\xFF-000001.segd")] {
        let stem = folder.join(format!("ch-00000{segment}.segd"));
        fs::rename(stem, folder.join(OsStr::from_bytes(name))).unwrap();
    }
    let engine = watching_engine();
    let opened = engine.open(&session).await.unwrap();
    assert_eq!(opened.info().channels[0].unreadable.len(), 2);
    corpus::copy_folder(
        &folder.join("ch-000002.segd"),
        &folder.join("ch-000003.segd"),
    );
    let looked = engine.refresh(&opened).await.unwrap();
    assert_ne!(looked.revision(), opened.revision());
    assert_eq!(engine.statistics().await.unwrap().coordinator.lost_jobs, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_mask_names_every_segment_under_it() {
    let (_folder, session) = session();
    for segment in [0, 2] {
        fs::remove_file(file(&session, segment, "tmet")).unwrap();
    }
    mef3_server::worker::init();
    let engine = Engine::builder().workers(0).start().unwrap();
    let recording = engine.open(&session).await.unwrap();
    let request =
        ReadRequest::new(&recording, START, START + 15 * SECOND).on_damage(OnDamage::Mask);
    let mut windows = engine.read::<f64>(&request).unwrap();
    let window = windows.next().await.unwrap().unwrap();
    let stem = |masked: &Masked| match masked {
        Masked::Segment { segment, .. } => segment.stem.clone(),
        other => panic!("{other:?}"),
    };
    let masked: Vec<String> = window.masked.iter().map(stem).collect();
    assert_eq!(masked, ["ch-000000", "ch-000002"]);
    engine.shutdown().await;
}

#[test]
fn an_archive_without_an_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("tar_archive.mefd.tar");
    let whole = fs::read(corpus::folder().join("tar_archive.mefd.tar")).unwrap();
    // Its last two blocks are the end.
    for cut in [whole.len() - 1024, whole.len() - 1024 + 100] {
        fs::write(&archive, &whole[..cut]).unwrap();
        let error = open_session(&archive, &OpenOptions::default()).unwrap_err();
        let MefError::Malformed { reason, .. } = &error else {
            panic!("{error}");
        };
        assert!(reason.to_string().contains("end mark"), "{reason}");
    }
}

#[test]
fn an_index_of_records_without_its_data_is_told() {
    let (_folder, session) = session();
    assert_eq!(records(&session).damaged, []);
    fs::remove_file(session.join("s.rdat")).unwrap();
    let page = records(&session);
    assert_eq!(page.damaged[0].file, session.join("s.rdat"));
    assert!(matches!(page.damaged[0].error, RecordError::Io(_)));
}

#[test]
fn a_record_that_only_the_index_has_is_told() {
    let (_folder, session) = session();
    let data = session.join("s.rdat");
    age(&session.join("s.ridx"));
    change(&data, |bytes| {
        let records = units("rdat", bytes);
        let (lost, kept) = (records[2], records[0]);
        let copy = bytes[kept.0..kept.0 + kept.1].to_vec();
        bytes.splice(lost.0..lost.0 + lost.1, copy);
        repair("rdat", bytes);
    });
    let page = records(&session);
    let lost = |error: &RecordError| matches!(error, RecordError::IndexOnly { .. });
    assert!(page.damaged.iter().any(|damaged| lost(&damaged.error)));
}

#[test]
fn records_whose_offset_cannot_be_read_have_unresolved_times() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("time_offset_pymef.mefd");
    let original = corpus::folder().join("time_offset_pymef.mefd");
    corpus::copy_folder(&original, &session);
    assert_eq!(records(&session).damaged, []);
    for segment in [0, 1] {
        let stem = format!("off-{segment:06}");
        let metadata = session.join(format!("off.timd/{stem}.segd/{stem}.tmet"));
        fs::remove_file(metadata).unwrap();
    }
    let unresolved = |page: &RecordPage| {
        let mut damaged = page.damaged.iter();
        damaged.any(|damaged| damaged.error == RecordError::UnresolvedTimes)
    };
    assert!(unresolved(&records(&session)));
}

#[test]
fn a_clip_table_beyond_any_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("video_pymef.mefd");
    corpus::copy_folder(&corpus::folder().join("video_pymef.mefd"), &session);
    let index = session.join("cam.vidd/cam-000000.segd/cam-000000.vidx");
    let file = File::options().write(true).open(&index).unwrap();
    file.set_len(1 << 40).unwrap();
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    let unreadable = &recording.video_channels[0].unreadable[0];
    assert!(matches!(
        unreadable.error,
        MefError::Malformed {
            reason: Malformation::IndexTooLong { .. },
            ..
        }
    ));
}

/// Spoils one bit in the payload of a block.
fn spoil_block(session: &Path, segment: u32, block: usize) {
    let path = file(session, segment, "tdat");
    let mut bytes = fs::read(&path).unwrap();
    let (start, _) = units("tdat", &bytes)[block];
    bytes[start + 310] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_in_a_file_that_was_written_a_moment_ago_is_no_gap() {
    // By the index, which is right, or in spite of it.
    for index_is_right in [true, false] {
        for block in [2, 4] {
            let (_folder, session) = session();
            spoil_block(&session, 2, block);
            if !index_is_right {
                let index = file(&session, 2, "tidx");
                let mut bytes = fs::read(&index).unwrap();
                bytes[4] ^= 1;
                fs::write(&index, bytes).unwrap();
            }
            let outcome = read(&session, Rule::Mef3io);
            // What nobody vouches for at the very end may still be written.
            if index_is_right || block < 4 {
                let error = outcome.unwrap_err();
                assert!(matches!(error, ReadError::Damaged(_)), "{error}");
            }
        }
    }
}

#[test]
fn a_block_that_was_cut_off_is_an_error_where_its_samples_would_be() {
    let (_folder, session) = session();
    let whole = read(&session, Rule::Mef3io).unwrap();
    // As by a recorder that died: the index never had it.
    change(&file(&session, 2, "tidx"), |bytes| {
        bytes.truncate(bytes.len() - 56);
        repair("tidx", bytes);
    });
    change(&file(&session, 2, "tdat"), |bytes| {
        bytes.truncate(bytes.len() - 8);
    });
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    let channel = &recording.channels[0];
    let read = |until: i64| {
        let grid = Grid::new(Rule::Mef3io, START, START + until, RATE).unwrap();
        let mut row = vec![0.0; grid.columns() as usize];
        ChannelReader::new(&recording, channel, grid)?.read(0, &mut row)?;
        Ok::<_, ReadError>(row)
    };
    let error = read(15 * SECOND).unwrap_err();
    assert!(
        matches!(error, ReadError::UnreadableSegment { .. }),
        "{error}"
    );
    assert_eq!(read(14 * SECOND).unwrap(), whole[..1400]);
}

#[test]
fn an_entry_far_outside_costs_no_segment() {
    for offset in [-1_i64, i64::MIN, i64::MAX, i64::MAX - 400, 1 << 40] {
        let (_folder, session) = session();
        change(&file(&session, 2, "tidx"), |bytes| {
            let (last, length) = *units("tidx", bytes).last().unwrap();
            let mut entry = bytes[last..last + length].to_vec();
            entry[..8].copy_from_slice(&offset.to_le_bytes());
            bytes.extend(entry);
            // Not computed.
            bytes[4..8].fill(0);
        });
        let recording = open_session(&session, &OpenOptions::default()).unwrap();
        assert_eq!(recording.channels[0].segments.len(), 3, "{offset}");
        let grid = Grid::new(Rule::Mef3io, START, START + 14 * SECOND, RATE).unwrap();
        let mut row = vec![0.0_f64; grid.columns() as usize];
        let reader = ChannelReader::new(&recording, &recording.channels[0], grid);
        reader.unwrap().read(0, &mut row).unwrap();
        assert!(row.iter().all(|value| !value.is_nan()), "{offset}");
    }
}

#[test]
fn every_unknown_stretch_is_an_error_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("s.mefd");
    let mut writer = SessionWriter::create(&session, SessionOptions::default()).unwrap();
    let options = ChannelOptions {
        block_samples: Some(10),
        ..ChannelOptions::new("ch", RATE)
    };
    let mut channel = writer.channel(options).unwrap();
    channel.write(START, &[5; 3000]).unwrap();
    channel.finish().unwrap();
    change(&file(&session, 0, "tdat"), |bytes| {
        for (start, length) in units("tdat", bytes).into_iter().skip(1).step_by(2) {
            bytes[start..start + length].fill(0xA5);
        }
    });
    change(&file(&session, 0, "tidx"), |bytes| {
        let entries = units("tidx", bytes);
        let mut kept = bytes[..1024].to_vec();
        for &(start, length) in entries.iter().step_by(2) {
            kept.extend_from_slice(&bytes[start..start + length]);
        }
        *bytes = kept;
        repair("tidx", bytes);
    });
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    let channel = &recording.channels[0];
    for block in 0..299 {
        let start = START + block * SECOND / 10;
        let grid = Grid::new(Rule::Mef3io, start, start + SECOND / 10, RATE).unwrap();
        let mut row = vec![0.0; 10];
        let outcome = ChannelReader::new(&recording, channel, grid)
            .and_then(|mut reader| reader.read(0, &mut row));
        let lost = outcome.is_err();
        assert!(lost || row == [5.0; 10], "block {block}: {row:?}");
        assert!(lost || block % 2 == 0, "block {block}");
    }
}

/// An engine that looks at the files whenever it is asked.
fn watching_engine() -> Engine {
    mef3_server::worker::init();
    let mut config = mef3_server::config::Config::default();
    config.live.staleness_ms = 0;
    config.workers.min = 0;
    Engine::builder().config(config).start().unwrap()
}

#[tokio::test]
async fn a_look_at_what_nobody_touches_finds_nothing_new() {
    let (_folder, session) = session();
    // A stretch that is in no block, and a channel whose rate changes.
    change(&file(&session, 1, "tdat"), |bytes| {
        let (start, length) = units("tdat", bytes)[2];
        bytes[start..start + length].fill(0xA5);
    });
    change(&file(&session, 1, "tidx"), |bytes| {
        let (start, length) = units("tidx", bytes)[2];
        bytes.drain(start..start + length);
        repair("tidx", bytes);
    });
    let options = OpenOptions::default();
    let mut writer = SessionWriter::open(&session, &options).unwrap();
    let mut channel = writer.channel(ChannelOptions::new("other", RATE)).unwrap();
    channel.write(START, &[1; 100]).unwrap();
    channel.new_segment().unwrap();
    channel.write(START + SECOND, &[1; 100]).unwrap();
    channel.finish().unwrap();
    let metadata = session.join("other.timd/other-000001.segd/other-000001.tmet");
    change(&metadata, |bytes| {
        bytes[8720..8728].copy_from_slice(&99.0_f64.to_le_bytes());
        repair("tmet", bytes);
    });
    let engine = watching_engine();
    let opened = engine.open(&session).await.unwrap();
    assert_eq!(opened.info().unreadable.len(), 1);
    for _ in 0..3 {
        let looked = engine.refresh(&opened).await.unwrap();
        assert_eq!(looked.revision(), opened.revision());
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn new_clips_of_a_video_appear() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("video_pymef.mefd");
    corpus::copy_folder(&corpus::folder().join("video_pymef.mefd"), &session);
    let engine = watching_engine();
    let opened = engine.open(&session).await.unwrap();
    let clips = |recording: &mef3_server::Recording| {
        recording.info().video_channels[0].segments[0].clips.len()
    };
    change(
        &session.join("cam.vidd/cam-000000.segd/cam-000000.vidx"),
        |bytes| bytes.extend_from_within(1024..1024 + 64),
    );
    let looked = engine.refresh(&opened).await.unwrap();
    assert_eq!(clips(&looked), clips(&opened) + 1);
    assert_eq!(looked.revision().opening, opened.revision().opening);
    engine.shutdown().await;
}

#[test]
fn a_video_of_an_undecodable_name_is_an_unreadable_one() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("video_pymef.mefd");
    corpus::copy_folder(&corpus::folder().join("video_pymef.mefd"), &session);
    let videos = session.join("cam.vidd");
    let name = OsStr::from_bytes(b"ca\xC3-000000.segd");
    fs::rename(videos.join("cam-000000.segd"), videos.join(name)).unwrap();
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    assert_eq!(recording.video_channels[0].unreadable[0].number, 0);
    assert!(recording.channels[0].unreadable.is_empty());
    assert!(recording.channels[0].stored_samples() > 0);
}

#[test]
fn a_session_that_has_nothing_but_records_is_one() {
    let (_folder, session) = session();
    fs::remove_dir_all(session.join("ch.timd")).unwrap();
    let error = open_session(&session, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, MefError::NotASession { .. }), "{error}");
    fs::create_dir(session.join("ch.timd")).unwrap();
    let recording = open_session(&session, &OpenOptions::default()).unwrap();
    assert!(recording.channels.is_empty() && recording.unreadable.is_empty());
    assert_eq!(records(&session).records.len(), 4);
}
