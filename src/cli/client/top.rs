//! `client top`: a server's workers and cache as time goes by.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use mef3_server::grpc::proto::native::GetStatsResponse;
use rustix::termios::tcgetwinsize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Server, stats};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::units::printable;

/// Answers that may fail to come one after another, a restart of the server among them.
const MOST_MISSES: u32 = 10;
/// Most lines beside those of the workers, and one that the cursor is in.
const OTHER_LINES: usize = 12;
/// Lines of a terminal that does not say how many it has.
const LINES: usize = 24;
/// Moves the cursor to the first line; clears what is behind it in a line, and below it.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

const DETAILS: &str = "\
On a terminal the figures are drawn in place, until ^C; a server that does not answer is
asked ten times more. Into a pipe or a file each look is a block of plain lines, with an
empty one after it.

Examples:
  mef3-server client 127.0.0.1:50051 top
  mef3-server client 127.0.0.1:50051 top --interval 0.5
  mef3-server client 127.0.0.1:50051 top --once";

/// Watch the server's workers and cache
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Seconds from one look to the next
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    interval: f64,
    /// Look once
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("it is from 0.1 to 3600".into()),
    }
}

pub(super) async fn run(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let is_drawn = io::stdout().is_terminal() && !arguments.once;
    let mut ticks = interval(Duration::from_secs_f64(arguments.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Goes on by itself to a server that is started again.
    let mut client = server.connect().await?;
    let mut before: Option<(Instant, GetStatsResponse)> = None;
    let mut misses = 0;
    loop {
        ticks.tick().await;
        let answer = stats::ask(&mut client, server).await;
        let now = Instant::now();
        let (stats, trouble) = match (answer, &before) {
            (Ok(stats), _) => {
                misses = 0;
                (stats, None)
            }
            // The last figures stay, with what is wrong.
            (Err(error), Some((_, stats))) if misses < MOST_MISSES && is_drawn => {
                misses += 1;
                (stats.clone(), Some(error.to_string()))
            }
            (Err(error), _) => return Err(error.into()),
        };
        let mut view = View {
            server: server.name(),
            pace: before
                .as_ref()
                .and_then(|before| pace(before, (now, &stats))),
            trouble,
            stats,
        };
        view.show(is_drawn)?;
        if arguments.once {
            return Ok(());
        }
        if view.trouble.is_none() {
            before = Some((now, view.stats));
        }
    }
}

/// Pages a second that were asked for since the last look.
fn pace(before: &(Instant, GetStatsResponse), now: (Instant, &GetStatsResponse)) -> Option<f64> {
    let asked = |stats: &GetStatsResponse| {
        let cache = stats.cache.unwrap_or_default();
        cache.hits + cache.misses
    };
    // A server that was started again counts from zero.
    let pages = asked(now.1).checked_sub(asked(&before.1))?;
    let seconds = (now.0 - before.0).as_secs_f64();
    (seconds > 0.0).then(|| pages as f64 / seconds)
}

/// What is shown at a time.
struct View {
    server: String,
    /// Pages a second.
    pace: Option<f64>,
    stats: GetStatsResponse,
    /// Why the figures are old. It stands in place of the pace, which is not known then.
    trouble: Option<String>,
}

impl View {
    fn show(&mut self, is_drawn: bool) -> Result<(), Failure> {
        let mut text = Vec::new();
        let most_workers = match is_drawn {
            true => lines().saturating_sub(OTHER_LINES).max(1),
            false => usize::MAX,
        };
        let mut output = Output::stdout();
        output.write_with(|out| {
            self.write(most_workers, &mut text)?;
            if !is_drawn {
                text.push(b'\n');
                return out.write_all(&text);
            }
            let text = String::from_utf8_lossy(&text).replace('\n', &format!("{CLEAR_LINE}\n"));
            write!(out, "{HOME}{text}{CLEAR_BELOW}")
        })?;
        output.finish()
    }

    fn write(&self, most_workers: usize, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Address   {}", printable(&self.server))?;
        stats::write(&self.stats, most_workers, out)?;
        match (&self.trouble, self.pace) {
            (Some(trouble), _) => writeln!(out, "{}", printable(trouble)),
            (None, Some(pace)) => writeln!(out, "{pace:.1} pages/s"),
            (None, None) => Ok(()),
        }
    }
}

/// Lines of the terminal.
fn lines() -> usize {
    let size = tcgetwinsize(io::stdout());
    let lines = size.map_or(0, |size| usize::from(size.ws_row));
    if lines == 0 { LINES } else { lines }
}

#[cfg(test)]
mod tests {
    use mef3_server::grpc::proto::native::WorkerStats;

    use super::*;

    #[test]
    fn all_that_there_is_to_say_fits_the_terminal() {
        let mut view = View {
            server: "there:1".into(),
            pace: Some(1.5),
            stats: GetStatsResponse {
                degraded: true,
                workers: vec![WorkerStats::default(); 9],
                ..GetStatsResponse::default()
            },
            trouble: None,
        };
        for (trouble, last) in [(None, "1.5 pages/s"), (Some("gone"), "gone")] {
            view.trouble = trouble.map(str::to_owned);
            let mut text = Vec::new();
            view.write(3, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len() + 1, 3 + OTHER_LINES, "{text}");
            assert_eq!(lines[lines.len() - 2..], ["and 6 more", last]);
        }
    }
}
