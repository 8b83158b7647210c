//! Placeholder
#![deny(unsafe_code)]
mod actors;
mod error;
pub mod mef;
pub mod worker;
pub use error::Error;
