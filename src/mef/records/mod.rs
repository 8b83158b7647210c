//! Records: annotations of a session, of a channel or of a segment
//! (format section 9).
//!
//! [`scan`] goes through a data file once and finds where the wanted records are;
//! [`load`] reads one of them. So a file of any length can be listed, and a
//! record be read, in little memory. A record that cannot be believed is damage
//! and never data.

mod codes;
mod decode;
mod encode;
mod error;
mod index;
mod kind;
mod layout;
mod load;
mod model;
mod pieces;
mod scan;
mod walk;

pub(crate) use encode::{EncodedRecord, encode_record};
pub use error::{DamagedRecord, RecordError, RecordRefusal};
pub(crate) use index::RecordIndex;
pub use kind::{ParseRecordTypeError, RecordType};
pub(crate) use layout::{RECORD_ENTRY_BYTES, RecordEntry};
pub(crate) use load::{RecordPosition, load};
pub use model::{
    AmplitudeUnit, CognitiveStimulus, Cursor, ElectricalStimulus, Epoch, NewRecord, Record,
    RecordBody, RecordFilter, Seizure, SeizureChannel, SeizureOnset, StimulationMode,
};
#[cfg(test)]
pub(crate) use scan::RecordDamage;
#[cfg(any(test, fuzzing))]
pub(crate) use scan::RecordScan;
pub(crate) use scan::{RecordFiles, scan};
pub(crate) use walk::{Met, MetRecord, RecordWalk};

#[cfg(test)]
pub(super) mod tests;
