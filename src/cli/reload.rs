//! Certificates and tokens that are read again while the server runs.

use std::fmt::Display;

use mef3_server::config::Config;
use mef3_server::grpc::{Tls, Tokens};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// What decides who may connect and call.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) tls: Option<Tls>,
    pub(super) tokens: Option<Tokens>,
}

impl Access {
    /// Reads the files that the settings name. `is_near`: only this machine can connect.
    pub(super) fn load(config: &Config, is_near: bool) -> Result<Self, Failure> {
        let tls = Tls::load(&config.tls)?;
        let in_clear = config.server.passwords_in_clear;
        let roots = &config.paths.data_roots;
        let tokens = config.auth.tokens();
        let tokens = tokens.map(|path| Tokens::load(path, roots, in_clear));
        let tokens = tokens.transpose()?;
        if tokens.is_some() && tls.is_none() && !in_clear && !is_near {
            tracing::warn!(
                "without encryption, calls of other machines are refused: no token is taken from them"
            );
        }
        Ok(Self { tls, tokens })
    }

    /// Reads all of it again whenever SIGHUP comes, as long as the runtime runs. Without
    /// anything to read again, the signal is left alone.
    pub(super) fn reload_on_signal(self, runtime: &Runtime) -> std::io::Result<()> {
        if self.tls.is_none() && self.tokens.is_none() {
            return Ok(());
        }
        let _entered = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        runtime.spawn(self.keep_up(hangup));
        Ok(())
    }

    async fn keep_up(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            let again = self.clone();
            // Storage may not answer.
            let reloaded = tokio::task::spawn_blocking(move || again.reload()).await;
            if let Err(error) = reloaded {
                tracing::error!(%error, "nothing was read again");
            }
        }
    }

    fn reload(&self) {
        if let Some(tls) = &self.tls {
            tell("certificate", tls.reload());
        }
        if let Some(tokens) = &self.tokens {
            tell("tokens", tokens.reload());
        }
    }
}

fn tell(what: &str, reloaded: Result<(), impl Display>) {
    match reloaded {
        Ok(()) => tracing::info!(what, "read again"),
        Err(error) => tracing::error!(what, %error, "not read again: what was before is in force"),
    }
}
