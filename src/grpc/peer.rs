//! Who calls, by the connection and the token.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use tonic::Request;

use super::access::tokens::Token;
use super::transport::Via;
use crate::engine::Reader;

/// Tells readers apart, for the predictions, where a connection is one, and for the
/// permits, where those with the same token are one.
pub(super) fn reader_of<T>(request: &Request<T>) -> Reader {
    let via = request.extensions().get::<Via>();
    let peer = via.map(|via| via.peer);
    let id = BuildHasherDefault::<DefaultHasher>::default().hash_one(peer);
    match token_of(request) {
        Some(token) => token.reader(id),
        None => id.into(),
    }
}

/// Whether nobody can have listened to the call.
pub(super) fn is_private<T>(request: &Request<T>) -> bool {
    let via = request.extensions().get::<Via>();
    via.is_some_and(|via| via.is_private)
}

/// The token of the call, if calls need one.
pub(super) fn token_of<T>(request: &Request<T>) -> Option<&Arc<Token>> {
    request.extensions().get::<Via>()?.token.as_ref()
}
