//! `health`: asks a server whether it serves, for who has no other client at hand, such
//! as a container.

use std::error::Error as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{chain, summary};
use super::failure::Failure;

/// Asks a server whether it serves (grpc.health.v1), without encryption.
///
/// The exit status is 0 where it does, and 1 where it does not, or does not answer in
/// time. A server that encrypts is asked at its Unix domain socket
/// (server.unix_socket), which is not encrypted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where the server listens: a numeric address and port, or unix: and a path
    #[arg(value_name = "ADDR:PORT|unix:PATH")]
    address: Place,
    /// What is asked for: liveness, readiness, or the name of a service; readiness where
    /// it is left out
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// How long the answer may take, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    limit_ms: u64,
}

const EXAMPLES: &str = "\
Examples:
  mef3-server health 127.0.0.1:50051
  mef3-server health 127.0.0.1:50051 --service liveness
  mef3-server health unix:/run/mef3-server/mef3.sock";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Port(SocketAddr),
    Local(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Local(path.into())),
            Some(_) => Err("the path is not absolute".into()),
            None => text
                .parse()
                .map(Self::Port)
                .map_err(|_| "neither ADDRESS:PORT, with a numeric address, nor unix:/PATH".into()),
        }
    }
}

/// Why a server is not taken for one that serves.
#[derive(Debug, Error)]
pub(super) enum HealthError {
    #[error("{0}")]
    Address(tonic::transport::Error),
    #[error("no connection: {}", chain(.0))]
    Connect(tonic::transport::Error),
    #[error("{}", summary(.0))]
    Status(Box<tonic::Status>),
    /// Nothing of the server's was understood.
    #[error("{}; does it encrypt? then ask it at its Unix domain socket", summary(.0))]
    Garbled(Box<tonic::Status>),
    #[error("it is {0}")]
    Not(&'static str),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Asks once.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Start)?;
    let limit = Duration::from_millis(arguments.limit_ms);
    let answered = runtime.block_on(async { timeout(limit, ask(arguments)).await });
    let answered = answered.unwrap_or(Err(HealthError::Silent(limit)));
    answered.map_err(|reason| Failure::NotHealthy {
        address: match &arguments.address {
            Place::Port(address) => address.to_string(),
            Place::Local(path) => format!("unix:{}", path.display()),
        },
        reason,
    })
}

async fn ask(arguments: &Arguments) -> Result<(), HealthError> {
    let url = match &arguments.address {
        Place::Port(address) => format!("http://{address}"),
        Place::Local(path) => format!("unix://{}", path.display()),
    };
    let endpoint = Endpoint::from_shared(url).map_err(HealthError::Address)?;
    let channel = endpoint.connect().await.map_err(HealthError::Connect)?;
    let request = HealthCheckRequest {
        service: arguments.service.clone(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer.map_err(|status| match (status.source(), &arguments.address) {
        // What the server says has no error of ours behind it.
        (Some(_), Place::Port(_)) => HealthError::Garbled(status.into()),
        _ => HealthError::Status(status.into()),
    })?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(HealthError::Not(other.as_str_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_sockets() {
        for (text, expected) in [
            ("127.0.0.1:1", Some(Place::Port(([127, 0, 0, 1], 1).into()))),
            ("[::1]:2", Some(Place::Port("[::1]:2".parse().unwrap()))),
            ("unix:/run/a.sock", Some(Place::Local("/run/a.sock".into()))),
            ("unix:a.sock", None),
            ("/run/a.sock", None),
            ("127.0.0.1", None),
            ("localhost:1", None),
            ("http://127.0.0.1:1", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
