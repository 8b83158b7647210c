//! The report as tables for people, which fit a terminal of 80 columns unless
//! names are long.

use std::io::{self, Write};

use mef3_server::mef::{Access, Acquisition};

use super::notices;
use super::report::Report;
use crate::cli::iso8601;
use crate::cli::tables::write_table;
use crate::cli::units::{bytes, counted, duration, plain, printable, rate};

/// Writes the whole report.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_session(report, out)?;
    if !report.channels.is_empty() {
        writeln!(out)?;
        write_table(&times(report), out)?;
        writeln!(out)?;
        write_table(&storage(report), out)?;
        write_acquisition(report, out)?;
    }
    notices::write(report, out)?;
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
    let first = report.channels.first();
    let offset = first.and_then(|channel| channel.recording_time_offset_us);
    if let Some(offset) = offset.filter(|&offset| offset != 0) {
        writeln!(out, "Offset    {offset} us hide the date in stored times")?;
    }
    write_clock(report, out)?;
    let acquisition = first.and_then(|channel| channel.acquisition.as_ref());
    let description = acquisition.map(|acquisition| acquisition.session_description.as_str());
    match description.filter(|text| !text.is_empty()) {
        Some(text) => writeln!(out, "About     {}", printable(text)),
        None => Ok(()),
    }
}

/// Writes what is known of the local time.
fn write_clock(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Some(clock) = &report.clock else {
        return Ok(());
    };
    if let Some(seconds) = clock.gmt_offset_s {
        let (hours, minutes) = (seconds / 3600, seconds.abs() / 60 % 60);
        let sign = if seconds < 0 { '-' } else { '+' };
        writeln!(out, "Clock     UTC{sign}{:02}:{minutes:02}", hours.abs())?;
    }
    let changes = [
        ("began", clock.dst_start_uutc),
        ("ended", clock.dst_end_uutc),
    ];
    for (what, time) in changes {
        // Zero: it did not, during the recording.
        if let Some(time) = time.filter(|&time| time != 0) {
            let time = iso8601::utc(time);
            writeln!(out, "DST       {what} {time}")?;
        }
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

/// Writes how each channel was recorded, where anything is known of it.
fn write_acquisition(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let known = report.channels.iter().filter_map(|channel| {
        let acquisition = channel.acquisition.as_ref()?;
        Some((channel.name.as_str(), acquisition))
    });
    let rows: Vec<_> = known.clone().map(acquisition_row).collect();
    if rows
        .iter()
        .flat_map(|row| &row[1..])
        .any(|cell| cell != NO_ENTRY)
    {
        let heading = [
            "CHANNEL",
            "NUMBER",
            "HIGH-PASS",
            "LOW-PASS",
            "NOTCH",
            "MAINS",
        ];
        let rows: Vec<_> = std::iter::once(heading.map(String::from))
            .chain(rows)
            .collect();
        writeln!(out)?;
        write_table(&rows, out)?;
    }
    for (name, acquisition) in known {
        let texts = [
            ("", &acquisition.channel_description),
            ("reference ", &acquisition.reference_description),
        ];
        for (what, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            writeln!(
                out,
                "channel {}: {what}{}",
                printable(name),
                printable(text)
            )?;
        }
    }
    Ok(())
}

/// What stands where nothing is known.
const NO_ENTRY: &str = "-";

fn acquisition_row((name, acquisition): (&str, &Acquisition)) -> [String; 6] {
    let hertz = |frequency: Option<f64>| frequency.map_or(NO_ENTRY.into(), rate);
    let number = acquisition.acquisition_channel_number;
    [
        printable(name),
        number.map_or(NO_ENTRY.into(), |number| number.to_string()),
        hertz(acquisition.low_frequency_filter),
        hertz(acquisition.high_frequency_filter),
        hertz(acquisition.notch_filter),
        hertz(acquisition.line_frequency),
    ]
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
