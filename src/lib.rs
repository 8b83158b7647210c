//! Placeholder
#![deny(unsafe_code)]
mod actors;
pub mod config;
mod error;
pub mod grpc;
pub mod mef;
pub mod worker;
pub use error::Error;
