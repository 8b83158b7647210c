//! What the integration tests share.

#[allow(dead_code, reason = "not every test program encrypts")]
pub mod certificates;
#[allow(dead_code, reason = "not every test program makes trouble")]
pub mod chaos;
#[allow(dead_code, reason = "not every test program reads the corpus")]
pub mod corpus;
#[allow(dead_code, reason = "not every test program has engines of its own")]
pub mod engine;
#[allow(dead_code, reason = "not every test program asks for envelopes")]
pub mod envelope;
#[allow(dead_code, reason = "not every test program forges sessions")]
pub mod forge;
#[allow(dead_code, reason = "not every test program asks the native service")]
pub mod native;
#[allow(dead_code, reason = "not every test program spoils files")]
pub mod patch;
#[allow(dead_code, reason = "not every test program compares with the peers")]
mod peers;
#[allow(dead_code, reason = "not every test program uses all of it")]
pub mod process;
#[allow(dead_code, reason = "not every test program starts the server")]
pub mod server;
#[allow(dead_code, reason = "not every test program asks the server")]
pub mod wire;

#[allow(
    unused_imports,
    reason = "not every test program compares with the peers"
)]
pub use peers::{peers_python, run_python};
