//! MEF 3.0 on disk, and nothing else: no actors, no async, no gRPC.
//!
//! Everything that is read is hostile until checked; no function here panics on
//! any input. Reading goes in three steps: [`open_session`] finds channels,
//! segments and block indices, a [`Placement`] says which blocks a window shows
//! and where, and a [`SegmentReader`] decodes them. Writing is
//! [`SessionWriter`]'s.

mod annotations;
mod blocks;
mod catalog;
mod check;
pub mod crc;
mod crypto;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gaps;
mod header;
mod identity;
mod index;
mod layout;
mod metadata;
mod path_bytes;
#[cfg(test)]
#[path = "../../tests/common/peers.rs"]
#[allow(unreachable_pub, reason = "shared with the integration tests")]
mod peers;
mod place;
mod reconcile;
mod recording;
mod records;
pub mod red;
mod refresh;
mod segment;
mod session;
mod store;
pub mod synth;
pub mod time;
mod video;
mod video_channel;
mod window;
mod writer;

pub(crate) use annotations::RecordReader;
pub use annotations::{PlacedRecord, RecordPage, RecordQuery};
pub use blocks::{BlockDamage, DamagedBlock, DecodedBlock, Scratch, SegmentReader};
pub(crate) use catalog::{FoundSession, Walk, WalkLimits, find_sessions};
pub use check::{Checked, Finding, Problem, check_session};
pub(crate) use crc::crc32;
pub use crypto::{Access, Password};
pub use error::{ArchiveError, BlockError, IndexField, Malformation, MefError};
pub use gaps::Gap;
pub use identity::{FileIdentity, SegmentIdentity};
pub use index::{BlockEntry, BlockIndex, Extrema, duration_us};
pub(crate) use index::{BlockExtent, PART_ENTRIES};
pub use metadata::{Acquisition, Subject};
pub use place::{BlockPosition, Grid, Placement, Rule, SampleValue, Scale, WindowError, place};
pub use reconcile::IndexRepairs;
pub use recording::{Channel, Recording, Segment, UnreadableChannel, UnreadableSegment};
pub use records::{
    AmplitudeUnit, CognitiveStimulus, Cursor, DamagedRecord, ElectricalStimulus, Epoch, NewRecord,
    ParseRecordTypeError, Record, RecordBody, RecordError, RecordFilter, RecordRefusal, RecordType,
    Seizure, SeizureChannel, SeizureOnset, StimulationMode,
};
pub(crate) use refresh::{Known, Refresh, refresh};
pub(crate) use session::open_session_watched;
pub use session::{OpenOptions, open_session};
#[cfg(feature = "fault-injection")]
pub(crate) use store::obstacle;
pub(crate) use store::{Roots, Store};
pub use video::{VideoClip, VideoMetadata};
pub use video_channel::{VideoChannel, VideoSegment};
pub use window::{ChannelReader, ReadError};
pub(crate) use window::{check_readable, scale_of};
pub use writer::{
    ChannelOptions, ChannelWriter, Passwords, RecordFileFault, RecordWriter, SessionOptions,
    SessionWriter, WriteError,
};
