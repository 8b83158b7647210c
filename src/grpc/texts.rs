//! The in-band texts that existing clients compare.

use crate::error::{Error, python_list};
use crate::mef::MefError;

/// A path that cannot be opened.
pub(super) fn open_error(path: &str, session: &std::path::Path, error: &Error) -> String {
    match error {
        Error::Mef(MefError::NotFound { path: missing }) if missing == session => {
            format!("File does not exist: {path}")
        }
        Error::Mef(MefError::NotASession { reason, .. }) => format!("{reason}: {path}"),
        _ => error.to_string(),
    }
}

/// A recording that is open already, which is no error.
pub(super) fn already_open(path: &str) -> String {
    format!("File already open: {path}")
}

/// A segment that cannot be read.
pub(super) fn segment_error(path: &str, error: &Error) -> String {
    match error {
        Error::NoSegmentSize => {
            format!("No chunks available for file: {path}. Set a segment size to init chunks.")
        }
        Error::NoSuchSegment { index, .. } => format!("Invalid chunk request: {index} for {path}"),
        _ => error.to_string(),
    }
}

/// A segment size that makes no grid. For zero, what numpy said.
pub(super) fn segment_size_error(error: &Error) -> String {
    match error {
        Error::SegmentSize(0) => "Maximum allowed size exceeded".into(),
        _ => error.to_string(),
    }
}

/// Names in a request for active channels that are none.
pub(super) fn unknown_active(unknown: &[String], changed: bool) -> String {
    let names = python_list(unknown);
    match (unknown, changed) {
        ([], _) => String::new(),
        (_, true) => format!("Some channels do not exist: {names}"),
        (_, false) => format!("No valid channels in request. Invalid: {names}"),
    }
}
