//! `info`: what is in a session, and whether it is whole.

mod deep;
mod report;
mod table;

use std::path::PathBuf;

use clap::Args;
use mef3_server::mef::open_session;

use super::failure::Failure;
use super::output::Output;
use super::units::counted;
use deep::check_blocks;
use report::Report;

const DETAILS: &str = "\
Without --deep only metadata and block indices are read, which is quick; what the
blocks hold is then unknown. With --deep the exit status says what was found: 0
if everything can be read, 1 if anything is damaged.

Gaps are what lies between two blocks; times are uUTC, microseconds since
1970-01-01T00:00:00 UTC. Subject metadata are never shown.

Examples:
  mef3-server info night.mefd
  mef3-server info night.mefd --deep || echo damaged
  mef3-server info night.mefd --json | jq '.channels[] | {name, gaps}'";

/// Show what is in a session, and what is damaged
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// The session folder, NAME.mefd
    path: PathBuf,
    /// Write JSON, which also lists every gap
    #[arg(long)]
    json: bool,
    /// Decode every block and list the damaged ones
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let recording = open_session(&arguments.path)?;
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

/// Whether all of the session can be read.
fn verdict(report: &Report) -> Result<(), Failure> {
    let blocks = report
        .checked
        .as_ref()
        .map_or(0, |checked| checked.damaged_blocks.len());
    let found = [
        (report.unreadable_channels.len(), "channel"),
        (report.unreadable_segments().count(), "segment"),
        (blocks, "block"),
    ];
    let found: Vec<String> = found
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, noun)| counted(count, noun))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::Damaged {
        session: report.path.clone(),
        what: found.join(", "),
    })
}
