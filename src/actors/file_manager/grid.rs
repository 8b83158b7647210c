//! What the clients of the segment calls set on a recording: the grid of segments and
//! the active channels.

use actix::{Handler, Message};

use super::clients::Choices;
use super::{FileManager, OpenFile, Use};
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

    /// Number of segments of a grid: the last, shorter one counts.
    fn segments(&self, choices: &Choices) -> u64 {
        let recording = &self.recording.recording;
        let (Some(start), Some(end), Some(length)) = (
            recording.start_uutc(),
            recording.end_uutc(),
            choices.segment_us,
        ) else {
            return 0;
        };
        end.abs_diff(start).div_ceil(length.unsigned_abs().max(1))
    }

    /// The window of a segment of a grid.
    fn segment(&self, choices: &Choices, index: i64) -> Result<(i64, i64), Error> {
        let length = choices.segment_us.ok_or(Error::NoSegmentSize)?;
        let count = self.segments(choices);
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
    pub(crate) by: Use,
    pub(crate) seconds: i64,
    pub(crate) reader: u64,
}

impl Handler<SetSegmentSize> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, message: SetSegmentSize, _: &mut Self::Context) -> Self::Result {
        let SetSegmentSize {
            by,
            seconds,
            reader,
        } = message;
        self.touch(&by);
        let length = (seconds > 0).then(|| seconds.saturating_mul(1_000_000));
        let choices = self.choices_mut(&by)?;
        choices.segment_us = Some(length.ok_or(Error::SegmentSize(seconds))?);
        let (file, choices) = (self.file(&by.recording)?, self.choices(&by)?);
        // As if the segment before the first had just been read.
        let active = file.positions(choices.active.as_deref().unwrap_or_default());
        let before = file
            .segment(choices, 0)
            .map(|(start, end)| (start.saturating_sub(end.saturating_sub(start)), start));
        if let (Ok(channels), Ok(window)) = (active, before)
            && let Ok(plan) = self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
        {
            // A prefetcher without room has better things to do.
            let _ = self.prefetcher.try_send(Observed { reader, plan });
        }
        Ok(file.segments(choices))
    }
}

/// Asks for the number of segments: none where no size was set.
#[derive(Message)]
#[rtype(result = "Result<u64, Error>")]
pub(crate) struct CountSegments(pub(crate) Use);

impl Handler<CountSegments> for FileManager {
    type Result = Result<u64, Error>;

    fn handle(&mut self, CountSegments(by): CountSegments, _: &mut Self::Context) -> Self::Result {
        self.touch(&by);
        Ok(self.file(&by.recording)?.segments(self.choices(&by)?))
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
    pub(crate) by: Use,
    pub(crate) names: Vec<String>,
}

impl Handler<SetActiveChannels> for FileManager {
    type Result = Result<ActiveChannels, Error>;

    fn handle(&mut self, message: SetActiveChannels, _: &mut Self::Context) -> Self::Result {
        let by = &message.by;
        self.touch(by);
        self.check_channels(message.names.len())?;
        let file = self.file(&by.recording)?;
        let recording = &file.recording.recording;
        let (known, unknown): (Vec<_>, Vec<_>) = message
            .names
            .into_iter()
            .partition(|name| recording.channel_position(name).is_some());
        let changed = !known.is_empty() || unknown.is_empty();
        if changed {
            self.choices_mut(by)?.active = (!known.is_empty()).then_some(known);
        }
        let (file, choices) = (self.file(&by.recording)?, self.choices(by)?);
        Ok(ActiveChannels {
            active: choices
                .active
                .clone()
                .unwrap_or_else(|| file.channel_names()),
            unknown,
            changed,
        })
    }
}

/// Asks for the active channels.
#[derive(Message)]
#[rtype(result = "Result<Vec<String>, Error>")]
pub(crate) struct GetActiveChannels(pub(crate) Use);

impl Handler<GetActiveChannels> for FileManager {
    type Result = Result<Vec<String>, Error>;

    fn handle(&mut self, message: GetActiveChannels, _: &mut Self::Context) -> Self::Result {
        let by = &message.0;
        self.touch(by);
        let (file, choices) = (self.file(&by.recording)?, self.choices(by)?);
        Ok(choices
            .active
            .clone()
            .unwrap_or_else(|| file.channel_names()))
    }
}

/// Plans the read of a segment of the grid: the active channels, by pymef's
/// rule.
#[derive(Message)]
#[rtype(result = "Result<ReadPlan, Error>")]
pub(crate) struct PlanSegment {
    pub(crate) by: Use,
    pub(crate) index: i64,
}

impl Handler<PlanSegment> for FileManager {
    type Result = Result<ReadPlan, Error>;

    fn handle(
        &mut self,
        PlanSegment { by, index }: PlanSegment,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.touch(&by);
        let (file, choices) = (self.file(&by.recording)?, self.choices(&by)?);
        let window = file.segment(choices, index)?;
        let channels = file.positions(choices.active.as_deref().unwrap_or_default())?;
        self.plan(file, channels, window, Rule::Pymef, Pattern::Segments)
    }
}
