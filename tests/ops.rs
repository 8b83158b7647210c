//! What operators and load balancers ask: health, reflection and the admin port.

mod common;

#[path = "ops/admin.rs"]
mod admin;
#[path = "ops/command.rs"]
mod command;
#[path = "ops/exposition.rs"]
mod exposition;
#[path = "ops/health.rs"]
mod health;
#[path = "ops/metrics.rs"]
mod metrics;
#[path = "ops/reflection.rs"]
mod reflection;
#[path = "ops/saturated.rs"]
mod saturated;
#[path = "ops/tally.rs"]
mod tally;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::process::{LIMIT, Launch, Server, until};
use exposition::Exposition;

/// A server with an admin port, which looks at its health every second.
fn launch() -> Launch {
    Launch::new()
        .env("MEF3_SERVER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("MEF3_SERVER_HEALTH_PROBE_INTERVAL_S", "1")
        .env("MEF3_SERVER_HEALTH_PROBE_LIMIT_S", "1")
}

/// The admin port of a server.
struct Admin(SocketAddr);

/// An answer of the admin port.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Admin {
    fn of(server: &Server) -> Self {
        let record = server.logged("admin port is open");
        Self(record["address"].as_str().unwrap().parse().unwrap())
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let length = body.len();
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn send(&self, request: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.0, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.ok_or_else(cut)?,
            headers: head.to_ascii_lowercase(),
            body: body.into(),
        })
    }

    /// The figures, in the form that they have to have.
    fn metrics(&self) -> Exposition {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        let form = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(answer.headers.contains(form), "{answer:?}");
        let parsed = Exposition::parse(&answer.body);
        parsed.unwrap_or_else(|what| panic!("{what}\n{}", answer.body))
    }

    /// Waits until the server is ready, or is not.
    fn wait_for_readiness(&self, status: u16) -> Answer {
        until("readiness", LIMIT, || {
            std::thread::sleep(Duration::from_millis(10));
            self.get("/readyz").status == status
        });
        self.get("/readyz")
    }
}
