//! MEF 3.0 on disk, and nothing else: no actors, no async, no gRPC.
//!
//! Everything that is read is hostile until checked; no function here panics on
//! any input. Reading goes in three steps: [`open_session`] finds channels,
//! segments and block indices, a [`Placement`] says which blocks a window shows
//! and where, and a [`SegmentReader`] decodes them. Writing is
//! [`SessionWriter`]'s.

mod blocks;
pub mod crc;
mod crypto;
mod error;
mod gaps;
mod header;
mod identity;
mod index;
mod layout;
mod metadata;
#[cfg(test)]
#[path = "../../tests/common/peers.rs"]
#[allow(unreachable_pub, reason = "shared with the integration tests")]
mod peers;
mod place;
mod recording;
pub mod red;
mod session;
mod store;
pub mod synth;
pub mod time;
mod video;
mod window;
mod writer;

pub use blocks::{BlockDamage, DamagedBlock, DecodedBlock, Scratch, SegmentReader};
pub use crypto::{Access, Password};
pub use error::{ArchiveError, BlockError, IndexField, Malformation, MefError};
pub use gaps::Gap;
pub use identity::{FileIdentity, SegmentIdentity};
pub use index::{BlockEntry, BlockIndex, duration_us};
pub use metadata::{Acquisition, SegmentMetadata, Subject};
pub use place::{BlockPosition, Grid, Placement, Rule, SampleValue, Scale, WindowError, place};
pub use recording::{Channel, Recording, Segment, UnreadableChannel, UnreadableSegment};
pub use session::open_session;
pub(crate) use session::open_session_watched;
pub use video::{VideoClip, VideoMetadata};
pub use window::{ChannelReader, ReadError};
pub(crate) use window::{check_readable, scale_of};
pub use writer::{ChannelOptions, ChannelWriter, SessionOptions, SessionWriter, WriteError};
