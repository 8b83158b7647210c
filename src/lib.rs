//! Placeholder
#![deny(unsafe_code)]
pub mod mef;
