//! What `info` has to say, as the JSON shows it. Times end in `_uutc`
//! (microseconds since 1970) or `_utc` (ISO 8601), durations in `_us`.

use std::path::PathBuf;
use std::sync::Arc;

use mef3_server::mef::{Access, Channel, MefError, Recording, Segment, VideoChannel};
use serde::Serialize;

use super::deep::Checked;
use crate::cli::iso8601;

/// A session.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) session: String,
    pub(super) path: PathBuf,
    /// What the password opens.
    pub(super) access: Access,
    /// The offset that hides the date is locked: times are relative to an origin
    /// that is not known.
    pub(super) times_unresolved: bool,
    /// From the first start of a channel to the last end; null where no channel
    /// can be read.
    pub(super) span: Option<Span>,
    pub(super) channels: Vec<ChannelReport>,
    pub(super) unreadable_channels: Vec<Unreadable>,
    pub(super) video_channels: Vec<VideoChannel>,
    /// What decoding all blocks has shown; null where it was not asked for.
    pub(super) checked: Option<Checked>,
}

/// A stretch of time, half-open.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    pub(super) start_uutc: i64,
    pub(super) end_uutc: i64,
    pub(super) start_utc: String,
    pub(super) end_utc: String,
    pub(super) duration_us: i64,
}

impl Span {
    fn new(start_uutc: i64, end_uutc: i64) -> Self {
        Self {
            start_uutc,
            end_uutc,
            start_utc: iso8601::utc(start_uutc),
            end_utc: iso8601::utc(end_uutc),
            duration_us: end_uutc.saturating_sub(start_uutc),
        }
    }
}

/// A readable channel.
#[derive(Debug, Serialize)]
pub(super) struct ChannelReport {
    pub(super) name: String,
    pub(super) sampling_frequency_hz: f64,
    pub(super) unit: String,
    /// Units per count as stored, by the first segment; null where it is not a
    /// number. Zero was never set, and reads as one.
    pub(super) units_conversion_factor: f64,
    #[serde(flatten)]
    pub(super) span: Span,
    /// Readable segments.
    pub(super) segments: usize,
    pub(super) blocks: usize,
    pub(super) stored_samples: u64,
    pub(super) gaps: Gaps,
    /// Data and index files of the readable segments.
    pub(super) bytes_on_disk: u64,
    pub(super) unreadable_segments: Vec<Unreadable>,
    /// Segments whose index ends in the middle of an entry.
    pub(super) trailing_index_bytes: Vec<TrailingBytes>,
    /// Segments whose counts cannot be scaled.
    pub(super) unusable_conversion_factors: Vec<String>,
}

/// Where a channel has no samples.
#[derive(Debug, Serialize)]
pub(super) struct Gaps {
    pub(super) count: usize,
    pub(super) total_us: i64,
    pub(super) list: Vec<Span>,
}

/// A channel or segment that cannot be read.
#[derive(Debug, Serialize)]
pub(super) struct Unreadable {
    pub(super) name: String,
    pub(super) error: String,
}

impl Unreadable {
    fn new(name: &str, error: &MefError) -> Self {
        Self {
            name: name.into(),
            error: error.to_string(),
        }
    }
}

/// An index with bytes after its last whole entry.
#[derive(Debug, Serialize)]
pub(super) struct TrailingBytes {
    pub(super) segment: String,
    pub(super) bytes: u64,
}

impl Report {
    pub(super) fn new(recording: &Recording) -> Self {
        let ends = recording.start_uutc().zip(recording.end_uutc());
        let unreadable = recording.unreadable.iter();
        Self {
            session: recording.name.clone(),
            path: recording.path.clone(),
            span: ends.map(|(start, end)| Span::new(start, end)),
            channels: recording.channels.iter().map(ChannelReport::new).collect(),
            unreadable_channels: unreadable
                .map(|channel| Unreadable::new(&channel.name, &channel.error))
                .collect(),
            access: recording.access,
            times_unresolved: recording.channels.iter().any(Channel::times_unresolved),
            video_channels: recording.video_channels.clone(),
            checked: None,
        }
    }

    /// Unreadable segments of readable channels.
    pub(super) fn unreadable_segments(&self) -> impl Iterator<Item = (&str, &Unreadable)> {
        self.channels.iter().flat_map(|channel| {
            let segments = channel.unreadable_segments.iter();
            segments.map(|segment| (channel.name.as_str(), segment))
        })
    }
}

impl ChannelReport {
    fn new(channel: &Channel) -> Self {
        let gaps: Vec<Span> = channel
            .gaps()
            .iter()
            .map(|gap| Span::new(gap.start_uutc, gap.end_uutc))
            .collect();
        let segments = &channel.segments;
        let size = |s: &Arc<Segment>| s.identity.index.size() + s.identity.data.size();
        let trailing = segments.iter().map(|segment| TrailingBytes {
            segment: segment.stem.clone(),
            bytes: segment.index.trailing_bytes(),
        });
        let unscaled = segments.iter().filter(|s| s.acquisition.scale().is_none());
        let acquisition = channel.acquisition();
        Self {
            name: channel.name.clone(),
            sampling_frequency_hz: channel.sampling_frequency,
            unit: acquisition.map(|a| a.units.clone()).unwrap_or_default(),
            units_conversion_factor: acquisition.map_or(f64::NAN, |a| a.units_conversion_factor),
            span: Span::new(channel.start_uutc, channel.end_uutc),
            segments: segments.len(),
            blocks: segments.iter().map(|segment| segment.index.len()).sum(),
            stored_samples: channel.stored_samples(),
            gaps: Gaps {
                count: gaps.len(),
                total_us: gaps
                    .iter()
                    .fold(0, |sum: i64, gap| sum.saturating_add(gap.duration_us)),
                list: gaps,
            },
            bytes_on_disk: segments.iter().map(size).sum(),
            unreadable_segments: channel
                .unreadable
                .iter()
                .map(|segment| Unreadable::new(&segment.stem, &segment.error))
                .collect(),
            trailing_index_bytes: trailing.filter(|trailing| trailing.bytes > 0).collect(),
            unusable_conversion_factors: unscaled.map(|s| s.stem.clone()).collect(),
        }
    }
}
