//! What operators ask a server, over HTTP on a port of its own: figures, health,
//! workers, and the level of the log.

mod admin;
mod answers;
mod exposition;

pub use admin::{Admin, AdminOptions, start};
pub use answers::LogSwitch;
