//! Records, to bytes (format sections 9 and 16).

use zerocopy::little_endian::{F64, I32, I64, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::decode::{NO_FREQUENCY, NO_NUMBER};
use super::layout::{
    BODY_UNIT, CognitiveStimulusBody, CursorBody, ElectricalStimulusBody, EpochBody, PAD,
    RECORD_HEADER_BYTES, RecordEntry, RecordHeader, SeizureBody, SeizureChannelEntry,
};
use super::load::MAX_BODY_BYTES;
use super::{
    CognitiveStimulus, Cursor, ElectricalStimulus, Epoch, NewRecord, RecordBody, RecordRefusal,
    Seizure,
};
use crate::mef::crc::crc32;
use crate::mef::crypto::Keys;
use crate::mef::layout::set_text;
use crate::mef::time::{self, NO_TIME};

/// Level of the records of a protected session, as mef3io writes them.
const LEVEL_OF_PROTECTED_RECORDS: i8 = 2;
const LEVEL_OF_PLAIN_RECORDS: i8 = 0;
/// Version of the bodies that are known.
const VERSION: (u8, u8) = (1, 0);

/// A record as it goes into the files.
pub(crate) struct EncodedRecord {
    /// Header and padded body.
    pub(crate) bytes: Vec<u8>,
    /// Its entry of the index.
    pub(crate) entry: RecordEntry,
}

/// Encodes a record that will stand at `file_offset`; with keys, its body is
/// encrypted at level 2.
pub(crate) fn encode_record(
    record: &NewRecord,
    keys: Option<&Keys>,
    recording_time_offset: i64,
    file_offset: u64,
) -> Result<EncodedRecord, RecordRefusal> {
    let (version_major, version_minor) = record.version;
    let fits = match record.body.kind() {
        Some(kind) => kind == record.kind && record.version == VERSION,
        None => !record.kind.is_none(),
    };
    if !fits {
        return Err(RecordRefusal::Kind);
    }
    let time = stored_time(record.time_uutc, recording_time_offset)?;
    let mut body = encode_body(&record.body, recording_time_offset)?;
    let padded = body.len().next_multiple_of(BODY_UNIT);
    let length = u32::try_from(padded)
        .ok()
        .filter(|&length| length <= MAX_BODY_BYTES)
        .ok_or(RecordRefusal::TooLong(padded))?;
    body.resize(padded, PAD);
    let mut encryption = LEVEL_OF_PLAIN_RECORDS;
    if let Some(keys) = keys {
        encryption = LEVEL_OF_PROTECTED_RECORDS;
        keys.encrypt(encryption, &mut body)
            .map_err(|_| RecordRefusal::NoKey)?;
    }
    let header = RecordHeader {
        crc: U32::new(0),
        kind: record.kind.bytes(),
        kind_end: 0,
        version_major,
        version_minor,
        encryption,
        bytes: U32::new(length),
        time: I64::new(time),
    };
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + padded);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&body);
    let (crc_field, covered) = bytes.split_at_mut(size_of::<U32>());
    crc_field.copy_from_slice(&crc32(covered).to_le_bytes());
    let entry = RecordEntry {
        kind: header.kind,
        kind_end: 0,
        version_major,
        version_minor,
        encryption,
        file_offset: I64::new(i64::try_from(file_offset).unwrap_or(i64::MAX)),
        time: header.time,
    };
    Ok(EncodedRecord { bytes, entry })
}

/// The bytes of a body, without padding.
pub(crate) fn encode_body(
    body: &RecordBody,
    recording_time_offset: i64,
) -> Result<Vec<u8>, RecordRefusal> {
    let offset = recording_time_offset;
    let mut bytes = Vec::new();
    match body {
        RecordBody::Note { text } | RecordBody::SystemLog { text } => {
            push_text(&mut bytes, text)?;
        }
        RecordBody::EdfAnnotation { duration_us, text } => {
            bytes.extend_from_slice(number(*duration_us).as_bytes());
            push_text(&mut bytes, text)?;
        }
        RecordBody::LineNoiseTemplate { template } => {
            // No vector is as long as that.
            let length = i64::try_from(template.len()).unwrap_or(i64::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend(template.iter().flat_map(|element| element.to_le_bytes()));
        }
        RecordBody::Seizure(seizure) => push_seizure(&mut bytes, seizure, offset)?,
        RecordBody::CognitiveStimulus(stimulus) => {
            bytes.extend_from_slice(cognitive_stimulus(stimulus)?.as_bytes());
        }
        RecordBody::ElectricalStimulus(stimulus) => {
            bytes.extend_from_slice(electrical_stimulus(stimulus)?.as_bytes());
        }
        RecordBody::Cursor(cursor) => {
            bytes.extend_from_slice(cursor_body(cursor, offset)?.as_bytes());
        }
        RecordBody::Epoch(epoch) => {
            bytes.extend_from_slice(epoch_body(epoch, offset)?.as_bytes());
        }
        RecordBody::Unrecognised => {}
        RecordBody::Unknown(raw) => bytes.extend_from_slice(raw),
        RecordBody::Locked => return Err(RecordRefusal::Locked),
    }
    Ok(bytes)
}

/// Text that fills the rest of a body, ended by a NUL.
fn push_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), RecordRefusal> {
    check_text("text", text, MAX_BODY_BYTES as usize)?;
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    Ok(())
}

fn push_seizure(bytes: &mut Vec<u8>, seizure: &Seizure, offset: i64) -> Result<(), RecordRefusal> {
    let mut body = SeizureBody::new_zeroed();
    let channels = i32::try_from(seizure.channels.len()).unwrap_or(i32::MAX);
    body.earliest_onset = body_time(seizure.earliest_onset_uutc, offset)?;
    body.latest_offset = body_time(seizure.latest_offset_uutc, offset)?;
    body.duration = number(seizure.duration_us);
    body.number_of_channels = I32::new(channels);
    body.onset_code = code(seizure.onset.map(|onset| onset.code()));
    fill(
        &mut body.marker_name_1,
        "marker name 1",
        &seizure.marker_name_1,
    )?;
    fill(
        &mut body.marker_name_2,
        "marker name 2",
        &seizure.marker_name_2,
    )?;
    fill(&mut body.annotation, "annotation", &seizure.annotation)?;
    bytes.extend_from_slice(body.as_bytes());
    for channel in &seizure.channels {
        let mut entry = SeizureChannelEntry::new_zeroed();
        fill(&mut entry.name, "channel name", &channel.name)?;
        entry.onset = channel_time(channel.onset_uutc, offset)?;
        entry.offset = channel_time(channel.offset_uutc, offset)?;
        bytes.extend_from_slice(entry.as_bytes());
    }
    Ok(())
}

fn cognitive_stimulus(
    stimulus: &CognitiveStimulus,
) -> Result<CognitiveStimulusBody, RecordRefusal> {
    let mut body = CognitiveStimulusBody::new_zeroed();
    body.stimulus_duration = number(stimulus.stimulus_duration_us);
    fill(&mut body.task_type, "task type", &stimulus.task_type)?;
    fill(
        &mut body.stimulus_type,
        "stimulus type",
        &stimulus.stimulus_type,
    )?;
    fill(
        &mut body.patient_response,
        "patient response",
        &stimulus.patient_response,
    )?;
    Ok(body)
}

fn electrical_stimulus(
    stimulus: &ElectricalStimulus,
) -> Result<ElectricalStimulusBody, RecordRefusal> {
    let mut body = ElectricalStimulusBody::new_zeroed();
    body.amplitude = F64::new(stimulus.amplitude);
    body.frequency = F64::new(stimulus.frequency_hz.unwrap_or(NO_FREQUENCY));
    body.pulse_width = number(stimulus.pulse_width_us);
    body.ampunit_code = code(stimulus.amplitude_unit.map(|unit| unit.code()));
    body.mode_code = code(stimulus.mode.map(|mode| mode.code()));
    fill(&mut body.waveform, "waveform", &stimulus.waveform)?;
    fill(&mut body.anode, "anode", &stimulus.anode)?;
    fill(&mut body.cathode, "cathode", &stimulus.cathode)?;
    Ok(body)
}

fn cursor_body(cursor: &Cursor, offset: i64) -> Result<CursorBody, RecordRefusal> {
    let mut body = CursorBody::new_zeroed();
    body.id_number = I64::new(cursor.id_number);
    body.trace_timestamp = body_time(cursor.trace_timestamp_uutc, offset)?;
    body.latency = I64::new(cursor.latency_us);
    body.value = F64::new(cursor.value);
    fill(&mut body.name, "cursor name", &cursor.name)?;
    Ok(body)
}

fn epoch_body(epoch: &Epoch, offset: i64) -> Result<EpochBody, RecordRefusal> {
    let mut body = EpochBody::new_zeroed();
    body.id_number = I64::new(epoch.id_number);
    body.timestamp = body_time(epoch.timestamp_uutc, offset)?;
    body.end_timestamp = body_time(epoch.end_timestamp_uutc, offset)?;
    body.duration = number(epoch.duration_us);
    fill(&mut body.epoch_type, "epoch type", &epoch.epoch_type)?;
    fill(&mut body.text, "epoch text", &epoch.text)?;
    Ok(body)
}

fn stored_time(time_uutc: i64, offset: i64) -> Result<i64, RecordRefusal> {
    time::stored_under(time_uutc, offset).ok_or(RecordRefusal::Time(time_uutc))
}

/// A time inside a body. It is stored as it is, which every reader understands,
/// unless the recording hides its dates: then the body must not tell them
/// (format section 5, rule 3).
fn body_time(time_uutc: Option<i64>, offset: i64) -> Result<I64, RecordRefusal> {
    let Some(time_uutc) = time_uutc else {
        return Ok(I64::new(NO_TIME));
    };
    let stored = stored_time(time_uutc, offset)?;
    let masked = ![0, NO_TIME].contains(&offset);
    Ok(I64::new(if masked { stored } else { time_uutc }))
}

/// A time of a seizure's channel, for which "no entry" is another number.
fn channel_time(time_uutc: Option<i64>, offset: i64) -> Result<I64, RecordRefusal> {
    let Some(time_uutc) = time_uutc else {
        return Ok(I64::new(NO_NUMBER));
    };
    match body_time(Some(time_uutc), offset)? {
        // A microsecond after the offset: it would read as no time.
        stored if stored == NO_NUMBER => Err(RecordRefusal::Time(time_uutc)),
        stored => Ok(stored),
    }
}

fn number(number: Option<i64>) -> I64 {
    I64::new(number.unwrap_or(NO_NUMBER))
}

fn code(code: Option<i32>) -> I32 {
    I32::new(code.unwrap_or(NO_NUMBER as i32))
}

/// Fills a text field; a text that would be cut is refused.
fn fill(field: &mut [u8], name: &'static str, text: &str) -> Result<(), RecordRefusal> {
    check_text(name, text, field.len().saturating_sub(1))?;
    set_text(field, text);
    Ok(())
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), RecordRefusal> {
    if text.len() > limit || text.contains('\0') {
        return Err(RecordRefusal::Text { field, limit });
    }
    Ok(())
}
