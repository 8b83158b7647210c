//! `info --records`: the annotations of a session.

use std::io::{self, Write};

use clap::Args;
use mef3_server::mef::{
    DamagedRecord, PlacedRecord, RecordBody, RecordFilter, RecordPage, RecordQuery, RecordType,
};
use serde::Serialize;

use crate::cli::iso8601;
use crate::cli::units::{counted, duration, printable};

/// Which records are shown.
#[derive(Debug, Args)]
pub(super) struct RecordArguments {
    /// List records (annotations) in place of the channels, by time
    #[arg(long)]
    pub(super) records: bool,
    /// Only records of this type, such as Note or Seiz; may be repeated
    #[arg(long = "type", value_name = "TYPE", requires = "records")]
    types: Vec<RecordType>,
    /// Only records of this channel and its segments; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        requires = "records",
        allow_hyphen_values = true
    )]
    channel: Vec<String>,
    /// Only records from this time on, in uUTC
    #[arg(
        long,
        value_name = "UUTC",
        requires = "records",
        allow_negative_numbers = true
    )]
    from: Option<i64>,
    /// Only records before this time, in uUTC
    #[arg(
        long,
        value_name = "UUTC",
        requires = "records",
        allow_negative_numbers = true
    )]
    until: Option<i64>,
    /// Leave out so many, from the earliest on
    #[arg(long, value_name = "N", requires = "records", default_value_t = 0)]
    skip: u64,
    /// Show so many at most
    #[arg(long, value_name = "N", requires = "records", default_value_t = 1000)]
    limit: usize,
}

impl RecordArguments {
    pub(super) fn query(&self) -> RecordQuery {
        RecordQuery {
            filter: RecordFilter {
                types: self.types.clone(),
                from_uutc: self.from,
                until_uutc: self.until,
            },
            channels: self.channel.clone(),
            skip: self.skip,
            limit: self.limit,
        }
    }
}

/// The records as JSON. Raw bodies are hexadecimal.
#[derive(Debug, Serialize)]
pub(super) struct RecordReport<'a> {
    total: u64,
    /// How many of all anybody can read though the session is protected.
    plain_in_protected: u64,
    /// How many have a time that is relative to an offset that is not known.
    times_unresolved: u64,
    skipped: u64,
    /// What `--skip` is for the records behind these; `null` where there are none.
    next: Option<u64>,
    records: Vec<RecordEntry<'a>>,
    damaged: Vec<Damaged>,
    further_damage: u64,
}

#[derive(Debug, Serialize)]
struct RecordEntry<'a> {
    #[serde(rename = "type")]
    kind: String,
    time_uutc: Option<i64>,
    time_utc: Option<String>,
    time_unresolved: bool,
    channel: Option<&'a str>,
    segment: Option<&'a str>,
    version: String,
    file_offset: u64,
    /// `null` where the body is locked.
    body: Option<Body<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Raw { raw: String },
    Typed(&'a RecordBody),
}

#[derive(Debug, Serialize)]
struct Damaged {
    file: String,
    file_offset: u64,
    error: String,
}

impl<'a> RecordReport<'a> {
    pub(super) fn new(page: &'a RecordPage, query: &RecordQuery) -> Self {
        Self {
            total: page.total,
            plain_in_protected: page.plain_in_protected,
            times_unresolved: page.times_unresolved,
            skipped: query.skip.min(page.total),
            next: page.next,
            records: page.records.iter().map(RecordEntry::new).collect(),
            damaged: page.damaged.iter().map(Damaged::new).collect(),
            further_damage: page.further_damage,
        }
    }
}

impl<'a> RecordEntry<'a> {
    fn new(placed: &'a PlacedRecord) -> Self {
        let record = &placed.record;
        let (major, minor) = record.version;
        Self {
            kind: record.kind.to_string(),
            time_uutc: record.time_uutc,
            time_utc: record.time_uutc.map(iso8601::utc),
            time_unresolved: placed.time_unresolved,
            channel: placed.channel.as_deref(),
            segment: placed.segment.as_deref(),
            version: format!("{major}.{minor}"),
            file_offset: record.file_offset,
            body: match &record.body {
                RecordBody::Locked => None,
                RecordBody::Unknown(bytes) => Some(Body::Raw { raw: hex(bytes) }),
                typed => Some(Body::Typed(typed)),
            },
        }
    }
}

impl Damaged {
    fn new(damaged: &DamagedRecord) -> Self {
        Self {
            file: damaged.file.display().to_string(),
            file_offset: damaged.file_offset,
            error: damaged.error.to_string(),
        }
    }
}

/// Writes the records as lines.
pub(super) fn write(page: &RecordPage, out: &mut dyn Write) -> io::Result<()> {
    for placed in &page.records {
        let record = &placed.record;
        let time = record.time_uutc.map_or("no time".into(), iso8601::utc);
        let unresolved = if placed.time_unresolved { "?" } else { "" };
        let place = [&placed.channel, &placed.segment];
        let place = place.into_iter().flatten().next_back();
        let place = place.map_or("session", String::as_str);
        let text = text_of(&record.body);
        writeln!(
            out,
            "{time}{unresolved}  {}  {}  {}",
            record.kind,
            printable(place),
            printable(&text)
        )?;
    }
    if let Some(next) = page.next {
        let rest = page.total.saturating_sub(next);
        writeln!(out, "{rest} more: --skip {next}")?;
    }
    if page.plain_in_protected > 0 {
        writeln!(
            out,
            "{} of {} can be read without the session's password",
            page.plain_in_protected, page.total
        )?;
    }
    if page.times_unresolved > 0 {
        let found = page.times_unresolved as usize;
        let times = counted(found, "record has a time", "records have times");
        writeln!(
            out,
            "{times} (marked ?) relative to a recording time offset that is not known"
        )?;
    }
    for damaged in &page.damaged {
        writeln!(out, "damaged: {}", printable(&damaged.to_string()))?;
    }
    if page.further_damage > 0 {
        writeln!(out, "damaged: {} more findings", page.further_damage)?;
    }
    if page.records.is_empty() && page.damaged.is_empty() {
        writeln!(out, "no records")?;
    }
    Ok(())
}

/// What a record says, in one line.
fn text_of(body: &RecordBody) -> String {
    match body {
        RecordBody::Note { text } | RecordBody::SystemLog { text } => text.clone(),
        RecordBody::EdfAnnotation { duration_us, text } => match duration_us {
            Some(length) => format!("{text} ({})", duration(*length)),
            None => text.clone(),
        },
        RecordBody::Unrecognised => String::new(),
        RecordBody::Unknown(bytes) => {
            format!(
                "{} of a form that is not known",
                counted(bytes.len(), "byte", "bytes")
            )
        }
        RecordBody::Locked => "locked: the password does not open it".into(),
        // Structures are for --json; here it is enough to see them.
        typed => format!("{typed:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
