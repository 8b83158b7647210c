//! Tokens: which calls are taken, and what each may ask for.

mod file;

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::{Code, Status};

pub use self::file::TokenFileError;

use super::paths::Checks;
use crate::config::DataRoot;
use crate::engine::Reader;
use crate::grpc::native::status::{RETRY, Refusal};

/// Services that anybody may call.
const OPEN_TO_ALL: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// The tokens of a server. Clones share them, and what [`reload`](Self::reload) does.
#[derive(Clone)]
pub struct Tokens {
    path: Arc<Path>,
    data_roots: Arc<[DataRoot]>,
    current: Arc<ArcSwap<Vec<Arc<Token>>>>,
    /// They are taken over connections that anybody can listen to.
    in_clear: bool,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        formatter.debug_tuple("Tokens").field(&path).finish()
    }
}

/// One token. Its text is nowhere.
pub(in crate::grpc) struct Token {
    pub(super) name: String,
    hash: [u8; 32],
    pub(super) roots: Vec<PathBuf>,
    request_bytes: Option<u64>,
    client_bytes: Option<usize>,
    most_calls: Option<usize>,
    /// Calls under way. It stays when the file is read again.
    calls: Arc<AtomicUsize>,
    pub(super) checks: Checks,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Token").field(&self.name).finish()
    }
}

impl Tokens {
    /// Reads a file of tokens. A root without a slash is the name of one of
    /// `data_roots`. With `in_clear` tokens are taken from other machines over
    /// connections that anybody can listen to.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn load(
        path: &Path,
        data_roots: &[DataRoot],
        in_clear: bool,
    ) -> Result<Self, TokenFileError> {
        let tokens = file::read(path, data_roots)?;
        Ok(Self {
            path: path.into(),
            data_roots: data_roots.into(),
            current: Arc::new(ArcSwap::from_pointee(shared(tokens))),
            in_clear,
        })
    }

    /// Reads the file again, for the calls from now on. It waits for storage.
    ///
    /// # Errors
    /// [`TokenFileError`]. Then all is as it was before.
    pub fn reload(&self) -> Result<(), TokenFileError> {
        let mut tokens = file::read(&self.path, &self.data_roots)?;
        let before = self.current.load();
        for token in &mut tokens {
            if let Some(same) = before.iter().find(|it| it.name == token.name) {
                token.calls = Arc::clone(&same.calls);
            }
        }
        self.current.store(Arc::new(shared(tokens)));
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.current.load().len()
    }

    /// The token of a call, over a connection that nobody can listen to or another one.
    /// `None` for calls that need none.
    pub(in crate::grpc) fn of_call(
        &self,
        path: &str,
        headers: &HeaderMap,
        is_private: bool,
    ) -> Result<Option<Arc<Token>>, Status> {
        if OPEN_TO_ALL.iter().any(|service| path.starts_with(service)) {
            return Ok(None);
        }
        let refused = |reason, text: &str| Refusal::new(Code::Unauthenticated, reason, text);
        let Some(given) = headers.get(AUTHORIZATION).map(|value| value.as_bytes()) else {
            let text = "a token is needed, as metadata authorization: Bearer TOKEN";
            return Err(refused("TOKEN_MISSING", text).into());
        };
        if !is_private && !self.in_clear {
            let text = "a token came over a connection that anybody can listen to";
            return Err(refused("TOKEN_IN_CLEAR", text).into());
        }
        let found = bearer(given).and_then(|secret| self.find(secret));
        let unknown = || refused("TOKEN_UNKNOWN", "no such token").into();
        found.map(Some).ok_or_else(unknown)
    }

    /// Takes as long whichever it is, and whether there is one.
    fn find(&self, secret: &[u8]) -> Option<Arc<Token>> {
        let hash = Sha256::digest(secret);
        let mut found = None;
        for token in self.current.load().iter() {
            if bool::from(token.hash.as_slice().ct_eq(hash.as_slice())) {
                found = Some(Arc::clone(token));
            }
        }
        found
    }
}

fn shared(tokens: Vec<Token>) -> Vec<Arc<Token>> {
    tokens.into_iter().map(Arc::new).collect()
}

/// The secret of `Bearer SECRET`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty()).then_some(secret)
}

impl Token {
    /// Its readers are one client, each by its own connection.
    pub(in crate::grpc) fn reader(&self, id: u64) -> Reader {
        let hash = BuildHasherDefault::<DefaultHasher>::default();
        Reader {
            id,
            client: hash.hash_one(("token", &self.name)),
            client_bytes: self.client_bytes,
            request_bytes: self.request_bytes,
        }
    }

    /// What its clients call themselves, told apart from those of others.
    pub(in crate::grpc) fn name_of(&self, client: &str) -> String {
        format!("{}\n{client}", self.name)
    }

    /// A place for a call, if it may have one more.
    pub(in crate::grpc) fn call_place(&self) -> Result<TokenPlace, Status> {
        let most = self.most_calls.unwrap_or(usize::MAX);
        let more = |taken| (taken < most).then_some(taken + 1);
        let order = Ordering::Relaxed;
        let taken = self.calls.fetch_update(order, order, more);
        taken.map_err(|_| {
            let text = format!("calls: {most} of the token are under way, and it has no more");
            Refusal::new(Code::ResourceExhausted, "TOKEN_CALLS", text)
                .limit("calls", most as u64)
                .retry(RETRY)
        })?;
        Ok(TokenPlace(Arc::clone(&self.calls)))
    }
}

/// One of the calls of a token, until it is dropped.
#[derive(Debug)]
pub(in crate::grpc) struct TokenPlace(Arc<AtomicUsize>);

impl Drop for TokenPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
