//! The report as tables for people, which fit a terminal of 80 columns unless
//! names are long.

use std::io::{self, Write};

use mef3_server::mef::Access;

use super::report::{ChannelReport, Report};
use crate::cli::units::{bytes, counted, duration, plain, printable, rate};

/// Writes the whole report.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_session(report, out)?;
    if !report.channels.is_empty() {
        writeln!(out)?;
        write_table(&times(report), out)?;
        writeln!(out)?;
        write_table(&storage(report), out)?;
    }
    write_notices(report, out)?;
    write_check(report, out)
}

fn write_session(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Session   {}", printable(&report.session))?;
    if let Some(span) = &report.span {
        writeln!(out, "Start     {}  {}", span.start_utc, span.start_uutc)?;
        writeln!(out, "End       {}  {}", span.end_utc, span.end_uutc)?;
        writeln!(out, "Duration  {}", duration(span.duration_us))?;
    }
    let size = report.channels.iter().map(|channel| channel.bytes_on_disk);
    let channels = counted(report.channels.len(), "channel", "channels");
    writeln!(out, "Holds     {channels}, {}", bytes(size.sum()))?;
    for video in &report.video_channels {
        let clips = video.segments.iter().map(|segment| segment.clips.len());
        let clips = counted(clips.sum(), "clip", "clips");
        writeln!(out, "Video     {}, {clips}", printable(&video.name))?;
    }
    let access = match report.access {
        Access::Unprotected => None,
        Access::Level1 => Some("level 1: the subject is locked"),
        Access::Level2 => Some("level 2"),
        _ => Some("no password: what is encrypted is locked"),
    };
    if let Some(access) = access {
        writeln!(out, "Access    {access}")?;
    }
    if report.times_unresolved {
        writeln!(
            out,
            "Times     may be relative: the offset of the recording is locked"
        )?;
    }
    Ok(())
}

/// When each channel was recorded, from the start of the session.
fn times(report: &Report) -> Vec<[String; 6]> {
    let origin = report.span.as_ref().map_or(0, |span| span.start_uutc);
    let since = |time: i64| format!("+{}", duration(time.saturating_sub(origin)));
    let heading = ["CHANNEL", "RATE", "START", "END", "DURATION", "GAPS"];
    let rows = report.channels.iter().map(|channel| {
        let gaps = match channel.gaps.count {
            0 => "none".into(),
            count => format!("{count}, {}", duration(channel.gaps.total_us)),
        };
        [
            printable(&channel.name),
            rate(channel.sampling_frequency_hz),
            since(channel.span.start_uutc),
            since(channel.span.end_uutc),
            duration(channel.span.duration_us),
            gaps,
        ]
    });
    std::iter::once(heading.map(String::from))
        .chain(rows)
        .collect()
}

/// What is stored of each channel.
fn storage(report: &Report) -> Vec<[String; 7]> {
    let heading = [
        "CHANNEL", "UNIT", "FACTOR", "SEGMENTS", "BLOCKS", "SAMPLES", "SIZE",
    ];
    let rows = report.channels.iter().map(|channel| {
        [
            printable(&channel.name),
            printable(&channel.unit),
            plain(channel.units_conversion_factor),
            channel.segments.to_string(),
            channel.blocks.to_string(),
            channel.stored_samples.to_string(),
            bytes(channel.bytes_on_disk),
        ]
    });
    std::iter::once(heading.map(String::from))
        .chain(rows)
        .collect()
}

/// The first column is left-aligned, the others right-aligned.
fn write_table<const COLUMNS: usize>(
    rows: &[[String; COLUMNS]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            match column {
                0 => write!(out, "{cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What cannot be read, as far as metadata and indices show.
fn write_notices(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut notices = Vec::new();
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

fn unusable_factors(channel: &ChannelReport) -> impl Iterator<Item = String> {
    channel.unusable_conversion_factors.iter().map(|segment| {
        format!(
            "channel {}, segment {segment}: conversion factor is not a number, \
             only counts can be read",
            channel.name
        )
    })
}

/// What decoding has shown.
fn write_check(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let Some(checked) = &report.checked else {
        return writeln!(out, "Blocks were not decoded; --deep looks for damage.");
    };
    for damaged in &checked.damaged_blocks {
        let line = format!(
            "channel {}, segment {}, block {} at byte {}: {} samples from {} lost: {}",
            damaged.channel,
            damaged.segment,
            damaged.block,
            damaged.file_offset,
            damaged.lost_samples,
            damaged.start_utc,
            damaged.error
        );
        writeln!(out, "{}", printable(&line))?;
    }
    let (blocks, samples) = (checked.blocks, checked.decoded_samples);
    match checked.damaged_blocks.len() {
        0 => writeln!(out, "All {blocks} blocks decoded, {samples} samples."),
        count => writeln!(
            out,
            "{count} of {blocks} blocks damaged, {samples} samples decoded."
        ),
    }
}
