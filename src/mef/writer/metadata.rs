//! Universal headers and the metadata file of a new segment
//! (format sections 3, 6 and 16).

use fastrand::Rng;
use zerocopy::little_endian::{F64, I32, I64, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::channel::duration;
use super::segment::Totals;
use super::{ChannelOptions, Session, SessionOptions, WriteError};
use crate::mef::crc::crc32;
use crate::mef::layout::{
    HEADER_BYTES, METADATA_BYTES, Metadata, Section2, Section3, UniversalHeader, set_text,
};
use crate::mef::time;

/// Section levels of an unencrypted file: the level is chosen, its text is plain
/// (format section 6.1).
const SECTION_2_PLAIN: i8 = -1;
const SECTION_3_PLAIN: i8 = -2;

// "No entry" values of format section 2.1.
const NO_FREQUENCY: f64 = -1.0;
const NO_NUMBER: i64 = -1;
const NO_GMT_OFFSET: i32 = -86_401;

/// Segment numbers of record files that belong to no segment.
const CHANNEL_LEVEL: i32 = -2;
const SESSION_LEVEL: i32 = -3;

/// The files of a segment.
#[derive(Clone, Copy)]
pub(super) enum FileKind {
    Metadata,
    Index,
    Data,
}

impl FileKind {
    fn file_type(self) -> [u8; 5] {
        *match self {
            Self::Metadata => b"tmet\0",
            Self::Index => b"tidx\0",
            Self::Data => b"tdat\0",
        }
    }
}

/// What the headers of a segment's files have in common.
pub(super) struct Level {
    common: UniversalHeader,
    /// Absolute uUTC of the first sample.
    start: i64,
    /// Absolute uUTC just after the last sample.
    end: i64,
}

impl Level {
    pub(super) fn new(
        session: &Session,
        channel: &ChannelOptions,
        number: u32,
        totals: &Totals,
        rng: &mut Rng,
    ) -> Self {
        // The encoder stored both under an offset of zero.
        let start = time::absolute(totals.stored_start_time, 0).unwrap_or(0);
        let last = time::absolute(totals.last_stored_start_time, 0).unwrap_or(0);
        let last_samples = u64::from(totals.last_block_samples);
        let end = last.saturating_add(duration(last_samples, channel.sampling_frequency));

        let mut common = header_of(session, &channel.name, rng);
        common.start_time = I64::new(time::stored(start));
        common.end_time = I64::new(time::stored(end));
        // Six digits at most.
        common.segment_number = I32::new(number as i32);
        Self { common, start, end }
    }

    /// The header of one file, with both CRCs.
    pub(super) fn header(
        &self,
        kind: FileKind,
        entries: i64,
        maximum_entry_size: i64,
        body_crc: u32,
        rng: &mut Rng,
    ) -> UniversalHeader {
        let mut header = self.common.clone();
        header.file_type = kind.file_type();
        header.number_of_entries = I64::new(entries);
        header.maximum_entry_size = I64::new(maximum_entry_size);
        header.file_uuid = uuid(rng);
        header.provenance_uuid = header.file_uuid;
        header.body_crc = U32::new(body_crc);
        let (_, covered) = header.as_bytes().split_at(size_of::<U32>());
        header.header_crc = U32::new(crc32(covered));
        header
    }
}

/// What the headers of all files of a level have in common, but for times and
/// number.
fn header_of(session: &Session, channel: &str, rng: &mut Rng) -> UniversalHeader {
    let mut header = UniversalHeader::new_zeroed();
    header.version_major = 3;
    header.version_minor = 0;
    header.byte_order = 1;
    set_text(&mut header.channel_name, channel);
    set_text(&mut header.session_name, &session.name);
    set_text(
        &mut header.anonymized_name,
        &session.options.anonymized_name,
    );
    header.level_uuid = uuid(rng);
    header
}

/// The header of new record files of the session, or of a channel.
pub(super) fn record_template(session: &Session, channel: &str, rng: &mut Rng) -> UniversalHeader {
    let mut template = header_of(session, channel, rng);
    template.segment_number = I32::new(if channel.is_empty() {
        SESSION_LEVEL
    } else {
        CHANNEL_LEVEL
    });
    template
}

/// The whole `.tmet` file.
pub(super) fn metadata_file(
    session: &Session,
    channel: &ChannelOptions,
    level: &Level,
    totals: &Totals,
    rng: &mut Rng,
) -> Metadata {
    let mut metadata = Metadata::new_zeroed();
    metadata.section_1.section_2_encryption = SECTION_2_PLAIN;
    metadata.section_1.section_3_encryption = SECTION_3_PLAIN;
    describe_channel(channel, &mut metadata.section_2);
    set_text(
        &mut metadata.section_2.session_description,
        &session.options.session_description,
    );
    declare_totals(channel, level, totals, &mut metadata.section_2);
    describe_subject(&session.options, &mut metadata.section_3);

    let (_, body) = metadata.as_bytes().split_at(HEADER_BYTES);
    let body_crc = crc32(body);
    metadata.header = level.header(FileKind::Metadata, 1, METADATA_BYTES as i64, body_crc, rng);
    metadata
}

fn describe_channel(channel: &ChannelOptions, section: &mut Section2) {
    let frequency = |setting: Option<f64>| F64::new(setting.unwrap_or(NO_FREQUENCY));
    let number = channel.acquisition_channel_number.unwrap_or(NO_NUMBER);
    set_text(
        &mut section.channel_description,
        &channel.channel_description,
    );
    set_text(
        &mut section.reference_description,
        &channel.reference_description,
    );
    section.acquisition_channel_number = I64::new(number);
    section.sampling_frequency = F64::new(channel.sampling_frequency);
    section.low_frequency_filter_setting = frequency(channel.low_frequency_filter);
    section.high_frequency_filter_setting = frequency(channel.high_frequency_filter);
    section.notch_filter_frequency_setting = frequency(channel.notch_filter_frequency);
    section.ac_line_frequency = frequency(channel.ac_line_frequency);
    section.units_conversion_factor = F64::new(channel.units_conversion_factor);
    set_text(&mut section.units_description, &channel.units_description);
}

fn declare_totals(
    channel: &ChannelOptions,
    level: &Level,
    totals: &Totals,
    section: &mut Section2,
) {
    let full_block = u64::from(totals.maximum_block_samples);
    let (minimum, maximum) = native_extremes(totals, channel.units_conversion_factor);
    section.recording_duration = I64::new(level.end.saturating_sub(level.start));
    section.maximum_native_sample_value = F64::new(maximum);
    section.minimum_native_sample_value = F64::new(minimum);
    section.start_sample = I64::new(totals.start_sample);
    section.number_of_samples = I64::new(totals.samples);
    section.number_of_blocks = I64::new(totals.blocks);
    section.maximum_block_bytes = I64::new(totals.maximum_block_bytes);
    section.maximum_block_samples = U32::new(totals.maximum_block_samples);
    section.maximum_difference_bytes = U32::new(totals.maximum_difference_bytes);
    section.block_interval = I64::new(duration(full_block, channel.sampling_frequency));
    section.number_of_discontinuities = I64::new(totals.discontinuities);
    section.maximum_contiguous_blocks = I64::new(totals.maximum_contiguous_blocks);
    section.maximum_contiguous_block_bytes = I64::new(totals.maximum_contiguous_block_bytes);
    section.maximum_contiguous_samples = I64::new(totals.maximum_contiguous_samples);
}

/// Least and greatest sample in units; a negative factor swaps the ends.
fn native_extremes(totals: &Totals, factor: f64) -> (f64, f64) {
    let Some((minimum, maximum)) = totals.extremes else {
        return (f64::NAN, f64::NAN);
    };
    let (low, high) = (f64::from(minimum) * factor, f64::from(maximum) * factor);
    (low.min(high), low.max(high))
}

fn describe_subject(options: &SessionOptions, section: &mut Section3) {
    // The recording time offset and both daylight-saving times stay zero: times
    // are not masked, and no change of the clocks is known.
    section.gmt_offset = I32::new(options.gmt_offset.unwrap_or(NO_GMT_OFFSET));
    set_text(&mut section.subject_name_1, &options.subject_name_1);
    set_text(&mut section.subject_name_2, &options.subject_name_2);
    set_text(&mut section.subject_id, &options.subject_id);
    set_text(&mut section.recording_location, &options.recording_location);
}

/// Refuses texts that would be cut.
pub(super) fn check_session_texts(options: &SessionOptions) -> Result<(), WriteError> {
    check_text("anonymized name", &options.anonymized_name, 255)?;
    check_text("session description", &options.session_description, 2047)?;
    check_text("subject name 1", &options.subject_name_1, 127)?;
    check_text("subject name 2", &options.subject_name_2, 127)?;
    check_text("subject id", &options.subject_id, 127)?;
    check_text("recording location", &options.recording_location, 511)
}

/// Refuses texts that would be cut.
pub(super) fn check_channel_texts(channel: &ChannelOptions) -> Result<(), WriteError> {
    check_text("channel description", &channel.channel_description, 2047)?;
    check_text(
        "reference description",
        &channel.reference_description,
        2047,
    )?;
    check_text("units description", &channel.units_description, 127)
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), WriteError> {
    if text.len() > limit || text.contains('\0') {
        return Err(WriteError::Text { field, limit });
    }
    Ok(())
}

/// A random identifier.
pub(super) fn uuid(rng: &mut Rng) -> [u8; 16] {
    rng.u128(..).to_le_bytes()
}
