//! Whether anybody can decode: a block that is always there goes through a reader as
//! any other work does, but only when no request could begin in its place.

use actix::{Handler, Message};
use tokio::sync::oneshot;

use super::{Coordinator, Ending, Kind, Run};
use crate::worker::probe::probe_block;
use crate::worker::protocol::{JobId, Work};

/// Probes that wait at a time; more are refused.
const MOST_PROBES: usize = 16;

/// Why nobody has shown that he can decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// No worker can run, and the server process must not read in its place.
    #[error("no worker can run, and the server process must not read in its place")]
    Nobody,
    /// The reader ended over it, or its answer was wrong.
    #[error("the reader of the probe ended, or answered wrongly")]
    Lost,
    /// Too many ask.
    #[error("too many probes wait")]
    Busy,
    /// The engine has stopped, or its actors are being started anew.
    #[error("the engine does not answer")]
    Stopped,
}

/// Where the outcome of a probe goes. Nobody may be waiting.
pub(super) type ProbeReply = oneshot::Sender<Result<(), ProbeFailure>>;

impl Coordinator {
    /// Starts one probe for all who wait; `false` where nobody does.
    pub(super) fn run_probe(&mut self) -> bool {
        self.probes.retain(|reply| !reply.is_closed());
        if self.probes.is_empty() {
            return false;
        }
        if self.capacity.who.refuses(false) {
            self.answer_probes(Err(ProbeFailure::Nobody));
            return false;
        }
        let replies = std::mem::take(&mut self.probes);
        self.run(Run {
            traces: Vec::new(),
            work: Work::Probe(probe_block().bytes.clone()),
            kind: Kind::Probe(replies),
            predicted: false,
            suspect: false,
            uncertain: false,
            lane: None,
            apart: false,
        });
        true
    }

    /// Answers all probes that wait for a reader.
    pub(super) fn answer_probes(&mut self, outcome: Result<(), ProbeFailure>) {
        for reply in self.probes.drain(..) {
            let _ = reply.send(outcome);
        }
    }

    /// A reader has decoded the probe; its job's end is still to come.
    pub(super) fn probed(&mut self, job: JobId) {
        let running = self.running.get_mut(&job);
        if let Some(Kind::Probe(replies)) = running.map(|running| &mut running.kind) {
            for reply in replies.drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
    }

    pub(super) fn put_back_probe(&mut self, replies: Vec<ProbeReply>, ending: &Ending) {
        if *ending == Ending::NotBegun {
            self.probes.extend(replies);
            return;
        }
        for reply in replies {
            let _ = reply.send(Err(ProbeFailure::Lost));
        }
    }
}

/// Asks whether a reader can decode. The answer comes when one has decoded the probe,
/// or, while requests keep the probe waiting, a page.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ProbeReaders {
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: ProbeReply,
}

impl Handler<ProbeReaders> for Coordinator {
    type Result = ();

    fn handle(&mut self, ProbeReaders { reply }: ProbeReaders, _: &mut Self::Context) {
        self.probes.retain(|reply| !reply.is_closed());
        if self.probes.len() >= MOST_PROBES {
            let _ = reply.send(Err(ProbeFailure::Busy));
            return;
        }
        self.probes.push(reply);
        self.dispatch();
    }
}
