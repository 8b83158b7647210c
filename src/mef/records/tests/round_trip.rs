//! Random records, written and read back.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::mef::records::decode::decode_body;
use crate::mef::records::encode::encode_body;
use crate::mef::time::NO_TIME;

/// A text of at most `limit` bytes without a NUL.
fn text(limit: usize) -> impl Strategy<Value = String> {
    ".{0,80}".prop_map(move |text| {
        let mut text = text.replace('\0', "");
        while text.len() > limit {
            text.pop();
        }
        text
    })
}

/// A time behind every offset of these tests, or none.
fn time() -> impl Strategy<Value = Option<i64>> {
    option::of(START..i64::MAX / 2)
}

fn duration() -> impl Strategy<Value = Option<i64>> {
    option::of(any::<i64>().prop_filter("means no entry", |&number| number != -1))
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::INFINITE
}

fn code() -> impl Strategy<Value = Option<i32>> {
    let defined = -1..6_i32;
    let codes = prop_oneof![defined, any::<i32>()];
    codes.prop_map(|code| Some(code).filter(|&code| code != -1))
}

fn seizure() -> impl Strategy<Value = RecordBody> {
    let channel =
        (text(255), time(), time()).prop_map(|(name, onset_uutc, offset_uutc)| SeizureChannel {
            name,
            onset_uutc,
            offset_uutc,
        });
    let texts = (text(127), text(127), text(1023));
    let all = (
        time(),
        time(),
        duration(),
        code(),
        texts,
        vec(channel, 0..4),
    );
    all.prop_map(|(earliest, latest, duration_us, onset, texts, channels)| {
        RecordBody::Seizure(Seizure {
            earliest_onset_uutc: earliest,
            latest_offset_uutc: latest,
            duration_us,
            onset: onset.map(SeizureOnset::from_code),
            marker_name_1: texts.0,
            marker_name_2: texts.1,
            annotation: texts.2,
            channels,
        })
    })
}

fn cognitive_stimulus() -> impl Strategy<Value = RecordBody> {
    let all = (text(63), duration(), text(63), text(63));
    all.prop_map(
        |(task_type, stimulus_duration_us, stimulus_type, response)| {
            RecordBody::CognitiveStimulus(CognitiveStimulus {
                task_type,
                stimulus_duration_us,
                stimulus_type,
                patient_response: response,
            })
        },
    )
}

fn electrical_stimulus() -> impl Strategy<Value = RecordBody> {
    let frequency = option::of(number().prop_filter("means no entry", |&hz| hz != -1.0));
    let numbers = (number(), frequency, duration(), code(), code());
    let all = (numbers, text(127), text(127), text(127));
    all.prop_map(|(numbers, waveform, anode, cathode)| {
        let (amplitude, frequency_hz, pulse_width_us, unit, mode) = numbers;
        RecordBody::ElectricalStimulus(ElectricalStimulus {
            amplitude,
            frequency_hz,
            pulse_width_us,
            amplitude_unit: unit.map(AmplitudeUnit::from_code),
            mode: mode.map(StimulationMode::from_code),
            waveform,
            anode,
            cathode,
        })
    })
}

fn cursor() -> impl Strategy<Value = RecordBody> {
    let all = (any::<i64>(), time(), any::<i64>(), number(), text(127));
    all.prop_map(|(id_number, timestamp, latency_us, value, name)| {
        RecordBody::Cursor(Cursor {
            id_number,
            trace_timestamp_uutc: timestamp,
            latency_us,
            value,
            name,
        })
    })
}

fn epoch() -> impl Strategy<Value = RecordBody> {
    let all = (
        any::<i64>(),
        time(),
        time(),
        duration(),
        text(31),
        text(127),
    );
    all.prop_map(|(id_number, start, end, duration_us, epoch_type, text)| {
        RecordBody::Epoch(Epoch {
            id_number,
            timestamp_uutc: start,
            end_timestamp_uutc: end,
            duration_us,
            epoch_type,
            text,
        })
    })
}

/// A body of any type.
fn body() -> impl Strategy<Value = RecordBody> {
    // Elements whose upper half looks like a sign, so that the two forms of a
    // template are near each other.
    let element = prop_oneof![any::<i32>(), -1..=0_i32, Just(0x7E7E_7E7E)];
    prop_oneof![
        text(500).prop_map(|text| RecordBody::Note { text }),
        text(500).prop_map(|text| RecordBody::SystemLog { text }),
        (duration(), text(500))
            .prop_map(|(duration_us, text)| RecordBody::EdfAnnotation { duration_us, text }),
        vec(element, 0..40).prop_map(|template| RecordBody::LineNoiseTemplate { template }),
        seizure(),
        cognitive_stimulus(),
        electrical_stimulus(),
        cursor(),
        epoch(),
        Just(RecordBody::Unrecognised),
        vec(any::<u8>(), 0..4).prop_map(|blocks| {
            // Raw bodies come back with their padding, so these have none.
            RecordBody::Unknown(blocks.iter().flat_map(|&byte| [byte; 16]).collect())
        }),
    ]
}

fn two_keys() -> Keys {
    let [first, second] = ["one", "two"].map(|text| Password::new(text).unwrap());
    Keys::for_writing(&first, &second).0
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        bodies in vec((body(), START..START + 1000), 1..6),
        offset in prop_oneof![Just(0), Just(NO_TIME), Just(START - 86_400_000_000), Just(-5)],
        encrypted in any::<bool>(),
    ) {
        let keys = two_keys();
        let writing = encrypted.then_some(&keys);
        let (mut data, mut index, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (body, time_uutc) in bodies {
            let kind = body.kind().unwrap_or(RecordType::new(*b"x.y/"));
            let record = NewRecord::new(kind, time_uutc, body);
            let file_offset = (HEADER_BYTES + data.len()) as u64;
            let encoded = encode_record(&record, writing, offset, file_offset).unwrap();
            data.extend(encoded.bytes);
            index.extend_from_slice(encoded.entry.as_bytes());
            expected.push(Record {
                kind,
                version: (1, 0),
                level: if encrypted { 2 } else { 0 },
                time_uutc: Some(time_uutc),
                file_offset,
                body: record.body,
            });
        }
        let count = expected.len() as i64;
        let data = file(b"rdat\0", count, &data);
        let files = RecordFiles {
            data: &Bytes(&data),
            index: Some(&Bytes(&file(b"ridx\0", count, &index))),
            path: Path::new("s.rdat"),
            recording_time_offset: offset,
            growing: false,
        };
        let found = scan(&files, &RecordFilter::default()).unwrap();
        prop_assert_eq!(&found.damage, &RecordDamage::default());
        expected.sort_by_key(|record| record.time_uutc);
        for (position, expected) in found.positions.iter().zip(&expected) {
            let read = load(&Bytes(&data), position, &keys, offset).unwrap();
            prop_assert_eq!(&read, expected);
            let locked = load(&Bytes(&data), position, &Keys::default(), offset).unwrap();
            prop_assert_eq!(locked.body == RecordBody::Locked, encrypted);
        }
        prop_assert_eq!(found.positions.len(), expected.len());
    }

    #[test]
    fn any_bytes_are_a_body(
        kind in prop_oneof![
            prop::sample::select(vec![
                RecordType::NOTE, RecordType::EDFA, RecordType::SYLG, RecordType::SEIZ,
                RecordType::LNTP, RecordType::CSTI, RecordType::ESTI, RecordType::CURS,
                RecordType::EPOC, RecordType::UNRC,
            ]),
            any::<[u8; 4]>().prop_map(RecordType::new),
        ],
        version in prop_oneof![Just((1, 0)), any::<(u8, u8)>()],
        bytes in vec(any::<u8>(), 0..2000),
        offset in any::<i64>(),
    ) {
        let body = decode_body(kind, version, &bytes, offset);
        match body.kind() {
            Some(found) => prop_assert_eq!((found, version), (kind, (1, 0))),
            None => prop_assert_eq!(body, RecordBody::Unknown(bytes)),
        }
    }
}

#[test]
fn records_and_findings_survive_the_way_from_a_worker() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (sender, receiver) = ipc_channel::ipc::channel::<(Record, RecordScan)>().unwrap();
    for number in 0..50 {
        let body = body().new_tree(&mut runner).unwrap().current();
        let record = Record {
            kind: body.kind().unwrap_or(RecordType::new([0xFF; 4])),
            version: (1, number),
            level: -2,
            time_uutc: (number > 3).then_some(START),
            file_offset: u64::MAX,
            body,
        };
        let mut pair = Pair::of(&notes(3));
        pair.data[1024 + 30 + usize::from(number)] ^= 1;
        let sent = (record, pair.scan(false));
        sender.send(sent.clone()).unwrap();
        assert_eq!(receiver.recv().unwrap(), sent);
    }
}

#[test]
fn a_body_shorter_than_its_fixed_part_is_raw() {
    for (kind, fixed) in [
        (RecordType::EDFA, 8),
        (RecordType::LNTP, 8),
        (RecordType::SEIZ, 1312),
        (RecordType::CSTI, 200),
        (RecordType::ESTI, 416),
        (RecordType::CURS, 160),
        (RecordType::EPOC, 192),
    ] {
        let short = vec![0; fixed - 1];
        let raw = decode_body(kind, (1, 0), &short, 0);
        assert_eq!(raw, RecordBody::Unknown(short), "{kind}");
        let whole = vec![0; fixed];
        assert_eq!(decode_body(kind, (1, 0), &whole, 0).kind(), Some(kind));
        // Another version may mean anything.
        let other = decode_body(kind, (1, 1), &whole, 0);
        assert_eq!(other, RecordBody::Unknown(whole), "{kind}");
    }
}

#[test]
fn counts_beyond_the_body_are_cut_and_negative_ones_are_none() {
    for (channels, found) in [
        (1, 1),
        (2, 2),
        (3, 2),
        (i32::MAX, 2),
        (-1, 0),
        (i32::MIN, 0),
    ] {
        let mut body = vec![0; 1312 + 2 * 272 + 100];
        body[24..28].copy_from_slice(&channels.to_le_bytes());
        let RecordBody::Seizure(seizure) = decode_body(RecordType::SEIZ, (1, 0), &body, 0) else {
            panic!("not a seizure");
        };
        assert_eq!(seizure.channels.len(), found, "{channels}");
    }
    for (length, found) in [(1, 1), (3, 3), (i64::MAX, 3), (-1, 0), (i64::MIN, 0)] {
        let mut body = i64::to_le_bytes(length).to_vec();
        body.extend([1, 2, 3].into_iter().flat_map(i32::to_le_bytes));
        let template = vec![1, 2, 3][..found].to_vec();
        let expected = RecordBody::LineNoiseTemplate { template };
        assert_eq!(decode_body(RecordType::LNTP, (1, 0), &body, 0), expected);
    }
}

#[test]
fn text_ends_at_a_nul_or_before_the_padding() {
    let note = |bytes: &[u8]| match decode_body(RecordType::NOTE, (1, 0), bytes, 0) {
        RecordBody::Note { text } => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(note(b""), "");
    assert_eq!(note(b"a~~\0~~~~"), "a~~");
    assert_eq!(note(b"no nul~~~~~~~~~~"), "no nul");
    // Padding is never sixteen bytes long.
    assert_eq!(note(&[b'~'; 16]), "~");
    assert_eq!(note(b"\xFFx\0"), "\u{FFFD}x");
}

#[test]
fn no_entry_is_none_by_field() {
    let mut body = vec![0xFF; 1312 + 272];
    body[24..28].copy_from_slice(&1_i32.to_le_bytes());
    let RecordBody::Seizure(seizure) = decode_body(RecordType::SEIZ, (1, 0), &body, 70) else {
        panic!("not a seizure");
    };
    // -1 is a time under an offset, except in a channel.
    assert_eq!(seizure.earliest_onset_uutc, Some(71));
    assert_eq!(seizure.duration_us, None);
    assert_eq!(seizure.onset, None);
    assert_eq!(seizure.channels[0].onset_uutc, None);
    assert_eq!(seizure.channels[0].offset_uutc, None);
    body[..8].copy_from_slice(&NO_TIME.to_le_bytes());
    let RecordBody::Seizure(seizure) = decode_body(RecordType::SEIZ, (1, 0), &body, 70) else {
        panic!("not a seizure");
    };
    assert_eq!(seizure.earliest_onset_uutc, None);
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let refuse = |kind, time, body| {
        let record = NewRecord::new(kind, time, body);
        encode_record(&record, None, START, 1024).err().unwrap()
    };
    let note = |text: &str| RecordBody::Note { text: text.into() };
    let locked = refuse(RecordType::NOTE, START + 1, RecordBody::Locked);
    assert_eq!(locked, RecordRefusal::Locked);
    let nul = refuse(RecordType::NOTE, START + 1, note("a\0b"));
    assert!(matches!(nul, RecordRefusal::Text { field: "text", .. }));
    let kind = refuse(RecordType::SYLG, START + 1, note(""));
    assert_eq!(kind, RecordRefusal::Kind);
    let empty = refuse(
        RecordType::new([0; 4]),
        START + 1,
        RecordBody::Unknown(vec![]),
    );
    assert_eq!(empty, RecordRefusal::Kind);
    // The recording's offset hides its dates: a time before it would show one.
    let early = refuse(RecordType::NOTE, START, note(""));
    assert_eq!(early, RecordRefusal::Time(START));
    let epoch = |epoch| refuse(RecordType::EPOC, START + 1, RecordBody::Epoch(epoch));
    let early = epoch(Epoch {
        timestamp_uutc: Some(START - 1),
        ..Epoch::default()
    });
    assert_eq!(early, RecordRefusal::Time(START - 1));
    let long = epoch(Epoch {
        epoch_type: "x".repeat(32),
        ..Epoch::default()
    });
    let expected = RecordRefusal::Text {
        field: "epoch type",
        limit: 31,
    };
    assert_eq!(long, expected);
    let big = refuse(
        RecordType::NOTE,
        START + 1,
        RecordBody::Unknown(vec![0; (64 << 20) + 1]),
    );
    assert_eq!(big, RecordRefusal::TooLong((64 << 20) + 16));
    let version = NewRecord {
        version: (2, 0),
        ..NewRecord::note(START, "")
    };
    let refused = encode_record(&version, None, 0, 1024).err();
    assert_eq!(refused, Some(RecordRefusal::Kind));
    let level_2 = encode_record(&NewRecord::note(START, ""), Some(&Keys::default()), 0, 0).err();
    assert_eq!(level_2, Some(RecordRefusal::NoKey));
}

#[test]
fn times_in_bodies_hide_the_date_where_the_recording_does() {
    let body = RecordBody::Cursor(Cursor {
        trace_timestamp_uutc: Some(START + 5),
        ..Cursor::default()
    });
    for (offset, stored) in [(0, START + 5), (NO_TIME, START + 5), (START, -5)] {
        let bytes = encode_body(&body, offset).unwrap();
        assert_eq!(bytes[8..16], stored.to_le_bytes(), "{offset}");
        assert_eq!(decode_body(RecordType::CURS, (1, 0), &bytes, offset), body);
    }
}
