//! What a new session and a new channel are to say of themselves.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::WriteError;
use crate::mef::Password;
use crate::mef::red::MAX_BLOCK_SAMPLES;
use crate::mef::time;

/// Most characters of a session's or channel's name (format section 1, rule 11).
const NAME_CHARACTERS: usize = 63;
/// Most characters, and most bytes of UTF-8, of a password: what all readers take
/// (format section 10.1).
const PASSWORD_LIMIT: usize = 15;

/// The two passwords of a protected session (format section 10). The first opens
/// the signal and the technical metadata, the second the subject's metadata and
/// the records, too.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passwords {
    pub(super) level_1: Password,
    pub(super) level_2: Password,
}

impl Passwords {
    /// Two different passwords, each of at most fifteen characters and fifteen
    /// bytes of UTF-8. A character above U+00FF is legal and weak: it counts as
    /// one of the first 256.
    ///
    /// # Errors
    /// [`WriteError::Password`] for one that not all readers could use.
    pub fn new(level_1: &str, level_2: &str) -> Result<Self, WriteError> {
        let check = |level, text: &str| {
            let refuse = |reason| Err(WriteError::Password { level, reason });
            if text.len() > PASSWORD_LIMIT {
                return refuse("is longer than 15 bytes");
            }
            if text.contains('\0') {
                return refuse("has a NUL");
            }
            if text.chars().any(|character| character > '\u{ff}') {
                tracing::warn!(
                    level,
                    "password has characters above U+00FF, which others stand for as well"
                );
            }
            Password::new(text).map_or_else(|| refuse("is empty"), Ok)
        };
        let passwords = Self {
            level_1: check(1, level_1)?,
            level_2: check(2, level_2)?,
        };
        if passwords.level_1.same_key(&passwords.level_2) {
            return Err(WriteError::Password {
                level: 2,
                reason: "is the same as that of level 1",
            });
        }
        Ok(passwords)
    }
}

/// Shows no password.
impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passwords(..)")
    }
}

/// What a session's files say of the session and its subject. All of it is
/// optional; texts are empty by default.
#[derive(Clone, Default)]
pub struct SessionOptions {
    /// Seed of the files' identifiers: the same seed and calls give the same
    /// bytes. Without one, the identifiers are random.
    pub seed: Option<u64>,
    /// Protects metadata and records, never the signal itself.
    pub passwords: Option<Passwords>,
    /// Hides the date: stored times are relative to this uUTC, and nobody who
    /// lacks the level-2 password learns it. Zero, unless given. All times of the
    /// recording must lie after it.
    pub recording_time_offset: Option<i64>,
    /// Name to show instead of the subject's, at most 255 bytes.
    pub anonymized_name: String,
    /// Free text, at most 2047 bytes.
    pub session_description: String,
    /// Seconds east of GMT at the start of the recording.
    pub gmt_offset: Option<i32>,
    /// Usually the given name, at most 127 bytes.
    pub subject_name_1: String,
    /// Usually the family name, at most 127 bytes.
    pub subject_name_2: String,
    /// At most 127 bytes.
    pub subject_id: String,
    /// At most 511 bytes.
    pub recording_location: String,
}

/// Names nobody: options may end up in a log.
impl fmt::Debug for SessionOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SessionOptions");
        shown.field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl SessionOptions {
    /// Refuses texts that would be cut, and times that are none.
    pub(super) fn check(&self) -> Result<(), WriteError> {
        check_text("anonymized name", &self.anonymized_name, 255)?;
        check_text("session description", &self.session_description, 2047)?;
        check_text("subject name 1", &self.subject_name_1, 127)?;
        check_text("subject name 2", &self.subject_name_2, 127)?;
        check_text("subject id", &self.subject_id, 127)?;
        check_text("recording location", &self.recording_location, 511)?;
        match self.recording_time_offset {
            Some(offset) if offset < 0 || offset == time::NO_TIME => {
                Err(WriteError::StartTime(offset))
            }
            _ => Ok(()),
        }
    }
}

/// What a channel's files say of the channel.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// At most 63 characters, and a folder name.
    pub name: String,
    /// Samples per second, possibly fractional.
    pub sampling_frequency: f64,
    /// Units per count: a sample is worth its count times this.
    pub units_conversion_factor: f64,
    /// The unit, at most 127 bytes.
    pub units_description: String,
    /// Samples of a full block; by default one second of a channel of 5 kHz or
    /// more, ten seconds of a slower one.
    pub block_samples: Option<u32>,
    /// Free text, at most 2047 bytes.
    pub channel_description: String,
    /// Free text, at most 2047 bytes.
    pub reference_description: String,
    /// Number of the channel in the acquisition system.
    pub acquisition_channel_number: Option<i64>,
    /// High-pass cut-off in Hz.
    pub low_frequency_filter: Option<f64>,
    /// Low-pass cut-off in Hz.
    pub high_frequency_filter: Option<f64>,
    /// Notch filter in Hz.
    pub notch_filter_frequency: Option<f64>,
    /// Frequency of the mains in Hz.
    pub ac_line_frequency: Option<f64>,
}

impl ChannelOptions {
    /// A channel of microvolts, one per count, and nothing else known.
    pub fn new(name: impl Into<String>, sampling_frequency: f64) -> Self {
        Self {
            name: name.into(),
            sampling_frequency,
            units_conversion_factor: 1.0,
            units_description: "uV".into(),
            block_samples: None,
            channel_description: String::new(),
            reference_description: String::new(),
            acquisition_channel_number: None,
            low_frequency_filter: None,
            high_frequency_filter: None,
            notch_filter_frequency: None,
            ac_line_frequency: None,
        }
    }

    /// Refuses what cannot be stored.
    pub(super) fn check(&self) -> Result<(), WriteError> {
        check_name(&self.name)?;
        check_text("channel description", &self.channel_description, 2047)?;
        check_text("reference description", &self.reference_description, 2047)?;
        check_text("units description", &self.units_description, 127)?;
        let frequency = self.sampling_frequency;
        if !frequency.is_finite() || frequency <= 0.0 {
            return Err(WriteError::SamplingFrequency(frequency));
        }
        let factor = self.units_conversion_factor;
        if !factor.is_finite() || factor == 0.0 {
            return Err(WriteError::ConversionFactor(factor));
        }
        match self.block_samples {
            Some(samples) if !(1..=MAX_BLOCK_SAMPLES).contains(&samples) => {
                Err(WriteError::BlockSamples(samples))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn samples_per_block(&self) -> u32 {
        let by_default = || usual_block_samples(self.sampling_frequency);
        self.block_samples.unwrap_or_else(by_default)
    }
}

/// Samples of a full block where nothing is said of it.
pub(super) fn usual_block_samples(sampling_frequency: f64) -> u32 {
    let samples = if sampling_frequency >= 5000.0 {
        sampling_frequency
    } else {
        10.0 * sampling_frequency
    };
    (samples as u32).clamp(1, MAX_BLOCK_SAMPLES)
}

/// Refuses names that cannot be a folder, that readers skip, or that do not fit
/// the header's field.
pub(super) fn check_name(name: &str) -> Result<(), WriteError> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.starts_with('.') {
        "starts with a dot"
    } else if name.contains(['/', '\0']) {
        "has a slash or a NUL"
    } else if name.chars().count() > NAME_CHARACTERS {
        "is longer than 63 characters"
    } else {
        return Ok(());
    };
    Err(WriteError::Name {
        name: name.into(),
        reason,
    })
}

/// Refuses texts that would be cut.
fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), WriteError> {
    if text.len() > limit || text.contains('\0') {
        return Err(WriteError::Text { field, limit });
    }
    Ok(())
}
