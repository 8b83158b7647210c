//! What the clients of the segment calls set on a recording: the grid of segments and
//! the active channels.

use actix::{Handler, Message};

use super::{FileManager, OpenFile, RecordingName};
use crate::actors::plan::{Pattern, ReadPlan};
use crate::actors::prefetcher::Observed;
use crate::error::Error;
use crate::mef::{Channel, Rule};

impl OpenFile {
    fn channel_names(&self) -> Vec<String> {
        let channels: &[Channel] = &self.recording.recording.channels;
        channels
            .iter()
            .map(|channel| channel.name.clone())
            .collect()
    }

    /// Number of segments of the grid: the last, shorter one counts.
    fn segments(&self) -> u64 {
        let recording = &self.recording.recording;
        let (Some(start), Some(end), Some(length)) = (
            recording.start_uutc(),
            recording.end_uutc(),
            self.segment_us,
        ) else {
            return 0;
        };
        end.abs_diff(start).div_ceil(length.unsigned_abs().max(1))
    }

    /// The window of a segment of the grid.
    fn segment(&self, index: i64) -> Result<(i64, i64), Error> {
        let length = self.segment_us.ok_or(Error::NoSegmentSize)?;
        let count = self.segments();
        let recording = &self.recording.recording;
        let exists = u64::try_from(index).is_ok_and(|index| index < count);
        let (Some(first), Some(last), true) =
            (recording.start_uutc(), recording.end_uutc(), exists)
        else {
            return Err(Error::NoSuchSegment { index, count });
        };
        let start = first.saturating_add(index.saturating_mul(length));
        Ok((start, start.saturating_add(length).min(last)))
    }
}

/// Lays a grid of segments over a recording, and expects it to be read from
/// the start. The answer is the number of segments.
#[derive(Message)]
#[rtype(result = "Result<u64, Error>")]
pub(crate) struct SetSegmentSize {
    pub(crate) key: RecordingName,
    pub(crate) seconds: i64,
    pub(crate) reader: u64,
}

impl Handler<SetSegmentSize> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, message: SetSegmentSize, _: &mut Self::Context) -> Self::Result {
        let SetSegmentSize {
            key,
            seconds,
            reader,
        } = message;
        let length = (seconds > 0).then(|| seconds.saturating_mul(1_000_000));
        let file = self.file_mut(&key)?;
        file.segment_us = Some(length.ok_or(Error::SegmentSize(seconds))?);
        let file = self.file(&key)?;
        // As if the segment before the first had just been read.
        let active = file.positions(file.active.as_deref().unwrap_or_default());
        let before = file
            .segment(0)
            .map(|(start, end)| (start.saturating_sub(end.saturating_sub(start)), start));
        if let (Ok(channels), Ok(window)) = (active, before)
            && let Ok(plan) = self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
        {
            // A prefetcher without room has better things to do.
            let _ = self.prefetcher.try_send(Observed { reader, plan });
        }
        Ok(file.segments())
    }
}

/// Asks for the number of segments: none where no size was set.
#[derive(Message)]
#[rtype(result = "Result<u64, Error>")]
pub(crate) struct CountSegments(pub(crate) RecordingName);

impl Handler<CountSegments> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, CountSegments(key): CountSegments, _: &mut Self::Context) -> Self::Result {
        self.file(&key).map(OpenFile::segments)
    }
}

/// The active channels after a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActiveChannels {
    pub(crate) active: Vec<String>,
    /// Names of the request that are no channel.
    pub(crate) unknown: Vec<String>,
    /// Whether the request changed the set.
    pub(crate) changed: bool,
}

/// Sets the active channels; all, where the list is empty. Unknown names are
/// left out, and a list of nothing else changes nothing.
#[derive(Message)]
#[rtype(result = "Result<ActiveChannels, Error>")]
pub(crate) struct SetActiveChannels {
    pub(crate) key: RecordingName,
    pub(crate) names: Vec<String>,
}

impl Handler<SetActiveChannels> for FileManager {
    type Result = Result<ActiveChannels, Error>;

    fn handle(&mut self, message: SetActiveChannels, _: &mut Self::Context) -> Self::Result {
        self.check_channels(message.names.len())?;
        let file = self.file_mut(&message.key)?;
        let recording = &file.recording.recording;
        let (known, unknown): (Vec<_>, Vec<_>) = message
            .names
            .into_iter()
            .partition(|name| recording.channel_position(name).is_some());
        let changed = !known.is_empty() || unknown.is_empty();
        if changed {
            file.active = (!known.is_empty()).then_some(known);
        }
        Ok(ActiveChannels {
            active: file.active.clone().unwrap_or_else(|| file.channel_names()),
            unknown,
            changed,
        })
    }
}

/// Asks for the active channels.
#[derive(Message)]
#[rtype(result = "Result<Vec<String>, Error>")]
pub(crate) struct GetActiveChannels(pub(crate) RecordingName);

impl Handler<GetActiveChannels> for FileManager {
    type Result = Result<Vec<String>, Error>;

    fn handle(&mut self, message: GetActiveChannels, _: &mut Self::Context) -> Self::Result {
        let file = self.file(&message.0)?;
        Ok(file.active.clone().unwrap_or_else(|| file.channel_names()))
    }
}

/// Plans the read of a segment of the grid: the active channels, by pymef's
/// rule.
#[derive(Message)]
#[rtype(result = "Result<ReadPlan, Error>")]
pub(crate) struct PlanSegment {
    pub(crate) key: RecordingName,
    pub(crate) index: i64,
}

impl Handler<PlanSegment> for FileManager {
    type Result = Result<ReadPlan, Error>;

    fn handle(
        &mut self,
        PlanSegment { key, index }: PlanSegment,
        _: &mut Self::Context,
    ) -> Self::Result {
        let file = self.file(&key)?;
        let window = file.segment(index)?;
        let channels = file.positions(file.active.as_deref().unwrap_or_default())?;
        self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
    }
}
