//! Reading sessions in processes of their own.
//!
//! [`init`] comes first in `main`. A worker is a procspawn child that does jobs
//! until its server hangs up; a bridge thread in the server talks to it; the
//! same code does the jobs in the server itself where no worker can run.

pub(crate) mod bridge;
mod cancels;
mod ending;
#[cfg(feature = "fault-injection")]
mod faults;
#[cfg(not(feature = "fault-injection"))]
#[path = "no_faults.rs"]
mod faults;
mod log;
pub(crate) mod page;
pub(crate) mod probe;
mod process;
pub(crate) mod protocol;
pub(crate) mod rescue;
pub(crate) mod runner;
mod sandbox;
mod temporary;

/// What the names of workers, and of their bridge threads, begin with.
pub(crate) const WORKER_NAME: &str = "mef3-worker-";

pub use process::init;
pub(crate) use process::{WorkerRef, WorkerSettings, is_initialised};
pub(crate) use sandbox::Confines;
pub use sandbox::{Guard, Sandbox};
