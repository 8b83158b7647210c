//! Records: written by ours, and compared in one form whoever has read them.

use mef3_server::mef::{
    AmplitudeUnit, CognitiveStimulus, Cursor, ElectricalStimulus, Epoch, NewRecord, PlacedRecord,
    RecordBody, RecordType, Seizure, SeizureChannel, SeizureOnset, StimulationMode,
};
use serde_json::{Value, json};

use super::options::Writer;
use super::plan::{Plan, Record};

/// The record that a plan means; random_write.py has the same.
pub fn new_record(record: &Record) -> NewRecord {
    let Record { time, duration, .. } = *record;
    let text = record.text.clone();
    let later = Some(time + duration);
    let seizure_channel = |name: &str, onset| SeizureChannel {
        name: name.into(),
        onset_uutc: Some(onset),
        offset_uutc: later,
    };
    let (kind, body) = match record.kind {
        "Note" => (RecordType::NOTE, RecordBody::Note { text }),
        "SyLg" => (RecordType::SYLG, RecordBody::SystemLog { text }),
        "EDFA" => {
            let duration_us = Some(duration);
            (
                RecordType::EDFA,
                RecordBody::EdfAnnotation { duration_us, text },
            )
        }
        "LNTP" => {
            let template = (-8..9).map(|count| count * 1000).collect();
            (RecordType::LNTP, RecordBody::LineNoiseTemplate { template })
        }
        "CSti" => (
            RecordType::CSTI,
            RecordBody::CognitiveStimulus(CognitiveStimulus {
                task_type: "n-back".into(),
                stimulus_duration_us: Some(duration),
                stimulus_type: text,
                patient_response: "yes".into(),
            }),
        ),
        "ESti" => (
            RecordType::ESTI,
            RecordBody::ElectricalStimulus(ElectricalStimulus {
                amplitude: 1.5,
                frequency_hz: Some(50.25),
                pulse_width_us: Some(200),
                amplitude_unit: Some(AmplitudeUnit::Milliamperes),
                mode: Some(StimulationMode::Voltage),
                waveform: text,
                anode: "A1".into(),
                cathode: "A2".into(),
            }),
        ),
        "Seiz" => (
            RecordType::SEIZ,
            RecordBody::Seizure(Seizure {
                earliest_onset_uutc: Some(time),
                latest_offset_uutc: later,
                duration_us: Some(duration),
                onset: Some(SeizureOnset::Generalized),
                marker_name_1: "m1".into(),
                marker_name_2: "m2".into(),
                annotation: text,
                channels: vec![seizure_channel("r1", time), seizure_channel("r2", time + 1)],
            }),
        ),
        "Curs" => (
            RecordType::CURS,
            RecordBody::Cursor(Cursor {
                id_number: 3,
                trace_timestamp_uutc: Some(time),
                latency_us: -12,
                value: 0.5,
                name: text,
            }),
        ),
        "Epoc" => (
            RecordType::EPOC,
            RecordBody::Epoch(Epoch {
                id_number: 4,
                timestamp_uutc: Some(time),
                end_timestamp_uutc: later,
                duration_us: Some(duration),
                epoch_type: "stage".into(),
                text,
            }),
        ),
        other => unreachable!("no record type {other}"),
    };
    NewRecord::new(kind, time, body)
}

/// What a record says, field by field.
fn fields(body: &RecordBody) -> Value {
    match body {
        RecordBody::Note { text } | RecordBody::SystemLog { text } => json!([text]),
        RecordBody::EdfAnnotation { duration_us, text } => json!([duration_us, text]),
        RecordBody::LineNoiseTemplate { template } => json!([template]),
        RecordBody::CognitiveStimulus(body) => json!([
            body.task_type,
            body.stimulus_duration_us,
            body.stimulus_type,
            body.patient_response
        ]),
        RecordBody::ElectricalStimulus(body) => json!([
            body.amplitude,
            body.frequency_hz,
            body.pulse_width_us,
            match body.amplitude_unit {
                Some(AmplitudeUnit::Milliamperes) => 1,
                _ => -99,
            },
            match body.mode {
                Some(StimulationMode::Voltage) => 2,
                _ => -99,
            },
            body.waveform,
            body.anode,
            body.cathode
        ]),
        RecordBody::Seizure(body) => {
            let channels = body.channels.iter();
            let channels: Vec<Value> = channels
                .map(|c| json!([c.name, c.onset_uutc, c.offset_uutc]))
                .collect();
            json!([
                body.earliest_onset_uutc,
                body.latest_offset_uutc,
                body.duration_us,
                match body.onset {
                    Some(SeizureOnset::Generalized) => 2,
                    _ => -99,
                },
                body.marker_name_1,
                body.marker_name_2,
                body.annotation,
                channels
            ])
        }
        RecordBody::Cursor(body) => json!([
            body.id_number,
            body.trace_timestamp_uutc,
            body.latency_us,
            body.value,
            body.name
        ]),
        RecordBody::Epoch(body) => json!([
            body.id_number,
            body.timestamp_uutc,
            body.end_timestamp_uutc,
            body.duration_us,
            body.epoch_type,
            body.text
        ]),
        other => json!(format!("{other:?}")),
    }
}

/// The names that the peers have for the fields, in the same order.
fn peer_fields(record: &Value) -> Value {
    let names: &[&str] = match record["type"].as_str().unwrap() {
        "Note" | "SyLg" => &["text"],
        "EDFA" => &["duration", "text"],
        "LNTP" => &["template"],
        "CSti" => &[
            "task_type",
            "stimulus_duration",
            "stimulus_type",
            "patient_response",
        ],
        "ESti" => &[
            "amplitude",
            "frequency",
            "pulse_width",
            "ampunit_code",
            "mode_code",
            "waveform",
            "anode",
            "catode",
        ],
        "Seiz" => &[
            "earliest_onset",
            "latest_offset",
            "duration",
            "onset_code",
            "marker_name_1",
            "marker_name_2",
            "annotation",
        ],
        "Curs" => &["id_number", "trace_timestamp", "latency", "value", "name"],
        _ => &[
            "id_number",
            "timestamp",
            "end_timestamp",
            "duration",
            "epoch_type",
            "text",
        ],
    };
    let mut fields: Vec<Value> = names.iter().map(|&name| record[name].clone()).collect();
    if let Some(channels) = record["channels"].as_array() {
        let channels = channels.iter();
        let channels =
            channels.map(|channel| json!([channel["name"], channel["onset"], channel["offset"]]));
        fields.push(channels.collect());
    }
    Value::Array(fields)
}

/// Records as ours found them.
pub fn ours(records: &[PlacedRecord]) -> Vec<Value> {
    let records = records.iter().map(|placed| {
        let segment = placed.segment.as_ref().map(|stem| {
            let (_, number) = stem.rsplit_once('-').unwrap();
            number.parse::<u64>().unwrap()
        });
        let record = &placed.record;
        json!([
            record.kind.to_string(),
            record.time_uutc,
            placed.channel,
            segment,
            fields(&record.body)
        ])
    });
    sorted(records.collect())
}

/// Records as mef3io found them.
pub fn by_mef3io(records: &Value) -> Vec<Value> {
    peers(records.as_array().unwrap().iter().cloned())
}

/// Records as pymef found them.
pub fn by_pymef(records: &Value, plan: &Plan) -> Vec<Value> {
    let records = records.as_array().unwrap().iter().cloned();
    as_pymef_can(
        &peers(records.map(|mut record| {
            resolve_times(&mut record, plan.offset);
            record
        })),
        plan,
    )
}

/// Puts the times in a body right as section 5, consequence 3, has it: negative
/// ones are relative to the offset. pymef does not, and ours stores such where there
/// is an offset.
fn resolve_times(record: &mut Value, offset: i64) {
    let fields = [
        "earliest_onset",
        "latest_offset",
        "trace_timestamp",
        "timestamp",
        "end_timestamp",
        "onset",
        "offset",
    ];
    for field in fields {
        if let Some(stored) = record[field].as_i64().filter(|&stored| stored < 0) {
            record[field] = json!(offset - stored);
        }
    }
    if let Some(channels) = record["channels"].as_array_mut() {
        channels
            .iter_mut()
            .for_each(|channel| resolve_times(channel, offset));
    }
}

/// Leaves out templates of the line noise that are ours: the elements have four
/// bytes, as the format has it, and pymef takes them for eight (section 9.3).
pub fn as_pymef_can(records: &[Value], plan: &Plan) -> Vec<Value> {
    let mut records = records.to_vec();
    if plan.writer == Writer::Ours {
        let templates = records.iter_mut().filter(|record| record[0] == "LNTP");
        templates.for_each(|record| record[4] = Value::Null);
    }
    sorted(records)
}

fn peers(records: impl Iterator<Item = Value>) -> Vec<Value> {
    let records = records.map(|record| {
        json!([
            record["type"],
            record["time"],
            record["channel"],
            record["segment"],
            peer_fields(&record)
        ])
    });
    sorted(records.collect())
}

/// Records as they were meant.
pub fn planned(records: &[Record]) -> Vec<Value> {
    let records = records.iter().map(|record| {
        json!([
            record.kind,
            record.time,
            record.channel,
            record.segment,
            fields(&new_record(record).body)
        ])
    });
    sorted(records.collect())
}

/// Those of one time may come in any order.
fn sorted(mut records: Vec<Value>) -> Vec<Value> {
    records.sort_by_key(Value::to_string);
    records
}
