//! The records of the reference corpus, against what mef3io reads.

use std::fs;

use serde_json::{Value, json};
use zerocopy::FromBytes;

use super::*;
use crate::mef::time::NO_TIME;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "made for test programs; only the folder is needed here"
)]
#[path = "../../../../tests/common/corpus.rs"]
pub(in crate::mef) mod reference;

/// The record files of a session, by level, channel and segment as the truth
/// names them.
fn files(session: &Path) -> Vec<(Value, std::path::PathBuf)> {
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let folders = |folder: &Path, extension: &str| {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut folders: Vec<_> = entries
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        folders.sort();
        folders
    };
    let data = |folder: &Path| folder.join(format!("{}.rdat", stem(folder)));
    let mut files = vec![(json!(["session", null, null]), data(session))];
    for channel in folders(session, "timd") {
        let name = stem(&channel);
        files.push((json!(["channel", name, null]), data(&channel)));
        for segment in folders(&channel, "segd") {
            let number: u32 = stem(&segment).rsplit('-').next().unwrap().parse().unwrap();
            files.push((json!(["segment", name, number]), data(&segment)));
        }
    }
    files.retain(|(_, path)| path.is_file());
    files
}

/// Reads a pair of files from disk; nothing may be damaged.
fn read(path: &Path, password: Option<&str>, offset: i64) -> Vec<Record> {
    let data = fs::read(path).unwrap();
    let index = fs::read(path.with_extension("ridx")).unwrap();
    let (header, _) = UniversalHeader::ref_from_prefix(&data).unwrap();
    let keys = keys(header, password);
    let files = RecordFiles {
        data: &Bytes(&data),
        index: Some(&Bytes(&index)),
        path,
        recording_time_offset: offset,
        growing: false,
    };
    let found = scan(&files, &RecordFilter::default()).unwrap();
    assert_eq!(found.damage, RecordDamage::default(), "{}", path.display());
    let growing = RecordFiles {
        growing: true,
        ..files
    };
    assert_eq!(scan(&growing, &RecordFilter::default()).unwrap(), found);
    let load = |position| load(&Bytes(&data), position, &keys, offset).unwrap();
    found.positions.iter().map(load).collect()
}

/// A record as mef3io says it.
pub(in crate::mef) fn as_mef3io(record: &Record) -> Value {
    let mut said = json!({
        "type": record.kind.to_string(),
        "time": record.time_uutc.unwrap_or(NO_TIME),
        "version_major": record.version.0,
        "version_minor": record.version.1,
    });
    let time = |time: Option<i64>| time.unwrap_or(NO_TIME);
    let channel_time = |time: Option<i64>| time.unwrap_or(-1);
    let number = |number: Option<i64>| number.unwrap_or(-1);
    let body = match &record.body {
        RecordBody::Note { text } | RecordBody::SystemLog { text } => json!({"text": text}),
        RecordBody::EdfAnnotation { duration_us, text } => {
            json!({"duration": number(*duration_us), "text": text})
        }
        RecordBody::LineNoiseTemplate { template } => {
            json!({"length": template.len(), "template": template})
        }
        RecordBody::Seizure(seizure) => json!({
            "earliest_onset": time(seizure.earliest_onset_uutc),
            "latest_offset": time(seizure.latest_offset_uutc),
            "duration": number(seizure.duration_us),
            "number_of_channels": seizure.channels.len(),
            "onset_code": seizure.onset.map_or(-1, |onset| onset.code()),
            "marker_name_1": seizure.marker_name_1,
            "marker_name_2": seizure.marker_name_2,
            "annotation": seizure.annotation,
            "channels": seizure.channels.iter().map(|channel| json!({
                "name": channel.name,
                "onset": channel_time(channel.onset_uutc),
                "offset": channel_time(channel.offset_uutc),
            })).collect::<Vec<_>>(),
        }),
        RecordBody::CognitiveStimulus(stimulus) => json!({
            "task_type": stimulus.task_type,
            "stimulus_duration": number(stimulus.stimulus_duration_us),
            "stimulus_type": stimulus.stimulus_type,
            "patient_response": stimulus.patient_response,
        }),
        RecordBody::ElectricalStimulus(stimulus) => json!({
            "amplitude": stimulus.amplitude,
            "frequency": stimulus.frequency_hz.unwrap_or(-1.0),
            "pulse_width": number(stimulus.pulse_width_us),
            "ampunit_code": stimulus.amplitude_unit.map_or(-1, |unit| unit.code()),
            "mode_code": stimulus.mode.map_or(-1, |mode| mode.code()),
            "waveform": stimulus.waveform,
            "anode": stimulus.anode,
            "catode": stimulus.cathode,
        }),
        RecordBody::Cursor(cursor) => json!({
            "id_number": cursor.id_number,
            "trace_timestamp": time(cursor.trace_timestamp_uutc),
            "latency": cursor.latency_us,
            "value": cursor.value,
            "name": cursor.name,
        }),
        RecordBody::Epoch(epoch) => json!({
            "id_number": epoch.id_number,
            "timestamp": time(epoch.timestamp_uutc),
            "end_timestamp": time(epoch.end_timestamp_uutc),
            "duration": number(epoch.duration_us),
            "epoch_type": epoch.epoch_type,
            "text": epoch.text,
        }),
        RecordBody::Unrecognised | RecordBody::Unknown(_) => json!({}),
        RecordBody::Locked => json!({"locked": true}),
    };
    said.as_object_mut()
        .unwrap()
        .extend(body.as_object().unwrap().clone());
    said
}

/// What mef3io read at one level of a session.
fn truth(facts: &Value, level: &Value) -> Vec<Value> {
    let mut records = facts["records"]["mef3io"].as_array().unwrap().clone();
    records
        .retain(|record| json!([record["level"], record["channel"], record["segment"]]) == *level);
    for record in &mut records {
        for key in ["level", "channel", "segment"] {
            record.as_object_mut().unwrap().remove(key);
        }
    }
    records
}

fn facts(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn time_offset(facts: &Value) -> i64 {
    let channels = facts["channels"].as_object().unwrap();
    channels.values().next().unwrap()["recording_time_offset"]
        .as_i64()
        .unwrap()
}

#[test]
fn every_record_is_the_one_that_mef3io_reads() {
    let folder = reference::folder();
    for (name, records, places) in [
        ("records_pymef", 20, 4),
        ("records_mef3io", 19, 2),
        ("encrypted_mef3io", 5, 2),
        ("encrypted_pymef", 3, 2),
        ("time_offset_pymef", 1, 1),
        ("hostile/bases/base_rec", 6, 2),
    ] {
        let facts = facts(&folder.join(format!("{name}.json")));
        let password = facts["password_level_2"].as_str();
        let files = files(&folder.join(format!("{name}.mefd")));
        assert_eq!(files.len(), places, "{name}");
        let mut compared = 0;
        for (level, path) in files {
            let read = read(&path, password, time_offset(&facts));
            let said: Vec<Value> = read.iter().map(as_mef3io).collect();
            assert_eq!(said, truth(&facts, &level), "{name} {level}");
            compared += said.len();
        }
        assert_eq!(compared, records, "{name}");
    }
}

#[test]
fn bodies_of_level_2_are_locked_for_the_password_of_level_1() {
    let folder = reference::folder();
    let facts = facts(&folder.join("encrypted_mef3io.json"));
    for password in [facts["password_level_1"].as_str(), None] {
        for (level, path) in files(&folder.join("encrypted_mef3io.mefd")) {
            let truth = truth(&facts, &level);
            let read = read(&path, password, 0);
            assert_eq!(read.len(), truth.len());
            for (record, truth) in read.iter().zip(truth) {
                assert_eq!(record.body, RecordBody::Locked);
                assert_eq!(record.level, 2);
                // Type and time are no secret.
                assert_eq!(truth["type"], record.kind.to_string());
                assert_eq!(truth["time"], record.time_uutc.unwrap());
            }
        }
    }
}

#[test]
fn plain_records_of_an_encrypted_session_need_no_password() {
    let folder = reference::folder();
    let facts = facts(&folder.join("encrypted_pymef.json"));
    for (level, path) in files(&folder.join("encrypted_pymef.mefd")) {
        let said: Vec<Value> = read(&path, None, 0).iter().map(as_mef3io).collect();
        assert_eq!(said, truth(&facts, &level));
    }
}

#[test]
fn a_record_with_a_huge_body_costs_no_other_record() {
    let folder = reference::folder().join("hostile");
    let facts = facts(&folder.join("bases/base_rec.json"));
    let path = folder.join("record_body_bytes_huge.mefd/record_body_bytes_huge.rdat");
    let pair = Pair {
        data: fs::read(&path).unwrap(),
        index: Some(fs::read(path.with_extension("ridx")).unwrap()),
    };
    let expected = RecordError::OutsideFile {
        bytes: 4_294_967_280,
        available: 176,
    };
    let scan = pair.scan(false);
    assert_eq!(findings(&scan), [(1024, expected.clone())]);
    let said: Vec<Value> = pair.records(&scan).iter().map(as_mef3io).collect();
    let intact = truth(&facts, &json!(["session", null, null])).split_off(1);
    assert_eq!(said, intact);

    // Without an index nothing tells where the next record is.
    let scan = pair.without_index().scan(false);
    let missing = RecordError::Missing {
        declared: 5,
        found: 1,
    };
    assert_eq!(scan.positions, []);
    assert_eq!(findings(&scan), [(1024, expected), (1024, missing)]);
}
