//! `info`: what is in a session, and whether it is whole; and what workers are
//! confined to here.

mod deep;
mod machine;
mod notices;
mod records;
mod report;
mod table;

use std::path::PathBuf;

use clap::Args;
use mef3_server::mef::{Recording, open_session};

use super::failure::Failure;
use super::output::Output;
use super::password::PasswordArguments;
use super::units::counted;
use deep::check_blocks;
use records::{RecordArguments, RecordReport};
use report::Report;
pub(super) use report::Span;

const DETAILS: &str = "\
Without --deep only metadata and block indices are read, which is quick; what the
blocks hold is then unknown. With --deep the exit status says what was found: 0
if everything can be read, 1 if anything is damaged.

Gaps are what lies between two blocks; times are uUTC, microseconds since
1970-01-01T00:00:00 UTC. Who the subject is, is never shown; records are, as they
were written.

Without a session it shows what this machine confines worker processes to.

Examples:
  mef3-server info
  mef3-server info night.mefd
  mef3-server info night.mefd --deep || echo damaged
  mef3-server info night.mefd --json | jq '.channels[] | {name, gaps}'
  mef3-server info night.mefd --records --type Note --type Seiz --limit 20";

/// Show what is in a session, and what is damaged
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// The session folder, NAME.mefd; without one, this machine is shown
    #[arg(required_if_eq_any([("deep", "true"), ("records", "true")]))]
    path: Option<PathBuf>,
    /// Write JSON, which also lists every gap
    #[arg(long)]
    json: bool,
    /// Decode every block and list the damaged ones
    #[arg(long, conflicts_with = "records")]
    deep: bool,
    #[command(flatten)]
    records: RecordArguments,
    #[command(flatten)]
    password: PasswordArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(path) = &arguments.path else {
        return machine::show(arguments.json);
    };
    let recording = open_session(path, &arguments.password.open_options()?)?;
    if arguments.records.records {
        return show_records(arguments, &recording);
    }
    let mut report = Report::new(&recording);
    if arguments.deep {
        report.checked = Some(check_blocks(&recording)?);
    }
    let mut output = Output::stdout();
    if arguments.json {
        output.write_with(|writer| {
            serde_json::to_writer_pretty(&mut *writer, &report)?;
            writeln!(writer)
        })?;
    } else {
        output.write_with(|writer| table::write(&report, writer))?;
    }
    output.finish()?;
    match arguments.deep {
        true => verdict(&report),
        false => Ok(()),
    }
}

/// Lists records. Damage among them is exit status 1, like any other.
fn show_records(arguments: &Arguments, recording: &Recording) -> Result<(), Failure> {
    let query = arguments.records.query();
    let page = recording.records(&query)?;
    let mut output = Output::stdout();
    if arguments.json {
        let report = RecordReport::new(&page, &query);
        output.write_with(|writer| {
            serde_json::to_writer_pretty(&mut *writer, &report)?;
            writeln!(writer)
        })?;
    } else {
        output.write_with(|writer| records::write(&page, writer))?;
    }
    output.finish()?;
    match page.damaged.len() {
        0 => Ok(()),
        damaged => Err(Failure::Damaged {
            session: recording.path.clone(),
            what: counted(damaged, "record", "records"),
        }),
    }
}

/// Whether the session is whole.
fn verdict(report: &Report) -> Result<(), Failure> {
    let checked = report.checked.as_ref();
    let torn = report.channels.iter().map(|c| c.trailing_index_bytes.len());
    let unscaled = report
        .channels
        .iter()
        .map(|c| c.unusable_conversion_factors.len());
    let found = [
        (report.unreadable_channels.len(), "channel", "channels"),
        (report.unreadable_segments().count(), "segment", "segments"),
        (torn.sum(), "index", "indices"),
        (unscaled.sum(), "conversion factor", "conversion factors"),
        (
            checked.map_or(0, |checked| checked.damaged_blocks.len()),
            "block",
            "blocks",
        ),
    ];
    let found: Vec<String> = found
        .into_iter()
        .filter(|&(count, ..)| count > 0)
        .map(|(count, one, many)| counted(count, one, many))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::Damaged {
        session: report.path.clone(),
        what: found.join(", "),
    })
}
