//! A segment's metadata file (format section 6).

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use super::crypto::{Access, Keys, NoKey, Password};
use super::error::{Malformation, MefError};
use super::header::{parse_header, verify_body_crc, verify_header_crc};
use super::layout::{HEADER_BYTES, METADATA_BYTES, Metadata, Section2, Section3, text};
use super::time;

/// Technical metadata of a channel (section 2). `None` is "no entry".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acquisition {
    /// Samples a second, in Hz; finite and positive.
    pub sampling_frequency: f64,
    /// Units per count as stored. Zero means that it was never set and counts
    /// as one; see [`Acquisition::scale`].
    pub units_conversion_factor: f64,
    /// Unit of a scaled sample, such as `uV`.
    pub units: String,
    /// Free text.
    pub channel_description: String,
    /// Free text.
    pub session_description: String,
    /// Free text.
    pub reference_description: String,
    /// Number of the channel in the acquisition system.
    pub acquisition_channel_number: Option<i64>,
    /// High-pass cut-off in Hz.
    pub low_frequency_filter: Option<f64>,
    /// Low-pass cut-off in Hz.
    pub high_frequency_filter: Option<f64>,
    /// Notch filter in Hz.
    pub notch_filter: Option<f64>,
    /// Mains frequency in Hz.
    pub line_frequency: Option<f64>,
    /// Length of the segment that the file declares, in microseconds;
    /// informational, since writers disagree on whether gaps count.
    pub declared_duration_us: Option<i64>,
    /// Samples of the channel in all earlier segments, as the file declares it;
    /// informational.
    pub declared_start_sample: Option<i64>,
    /// Largest sample in units that the file declares; informational, since
    /// some writers store counts.
    pub declared_maximum: Option<f64>,
    /// Smallest sample in units that the file declares; informational.
    pub declared_minimum: Option<f64>,
    /// Number of samples that the file declares; informational.
    pub declared_samples: Option<i64>,
    /// Number of blocks that the file declares; informational.
    pub declared_blocks: Option<i64>,
}

impl Acquisition {
    /// Units per count: the stored factor, or one where it was never set.
    /// `None` where the stored factor is not a finite number.
    pub fn scale(&self) -> Option<f64> {
        match self.units_conversion_factor {
            0.0 => Some(1.0),
            factor if factor.is_finite() => Some(factor),
            _ => None,
        }
    }
}

/// Subject metadata (section 3). Its `Debug` form shows nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Usually the given name.
    pub name_1: String,
    /// Usually the family name.
    pub name_2: String,
    /// The subject's identifier.
    pub id: String,
    /// Where the recording was made.
    pub recording_location: String,
    /// Seconds east of Greenwich at the start of the recording.
    pub gmt_offset_s: Option<i32>,
    /// When daylight-saving time began during the recording, uUTC; zero where it
    /// did not.
    pub dst_start_uutc: Option<i64>,
    /// When daylight-saving time ended during the recording, uUTC; zero where it
    /// did not.
    pub dst_end_uutc: Option<i64>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Subject { .. }")
    }
}

/// What a `.tmet` file says of its segment.
#[derive(Debug)]
pub(crate) struct SegmentMetadata {
    /// Start of the segment, absolute uUTC.
    pub(crate) start_uutc: Option<i64>,
    /// The instant just after the last sample, absolute uUTC.
    pub(crate) end_uutc: Option<i64>,
    /// Offset that stored times are relative to, in microseconds; zero where there
    /// is none, `None` where it is in a section that is locked.
    pub(crate) recording_time_offset: Option<i64>,
    pub(crate) acquisition: Acquisition,
    /// `None` where the section is locked.
    pub(crate) subject: Option<Subject>,
    /// What the password opens.
    pub(crate) access: Access,
    /// It does so only in the form that mef3io up to 1.2.0 gave it.
    pub(crate) by_fallback: bool,
    /// Shared by all files of the segment.
    pub(crate) level_uuid: [u8; 16],
}

/// Parses the bytes of a `.tmet` file. Bytes beyond the format's 16384 are
/// ignored, as foreign writers append some.
pub(crate) fn parse_metadata(
    bytes: &[u8],
    file: &Path,
    password: Option<&Password>,
) -> Result<SegmentMetadata, MefError> {
    let Deciphered {
        metadata,
        section_3_unlocked,
        access,
        keys,
    } = decipher(bytes, file, password)?;
    let header = &metadata.header;
    let section_3 = section_3_unlocked.then_some(&metadata.section_3);
    let recording_time_offset = section_3.map(|section| {
        let stored = section.recording_time_offset.get();
        known_time(stored).unwrap_or(0)
    });
    // A locked offset leaves times relative to the masked origin.
    let offset = recording_time_offset.unwrap_or(0);
    Ok(SegmentMetadata {
        start_uutc: time::absolute(header.start_time.get(), offset),
        end_uutc: time::absolute(header.end_time.get(), offset),
        recording_time_offset,
        acquisition: parse_acquisition(&metadata.section_2, file)?,
        subject: section_3.map(parse_subject),
        access,
        by_fallback: keys.by_fallback,
        level_uuid: header.level_uuid,
    })
}

/// A `.tmet` file whose CRCs are right, as far as a password opens it.
pub(crate) struct Deciphered {
    /// Section 2 is plain text, and so is section 3 if it is unlocked.
    pub(crate) metadata: Box<Metadata>,
    pub(crate) section_3_unlocked: bool,
    pub(crate) access: Access,
    pub(crate) keys: Keys,
}

/// Checks the bytes of a `.tmet` file and deciphers its sections.
pub(crate) fn decipher(
    bytes: &[u8],
    file: &Path,
    password: Option<&Password>,
) -> Result<Deciphered, MefError> {
    let header = parse_header(bytes, "tmet", file)?;
    verify_header_crc(header, file)?;
    let Ok((metadata, _)) = Metadata::read_from_prefix(bytes) else {
        return Err(MefError::malformed(
            file,
            Malformation::TooShort {
                need: METADATA_BYTES as u64,
                have: bytes.len() as u64,
            },
        ));
    };
    let body = metadata.as_bytes().get(HEADER_BYTES..).unwrap_or_default();
    verify_body_crc(header, body, file)?;
    let (access, keys) = Keys::unlock(&metadata.header, password)
        .map_err(|_| MefError::WrongPassword { file: file.into() })?;
    let mut metadata = Box::new(metadata);
    let levels = &metadata.section_1;
    let (technical, subject) = (levels.section_2_encryption, levels.section_3_encryption);
    if !decrypt(&keys, 2, technical, metadata.section_2.as_mut_bytes(), file)? {
        return Err(MefError::Encrypted { file: file.into() });
    }
    let section_3_unlocked = decrypt(&keys, 3, subject, metadata.section_3.as_mut_bytes(), file)?;
    Ok(Deciphered {
        metadata,
        section_3_unlocked,
        access,
        keys,
    })
}

/// Deciphers a section in place; `false` where its key is missing.
pub(crate) fn decrypt(
    keys: &Keys,
    section: u8,
    level: i8,
    bytes: &mut [u8],
    file: &Path,
) -> Result<bool, MefError> {
    match keys.decrypt(level, bytes) {
        Ok(()) => Ok(true),
        Err(NoKey::Locked) => Ok(false),
        Err(NoKey::UndefinedLevel) => Err(MefError::malformed(
            file,
            Malformation::EncryptionLevel { section, level },
        )),
    }
}

fn parse_acquisition(section: &Section2, file: &Path) -> Result<Acquisition, MefError> {
    let sampling_frequency = section.sampling_frequency.get();
    if !(sampling_frequency.is_finite() && sampling_frequency > 0.0) {
        return Err(MefError::malformed(
            file,
            Malformation::SamplingFrequency(sampling_frequency),
        ));
    }
    let frequency = |value: f64| (value >= 0.0).then_some(value);
    let count = |value: i64| (value >= 0).then_some(value);
    let number = |value: f64| (!value.is_nan()).then_some(value);
    Ok(Acquisition {
        sampling_frequency,
        units_conversion_factor: section.units_conversion_factor.get(),
        units: text(&section.units_description),
        channel_description: text(&section.channel_description),
        session_description: text(&section.session_description),
        reference_description: text(&section.reference_description),
        acquisition_channel_number: count(section.acquisition_channel_number.get()),
        low_frequency_filter: frequency(section.low_frequency_filter_setting.get()),
        high_frequency_filter: frequency(section.high_frequency_filter_setting.get()),
        notch_filter: frequency(section.notch_filter_frequency_setting.get()),
        line_frequency: frequency(section.ac_line_frequency.get()),
        declared_duration_us: count(section.recording_duration.get()),
        declared_start_sample: count(section.start_sample.get()),
        declared_maximum: number(section.maximum_native_sample_value.get()),
        declared_minimum: number(section.minimum_native_sample_value.get()),
        declared_samples: count(section.number_of_samples.get()),
        declared_blocks: count(section.number_of_blocks.get()),
    })
}

fn parse_subject(section: &Section3) -> Subject {
    let gmt_offset = section.gmt_offset.get();
    Subject {
        name_1: text(&section.subject_name_1),
        name_2: text(&section.subject_name_2),
        id: text(&section.subject_id),
        recording_location: text(&section.recording_location),
        gmt_offset_s: (-86_400..=86_400)
            .contains(&gmt_offset)
            .then_some(gmt_offset),
        dst_start_uutc: known_time(section.dst_start_time.get()),
        dst_end_uutc: known_time(section.dst_end_time.get()),
    }
}

fn known_time(stored: i64) -> Option<i64> {
    (stored != time::NO_TIME).then_some(stored)
}
