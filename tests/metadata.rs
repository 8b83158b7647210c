//! What is known of a channel beside its samples, through the library and `info`.

mod common;

use common::forge::{BLOCK, Forged, PERIOD, START};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter, Subject};
use serde_json::{Value, json};

const OFFSET: i64 = 1_599_976_800_000_000;

/// Of a subject in Minnesota, while the clocks were changed.
fn described(passwords: bool) -> Forged {
    let options = SessionOptions {
        passwords: passwords.then(common::forge::passwords),
        recording_time_offset: Some(OFFSET),
        session_description: "second night".into(),
        gmt_offset: Some(-21_600),
        subject_name_1: "Given".into(),
        subject_name_2: "Family".into(),
        subject_id: "S-77".into(),
        recording_location: "Ward 3".into(),
        ..SessionOptions::default()
    };
    let forged = Forged::with(options);
    let password = passwords.then_some("second");
    let options = common::forge::options(password);
    let mut session = SessionWriter::open(&forged.path, &options).unwrap();
    let mut channel = session
        .channel(ChannelOptions {
            units_conversion_factor: 0.25,
            units_description: "mV".into(),
            channel_description: "left temporal".into(),
            reference_description: "mastoid".into(),
            acquisition_channel_number: Some(17),
            low_frequency_filter: Some(0.5),
            high_frequency_filter: Some(250.0),
            notch_filter_frequency: Some(60.0),
            ac_line_frequency: Some(50.0),
            ..ChannelOptions::new("described", 100.0)
        })
        .unwrap();
    channel.write(START, &[1; BLOCK]).unwrap();
    channel.finish().unwrap();
    forged.settle();
    forged
}

#[test]
fn the_library_has_every_field() {
    let forged = described(false);
    let dst = (START + PERIOD, START + 2 * PERIOD);
    forged.put("tmet", 13320, dst.0.to_le_bytes());
    forged.put("tmet", 13328, dst.1.to_le_bytes());
    let recording = forged.open();
    let channel = &recording.channels[recording.channel_position("described").unwrap()];
    assert_eq!(channel.segments[0].recording_time_offset, Some(OFFSET));
    assert_eq!(
        (channel.start_uutc, channel.times_unresolved()),
        (START, false)
    );
    let acquisition = channel.acquisition().unwrap();
    assert_eq!(acquisition.sampling_frequency, 100.0);
    assert_eq!(acquisition.units_conversion_factor, 0.25);
    assert_eq!(acquisition.units, "mV");
    assert_eq!(acquisition.channel_description, "left temporal");
    assert_eq!(acquisition.session_description, "second night");
    assert_eq!(acquisition.reference_description, "mastoid");
    assert_eq!(acquisition.acquisition_channel_number, Some(17));
    assert_eq!(acquisition.low_frequency_filter, Some(0.5));
    assert_eq!(acquisition.high_frequency_filter, Some(250.0));
    assert_eq!(acquisition.notch_filter, Some(60.0));
    assert_eq!(acquisition.line_frequency, Some(50.0));
    let subject = Subject {
        name_1: "Given".into(),
        name_2: "Family".into(),
        id: "S-77".into(),
        recording_location: "Ward 3".into(),
        gmt_offset_s: Some(-21_600),
        dst_start_uutc: Some(dst.0),
        dst_end_uutc: Some(dst.1),
    };
    // Compared without being shown.
    assert!(recording.subject == Some(subject));
    // What nobody has said is none.
    let other = recording.channels[1].acquisition().unwrap();
    assert_eq!(recording.channels[1].name, "described");
    let silent = recording.channels[0].acquisition().unwrap();
    assert_ne!(other, silent);
    assert_eq!(silent.acquisition_channel_number, None);
    assert_eq!(silent.low_frequency_filter, None);
}

fn channel_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let channels = report["channels"].as_array().unwrap();
    channels
        .iter()
        .find(|channel| channel["name"] == name)
        .unwrap()
}

#[test]
fn info_shows_it_and_never_the_subject() {
    let forged = described(false);
    forged.put("tmet", 13320, (START + PERIOD).to_le_bytes());
    let report = forged.info_json(None);
    let channel = channel_of(&report, "described");
    assert_eq!(channel["unit"], "mV");
    assert_eq!(channel["units_conversion_factor"], 0.25);
    assert_eq!(channel["recording_time_offset_us"], OFFSET);
    assert_eq!(channel["times_unresolved"], false);
    let acquisition = &channel["acquisition"];
    for (field, value) in [
        ("channel_description", json!("left temporal")),
        ("session_description", json!("second night")),
        ("reference_description", json!("mastoid")),
        ("acquisition_channel_number", json!(17)),
        ("low_frequency_filter", json!(0.5)),
        ("high_frequency_filter", json!(250.0)),
        ("notch_filter", json!(60.0)),
        ("line_frequency", json!(50.0)),
    ] {
        assert_eq!(acquisition[field], value, "{field}");
    }
    let silent = &channel_of(&report, "good")["acquisition"];
    assert_eq!(silent["notch_filter"], Value::Null);
    assert_eq!(report["subject_locked"], false);
    let clock = json!({
        "gmt_offset_s": -21_600,
        "dst_start_uutc": START + PERIOD,
        "dst_end_uutc": 0,
    });
    assert_eq!(report["clock"], clock);

    let output = forged.info(&[], None);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "Offset    1599976800000000 us hide the date in stored times\n",
        "Clock     UTC-06:00\n",
        "DST       began 2020-09-13T12:26:40.010000Z\n",
        "About     second night\n",
        "described      17     0.5 Hz    250 Hz  60 Hz  50 Hz\n",
        "channel described: left temporal\n",
        "channel described: reference mastoid\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for secret in ["Given", "Family", "S-77", "Ward 3"] {
        assert!(!text.contains(secret));
        assert!(!report.to_string().contains(secret));
    }
}

#[test]
fn what_the_first_password_does_not_open_is_told() {
    let forged = described(true);
    for (password, locked) in [("first", true), ("second", false)] {
        let recording = forged.open_with(Some(password)).unwrap();
        assert_eq!(recording.subject.is_none(), locked);
        assert!(
            recording
                .channels
                .iter()
                .all(|c| c.times_unresolved() == locked)
        );
        let offset = recording.channels[0].segments[0].recording_time_offset;
        assert_eq!(offset, (!locked).then_some(OFFSET));
        // Relative to the day that nobody knows.
        let start = if locked { START - OFFSET } else { START };
        assert_eq!(recording.channels[0].start_uutc, start);
        let report = forged.info_json(Some(password));
        assert_eq!(report["subject_locked"], locked);
        assert_eq!(report["times_unresolved"], locked);
        assert_eq!(report["clock"].is_null(), locked);
        let channel = channel_of(&report, "described");
        assert_eq!(channel["times_unresolved"], locked);
        assert_eq!(channel["recording_time_offset_us"].is_null(), locked);
        // Technical metadata are open to both.
        assert_eq!(channel["acquisition"]["notch_filter"], 60.0);
        let text = String::from_utf8(forged.info(&[], Some(password)).stdout).unwrap();
        assert_eq!(text.contains("the subject is locked"), locked, "{text}");
        assert_eq!(text.contains("may be relative"), locked, "{text}");
    }
}

#[test]
fn videos_are_shown_with_their_clips() {
    let forged = Forged::copy("video_pymef", "cam");
    let recording = forged.open();
    let segment = &recording.video_channels[0].segments[0];
    assert_eq!(segment.clips.len(), 2);
    let report = forged.info_json(None);
    let shown = &report["video_channels"][0];
    assert_eq!(shown["name"], "cam");
    let clips = shown["segments"][0]["clips"].as_array().unwrap();
    for (shown, clip) in clips.iter().zip(&segment.clips) {
        assert_eq!(shown["start_uutc"].as_i64(), clip.start_uutc);
        assert_eq!(shown["end_uutc"].as_i64(), clip.end_uutc);
        assert_eq!(shown["file_offset"].as_u64(), clip.file_offset);
        assert_eq!(shown["bytes"].as_u64(), clip.bytes);
        assert_eq!(shown["outside_file"], clip.outside_file);
    }
    assert_eq!(clips.len(), 2);
    let metadata = &shown["segments"][0]["metadata"];
    assert_eq!(
        metadata["horizontal_resolution"].as_u64(),
        segment.metadata.horizontal_resolution
    );
    assert_eq!(metadata["format"], segment.metadata.format.as_str());
}
