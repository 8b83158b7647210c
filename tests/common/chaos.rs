//! Trouble on purpose, and readers under it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::process::client::Client;
use super::process::session::{KnownSession, Span, assert_same};
use super::process::{LIMIT, Server, all_gone, until};
use rustix::process::Signal;

/// Whether the long forms of the tests run: `MEF3_LONG=1`.
///
/// # Panics
/// Where the variable says anything else than 0 or 1.
pub fn is_long() -> bool {
    match std::env::var("MEF3_LONG").as_deref() {
        Ok("1") => true,
        Ok("0") | Err(_) => false,
        Ok(other) => panic!("MEF3_LONG is 0 or 1, not {other:?}"),
    }
}

/// The short or the long form of a number.
pub fn by_form<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// Has the workers do as the lines say when they come to the session; see
/// `src/worker/faults.rs`.
pub fn spoil(session: &Path, lines: &str) {
    // Put there whole: a worker may look at any time.
    let new = session.join(".fault.new");
    fs::write(&new, lines).unwrap();
    fs::rename(new, session.join(".fault")).unwrap();
}

/// Takes the fault of a session away.
pub fn mend(session: &Path) {
    fs::remove_file(session.join(".fault")).unwrap();
}

/// The shortest time that so many parts of a hundred do not exceed.
pub fn percentile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * part / 100.0).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Windows of one shape at random places of a session.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub channels: usize,
    pub seconds: i64,
    /// What a client waits between two reads.
    pub pause: Duration,
}

impl Shape {
    fn somewhere(self, session: &KnownSession, random: &mut fastrand::Rng) -> Span {
        let channel = random.usize(0..=session.channels() - self.channels);
        let from = random.i64(0..=session.seconds - self.seconds);
        session.span(channel..channel + self.channels, from, from + self.seconds)
    }
}

/// What clients have met.
#[derive(Debug, Default)]
pub struct Told {
    pub times: Vec<Duration>,
    pub failures: Vec<String>,
}

impl Told {
    pub fn p99(&self) -> Duration {
        percentile(&self.times, 99.0)
    }

    pub fn longest(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// Checks that nothing failed, and that there were enough reads to say so.
    pub fn assert_well(&self, least: usize) {
        let reads = self.times.len();
        assert_eq!(self.failures, [""; 0], "of {reads} reads");
        assert!(reads >= least, "{reads} reads are no load");
    }
}

/// Clients that read random windows until they are told to stop. A wrong sample
/// is a panic.
pub struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

impl Load {
    pub fn start(
        server: &Server,
        session: &Arc<KnownSession>,
        clients: usize,
        shape: Shape,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = |number| {
            let (session, over) = (Arc::clone(session), Arc::clone(&over));
            let address = server.address;
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(number as u64);
                let mut client = Client::with_open(address, &session).await;
                let mut told = Told::default();
                while !over.load(Ordering::Relaxed) {
                    let span = shape.somewhere(&session, &mut random);
                    let began = Instant::now();
                    let read = client.read(&session, &span).await;
                    told.times.push(began.elapsed());
                    match read {
                        Ok(rows) => assert_same(&rows, &session.expected(&span)),
                        Err(error) => told.failures.push(error),
                    }
                    tokio::time::sleep(shape.pause).await;
                }
                told
            })
        };
        Self {
            clients: (0..clients).map(client).collect(),
            over,
        }
    }

    /// Lets the clients read for a while.
    pub async fn goes_on(self, length: Duration) -> Told {
        tokio::time::sleep(length).await;
        self.stop().await
    }

    pub async fn stop(self) -> Told {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for client in self.clients {
            let told = client.await.unwrap();
            all.times.extend(told.times);
            all.failures.extend(told.failures);
        }
        all
    }
}

/// Ends the server as a service manager does, and looks for what it left.
pub fn end_cleanly(mut server: Server) {
    let workers = server.workers();
    server.signal(Signal::TERM);
    let status = server.wait(LIMIT);
    assert_eq!(status.code(), Some(0), "{:#?}", server.records());
    assert!(all_gone(&workers), "{workers:?} outlive the server");
    assert_eq!(server.left_behind(), [""; 0]);
}

/// Ends the server: by its own account nothing is held but the cache.
pub fn assert_nothing_is_held(server: Server) {
    let pid = server.pid();
    until("all connections are gone", LIMIT, || {
        let sockets = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = sockets.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        // The listener, and what workers are talked to through.
        links
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
            <= 30
    });
    let log = server.log();
    end_cleanly(server);
    let held = log.of("held at the end").remove(0);
    for figure in [
        "awaited_bytes",
        "ahead_bytes",
        "pages_in_flight",
        "unsent_bytes",
        "calls",
    ] {
        assert_eq!(held[figure], 0, "{figure}: {held:#}");
    }
}
