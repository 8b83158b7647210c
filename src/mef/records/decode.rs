//! Record bodies, from bytes (format section 9.3).

use zerocopy::FromBytes;
use zerocopy::little_endian::{I32, I64};

use super::layout::{
    BODY_UNIT, CognitiveStimulusBody, CursorBody, ElectricalStimulusBody, EpochBody, PAD,
    SeizureBody, SeizureChannelEntry,
};
use super::{
    AmplitudeUnit, CognitiveStimulus, Cursor, ElectricalStimulus, Epoch, RecordBody, RecordType,
    Seizure, SeizureChannel, SeizureOnset, StimulationMode,
};
use crate::mef::layout::text;
use crate::mef::time;

/// "No entry" for a duration, a width, a code, and a time of a seizure's channel.
pub(super) const NO_NUMBER: i64 = -1;
/// "No entry" for a frequency.
pub(super) const NO_FREQUENCY: f64 = -1.0;

/// Reads a plain body. What cannot be interpreted becomes raw bytes.
pub(super) fn decode_body(
    kind: RecordType,
    version: (u8, u8),
    bytes: &[u8],
    recording_time_offset: i64,
) -> RecordBody {
    let offset = recording_time_offset;
    let typed = match (kind, version) {
        (RecordType::NOTE, (1, 0)) => Some(RecordBody::Note {
            text: free_text(bytes),
        }),
        (RecordType::SYLG, (1, 0)) => Some(RecordBody::SystemLog {
            text: free_text(bytes),
        }),
        (RecordType::EDFA, (1, 0)) => edf_annotation(bytes),
        (RecordType::LNTP, (1, 0)) => line_noise_template(bytes),
        (RecordType::SEIZ, (1, 0)) => seizure(bytes, offset),
        (RecordType::CSTI, (1, 0)) => cognitive_stimulus(bytes),
        (RecordType::ESTI, (1, 0)) => electrical_stimulus(bytes),
        (RecordType::CURS, (1, 0)) => cursor(bytes, offset),
        (RecordType::EPOC, (1, 0)) => epoch(bytes, offset),
        (RecordType::UNRC, (1, 0)) if bytes.is_empty() => Some(RecordBody::Unrecognised),
        _ => None,
    };
    typed.unwrap_or_else(|| RecordBody::Unknown(bytes.to_vec()))
}

/// Text that fills the rest of a body. Some writers leave no room for the NUL, so
/// that only the padding marks the end.
fn free_text(bytes: &[u8]) -> String {
    if bytes.contains(&0) {
        return text(bytes);
    }
    let pad = bytes.iter().rev().take(BODY_UNIT - 1);
    let pad = pad.take_while(|&&byte| byte == PAD).count();
    text(bytes.get(..bytes.len() - pad).unwrap_or_default())
}

fn edf_annotation(bytes: &[u8]) -> Option<RecordBody> {
    let (duration, rest) = I64::ref_from_prefix(bytes).ok()?;
    Some(RecordBody::EdfAnnotation {
        duration_us: number(*duration),
        text: free_text(rest),
    })
}

fn line_noise_template(bytes: &[u8]) -> Option<RecordBody> {
    let (length, rest) = I64::ref_from_prefix(bytes).ok()?;
    let length = usize::try_from(length.get()).unwrap_or(0);
    let template = wide_template(rest, length).unwrap_or_else(|| {
        let (elements, _) = rest.as_chunks::<4>();
        let elements = elements.iter().take(length);
        elements.map(|&bytes| i32::from_le_bytes(bytes)).collect()
    });
    Some(RecordBody::LineNoiseTemplate { template })
}

/// The elements of a template in the legacy writer's form, eight bytes each; the
/// definition says four (format section 9.3).
fn wide_template(bytes: &[u8], length: usize) -> Option<Vec<i32>> {
    let (elements, _) = bytes.as_chunks::<8>();
    let elements = elements.get(..length).filter(|some| !some.is_empty())?;
    let narrow = |&bytes| i32::try_from(i64::from_le_bytes(bytes)).ok();
    elements.iter().map(narrow).collect()
}

fn seizure(bytes: &[u8], offset: i64) -> Option<RecordBody> {
    let (body, rest) = SeizureBody::ref_from_prefix(bytes).ok()?;
    let declared = usize::try_from(body.number_of_channels.get()).unwrap_or(0);
    let entries = rest.chunks_exact(size_of::<SeizureChannelEntry>());
    let entries = entries.filter_map(|bytes| SeizureChannelEntry::ref_from_bytes(bytes).ok());
    let channel_time =
        |stored: I64| number(stored).and_then(|stored| time::absolute(stored, offset));
    let channels = entries.take(declared).map(|entry| SeizureChannel {
        name: text(&entry.name),
        onset_uutc: channel_time(entry.onset),
        offset_uutc: channel_time(entry.offset),
    });
    Some(RecordBody::Seizure(Seizure {
        earliest_onset_uutc: time::absolute(body.earliest_onset.get(), offset),
        latest_offset_uutc: time::absolute(body.latest_offset.get(), offset),
        duration_us: number(body.duration),
        onset: code(body.onset_code).map(SeizureOnset::from_code),
        marker_name_1: text(&body.marker_name_1),
        marker_name_2: text(&body.marker_name_2),
        annotation: text(&body.annotation),
        channels: channels.collect(),
    }))
}

fn cognitive_stimulus(bytes: &[u8]) -> Option<RecordBody> {
    let (body, _) = CognitiveStimulusBody::ref_from_prefix(bytes).ok()?;
    Some(RecordBody::CognitiveStimulus(CognitiveStimulus {
        task_type: text(&body.task_type),
        stimulus_duration_us: number(body.stimulus_duration),
        stimulus_type: text(&body.stimulus_type),
        patient_response: text(&body.patient_response),
    }))
}

fn electrical_stimulus(bytes: &[u8]) -> Option<RecordBody> {
    let (body, _) = ElectricalStimulusBody::ref_from_prefix(bytes).ok()?;
    let frequency = body.frequency.get();
    Some(RecordBody::ElectricalStimulus(ElectricalStimulus {
        amplitude: body.amplitude.get(),
        frequency_hz: (frequency != NO_FREQUENCY).then_some(frequency),
        pulse_width_us: number(body.pulse_width),
        amplitude_unit: code(body.ampunit_code).map(AmplitudeUnit::from_code),
        mode: code(body.mode_code).map(StimulationMode::from_code),
        waveform: text(&body.waveform),
        anode: text(&body.anode),
        cathode: text(&body.cathode),
    }))
}

fn cursor(bytes: &[u8], offset: i64) -> Option<RecordBody> {
    let (body, _) = CursorBody::ref_from_prefix(bytes).ok()?;
    Some(RecordBody::Cursor(Cursor {
        id_number: body.id_number.get(),
        trace_timestamp_uutc: time::absolute(body.trace_timestamp.get(), offset),
        latency_us: body.latency.get(),
        value: body.value.get(),
        name: text(&body.name),
    }))
}

fn epoch(bytes: &[u8], offset: i64) -> Option<RecordBody> {
    let (body, _) = EpochBody::ref_from_prefix(bytes).ok()?;
    Some(RecordBody::Epoch(Epoch {
        id_number: body.id_number.get(),
        timestamp_uutc: time::absolute(body.timestamp.get(), offset),
        end_timestamp_uutc: time::absolute(body.end_timestamp.get(), offset),
        duration_us: number(body.duration),
        epoch_type: text(&body.epoch_type),
        text: text(&body.text),
    }))
}

fn number(stored: I64) -> Option<i64> {
    Some(stored.get()).filter(|&number| number != NO_NUMBER)
}

fn code(stored: I32) -> Option<i32> {
    Some(stored.get()).filter(|&code| i64::from(code) != NO_NUMBER)
}
