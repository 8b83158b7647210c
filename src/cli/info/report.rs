//! What `info` has to say, as the JSON shows it. Times end in `_uutc`
//! (microseconds since 1970) or `_utc` (ISO 8601), durations in `_us`.

use std::path::PathBuf;
use std::sync::Arc;

use mef3_server::mef::{
    Access, Acquisition, Channel, IndexRepairs, MefError, Recording, Segment, Subject, VideoChannel,
};
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
    /// The password is right only in the form that mef3io up to 1.2.0 gave it.
    pub(super) password_by_old_mapping: bool,
    /// Who the subject is, is never shown; here is whether the password opens it.
    pub(super) subject_locked: bool,
    /// Null where the subject is locked: it stands in the same section.
    pub(super) clock: Option<Clock>,
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

/// The local time of the recording; null is "no entry".
#[derive(Debug, Serialize)]
pub(super) struct Clock {
    /// Seconds east of Greenwich at the start.
    pub(super) gmt_offset_s: Option<i32>,
    /// When daylight-saving time began during the recording; zero where it did not.
    pub(super) dst_start_uutc: Option<i64>,
    /// When it ended; zero where it did not.
    pub(super) dst_end_uutc: Option<i64>,
}

impl Clock {
    fn new(subject: &Subject) -> Self {
        Self {
            gmt_offset_s: subject.gmt_offset_s,
            dst_start_uutc: subject.dst_start_uutc,
            dst_end_uutc: subject.dst_end_uutc,
        }
    }
}

/// A stretch of time, half-open.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Span {
    pub(in crate::cli) start_uutc: i64,
    pub(in crate::cli) end_uutc: i64,
    pub(in crate::cli) start_utc: String,
    pub(in crate::cli) end_utc: String,
    pub(in crate::cli) duration_us: i64,
}

impl Span {
    pub(in crate::cli) fn new(start_uutc: i64, end_uutc: i64) -> Self {
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
    /// Technical metadata as stored, by the first segment.
    pub(super) acquisition: Option<Acquisition>,
    /// What was subtracted from stored times to hide the date, by the first segment;
    /// null where it is locked.
    pub(super) recording_time_offset_us: Option<i64>,
    /// It is locked in a segment, whose times are then relative.
    pub(super) times_unresolved: bool,
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
    /// Segments whose index did not say what their blocks say, which is believed.
    pub(super) repaired_indices: Vec<Repaired>,
    /// Segments whose factor was never set, and counts as one.
    pub(super) unset_conversion_factors: Vec<String>,
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

/// An index that was put right while it was read.
#[derive(Debug, Serialize)]
pub(super) struct Repaired {
    pub(super) segment: String,
    #[serde(flatten)]
    pub(super) repairs: IndexRepairs,
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
            password_by_old_mapping: recording.password_by_old_mapping,
            subject_locked: recording.subject.is_none() && !recording.channels.is_empty(),
            clock: recording.subject.as_ref().map(Clock::new),
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
        let repaired = segments.iter().map(|segment| Repaired {
            segment: segment.stem.clone(),
            repairs: segment.repairs,
        });
        let unscaled = segments.iter().filter(|s| s.acquisition.scale().is_none());
        let factor = |segment: &&Arc<Segment>| segment.acquisition.units_conversion_factor;
        let unset = segments.iter().filter(|segment| factor(segment) == 0.0);
        let acquisition = channel.acquisition();
        Self {
            name: channel.name.clone(),
            sampling_frequency_hz: channel.sampling_frequency,
            unit: acquisition.map(|a| a.units.clone()).unwrap_or_default(),
            units_conversion_factor: acquisition.map_or(f64::NAN, |a| a.units_conversion_factor),
            acquisition: acquisition.cloned(),
            recording_time_offset_us: segments.first().and_then(|s| s.recording_time_offset),
            times_unresolved: channel.times_unresolved(),
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
            repaired_indices: repaired
                .filter(|repaired| repaired.repairs != IndexRepairs::default())
                .collect(),
            unset_conversion_factors: unset.map(|s| s.stem.clone()).collect(),
            unusable_conversion_factors: unscaled.map(|s| s.stem.clone()).collect(),
        }
    }
}
