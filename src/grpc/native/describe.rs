//! What a recording is: its channels, segments and gaps.

use std::sync::Arc;

use super::pages::{Entries, MOST_ENTRIES, Page, Place};
use super::status::Refusal;
use crate::actors::plan::distinct_rates;
use crate::engine::{Engine, Reader};
use crate::grpc::proto::native::{
    Access, Channel, Gap, GetRecordingResponse, Limits, ListGapsResponse, ListSegmentsResponse,
    RateGroup, Revision, Segment, Subject, TimeSpan,
};
use crate::mef;
use crate::worker::page::{self, PagedRecording};

/// Bytes of samples that a recommended span has.
const RECOMMENDED_BYTES: f64 = 1_048_576.0;
/// The shortest and the longest span that is recommended.
const RECOMMENDED_US: (f64, f64) = (1e6, 3.6e9);

impl From<page::Revision> for Revision {
    fn from(revision: page::Revision) -> Self {
        Self {
            opening: revision.opening,
            growth: revision.growth,
        }
    }
}

/// A span, where both of its ends are known.
pub(super) fn span(start: Option<i64>, end: Option<i64>) -> Option<TimeSpan> {
    let (start_uutc, end_uutc) = start.zip(end)?;
    Some(TimeSpan {
        start_uutc,
        end_uutc,
    })
}

/// What a recording is, with one page of its channels.
pub(super) fn recording(
    path: String,
    paged: &PagedRecording,
    page: Page,
    engine: &Engine,
    reader: Reader,
    request_message_bytes: usize,
) -> GetRecordingResponse {
    let recording = &paged.recording;
    let readable = recording.channels.iter().map(channel);
    let unreadable = recording.unreadable.iter().map(|it| Channel {
        name: it.name.clone(),
        unreadable_reason: it.error.to_string(),
        ..Channel::default()
    });
    let mut channels = Entries::new(page);
    let first = page.first.entry;
    let all = readable.chain(unreadable).zip(0u64..);
    for (channel, entry) in all.skip(usize::try_from(first).unwrap_or(usize::MAX)) {
        if !channels.push(Place { channel: 0, entry }, channel) {
            break;
        }
    }
    let limits = engine.settings();
    GetRecordingResponse {
        recording: path,
        name: recording.name.clone(),
        revision: Some(paged.revision().into()),
        next_page_token: channels.next_token(),
        channels: channels.entries,
        readable_channels: count(recording.channels.len()),
        unreadable_channels: count(recording.unreadable.len()),
        span: span(recording.start_uutc(), recording.end_uutc()),
        rate_groups: rate_groups(recording),
        access: access(recording.access).into(),
        subject: recording.subject.as_ref().map(subject),
        recommended_span_us: recommended_span(recording),
        limits: Some(Limits {
            request_bytes: reader.request_bytes(limits.request_bytes),
            channels_per_request: limits.channels_per_read as u64,
            request_message_bytes: request_message_bytes as u64,
            page_entries: MOST_ENTRIES,
        }),
    }
}

fn count(things: usize) -> u32 {
    u32::try_from(things).unwrap_or(u32::MAX)
}

fn channel(channel: &mef::Channel) -> Channel {
    let acquisition = channel.acquisition();
    let text = |of: fn(&mef::Acquisition) -> &String| acquisition.map(of).cloned();
    let number = |of: fn(&mef::Acquisition) -> Option<f64>| acquisition.and_then(of);
    Channel {
        name: channel.name.clone(),
        sampling_frequency: channel.sampling_frequency,
        span: span(Some(channel.start_uutc), Some(channel.end_uutc)),
        stored_samples: channel.stored_samples(),
        unit: text(|it| &it.units).unwrap_or_default(),
        units_conversion_factor: number(mef::Acquisition::scale),
        description: text(|it| &it.channel_description).unwrap_or_default(),
        reference: text(|it| &it.reference_description).unwrap_or_default(),
        acquisition_channel_number: acquisition.and_then(|it| it.acquisition_channel_number),
        low_frequency_filter: number(|it| it.low_frequency_filter),
        high_frequency_filter: number(|it| it.high_frequency_filter),
        notch_filter: number(|it| it.notch_filter),
        line_frequency: number(|it| it.line_frequency),
        segments: count(channel.segments.len()),
        unreadable_segments: count(channel.unreadable.len()),
        times_unresolved: channel.times_unresolved(),
        unreadable_reason: String::new(),
    }
}

fn rate_groups(recording: &mef::Recording) -> Vec<RateGroup> {
    let channels = &recording.channels;
    let mut rates = distinct_rates(channels.iter().map(|it| it.sampling_frequency));
    rates.sort_by(f64::total_cmp);
    let group = |rate: f64| RateGroup {
        sampling_frequency: rate,
        channels: count(
            channels
                .iter()
                .filter(|it| it.sampling_frequency == rate)
                .count(),
        ),
    };
    rates.into_iter().map(group).collect()
}

fn access(access: mef::Access) -> Access {
    match access {
        mef::Access::Unprotected => Access::Unprotected,
        mef::Access::Locked => Access::Locked,
        mef::Access::Level1 => Access::Level1,
        mef::Access::Level2 => Access::Level2,
    }
}

fn subject(subject: &mef::Subject) -> Subject {
    Subject {
        name_1: subject.name_1.clone(),
        name_2: subject.name_2.clone(),
        id: subject.id.clone(),
        recording_location: subject.recording_location.clone(),
        gmt_offset_s: subject.gmt_offset_s,
    }
}

/// A span that all channels have about a MiB of float32 samples in, in whole seconds.
fn recommended_span(recording: &mef::Recording) -> i64 {
    let rates = recording.channels.iter().map(|it| it.sampling_frequency);
    let bytes_per_second = rates.sum::<f64>() * size_of::<f32>() as f64;
    let us = RECOMMENDED_BYTES / bytes_per_second.max(1.0) * 1e6;
    let (least, most) = RECOMMENDED_US;
    (us.clamp(least, most) / 1e6).floor() as i64 * 1_000_000
}

/// One page of the segments of some channels.
pub(super) fn segments(
    paged: &Arc<PagedRecording>,
    channels: &[u32],
    page: Page,
) -> ListSegmentsResponse {
    let mut entries = Entries::new(page);
    'channels: for (channel, number, first) in pages(paged, channels, page) {
        let readable = channel.segments.iter().map(|it| segment(channel, it));
        let unreadable = channel.unreadable.iter().map(|it| Segment {
            channel: channel.name.clone(),
            name: it.stem.clone(),
            unreadable_reason: it.error.to_string(),
            not_before_uutc: it.not_before,
            not_after_uutc: it.not_after,
            ..Segment::default()
        });
        for (segment, entry) in readable.chain(unreadable).zip(0u64..).skip(first) {
            let place = Place {
                channel: number,
                entry,
            };
            if !entries.push(place, segment) {
                break 'channels;
            }
        }
    }
    ListSegmentsResponse {
        revision: Some(paged.revision().into()),
        next_page_token: entries.next_token(),
        segments: entries.entries,
    }
}

/// The channels of a list from the one on that a page begins with: each with its number
/// in the list, and its first entry.
fn pages<'a>(
    paged: &'a PagedRecording,
    channels: &'a [u32],
    page: Page,
) -> impl Iterator<Item = (&'a mef::Channel, u64, usize)> {
    let Place { channel, entry } = page.first;
    let numbered = channels.iter().zip(0u64..);
    let rest = numbered.skip(usize::try_from(channel).unwrap_or(usize::MAX));
    rest.filter_map(move |(&position, number)| {
        let first = if number == channel { entry } else { 0 };
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        Some((paged.channel(position)?, number, first))
    })
}

fn segment(channel: &mef::Channel, segment: &mef::Segment) -> Segment {
    let repairs = &segment.repairs;
    Segment {
        channel: channel.name.clone(),
        name: segment.stem.clone(),
        span: span(Some(segment.start_uutc), Some(segment.end_uutc)),
        blocks: segment.index.len() as u64,
        samples: segment.index.total_samples(),
        units_conversion_factor: segment.acquisition.scale(),
        repaired_entries: repairs.recovered + repairs.corrected + repairs.dropped,
        ..Segment::default()
    }
}

/// One page of the gaps of some channels. Goes through their indices: not for a thread
/// that others wait for.
pub(super) fn gaps(
    paged: &Arc<PagedRecording>,
    channels: &[u32],
    within: Option<TimeSpan>,
    page: Page,
) -> ListGapsResponse {
    let mut entries = Entries::new(page);
    'channels: for (channel, number, first) in pages(paged, channels, page) {
        let touches = |gap: &mef::Gap| {
            within
                .is_none_or(|span| gap.start_uutc < span.end_uutc && gap.end_uutc > span.start_uutc)
        };
        let gaps = channel.gaps().into_iter().filter(touches);
        for (gap, entry) in gaps.zip(0u64..).skip(first) {
            let gap = Gap {
                channel: channel.name.clone(),
                span: span(Some(gap.start_uutc), Some(gap.end_uutc)),
            };
            let place = Place {
                channel: number,
                entry,
            };
            if !entries.push(place, gap) {
                break 'channels;
            }
        }
    }
    ListGapsResponse {
        revision: Some(paged.revision().into()),
        next_page_token: entries.next_token(),
        gaps: entries.entries,
    }
}

/// Refuses a span that ends before it begins.
pub(super) fn check_span(span: Option<TimeSpan>, field: &str) -> Result<(), Refusal> {
    match span {
        Some(span) if span.end_uutc <= span.start_uutc => {
            let text = format!("{field}: end_uutc must be later than start_uutc");
            Err(Refusal::field(field, "WINDOW_EMPTY", text))
        }
        _ => Ok(()),
    }
}
