//! Videos by pymef, as pymef reads them, and files made byte by byte from the
//! tables of the format's document.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::mef::crc::crc32;
use crate::mef::peers::run_python;

const START: i64 = 1_591_000_000_000_000;
const VMET: &str = "/place/cam-000000.vmet";
const VIDX: &str = "/place/cam-000000.vidx";

/// A value that stands for "no entry" is none.
fn entry<T: PartialEq>(value: T, no_entry: T) -> Option<T> {
    (value != no_entry).then_some(value)
}

fn count(value: &Value) -> Option<u64> {
    entry(value.as_i64().unwrap(), -1).map(|value| value.try_into().unwrap())
}

fn metadata_of(truth: &Value) -> VideoMetadata {
    let section = &truth["section_2"];
    let text = |field| section[field].as_str().unwrap().to_owned();
    let crc = section["video_file_CRC"].as_u64().unwrap();
    VideoMetadata {
        start_uutc: truth["start"].as_i64(),
        end_uutc: truth["end"].as_i64(),
        recording_time_offset: truth["recording_time_offset"].as_i64(),
        channel_description: text("channel_description"),
        session_description: text("session_description"),
        recording_duration_us: entry(section["recording_duration"].as_i64().unwrap(), -1),
        horizontal_resolution: count(&section["horizontal_resolution"]),
        vertical_resolution: count(&section["vertical_resolution"]),
        frame_rate: entry(section["frame_rate"].as_f64().unwrap(), -1.0),
        declared_clips: count(&section["number_of_clips"]),
        declared_maximum_clip_bytes: count(&section["maximum_clip_bytes"]),
        format: text("video_format"),
        video_file_crc: entry(crc.try_into().unwrap(), 0),
    }
}

fn clips_of(truth: &Value) -> Vec<VideoClip> {
    let clip = |row: &Value| VideoClip {
        start_uutc: row[0].as_i64(),
        end_uutc: row[1].as_i64(),
        start_frame: Some(row[2].as_u64().unwrap().try_into().unwrap()),
        end_frame: Some(row[3].as_u64().unwrap().try_into().unwrap()),
        file_offset: count(&row[4]),
        bytes: count(&row[5]),
        outside_file: false,
    };
    truth["clips"]
        .as_array()
        .unwrap()
        .iter()
        .map(clip)
        .collect()
}

#[test]
fn videos_of_pymef_are_as_pymef_reads_them() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-corpus");
    let facts = fs::read(corpus.join("video_pymef.json"))
        .unwrap_or_else(|error| panic!("the reference corpus is missing: {error}"));
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    assert_eq!(facts["video_channels_pymef"], serde_json::json!(["cam"]));
    let folder = tempfile::tempdir().unwrap();
    let arguments = [folder.path(), &corpus.join("video_pymef.mefd")];
    let printed = run_python("make_videos.py", arguments);
    let sessions: Vec<Value> = serde_json::from_str(&printed).unwrap();
    assert_eq!(sessions.len(), 6);
    for truth in sessions {
        let segment = PathBuf::from(truth["folder"].as_str().unwrap());
        let (vmet, vidx) = (
            segment.join("cam-000000.vmet"),
            segment.join("cam-000000.vidx"),
        );
        let bytes = fs::read(&vmet).unwrap();
        let read = |password: Option<&Password>| parse_video_metadata(&bytes, &vmet, password);
        let passwords = &truth["passwords"];
        let password = |level: usize| passwords[level].as_str().and_then(Password::new);
        let expected = metadata_of(&truth);
        assert_eq!(read(password(1).as_ref()), Ok(expected.clone()));

        let refused = MefError::Encrypted { file: vmet.clone() };
        if passwords[0].is_null() {
            assert_eq!(
                read(Password::new("ignored").as_ref()),
                Ok(expected.clone())
            );
        } else {
            assert_eq!(read(None), Err(refused));
            let wrong = MefError::WrongPassword { file: vmet.clone() };
            assert_eq!(read(Password::new("wrong").as_ref()), Err(wrong));
            // The first password does not open the offset.
            let offset = expected.recording_time_offset.unwrap();
            let first = VideoMetadata {
                recording_time_offset: None,
                start_uutc: Some(expected.start_uutc.unwrap() - offset),
                end_uutc: Some(expected.end_uutc.unwrap() - offset),
                ..expected.clone()
            };
            assert_eq!(read(password(0).as_ref()), Ok(first));
        }

        let bytes = fs::read(&vidx).unwrap();
        let offset = expected.recording_time_offset.unwrap();
        let found = parse_clips(&bytes, &vidx, offset, None).unwrap();
        assert_eq!(found.clips, clips_of(&truth));
        assert_eq!(found.trailing_bytes, 0);
    }
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

fn header(file_type: &[u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    put(&mut bytes, 8, *file_type);
    put(&mut bytes, 13, [3, 0, 1]);
    put(&mut bytes, 16, (-START).to_le_bytes());
    put(&mut bytes, 24, i64::MIN.to_le_bytes());
    bytes
}

/// Puts in the CRCs, of the body first.
fn sign(bytes: &mut [u8]) {
    let body = crc32(&bytes[1024..16384]);
    put(bytes, 4, body.to_le_bytes());
    let header = crc32(&bytes[4..1024]);
    put(bytes, 0, header.to_le_bytes());
}

/// A metadata file by the offsets of sections 6.1, 6.2, 6.4 and 6.5.
fn vmet() -> Vec<u8> {
    let mut bytes = header(b"vmet");
    bytes.resize(16384, 0);
    put(&mut bytes, 1024, [0xFF, 0xFE]);
    put(&mut bytes, 2560, *b"channel\0rest");
    put(&mut bytes, 4608, [b's'; 2048]);
    put(&mut bytes, 6656, 1_i64.to_le_bytes());
    put(&mut bytes, 6664, 2_i64.to_le_bytes());
    put(&mut bytes, 6672, 3_i64.to_le_bytes());
    put(&mut bytes, 6680, 4.5_f64.to_le_bytes());
    put(&mut bytes, 6688, 5_i64.to_le_bytes());
    put(&mut bytes, 6696, 6_i64.to_le_bytes());
    put(&mut bytes, 6704, *b"MJPEG \xFF\0");
    put(&mut bytes, 6832, 7_u32.to_le_bytes());
    put(&mut bytes, 13312, 1000_i64.to_le_bytes());
    sign(&mut bytes);
    bytes
}

fn expected_vmet() -> VideoMetadata {
    VideoMetadata {
        start_uutc: Some(START + 1000),
        end_uutc: None,
        recording_time_offset: Some(1000),
        channel_description: "channel".into(),
        session_description: "s".repeat(2048),
        recording_duration_us: Some(1),
        horizontal_resolution: Some(2),
        vertical_resolution: Some(3),
        frame_rate: Some(4.5),
        declared_clips: Some(5),
        declared_maximum_clip_bytes: Some(6),
        format: "MJPEG \u{FFFD}".into(),
        video_file_crc: Some(7),
    }
}

fn read(bytes: &[u8]) -> Result<VideoMetadata, MefError> {
    parse_video_metadata(bytes, Path::new(VMET), None)
}

fn reason(result: Result<impl std::fmt::Debug, MefError>) -> Malformation {
    match result {
        Err(MefError::Malformed { file, reason }) => {
            assert!([VMET, VIDX].contains(&file.to_str().unwrap()));
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_are_where_the_tables_say() {
    let bytes = vmet();
    assert_eq!(read(&bytes), Ok(expected_vmet()));
    // Bytes of recorders beyond the end neither count nor harm.
    let longer = [bytes.as_slice(), b"more"].concat();
    assert_eq!(read(&longer), Ok(expected_vmet()));
    // A CRC of zero was never computed.
    let mut unsigned = bytes;
    put(&mut unsigned, 0, [0; 8]);
    assert_eq!(read(&unsigned), Ok(expected_vmet()));
}

#[test]
fn entries_that_are_none_are_not_shown_as_numbers() {
    let with = |changes: &[(usize, [u8; 8])]| {
        let mut bytes = vmet();
        for &(offset, value) in changes {
            put(&mut bytes, offset, value);
        }
        sign(&mut bytes);
        read(&bytes).unwrap()
    };
    for number in [-1, -2, i64::MIN] {
        let changes = [6656, 6664, 6672, 6688, 6696].map(|offset| (offset, number.to_le_bytes()));
        let none = VideoMetadata {
            recording_duration_us: None,
            horizontal_resolution: None,
            vertical_resolution: None,
            declared_clips: None,
            declared_maximum_clip_bytes: None,
            ..expected_vmet()
        };
        assert_eq!(with(&changes), none, "{number}");
    }
    // The reference library leaves these at zero; a resolution of zero is one.
    let zeros = with(&[6656, 6664, 6688, 6696].map(|offset| (offset, [0; 8])));
    assert_eq!(zeros.recording_duration_us, None);
    assert_eq!(zeros.horizontal_resolution, Some(0));
    assert_eq!(
        (zeros.declared_clips, zeros.declared_maximum_clip_bytes),
        (None, None)
    );
    for rate in [-1.0, 0.0, f64::NAN, f64::INFINITY, -25.0] {
        assert_eq!(
            with(&[(6680, rate.to_le_bytes())]).frame_rate,
            None,
            "{rate}"
        );
    }
    assert_eq!(with(&[(6832, [0; 8])]).video_file_crc, None);
    let no_offset = with(&[(13312, i64::MIN.to_le_bytes())]);
    assert_eq!(no_offset.recording_time_offset, Some(0));
    assert_eq!(no_offset.start_uutc, Some(START));
    let absurd = with(&[(13312, i64::MAX.to_le_bytes())]);
    assert_eq!(absurd.start_uutc, Some(i64::MAX));
}

#[test]
fn metadata_that_break_the_format_are_refused() {
    let bytes = vmet();
    for have in [0, 1023, 1024, 16383] {
        let need = if have < 1024 { 1024 } else { 16384 };
        let short = Malformation::TooShort {
            need,
            have: have as u64,
        };
        assert_eq!(reason(read(&bytes[..have])), short);
    }
    let with = |offset: usize, value: u8| {
        let mut bytes = vmet();
        bytes[offset] = value;
        bytes
    };
    let signed = |offset, value| {
        let mut bytes = with(offset, value);
        sign(&mut bytes);
        reason(read(&bytes))
    };
    assert!(matches!(signed(8, b't'), Malformation::FileType { found, .. } if found == "tmet"));
    assert_eq!(signed(15, 0), Malformation::ByteOrder(0));
    assert_eq!(
        signed(1024, 3),
        Malformation::EncryptionLevel {
            section: 2,
            level: 3
        }
    );
    assert_eq!(
        signed(1025, 127),
        Malformation::EncryptionLevel {
            section: 3,
            level: 127
        }
    );
    let header = reason(read(&with(900, 1)));
    assert!(matches!(header, Malformation::HeaderCrc { .. }));
    let body = reason(read(&with(16383, 1)));
    assert!(matches!(body, Malformation::BodyCrc { .. }));
}

#[test]
fn sections_are_opened_by_their_own_levels() {
    let passwords = ["one", "two"].map(|text| Password::new(text).unwrap());
    let (keys, validation) = Keys::for_writing(&passwords[0], &passwords[1]);
    let encrypted = |technical: i8, subject: i8| {
        let mut bytes = vmet();
        put(&mut bytes, 868, validation[0]);
        put(&mut bytes, 884, validation[1]);
        put(
            &mut bytes,
            1024,
            [technical, subject].map(i8::cast_unsigned),
        );
        keys.encrypt(technical, &mut bytes[2560..13312]).unwrap();
        keys.encrypt(subject, &mut bytes[13312..16384]).unwrap();
        sign(&mut bytes);
        bytes
    };
    let locked_offset = VideoMetadata {
        recording_time_offset: None,
        start_uutc: Some(START),
        ..expected_vmet()
    };
    let all = || Some(expected_vmet());
    let no_offset = || Some(locked_offset.clone());
    // What nobody, the first and the second password open.
    for (technical, subject, opened) in [
        (1, 2, [None, no_offset(), all()]),
        (2, 1, [None, None, all()]),
        (-1, 2, [no_offset(), no_offset(), all()]),
        (0, 1, [no_offset(), all(), all()]),
        (1, -2, [None, all(), all()]),
        (-128, -128, [all(), all(), all()]),
    ] {
        let bytes = encrypted(technical, subject);
        let users = [None, Some(&passwords[0]), Some(&passwords[1])];
        for (user, expected) in users.into_iter().zip(opened) {
            let found = parse_video_metadata(&bytes, Path::new(VMET), user);
            let refused = MefError::Encrypted { file: VMET.into() };
            assert_eq!(
                found,
                expected.ok_or(refused),
                "{technical} {subject} {user:?}"
            );
        }
    }
}

/// An index entry by the offsets of section 7.2.
fn entry_bytes(times: [i64; 2], frames: [u32; 2], extent: [i64; 2]) -> Vec<u8> {
    let mut bytes = vec![0xEE; 64];
    put(&mut bytes, 0, times[0].to_le_bytes());
    put(&mut bytes, 8, times[1].to_le_bytes());
    put(&mut bytes, 16, frames[0].to_le_bytes());
    put(&mut bytes, 20, frames[1].to_le_bytes());
    put(&mut bytes, 24, extent[0].to_le_bytes());
    put(&mut bytes, 32, extent[1].to_le_bytes());
    bytes
}

fn clips(entries: &[Vec<u8>], video_bytes: Option<u64>) -> Vec<VideoClip> {
    let bytes = [header(b"vidx"), entries.concat()].concat();
    parse_clips(&bytes, Path::new(VIDX), 1000, video_bytes)
        .unwrap()
        .clips
}

#[test]
fn clips_are_counted_from_the_length_and_padding_is_left_out() {
    let clip = entry_bytes([-START, -START - 5], [0, 9], [0, 100]);
    let zeros = vec![0; 64];
    let ones = vec![0xFF; 64];
    let none = entry_bytes([i64::MIN; 2], [u32::MAX; 2], [-1; 2]);
    let entries = [zeros, clip.clone(), ones, none, clip[..63].to_vec()].concat();
    let mut bytes = [header(b"vidx"), entries].concat();
    // What the header says of counts is not believed.
    put(&mut bytes, 32, i64::MAX.to_le_bytes());
    let found = parse_clips(&bytes, Path::new(VIDX), 1000, None).unwrap();
    let expected = VideoClip {
        start_uutc: Some(START + 1000),
        end_uutc: Some(START + 1005),
        start_frame: Some(0),
        end_frame: Some(9),
        file_offset: Some(0),
        bytes: Some(100),
        outside_file: false,
    };
    assert_eq!(found.clips, [expected]);
    assert_eq!(found.trailing_bytes, 63);
    let empty = parse_clips(&bytes[..1024], Path::new(VIDX), 0, Some(0)).unwrap();
    assert_eq!(empty, VideoClips::default());
    // Without all numbers it is a clip still.
    let partial = entry_bytes([START, i64::MIN], [u32::MAX, 7], [-1, -1]);
    let expected = VideoClip {
        start_uutc: Some(START),
        end_uutc: None,
        start_frame: None,
        end_frame: Some(7),
        file_offset: None,
        bytes: None,
        outside_file: false,
    };
    assert_eq!(clips(&[partial], Some(0)), [expected]);
}

#[test]
fn clips_outside_the_video_are_marked() {
    let outside = |extent, video_bytes| {
        let clip = entry_bytes([START, START], [0, 0], extent);
        clips(&[clip], video_bytes)[0].outside_file
    };
    for (extent, video_bytes, expected) in [
        ([0, 100], 100, false),
        ([50, 50], 100, false),
        ([100, 0], 100, false),
        ([0, 101], 100, true),
        ([51, 50], 100, true),
        ([101, -1], 100, true),
        ([-1, 101], 100, true),
        ([-1, 100], 100, false),
        ([-2, 1], 100, true),
        ([1, -2], 100, true),
        ([i64::MAX, i64::MAX], u64::MAX - 2, true),
        ([i64::MAX, i64::MAX], u64::MAX - 1, false),
        ([0, 1], 0, true),
    ] {
        assert_eq!(outside(extent, Some(video_bytes)), expected, "{extent:?}");
        assert!(!outside(extent, None));
    }
}

#[test]
fn indices_that_break_the_format_are_refused() {
    let parse = |bytes: &[u8]| reason(parse_clips(bytes, Path::new(VIDX), 0, None));
    let short = Malformation::TooShort {
        need: 1024,
        have: 1000,
    };
    assert_eq!(parse(&header(b"vidx")[..1000]), short);
    assert!(matches!(
        parse(&header(b"tidx")),
        Malformation::FileType { .. }
    ));
    let mut bytes = header(b"vidx");
    bytes[15] = 0;
    assert_eq!(parse(&bytes), Malformation::ByteOrder(0));
}

proptest! {
    #[test]
    fn damage_does_no_harm(
        damage in prop::collection::vec((0_usize..16384, any::<u8>()), 0..20),
        length in 0_usize..17000,
        offset in any::<i64>(),
        entries in prop::collection::vec(any::<u8>(), 0..500),
        video_bytes in any::<Option<u64>>(),
    ) {
        let mut bytes = vmet();
        for (place, byte) in damage {
            bytes[place] = byte;
        }
        sign(&mut bytes);
        bytes.truncate(length);
        let password = Password::new("any");
        let found = parse_video_metadata(&bytes, Path::new(VMET), password.as_ref());
        prop_assert!(found.is_err() || length >= 16384);
        let bytes = [header(b"vidx"), entries.clone()].concat();
        let found = parse_clips(&bytes, Path::new(VIDX), offset, video_bytes).unwrap();
        prop_assert!(found.clips.len() <= entries.len() / 64);
        prop_assert_eq!(found.trailing_bytes, entries.len() as u64 % 64);
    }
}
