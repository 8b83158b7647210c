//! The numbers that stand for words in record bodies (format section 9.3).

use super::{AmplitudeUnit, SeizureOnset, StimulationMode};

impl SeizureOnset {
    pub(super) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::Focal,
            2 => Self::Generalized,
            3 => Self::Propagated,
            4 => Self::Mixed,
            other => Self::Other(other),
        }
    }

    pub(super) fn code(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Focal => 1,
            Self::Generalized => 2,
            Self::Propagated => 3,
            Self::Mixed => 4,
            Self::Other(code) => code,
        }
    }
}

impl AmplitudeUnit {
    pub(super) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::Milliamperes,
            2 => Self::Volts,
            other => Self::Other(other),
        }
    }

    pub(super) fn code(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Milliamperes => 1,
            Self::Volts => 2,
            Self::Other(code) => code,
        }
    }
}

impl StimulationMode {
    pub(super) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::Current,
            2 => Self::Voltage,
            other => Self::Other(other),
        }
    }

    pub(super) fn code(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Current => 1,
            Self::Voltage => 2,
            Self::Other(code) => code,
        }
    }
}
