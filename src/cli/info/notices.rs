//! What a user should know of a session beside what is in it.

use std::io::{self, Write};

use mef3_server::mef::IndexRepairs;

use super::report::{ChannelReport, Report};
use crate::cli::units::printable;

/// Writes what cannot be read, and what was put right, as far as metadata and indices show.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut notices = Vec::new();
    if report.password_by_old_mapping {
        notices.push(
            "the password is right only as mef3io up to 1.2.0 took it: others refuse it".into(),
        );
    }
    for channel in &report.unreadable_channels {
        notices.push(format!(
            "channel {} cannot be read: {}",
            channel.name, channel.error
        ));
    }
    for (channel, segment) in report.unreadable_segments() {
        let (segment, error) = (&segment.name, &segment.error);
        notices.push(format!(
            "channel {channel}, segment {segment} cannot be read: {error}"
        ));
    }
    for channel in &report.channels {
        notices.extend(torn_indices(channel));
        notices.extend(repaired_indices(channel));
        notices.extend(unset_factors(channel));
        notices.extend(unusable_factors(channel));
    }
    if !notices.is_empty() {
        writeln!(out)?;
    }
    notices
        .iter()
        .try_for_each(|notice| writeln!(out, "{}", printable(notice)))
}

fn torn_indices(channel: &ChannelReport) -> impl Iterator<Item = String> {
    channel.trailing_index_bytes.iter().map(|trailing| {
        format!(
            "channel {}, segment {}: {} bytes after the last whole entry of the index",
            channel.name, trailing.segment, trailing.bytes
        )
    })
}

fn repaired_indices(channel: &ChannelReport) -> impl Iterator<Item = String> {
    channel.repaired_indices.iter().map(|repaired| {
        let IndexRepairs {
            corrected,
            recovered,
            dropped,
            torn_bytes,
        } = repaired.repairs;
        format!(
            "channel {}, segment {}: the index was put right: {corrected} entries corrected, \
             {recovered} blocks recovered, {dropped} entries dropped, \
             {torn_bytes} bytes after the last block",
            channel.name, repaired.segment
        )
    })
}

fn unset_factors(channel: &ChannelReport) -> impl Iterator<Item = String> {
    channel.unset_conversion_factors.iter().map(|segment| {
        format!(
            "channel {}, segment {segment}: conversion factor was never set and counts as one",
            channel.name
        )
    })
}

fn unusable_factors(channel: &ChannelReport) -> impl Iterator<Item = String> {
    channel.unusable_conversion_factors.iter().map(|segment| {
        format!(
            "channel {}, segment {segment}: conversion factor is not a number, \
             only counts can be read",
            channel.name
        )
    })
}
