//! What mef3io and pymef read of the writer's records, and what the writer makes
//! of theirs.

use serde_json::{Value, json};

use super::*;
use crate::mef::peers as python;
use crate::mef::records::tests::corpus::as_mef3io;
use crate::mef::records::tests::keys;
use crate::mef::records::{
    AmplitudeUnit, CognitiveStimulus, Cursor, ElectricalStimulus, Epoch, RecordType, Seizure,
    SeizureChannel, SeizureOnset, StimulationMode,
};

const SECOND: i64 = 1_000_000;

/// A record of every type that has a body, with texts that are not ASCII.
fn all_types() -> Vec<NewRecord> {
    let seizure = Seizure {
        earliest_onset_uutc: Some(START + SECOND),
        latest_offset_uutc: None,
        duration_us: Some(4_000_000),
        onset: Some(SeizureOnset::Mixed),
        marker_name_1: "première".into(),
        marker_name_2: "m".repeat(127),
        annotation: "ä".repeat(511),
        channels: vec![
            SeizureChannel {
                name: "c.x".into(),
                onset_uutc: Some(START + SECOND),
                offset_uutc: None,
            },
            SeizureChannel {
                name: "日本".into(),
                onset_uutc: None,
                offset_uutc: Some(START + 2 * SECOND),
            },
        ],
    };
    let bodies = [
        RecordBody::Note {
            text: "ñote – 15 chars".into(),
        },
        RecordBody::SystemLog {
            text: String::new(),
        },
        RecordBody::EdfAnnotation {
            duration_us: Some(500_000),
            text: "Ereignis µ~~~".into(),
        },
        RecordBody::LineNoiseTemplate {
            template: vec![i32::MIN, -1, 0, 1, i32::MAX],
        },
        RecordBody::CognitiveStimulus(CognitiveStimulus {
            task_type: "n-back".into(),
            stimulus_duration_us: None,
            stimulus_type: "s".repeat(63),
            patient_response: "oui".into(),
        }),
        RecordBody::ElectricalStimulus(ElectricalStimulus {
            amplitude: 1.5,
            frequency_hz: Some(130.5),
            pulse_width_us: Some(90),
            amplitude_unit: Some(AmplitudeUnit::Volts),
            mode: Some(StimulationMode::Other(9)),
            waveform: "biphasic".into(),
            anode: "A1".into(),
            cathode: "A2".into(),
        }),
        RecordBody::Seizure(seizure),
        RecordBody::Cursor(Cursor {
            id_number: -3,
            trace_timestamp_uutc: Some(START + 5),
            latency_us: -12,
            value: 0.25,
            name: "cursor".into(),
        }),
        RecordBody::Epoch(Epoch {
            id_number: 4,
            timestamp_uutc: Some(START),
            end_timestamp_uutc: Some(START + SECOND),
            duration_us: Some(SECOND),
            epoch_type: "stage".into(),
            text: "N2".into(),
        }),
    ];
    // The last one is the earliest.
    let times = (1..).map(|number| START + SECOND * (number % 9));
    let record = |(body, time): (RecordBody, i64)| NewRecord::new(body.kind().unwrap(), time, body);
    bodies.into_iter().zip(times).map(record).collect()
}

/// What mef3io is to say of a record.
fn said(record: &NewRecord, level: &str) -> Value {
    let mut said = as_mef3io(&Record {
        kind: record.kind,
        version: record.version,
        level: 0,
        time_uutc: Some(record.time_uutc),
        file_offset: 0,
        body: record.body.clone(),
    });
    said["level"] = level.into();
    said["channel"] = json!((level != "session").then_some("c.x"));
    said["segment"] = json!((level == "segment").then_some(0));
    said
}

fn note_of_mef3io(number: i64) -> NewRecord {
    NewRecord::note(START + number, "by mef3io")
}

/// All that mef3io is to say, level by level and by time.
fn expected(levels: &[(&str, &[NewRecord])]) -> Vec<Value> {
    let level = |&(level, records): &(&str, &[NewRecord])| {
        let mut records: Vec<&NewRecord> = records.iter().collect();
        records.sort_by_key(|record| record.time_uutc);
        let said = records.into_iter().map(|record| said(record, level));
        said.collect::<Vec<_>>()
    };
    levels.iter().flat_map(level).collect()
}

/// The same as pymef says it: in the order of the file, without versions.
fn expected_of_pymef(records: &[NewRecord]) -> Vec<Value> {
    let said = |record| {
        let mut said = said(record, "");
        let fields = said.as_object_mut().unwrap();
        let unsaid = [
            "version_major",
            "version_minor",
            "level",
            "channel",
            "segment",
            "template",
        ];
        fields.retain(|field, _| !unsaid.contains(&field.as_str()));
        said
    };
    records.iter().map(said).collect()
}

fn read(command: &str, session: &Path, password: Option<&str>) -> Value {
    let arguments = [Some(command), session.to_str(), password];
    let printed = python::run_python("record_peers.py", arguments.into_iter().flatten());
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn the_peers_read_what_was_written_and_append_to_it() {
    let folder = tempfile::tempdir().unwrap();
    python::run_python("record_peers.py", ["make", folder.path().to_str().unwrap()]);
    for (name, passwords) in [("plain", None), ("protected", Some(("one", "two")))] {
        let session = folder.path().join(format!("{name}.mefd"));
        let channel = session.join("c.x.timd");
        let segment = channel.join("c.x-000000.segd");
        let metadata = fs::read(segment.join("c.x-000000.tmet")).unwrap();
        let (template, _) = UniversalHeader::ref_from_prefix(&metadata).unwrap();
        let level_2 = passwords.map(|(_, level_2)| level_2);
        let keys = level_2.map(|password| keys(template, Some(password)));
        let mut rng = Rng::with_seed(1);

        // mef3io's own file is extended, and two new ones are made.
        let mut at_session = vec![note_of_mef3io(1)];
        for records in [all_types(), vec![NewRecord::note(START + 3, "again")]] {
            let mut writer = RecordWriter::open(&session, name, keys.clone(), 0, &mut rng).unwrap();
            writer.append(&records).unwrap();
            at_session.extend(records);
        }
        let mut at_channel = all_types();
        at_channel.reverse();
        RecordWriter::create(&channel, "c.x", template, keys.clone(), 0, &mut rng)
            .unwrap()
            .append(&at_channel)
            .unwrap();
        let at_segment = [NewRecord::note(START + 7, "segment")];
        RecordWriter::create(&segment, "c.x-000000", template, keys.clone(), 0, &mut rng)
            .unwrap()
            .append(&at_segment)
            .unwrap();

        let seen = read("read", &session, level_2);
        let levels: [(&str, &[NewRecord]); 3] = [
            ("session", &at_session),
            ("channel", &at_channel),
            ("segment", &at_segment),
        ];
        assert_eq!(seen["mef3io"], json!(expected(&levels)), "{name}");
        for (level, records) in levels {
            let expected = expected_of_pymef(records);
            assert_eq!(seen["pymef"][level], json!(expected), "{name} {level}");
        }
        // Nothing that mef3io's repair would touch.
        assert_eq!(seen["repair"], json!([]), "{name}");

        // The other way round: mef3io appends, and then we again.
        let passwords = passwords.map(|(one, two)| [one, two]);
        let mut arguments = vec!["append", session.to_str().unwrap()];
        arguments.extend(passwords.iter().flatten());
        python::run_python("record_peers.py", arguments);
        at_session.push(note_of_mef3io(2));
        at_channel.push(note_of_mef3io(3));
        let late = NewRecord::note(START + 20 * SECOND, "late");
        for (folder, stem, records) in [
            (&session, name, &mut at_session),
            (&channel, "c.x", &mut at_channel),
        ] {
            let mut writer = RecordWriter::open(folder, stem, keys.clone(), 0, &mut rng).unwrap();
            writer.append(std::slice::from_ref(&late)).unwrap();
            records.push(late.clone());
        }
        let seen = read("read", &session, level_2);
        let levels: [(&str, &[NewRecord]); 3] = [
            ("session", &at_session),
            ("channel", &at_channel),
            ("segment", &at_segment),
        ];
        assert_eq!(seen["mef3io"], json!(expected(&levels)), "{name}");
        assert_eq!(seen["repair"], json!([]), "{name}");
    }
}

/// mef3io passes over a type that it does not know, and reads what follows.
#[test]
fn an_unknown_type_hides_no_other_record() {
    let folder = tempfile::tempdir().unwrap();
    python::run_python("record_peers.py", ["make", folder.path().to_str().unwrap()]);
    let session = folder.path().join("plain.mefd");
    let mut rng = Rng::with_seed(1);
    let kind = RecordType::new(*b"Zz-9");
    let raw = NewRecord::new(kind, START + 5, RecordBody::Unknown(vec![1, 2, 3]));
    let empty = NewRecord::new(RecordType::UNRC, START + 6, RecordBody::Unrecognised);
    let last = NewRecord::note(START + 7, "last");
    RecordWriter::open(&session, "plain", None, 0, &mut rng)
        .unwrap()
        .append(&[raw.clone(), empty.clone(), last.clone()])
        .unwrap();
    let seen = read("read_mef3io", &session, None);
    let records = [note_of_mef3io(1), raw, empty, last];
    assert_eq!(seen["mef3io"], json!(expected(&[("session", &records)])));
    assert_eq!(seen["repair"], json!([]));
}
