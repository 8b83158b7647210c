//! `client list`: the recordings of a server.

use std::io::{self, Write};

use clap::Args;
use mef3_server::grpc::proto::native::{ListRecordingsRequest, RecordingEntry, TimeSpan};
use serde_json::json;

use super::{ClientError, Server};
use crate::cli::complain;
use crate::cli::failure::Failure;
use crate::cli::iso8601;
use crate::cli::output::Output;
use crate::cli::password::PasswordArguments;
use crate::cli::units::{counted, printable};

const DETAILS: &str = "\
A line for each recording: when it was changed last, with --from or --to its span, and
its id, by which the other commands take it. What cannot be looked into is told on
standard error, be it a folder or, where its span is asked for, a recording, which is
listed nevertheless; the exit status is then 1.

With --json each line is an object, and has what would be told: a recording, its problem
among its fields, or {\"problem\": TEXT}.

Examples:
  mef3-server client 127.0.0.1:50051 list --root lab --glob '**/ward3/*.mefd'
  mef3-server client 127.0.0.1:50051 list --from 1600000000000000
  mef3-server client 127.0.0.1:50051 list --json | jq -r 'select(.id) | .id'";

/// List the recordings below the data roots of the server
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Only recordings below this data root
    #[arg(long, value_name = "NAME")]
    root: Option<String>,
    /// Only paths of this pattern: * and ? within a part, ** for parts, {a,b} for one of some
    #[arg(long, value_name = "GLOB")]
    glob: Option<String>,
    /// Only recordings that end after this time, in uUTC; the server opens each for it
    #[arg(long, value_name = "UUTC", allow_negative_numbers = true)]
    from: Option<i64>,
    /// Only recordings that begin before this time, in uUTC
    #[arg(long, value_name = "UUTC", allow_negative_numbers = true)]
    to: Option<i64>,
    /// Write a JSON object on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) password: PasswordArguments,
}

impl Arguments {
    fn span(&self) -> Option<TimeSpan> {
        (self.from.is_some() || self.to.is_some()).then(|| TimeSpan {
            start_uutc: self.from.unwrap_or(i64::MIN),
            end_uutc: self.to.unwrap_or(i64::MAX),
        })
    }
}

pub(super) async fn run(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let mut request = ListRecordingsRequest {
        root: arguments.root.clone().unwrap_or_default(),
        pattern: arguments.glob.clone().unwrap_or_default(),
        span: arguments.span(),
        ..ListRecordingsRequest::default()
    };
    let with_span = request.span.is_some();
    let mut output = Output::stdout();
    let mut problems = 0;
    loop {
        let call = client.list_recordings(server.request(request.clone()));
        let page = server.answer(call).await?;
        output.write_with(|out| {
            let mut entries = page.recordings.iter();
            match arguments.json {
                true => entries.try_for_each(|entry| write_json(entry, out)),
                false => entries.try_for_each(|entry| write_line(entry, with_span, out)),
            }
        })?;
        let entries = page.recordings.iter();
        for entry in entries.filter(|entry| !entry.problem.is_empty()) {
            problems += 1;
            // In JSON the object of the entry has it.
            if !arguments.json {
                let RecordingEntry { id, problem, .. } = entry;
                complain(&format!("cannot be looked into: {id}: {problem}"));
            }
        }
        for problem in &page.problems {
            problems += 1;
            match arguments.json {
                true => {
                    output.write_with(|out| writeln!(out, "{}", json!({"problem": problem})))?
                }
                false => complain(&format!("cannot be looked into: {problem}")),
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        if page.next_page_token == request.page_token {
            return Err(server.nonsense("a page follows itself").into());
        }
        request.page_token = page.next_page_token;
    }
    output.finish()?;
    match problems {
        0 => Ok(()),
        problems => Err(ClientError::ListedInPart {
            server: server.name(),
            problems: counted(problems, "folder or recording", "folders or recordings"),
        }
        .into()),
    }
}

/// Times are as wide as each other until the year 10000.
fn write_line(entry: &RecordingEntry, with_span: bool, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{}", iso8601::utc(entry.modified_uutc))?;
    if with_span {
        match entry.span {
            Some(TimeSpan {
                start_uutc,
                end_uutc,
            }) => {
                let (start, end) = (iso8601::utc(start_uutc), iso8601::utc(end_uutc));
                write!(out, "  {start}  {end}")?;
            }
            None => write!(out, "  {:<27}  {:<27}", "-", "-")?,
        }
    }
    writeln!(out, "  {}", printable(&entry.id))
}

fn write_json(entry: &RecordingEntry, out: &mut dyn Write) -> io::Result<()> {
    let span = entry
        .span
        .map(|span| json!({ "start_uutc": span.start_uutc, "end_uutc": span.end_uutc }));
    let problem = Some(entry.problem.as_str()).filter(|problem| !problem.is_empty());
    let entry = json!({
        "id": entry.id,
        "root": entry.root,
        "path": entry.path,
        "is_archive": entry.is_archive,
        "modified_uutc": entry.modified_uutc,
        "span": span,
        "problem": problem,
    });
    writeln!(out, "{entry}")
}
