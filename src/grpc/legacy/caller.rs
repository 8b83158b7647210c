//! Who calls.

use std::sync::Arc;

use tonic::Request;

use super::reading::MESSAGE_BYTES;
use crate::actors::file_manager::{Client, ClientId};
use crate::engine::Reader;
use crate::grpc::access::tokens::Token;
use crate::grpc::peer::{reader_of, token_of};
use crate::grpc::transport::Room;

/// Header by which a client of mef3io-server 3.1 names itself.
const CLIENT_ID: &str = "x-mef3io-client-id";
const MAX_CLIENT_ID: usize = 128;

/// Who calls.
pub(super) struct Caller {
    /// By the name that it gives itself, if that is one.
    pub(super) client: Client,
    /// Tells readers apart.
    pub(super) reader: Reader,
    /// What it may open, where that is not everything.
    pub(super) token: Option<Arc<Token>>,
    room: Option<Room>,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        // The first of several counts.
        let id = request.metadata().get(CLIENT_ID);
        let id = id.and_then(|id| id.to_str().ok());
        let token = token_of(request);
        let name = id.filter(|id| is_name(id)).map(|id| match token {
            Some(token) => ClientId::new(&token.name_of(id)),
            None => ClientId::new(id),
        });
        Self {
            client: name.map_or(Client::Shared, Client::Named),
            reader: reader_of(request),
            token: token.cloned(),
            room: request.extensions().get().cloned(),
        }
    }

    pub(super) fn is_named(&self) -> bool {
        matches!(self.client, Client::Named(_))
    }

    /// Whether the reply may be one message of so many bytes.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let room = self.room.as_ref();
        bytes <= MESSAGE_BYTES || room.is_some_and(|room| room.take(bytes as usize))
    }
}

/// Whether a client can be called so: 1 to 128 printable characters.
fn is_name(id: &str) -> bool {
    (1..=MAX_CLIENT_ID).contains(&id.len()) && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_short() {
        let longest = "x".repeat(MAX_CLIENT_ID);
        for (name, expected) in [
            ("a", true),
            ("viewer 1", true),
            (longest.as_str(), true),
            ("", false),
            ("a\tb", false),
        ] {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
        assert!(!is_name(&"x".repeat(MAX_CLIENT_ID + 1)));
    }
}
