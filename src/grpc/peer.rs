//! Who calls, by the connection.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use tonic::Request;

/// Tells readers apart, for the predictions and the permits: a connection is one.
pub(super) fn reader_of<T>(request: &Request<T>) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(request.remote_addr())
}
