//! The actor tree: how it is started, watched and, after a panic in an actor,
//! built anew.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::cache::Cache;
use super::coordinator::Coordinator;
use super::file_manager::{FileManager, FileManagerPeers};
use super::prefetcher::Prefetcher;
use super::settings::Settings;
use super::supervisor::WorkerSupervisor;

/// How often every actor is asked for a sign of life.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// How long an actor may take to give it.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// The addresses of one tree.
#[derive(Clone)]
pub(crate) struct Addresses {
    pub(crate) file_manager: Addr<FileManager>,
    pub(crate) cache: Addr<Cache>,
    pub(crate) coordinator: Addr<Coordinator>,
    pub(crate) prefetcher: Addr<Prefetcher>,
    pub(crate) supervisor: Addr<WorkerSupervisor>,
}

/// Starts all actors. Must be called within an actix System.
pub(crate) fn start(settings: &Settings) -> Addresses {
    // Actors know each other in a circle: addresses first, actors after.
    let file_manager = Context::<FileManager>::new();
    let coordinator = Context::<Coordinator>::new();
    let supervisor = Context::<WorkerSupervisor>::new();
    let cache = Cache::new(settings).start();
    let prefetcher = Prefetcher::new(settings, coordinator.address()).start();
    let addresses = Addresses {
        file_manager: file_manager.address(),
        cache,
        coordinator: coordinator.address(),
        prefetcher,
        supervisor: supervisor.address(),
    };
    let peers = FileManagerPeers {
        coordinator: addresses.coordinator.clone(),
        cache: addresses.cache.clone(),
        prefetcher: addresses.prefetcher.clone(),
        supervisor: addresses.supervisor.clone(),
    };
    file_manager.run(FileManager::new(settings, peers));
    coordinator.run(Coordinator::new(
        settings,
        addresses.cache.clone(),
        addresses.file_manager.clone(),
        addresses.supervisor.clone(),
    ));
    supervisor.run(WorkerSupervisor::new(
        settings,
        addresses.coordinator.clone(),
    ));
    addresses
}

/// Watches the tree for ever. An actor that panicked is gone for good, and
/// actix restarts nobody: the whole tree is replaced. Open recordings and the
/// cache are lost with it; requests in between end in an error.
pub(crate) async fn watch(settings: Settings, tree: Arc<ArcSwap<Addresses>>) {
    loop {
        tokio::time::sleep(PING_PERIOD).await;
        let current = tree.load_full();
        if let Some(actor) = current.find_dead().await {
            tracing::error!(actor, "actor does not answer: all actors are started anew");
            current.halt();
            tree.store(Arc::new(start(&settings)));
        }
    }
}

impl Addresses {
    /// The name of an actor that does not answer.
    async fn find_dead(&self) -> Option<&'static str> {
        let answers = [
            ("file manager", is_alive(&self.file_manager).await),
            ("cache", is_alive(&self.cache).await),
            ("coordinator", is_alive(&self.coordinator).await),
            ("prefetcher", is_alive(&self.prefetcher).await),
            ("worker supervisor", is_alive(&self.supervisor).await),
        ];
        answers
            .into_iter()
            .find(|(_, alive)| !alive)
            .map(|(name, _)| name)
    }

    /// Stops what is left of the tree; its workers end with their supervisor.
    fn halt(&self) {
        self.file_manager.do_send(Halt);
        self.cache.do_send(Halt);
        self.coordinator.do_send(Halt);
        self.prefetcher.do_send(Halt);
        self.supervisor.do_send(Halt);
    }
}

async fn is_alive<A>(address: &Addr<A>) -> bool
where
    A: Actor + Handler<Ping>,
    A::Context: ToEnvelope<A, Ping>,
{
    matches!(timeout(PING_LIMIT, address.send(Ping)).await, Ok(Ok(())))
}

/// Asks an actor for a sign of life.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ping;

/// Stops an actor of a tree that is being replaced.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Halt;

macro_rules! watched {
    ($($actor:ty),*) => {$(
        impl Handler<Ping> for $actor {
            type Result = ();

            fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
        }

        impl Handler<Halt> for $actor {
            type Result = ();

            fn handle(&mut self, _: Halt, context: &mut Self::Context) {
                context.stop();
            }
        }
    )*};
}

watched!(
    FileManager,
    Cache,
    Coordinator,
    Prefetcher,
    WorkerSupervisor
);
