//! Who may connect and call: encryption, tokens, and sockets of this machine.

pub(super) mod local;
pub(super) mod paths;
pub(super) mod tls;
pub(super) mod tokens;
