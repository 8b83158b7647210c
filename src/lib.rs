//! Placeholder
#![deny(unsafe_code)]
pub mod config;
pub mod grpc;
pub mod mef;
