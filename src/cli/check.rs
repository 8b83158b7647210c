//! `check`: is a session what it says it is?

use std::path::PathBuf;

use clap::Args;
use mef3_server::mef::{Checked, Finding, check_session};
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::password::PasswordArguments;
use super::units::{counted, printable};

const DETAILS: &str = "\
Reads all files of the session, and verifies structure, checksums, the index
against the blocks, counts and times, and records. What known writers do otherwise
than the format asks, without harm, is no finding.

The exit status is 0 where nothing was found, 1 where something was, and 2 where
the session cannot be checked: the path is none or cannot be read, nothing can be
read without the right password, or the password file cannot be read.

Examples:
  mef3-server check night.mefd
  mef3-server check night.mefd --deep --json | jq '.findings[].file' | sort -u";

/// Verify a session's files, and list everything that is wrong
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// The session: a folder NAME.mefd or an archive NAME.mefd.tar
    path: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Decode every block, and read videos for their checksums, too
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    password: PasswordArguments,
}

#[derive(Serialize)]
struct Report {
    checked: Checked,
    findings: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    file: String,
    offset: Option<u64>,
    problem: String,
}

impl Entry {
    fn new(finding: &Finding) -> Self {
        let file = finding.file.display().to_string();
        let problem = finding.problem.to_string();
        // An error that names its file need not be told twice.
        let prefix = format!("{file}: ");
        let problem = problem.strip_prefix(&prefix).unwrap_or(&problem).to_owned();
        Self {
            file,
            offset: finding.offset,
            problem,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Status 1 is for findings, and for nothing else.
    let found = check(arguments).map_err(|failure| Failure::NotChecked(Box::new(failure)))?;
    match found {
        0 => Ok(()),
        found => Err(Failure::Damaged {
            session: arguments.path.clone(),
            what: counted(found, "finding", "findings"),
        }),
    }
}

/// Checks the session and writes the findings; gives their number.
fn check(arguments: &Arguments) -> Result<usize, Failure> {
    let options = arguments.password.open_options()?;
    let mut findings = Vec::new();
    let checked = check_session(&arguments.path, &options, arguments.deep, &mut |finding| {
        findings.push(Entry::new(&finding));
    });
    let checked = checked?;
    let report = Report { checked, findings };
    let mut output = Output::stdout();
    output.write_with(|writer| {
        if arguments.json {
            serde_json::to_writer_pretty(&mut *writer, &report)?;
            return writeln!(writer);
        }
        for Entry {
            file,
            offset,
            problem,
        } in &report.findings
        {
            let at = offset.map(|offset| format!(" at {offset}"));
            let line = format!("{file}{}: {problem}", at.unwrap_or_default());
            writeln!(writer, "{}", printable(&line))?;
        }
        let files = counted(checked.files as usize, "file", "files");
        let blocks = counted(checked.blocks as usize, "block", "blocks");
        let records = counted(checked.records as usize, "record", "records");
        writeln!(writer, "{files}, {blocks}, {records} checked")
    })?;
    output.finish()?;
    Ok(report.findings.len())
}
