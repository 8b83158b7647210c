//! The four characters that say what a record is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The type of a record: four characters (format section 9.1).
///
/// Types that are not among the constants are as good as these; their bodies are
/// raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordType([u8; 4]);

impl RecordType {
    /// A note, as text.
    pub const NOTE: Self = Self(*b"Note");
    /// An annotation of an EDF+ file: duration and text.
    pub const EDFA: Self = Self(*b"EDFA");
    /// An entry of a system's log.
    pub const SYLG: Self = Self(*b"SyLg");
    /// A seizure, with the channels that took part.
    pub const SEIZ: Self = Self(*b"Seiz");
    /// A template of the line noise.
    pub const LNTP: Self = Self(*b"LNTP");
    /// A stimulus of a cognitive task.
    pub const CSTI: Self = Self(*b"CSti");
    /// An electrical stimulation.
    pub const ESTI: Self = Self(*b"ESti");
    /// A cursor that somebody set on a trace.
    pub const CURS: Self = Self(*b"Curs");
    /// A span of time, such as a sleep stage.
    pub const EPOC: Self = Self(*b"Epoc");
    /// A placeholder for what a writer did not recognise.
    pub const UNRC: Self = Self(*b"UnRc");

    /// The type of these four bytes, whatever they are.
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes as they stand in a file.
    pub const fn bytes(self) -> [u8; 4] {
        self.0
    }

    /// Whether the bytes are "no entry": all zero.
    pub(super) fn is_none(self) -> bool {
        self.0 == [0; 4]
    }
}

/// Shows bytes that do not print as escapes, such as `\x00`.
impl fmt::Display for RecordType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

/// A text that is no record type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a record type: four ASCII characters are needed")]
pub struct ParseRecordTypeError(String);

impl FromStr for RecordType {
    type Err = ParseRecordTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ascii = Some(text).filter(|text| text.is_ascii());
        ascii
            .and_then(|text| text.as_bytes().try_into().ok())
            .map(Self)
            .ok_or_else(|| ParseRecordTypeError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_ascii_characters_are_a_type_and_nothing_else_is() {
        assert_eq!("Note".parse(), Ok(RecordType::NOTE));
        assert_eq!("x y ".parse(), Ok(RecordType::new(*b"x y ")));
        for text in ["", "Not", "Notes", "äö", "Noté"] {
            let error = text.parse::<RecordType>().unwrap_err();
            assert!(error.to_string().contains("four ASCII"), "{text}");
        }
    }

    #[test]
    fn what_does_not_print_is_escaped() {
        assert_eq!(RecordType::SEIZ.to_string(), "Seiz");
        assert_eq!(
            RecordType::new([0, 7, 0xFF, b'a']).to_string(),
            r"\x00\x07\xffa"
        );
    }
}
