//! Records as values: what a reader of annotations gets, and what a writer of
//! them gives.

use serde::{Deserialize, Serialize};

use super::RecordType;

/// One annotation of a session, a channel or a segment (format section 9).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    pub kind: RecordType,
    /// Major and minor version of its body.
    pub version: (u8, u8),
    /// Encryption level as it is stored: only a positive one means that the
    /// body is encrypted in the file.
    pub level: i8,
    /// When it happened, absolute uUTC.
    pub time_uutc: Option<i64>,
    /// Byte offset of the record in its file.
    pub file_offset: u64,
    /// What it says.
    pub body: RecordBody,
}

/// What a record says, by type (format section 9.3).
///
/// "No entry" is `None`: -2^63 for a time, -1 for a time in a channel of a
/// seizure, for a duration, a width, a frequency and a code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RecordBody {
    /// A note (`Note`).
    Note {
        /// The note.
        text: String,
    },
    /// An entry of a system's log (`SyLg`).
    SystemLog {
        /// The entry.
        text: String,
    },
    /// An annotation of an EDF+ file (`EDFA`).
    EdfAnnotation {
        /// Duration in microseconds.
        duration_us: Option<i64>,
        /// The annotation.
        text: String,
    },
    /// A template of the line noise (`LNTP`).
    LineNoiseTemplate {
        /// Counts, one a sample.
        template: Vec<i32>,
    },
    /// A seizure (`Seiz`).
    Seizure(Seizure),
    /// A stimulus of a cognitive task (`CSti`).
    CognitiveStimulus(CognitiveStimulus),
    /// An electrical stimulation (`ESti`).
    ElectricalStimulus(ElectricalStimulus),
    /// A cursor on a trace (`Curs`).
    Cursor(Cursor),
    /// A span of time (`Epoc`).
    Epoch(Epoch),
    /// A placeholder of a writer, without a body (`UnRc`).
    Unrecognised,
    /// The bytes, decrypted and with their padding, of a body of another type or
    /// version, or shorter than the fixed part of its type.
    Unknown(Vec<u8>),
    /// The body is encrypted and its key is not at hand.
    Locked,
}

impl RecordBody {
    /// The type that the body belongs to; `None` for raw and locked ones.
    pub fn kind(&self) -> Option<RecordType> {
        Some(match self {
            Self::Note { .. } => RecordType::NOTE,
            Self::SystemLog { .. } => RecordType::SYLG,
            Self::EdfAnnotation { .. } => RecordType::EDFA,
            Self::LineNoiseTemplate { .. } => RecordType::LNTP,
            Self::Seizure(_) => RecordType::SEIZ,
            Self::CognitiveStimulus(_) => RecordType::CSTI,
            Self::ElectricalStimulus(_) => RecordType::ESTI,
            Self::Cursor(_) => RecordType::CURS,
            Self::Epoch(_) => RecordType::EPOC,
            Self::Unrecognised => RecordType::UNRC,
            Self::Unknown(_) | Self::Locked => return None,
        })
    }
}

/// A seizure (`Seiz`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seizure {
    /// Onset in the first channel, absolute uUTC.
    pub earliest_onset_uutc: Option<i64>,
    /// End in the last channel, absolute uUTC.
    pub latest_offset_uutc: Option<i64>,
    /// Duration in microseconds.
    pub duration_us: Option<i64>,
    /// How it began.
    pub onset: Option<SeizureOnset>,
    /// First marker, at most 127 bytes.
    pub marker_name_1: String,
    /// Second marker, at most 127 bytes.
    pub marker_name_2: String,
    /// Free text, at most 1023 bytes.
    pub annotation: String,
    /// The channels that took part.
    pub channels: Vec<SeizureChannel>,
}

/// A channel that took part in a seizure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeizureChannel {
    /// Name of the channel, at most 255 bytes.
    pub name: String,
    /// Onset in this channel, absolute uUTC.
    pub onset_uutc: Option<i64>,
    /// End in this channel, absolute uUTC.
    pub offset_uutc: Option<i64>,
}

/// How a seizure began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeizureOnset {
    /// Code 0.
    Unknown,
    /// Code 1.
    Focal,
    /// Code 2.
    Generalized,
    /// Code 3.
    Propagated,
    /// Code 4.
    Mixed,
    /// A code that the format does not define.
    Other(i32),
}

/// A stimulus of a cognitive task, and what the patient made of it (`CSti`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CognitiveStimulus {
    /// The task, at most 63 bytes.
    pub task_type: String,
    /// Duration in microseconds.
    pub stimulus_duration_us: Option<i64>,
    /// The stimulus, at most 63 bytes.
    pub stimulus_type: String,
    /// The answer, at most 63 bytes.
    pub patient_response: String,
}

/// An electrical stimulation (`ESti`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ElectricalStimulus {
    /// Amplitude in `amplitude_unit`.
    pub amplitude: f64,
    /// Frequency of the pulses in Hz.
    pub frequency_hz: Option<f64>,
    /// Width of a pulse in microseconds.
    pub pulse_width_us: Option<i64>,
    /// Unit of the amplitude.
    pub amplitude_unit: Option<AmplitudeUnit>,
    /// What the stimulator keeps constant.
    pub mode: Option<StimulationMode>,
    /// Shape of a pulse, at most 127 bytes.
    pub waveform: String,
    /// The positive contact, at most 127 bytes.
    pub anode: String,
    /// The negative contact, at most 127 bytes.
    pub cathode: String,
}

/// Unit of a stimulation's amplitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AmplitudeUnit {
    /// Code 0.
    Unknown,
    /// Code 1, mA.
    Milliamperes,
    /// Code 2, V.
    Volts,
    /// A code that the format does not define.
    Other(i32),
}

/// What a stimulator keeps constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StimulationMode {
    /// Code 0.
    Unknown,
    /// Code 1.
    Current,
    /// Code 2.
    Voltage,
    /// A code that the format does not define.
    Other(i32),
}

/// A cursor that somebody set on a trace (`Curs`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of the cursor, by its application.
    pub id_number: i64,
    /// Where on the trace it stands, absolute uUTC.
    pub trace_timestamp_uutc: Option<i64>,
    /// Latency in microseconds, of either sign.
    pub latency_us: i64,
    /// Value under the cursor, in the application's unit.
    pub value: f64,
    /// Name of the cursor, at most 127 bytes.
    pub name: String,
}

/// A span of time (`Epoc`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, by its application.
    pub id_number: i64,
    /// Start, absolute uUTC.
    pub timestamp_uutc: Option<i64>,
    /// End, absolute uUTC.
    pub end_timestamp_uutc: Option<i64>,
    /// Duration in microseconds.
    pub duration_us: Option<i64>,
    /// Kind of the epoch, at most 31 bytes.
    pub epoch_type: String,
    /// Free text, at most 127 bytes.
    pub text: String,
}

/// A record that is to be written. Its encryption level is the writer's choice.
///
/// A type that is not among the constants of [`RecordType`], and also
/// [`RecordType::UNRC`], makes pymef 1.4.8 crash when it opens the session; mef3io
/// passes over it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    /// What it is; a body that is not raw has to be of this type.
    pub kind: RecordType,
    /// Major and minor version of the body: 1.0 unless it is raw.
    pub version: (u8, u8),
    /// When it happened, absolute uUTC.
    pub time_uutc: i64,
    /// What it says.
    pub body: RecordBody,
}

impl NewRecord {
    /// A record of version 1.0.
    pub fn new(kind: RecordType, time_uutc: i64, body: RecordBody) -> Self {
        Self {
            kind,
            version: (1, 0),
            time_uutc,
            body,
        }
    }

    /// A note.
    pub fn note(time_uutc: i64, text: impl Into<String>) -> Self {
        let body = RecordBody::Note { text: text.into() };
        Self::new(RecordType::NOTE, time_uutc, body)
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFilter {
    /// Types that are wanted; none means all.
    pub types: Vec<RecordType>,
    /// Only records from this time on, absolute uUTC.
    pub from_uutc: Option<i64>,
    /// Only records before this time, absolute uUTC.
    pub until_uutc: Option<i64>,
}

impl RecordFilter {
    /// Whether a record is wanted. One without a time is in no span of time.
    pub fn matches(&self, kind: RecordType, time_uutc: Option<i64>) -> bool {
        let of_type = self.types.is_empty() || self.types.contains(&kind);
        let not_before = |from| time_uutc.is_some_and(|time| time >= from);
        let not_after = |until| time_uutc.is_some_and(|time| time < until);
        of_type && self.from_uutc.is_none_or(not_before) && self.until_uutc.is_none_or(not_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_half_open_and_takes_every_type_unless_told() {
        let filter = RecordFilter {
            types: vec![RecordType::NOTE, RecordType::SEIZ],
            from_uutc: Some(10),
            until_uutc: Some(20),
        };
        for (kind, time, wanted) in [
            (RecordType::NOTE, Some(10), true),
            (RecordType::SEIZ, Some(19), true),
            (RecordType::NOTE, Some(9), false),
            (RecordType::NOTE, Some(20), false),
            (RecordType::EDFA, Some(15), false),
            (RecordType::NOTE, None, false),
        ] {
            assert_eq!(filter.matches(kind, time), wanted, "{kind} {time:?}");
        }
        let all = RecordFilter::default();
        assert!(all.matches(RecordType::new([0xFF; 4]), None));
    }
}
