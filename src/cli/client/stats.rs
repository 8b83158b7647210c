//! `client stats`: what a server does and holds.

use std::io::{self, Write};

use clap::Args;
use mef3_server::grpc::proto::native::{GetStatsRequest, GetStatsResponse, WorkerStats};
use serde_json::{Value, json};

use super::{Client, ClientError, Server};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::tables::write_table;
use crate::cli::units::{bytes, counted, duration, printable};

const DETAILS: &str = "\
Examples:
  mef3-server client 127.0.0.1:50051 stats
  mef3-server client 127.0.0.1:50051 stats --json | jq '.cache.hits'";

/// Show what the server does and holds: recordings, cache, calls and workers
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let stats = ask(&mut client, server).await?;
    let mut output = Output::stdout();
    output.write_with(|out| match arguments.json {
        true => writeln!(out, "{:#}", to_json(&stats)),
        false => write(&stats, usize::MAX, out),
    })?;
    output.finish()
}

pub(super) async fn ask(
    client: &mut Client,
    server: &Server,
) -> Result<GetStatsResponse, ClientError> {
    let call = client.get_stats(server.request(GetStatsRequest {}));
    server.answer(call).await
}

/// Writes the figures for people, with so many workers at most.
pub(super) fn write(
    stats: &GetStatsResponse,
    most_workers: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let uptime = duration((stats.uptime_s * 1e6) as i64);
    writeln!(out, "Server    {}, up {uptime}", printable(&stats.version))?;
    let recordings = counted(stats.recordings as usize, "recording", "recordings");
    writeln!(
        out,
        "Open      {recordings}, {} of indices",
        bytes(stats.metadata_bytes)
    )?;
    let cache = stats.cache.unwrap_or_default();
    let pages = counted(cache.pages as usize, "page", "pages");
    let (used, capacity) = (bytes(cache.bytes), bytes(cache.capacity_bytes));
    writeln!(out, "Cache     {used} of {capacity} in {pages}")?;
    let asked = cache.hits + cache.misses;
    let share = 100.0 * cache.hits as f64 / asked.max(1) as f64;
    writeln!(
        out,
        "Hits      {} of {asked} pages, {share:.1} %",
        cache.hits
    )?;
    let calls = counted(stats.calls as usize, "call", "calls");
    let connections = counted(stats.connections as usize, "connection", "connections");
    let pages = counted(stats.pages_in_flight as usize, "page", "pages");
    writeln!(out, "Busy      {calls} by {connections}, {pages} to decode")?;
    if stats.degraded {
        writeln!(out, "Workers   none can run: the server reads by itself")?;
    }
    if stats.workers.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let heading = ["SLOT", "PID", "STATE", "JOBS", "MEMORY", "RESTARTS"];
    let workers = stats.workers.iter().take(most_workers).map(worker);
    let rows: Vec<_> = std::iter::once(heading.map(String::from))
        .chain(workers)
        .collect();
    write_table(&rows, out)?;
    match stats.workers.len().saturating_sub(most_workers) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more"),
    }
}

fn worker(worker: &WorkerStats) -> [String; 6] {
    let running = |text: String| if worker.pid == 0 { "-".into() } else { text };
    [
        worker.slot.to_string(),
        running(worker.pid.to_string()),
        printable(&worker.state),
        worker.jobs.to_string(),
        running(bytes(worker.memory_bytes)),
        worker.restarts.to_string(),
    ]
}

/// The figures under the names of the protocol.
fn to_json(stats: &GetStatsResponse) -> Value {
    let cache = stats.cache.unwrap_or_default();
    let workers = stats.workers.iter().map(|worker| {
        json!({
            "slot": worker.slot,
            "pid": worker.pid,
            "state": worker.state,
            "jobs": worker.jobs,
            "memory_bytes": worker.memory_bytes,
            "restarts": worker.restarts,
        })
    });
    json!({
        "version": stats.version,
        "uptime_s": stats.uptime_s,
        "recordings": stats.recordings,
        "metadata_bytes": stats.metadata_bytes,
        "cache": {
            "bytes": cache.bytes,
            "capacity_bytes": cache.capacity_bytes,
            "pages": cache.pages,
            "hits": cache.hits,
            "misses": cache.misses,
        },
        "workers": workers.collect::<Vec<_>>(),
        "pages_in_flight": stats.pages_in_flight,
        "degraded": stats.degraded,
        "connections": stats.connections,
        "calls": stats.calls,
    })
}
