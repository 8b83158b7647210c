//! The format of MEF 3.0 as the server has it, compiled without the servers
//! around it, which would take minutes.

#![deny(unsafe_code)]

#[allow(dead_code, unused_imports, reason = "the rest is used by the server")]
#[path = "../../src/mef/mod.rs"]
pub mod mef;
