//! Placeholder
#![deny(unsafe_code)]
pub mod grpc;
pub mod mef;
