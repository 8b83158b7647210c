//! What the files of a channel's segments have in common: names, marks of the
//! passwords, and metadata (format sections 3, 6, 10 and 16).

use std::path::Path;

use fastrand::Rng;
use zerocopy::little_endian::{F64, I32, I64};
use zerocopy::{FromZeros, IntoBytes};

use super::file::seal;
use super::{ChannelOptions, SessionOptions, WriteError};
use crate::mef::Password;
use crate::mef::crc::crc32;
use crate::mef::crypto::Keys;
use crate::mef::header::verify_version;
use crate::mef::layout::{
    HEADER_BYTES, INDEX_ENTRY_BYTES, METADATA_BYTES, Metadata, Section2, Section3, UniversalHeader,
    set_text,
};
use crate::mef::metadata::decipher;
use crate::mef::time::NO_TIME;

/// Section levels of an unprotected file: the level is chosen, its text is plain
/// (format section 6.1).
const SECTION_2_PLAIN: i8 = -1;
const SECTION_3_PLAIN: i8 = -2;
/// Section levels of a protected file.
const SECTION_2_ENCRYPTED: i8 = 1;
const SECTION_3_ENCRYPTED: i8 = 2;

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
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Metadata => "tmet",
            Self::Index => "tidx",
            Self::Data => "tdat",
        }
    }

    fn file_type(self) -> [u8; 5] {
        *match self {
            Self::Metadata => b"tmet\0",
            Self::Index => b"tidx\0",
            Self::Data => b"tdat\0",
        }
    }
}

/// A metadata file with all sections as plain text, and the keys that it is
/// enciphered with.
#[derive(Clone)]
pub(super) struct Template {
    metadata: Box<Metadata>,
    keys: Keys,
}

impl Template {
    /// Of a new session. Nothing is said of a channel.
    pub(super) fn of_session(name: &str, options: &SessionOptions) -> Self {
        let mut metadata = Box::new(Metadata::new_zeroed());
        metadata.section_1.section_2_encryption = SECTION_2_PLAIN;
        metadata.section_1.section_3_encryption = SECTION_3_PLAIN;
        let header = &mut metadata.header;
        set_text(&mut header.session_name, name);
        set_text(&mut header.anonymized_name, &options.anonymized_name);
        let mut keys = Keys::default();
        if let Some(passwords) = &options.passwords {
            let marks;
            (keys, marks) = Keys::for_writing(&passwords.level_1, &passwords.level_2);
            [header.level_1_validation, header.level_2_validation] = marks;
            metadata.section_1.section_2_encryption = SECTION_2_ENCRYPTED;
            metadata.section_1.section_3_encryption = SECTION_3_ENCRYPTED;
        }
        set_text(
            &mut metadata.section_2.session_description,
            &options.session_description,
        );
        describe_subject(options, &mut metadata.section_3);
        Self { metadata, keys }
    }

    /// Of a segment that exists, by the bytes of its metadata file.
    ///
    /// # Errors
    /// As for reading it, and [`WriteError::Locked`] where the password does not
    /// open all of it: what cannot be read cannot be written anew.
    pub(super) fn read(
        bytes: &[u8],
        file: &Path,
        password: Option<&Password>,
    ) -> Result<Self, WriteError> {
        let deciphered = decipher(bytes, file, password)?;
        verify_version(&deciphered.metadata.header, file)?;
        if !deciphered.section_3_unlocked {
            return Err(WriteError::Locked { path: file.into() });
        }
        Ok(Self {
            metadata: deciphered.metadata,
            keys: deciphered.keys,
        })
    }

    /// Of a new channel of the same session.
    pub(super) fn for_channel(&self, options: &ChannelOptions) -> Self {
        let mut template = self.clone();
        let metadata = &mut template.metadata;
        set_text(&mut metadata.header.channel_name, &options.name);
        let mut section = Section2::new_zeroed();
        section.session_description = metadata.section_2.session_description;
        describe_channel(options, &mut section);
        metadata.section_2 = section;
        template
    }

    /// The keys of a protected session.
    pub(super) fn keys(&self) -> Option<&Keys> {
        let header = &self.metadata.header;
        let marks = [header.level_1_validation, header.level_2_validation];
        let protected = marks.iter().flatten().any(|&byte| byte != 0);
        protected.then_some(&self.keys)
    }

    pub(super) fn recording_time_offset(&self) -> i64 {
        self.metadata.section_3.recording_time_offset.get()
    }

    pub(super) fn section_2(&self) -> &Section2 {
        &self.metadata.section_2
    }

    pub(super) fn section_2_mut(&mut self) -> &mut Section2 {
        &mut self.metadata.section_2
    }

    pub(super) fn header(&self) -> &UniversalHeader {
        &self.metadata.header
    }

    pub(super) fn header_mut(&mut self) -> &mut UniversalHeader {
        &mut self.metadata.header
    }

    /// Of a new segment: its header has a level UUID of its own, and neither times
    /// nor counts.
    pub(super) fn for_segment(&self, number: u32, rng: &mut Rng) -> Self {
        let mut template = self.clone();
        let mut header = fresh_header(&self.metadata.header, rng);
        // Six digits at most.
        header.segment_number = I32::new(number as i32);
        template.metadata.header = header;
        template.metadata.header = template.file_header(FileKind::Metadata, rng);
        template
    }

    /// The header of a file of the template's segment. Count and CRCs are missing.
    pub(super) fn file_header(&self, kind: FileKind, rng: &mut Rng) -> UniversalHeader {
        let mut header = self.metadata.header.clone();
        header.file_type = kind.file_type();
        header.maximum_entry_size = I64::new(match kind {
            FileKind::Metadata => METADATA_BYTES as i64,
            FileKind::Index => INDEX_ENTRY_BYTES as i64,
            FileKind::Data => 0,
        });
        header.file_uuid = uuid(rng);
        header.provenance_uuid = header.file_uuid;
        header
    }

    /// The header of new record files of the session or of a channel, by its name.
    pub(super) fn record_header(&self, channel: Option<&str>, rng: &mut Rng) -> UniversalHeader {
        let mut header = fresh_header(&self.metadata.header, rng);
        set_text(&mut header.channel_name, channel.unwrap_or_default());
        header.segment_number = I32::new(match channel {
            Some(_) => CHANNEL_LEVEL,
            None => SESSION_LEVEL,
        });
        header
    }

    /// The whole metadata file: sections enciphered, CRCs computed.
    pub(super) fn file(&self, path: &Path) -> Result<Box<Metadata>, WriteError> {
        let mut metadata = self.metadata.clone();
        let levels = &metadata.section_1;
        let (technical, subject) = (levels.section_2_encryption, levels.section_3_encryption);
        let enciphered = self
            .keys
            .encrypt(technical, metadata.section_2.as_mut_bytes())
            .and_then(|()| {
                self.keys
                    .encrypt(subject, metadata.section_3.as_mut_bytes())
            });
        enciphered.map_err(|_| WriteError::Locked { path: path.into() })?;
        let (_, body) = metadata.as_bytes().split_at(HEADER_BYTES);
        let body_crc = crc32(body);
        seal(&mut metadata.header, 1, body_crc);
        Ok(metadata)
    }
}

/// A header with the names and password marks of another, and nothing else of it.
fn fresh_header(of: &UniversalHeader, rng: &mut Rng) -> UniversalHeader {
    let mut header = UniversalHeader::new_zeroed();
    header.version_major = 3;
    header.version_minor = 0;
    header.byte_order = 1;
    header.start_time = I64::new(NO_TIME);
    header.end_time = I64::new(NO_TIME);
    header.channel_name = of.channel_name;
    header.session_name = of.session_name;
    header.anonymized_name = of.anonymized_name;
    header.level_1_validation = of.level_1_validation;
    header.level_2_validation = of.level_2_validation;
    header.level_uuid = uuid(rng);
    header
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

fn describe_subject(options: &SessionOptions, section: &mut Section3) {
    // Both daylight-saving times stay zero: no change of the clocks is known.
    section.recording_time_offset = I64::new(options.recording_time_offset.unwrap_or(0));
    section.gmt_offset = I32::new(options.gmt_offset.unwrap_or(NO_GMT_OFFSET));
    set_text(&mut section.subject_name_1, &options.subject_name_1);
    set_text(&mut section.subject_name_2, &options.subject_name_2);
    set_text(&mut section.subject_id, &options.subject_id);
    set_text(&mut section.recording_location, &options.recording_location);
}

/// A random identifier.
pub(super) fn uuid(rng: &mut Rng) -> [u8; 16] {
    rng.u128(..).to_le_bytes()
}
