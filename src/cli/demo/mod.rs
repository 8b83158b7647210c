//! `demo`: makes a recording, serves it, reads it back as a client would, and
//! shows what happened.

mod plot;
mod recording;
mod tour;

use std::net::SocketAddr;

use clap::Args;
use mef3_server::Engine;
use mef3_server::config::Config;
use mef3_server::grpc::{self, ConnectionCounters, ConnectionLimits, ServiceOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use self::recording::DemoRecording;
pub(super) use self::tour::TourError;
use super::failure::Failure;
use super::serve::StopSignals;
use super::{BUILT_FOR_TESTS, complain};

/// Makes a small recording in a temporary folder, serves it, reads it back
/// through gRPC, kills a worker on the way, and then goes on serving.
///
/// Everything that is read is compared with what was written.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// End after the tour; fail if anything that was read was wrong
    #[arg(long)]
    once: bool,
    /// Address and port to listen on; a free port of this machine unless given
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Takes the tour.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = Config::default();
    config.server.listen = arguments.listen;
    // It serves whatever this machine has, as any server.
    config.check_exposure()?;
    let listener = grpc::listen(arguments.listen)?;
    let address = listener.local_addr().map_err(Failure::Start)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    // From here on a signal ends the demo in order, and its files with it.
    let mut signals = StopSignals::new(&runtime).map_err(Failure::Start)?;
    let recording = DemoRecording::make()?;
    let options = ServiceOptions {
        host_root: None,
        data_roots: Vec::new(),
        password: None,
        passwords_in_clear: config.server.passwords_in_clear,
        on_damage: config.legacy.on_damage,
        shutdown_grace: config.server.shutdown_grace(),
        limits: ConnectionLimits::from(&config),
        counters: ConnectionCounters::default(),
        tls: None,
        tokens: None,
        ..ServiceOptions::default()
    };
    let engine = Engine::builder().config(config).start()?;
    if let Some(warning) = BUILT_FOR_TESTS {
        complain(warning);
    }
    let outcome = runtime.block_on(async {
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(grpc::serve(engine.clone(), listener, options, async {
            // An error says that the tour is gone, which is a stop too.
            let _ = stopped.await;
        }));
        let tour = async {
            tour::take(&engine, address, &recording).await?;
            if !arguments.once {
                tour::print_what_next(address, recording.path());
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        let outcome: Result<(), Failure> = tokio::select! {
            outcome = tour => outcome.map_err(Failure::Tour),
            () = signals.next() => Ok(()),
        };
        let _ = stop.send(());
        let served = serving.await;
        engine.shutdown().await;
        outcome?;
        served.map_err(|error| Failure::Start(error.into()))??;
        Ok(())
    });
    // What the temporary folder holds goes with it.
    drop(recording);
    outcome
}
