//! What a server on this machine would confine its workers to.

use std::time::{Duration, Instant};

use mef3_server::config::Config;
use mef3_server::{Engine, Guard, Sandbox};
use serde::Serialize;
use tokio::runtime::Builder;

use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// How often it is asked for the worker's word.
const POLL: Duration = Duration::from_millis(5);

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// Nothing where no worker can be started.
    workers: Option<Confined>,
}

#[derive(Serialize)]
struct Confined {
    files: String,
    system_calls: String,
    whole: bool,
}

/// Starts a worker and shows what it says of itself.
pub(super) fn show(json: bool) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(Failure::Start)?;
    let engine = Engine::builder().workers(1).start()?;
    let sandbox = runtime.block_on(async {
        let sandbox = sandbox(&engine).await;
        engine.shutdown().await;
        sandbox
    });
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        workers: sandbox.map(|sandbox| Confined {
            whole: sandbox.is_whole(),
            files: said(&sandbox.files),
            system_calls: said(&sandbox.calls),
        }),
    };
    let mut output = Output::stdout();
    output.write_with(|writer| {
        if json {
            serde_json::to_writer_pretty(&mut *writer, &report)?;
            return writeln!(writer);
        }
        writeln!(writer, "mef3-server {}", report.version)?;
        match &report.workers {
            Some(confined) => {
                writeln!(writer, "workers, files:        {}", confined.files)?;
                writeln!(writer, "workers, system calls: {}", confined.system_calls)
            }
            None => writeln!(writer, "workers:               none can be started here"),
        }
    })?;
    output.finish()
}

fn said(guard: &Guard) -> String {
    guard.to_string()
}

/// What the first worker says, unless it cannot be started.
async fn sandbox(engine: &Engine) -> Option<Sandbox> {
    let limit = Config::default().workers.spawn_limit();
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        // An engine that is not running has no worker, either.
        let statistics = engine.statistics().await.ok()?;
        if statistics.supervisor.sandbox.is_some() {
            return statistics.supervisor.sandbox;
        }
        tokio::time::sleep(POLL).await;
    }
    None
}
