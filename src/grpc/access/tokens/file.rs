//! The file of the tokens. What is wrong with it is told without any value in it: the
//! one at fault may be a secret.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table, Value};
use zeroize::Zeroizing;

use super::Token;
use crate::config::DataRoot;
use crate::grpc::access::paths::Checks;

/// Most bytes of the file.
const MOST_BYTES: u64 = 1 << 20;
/// Permissions that nobody but the owner may have.
const OF_OTHERS: u32 = 0o077;
/// Most characters of a name.
const MOST_NAME: usize = 64;
/// Largest limit in MiB.
const MOST_MB: i64 = 1 << 30;
const KEYS: &str = "name, sha256, roots, request_mb, client_mb, calls";

/// Why a file of tokens does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Others can read or change it.
    #[error(
        "{}: others than its owner may use it (mode {mode:03o}): chmod 600",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is too long.
    #[error("{}: longer than {MOST_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is no TOML.
    #[error("{}, line {line}: no TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
    },
    /// An entry makes no sense.
    #[error("{}: {place}: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the tokens of a file.
pub(super) fn read(path: &Path, data_roots: &[DataRoot]) -> Result<Vec<Token>, TokenFileError> {
    let text = text(path)?;
    let table: Table = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.as_bytes().iter().take(start);
        TokenFileError::Syntax {
            path: path.into(),
            line: before.filter(|&&byte| byte == b'\n').count() + 1,
        }
    })?;
    let entry_error = |place: String, reason: String| TokenFileError::Entry {
        path: path.into(),
        place,
        reason,
    };
    let whole = |reason: &str| entry_error("the file".into(), reason.into());
    if table.keys().any(|key| key != "token") {
        return Err(whole("there is more in it than entries [[token]]"));
    }
    let entries = table.get("token").and_then(Value::as_array);
    let entries = entries.ok_or_else(|| whole("there is no entry [[token]]"))?;
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut tokens = Vec::new();
    for (entry, number) in entries.iter().zip(1..) {
        let read = entry.as_table().ok_or_else(|| "it is no table".to_owned());
        let read = read.and_then(|entry| token(entry, data_roots));
        let read = read.and_then(|token| match token {
            token if !names.insert(token.name.clone()) => Err("its name is there twice".into()),
            token if !hashes.insert(token.hash) => Err("its sha256 is there twice".into()),
            token => Ok(token),
        });
        tokens.push(read.map_err(|reason| entry_error(format!("token {number}"), reason))?);
    }
    Ok(tokens)
}

fn text(path: &Path) -> Result<Zeroizing<String>, TokenFileError> {
    let unreadable = |error| TokenFileError::Unreadable {
        path: path.into(),
        error,
    };
    let file = File::open(path).map_err(unreadable)?;
    // Of the file that is read, whatever is at the path by now.
    let found = file.metadata().map_err(unreadable)?;
    let mode = found.permissions().mode() & 0o777;
    if mode & OF_OTHERS != 0 {
        return Err(TokenFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let room = found.len().min(MOST_BYTES) as usize + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    let mut limited = file.take(MOST_BYTES + 1);
    limited.read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(TokenFileError::TooLong { path: path.into() });
    }
    Ok(text)
}

fn token(entry: &Table, data_roots: &[DataRoot]) -> Result<Token, String> {
    let mut token = Token {
        name: String::new(),
        hash: [0; 32],
        roots: Vec::new(),
        request_bytes: None,
        client_bytes: None,
        most_calls: None,
        calls: Arc::default(),
        checks: Checks::default(),
    };
    let mut has_hash = false;
    for (key, value) in entry {
        match key.as_str() {
            "name" => token.name = name(value)?,
            "sha256" => {
                token.hash = hash(value)?;
                has_hash = true;
            }
            "roots" => token.roots = roots(value, data_roots)?,
            "request_mb" => token.request_bytes = Some(limit(key, value, MOST_MB)? << 20),
            "client_mb" => {
                let bytes = limit(key, value, MOST_MB)? << 20;
                token.client_bytes = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            "calls" => {
                let calls = limit(key, value, i64::from(u32::MAX))?;
                token.most_calls = Some(usize::try_from(calls).unwrap_or(usize::MAX));
            }
            "token" => {
                let advice = "a token itself has no place here, only its hash: \
                              sha256 = the output of: printf %s \"$TOKEN\" | sha256sum";
                return Err(advice.into());
            }
            _ => return Err(format!("there are other keys than {KEYS}")),
        }
    }
    if token.name.is_empty() {
        return Err("name is missing".into());
    }
    if !has_hash {
        return Err("sha256 is missing".into());
    }
    if token.roots.is_empty() {
        return Err("roots is missing or empty; [\"/\"] is everything".into());
    }
    Ok(token)
}

fn name(value: &Value) -> Result<String, String> {
    let name = value.as_str().filter(|name| {
        let is_short = (1..=MOST_NAME).contains(&name.chars().count());
        is_short && !name.chars().any(char::is_control)
    });
    let reason = || format!("name is no text of 1 to {MOST_NAME} printable characters");
    name.map(str::to_owned).ok_or_else(reason)
}

fn hash(value: &Value) -> Result<[u8; 32], String> {
    let reason = || "sha256 is no text of 64 hexadecimal digits".to_owned();
    let text = value.as_str().ok_or_else(reason)?.as_bytes();
    if text.len() != 64 {
        return Err(reason());
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |place: usize| {
            let digit = digits.get(place).copied().map(char::from);
            digit.and_then(|digit| digit.to_digit(16))
        };
        let (high, low) = digit(0).zip(digit(1)).ok_or_else(reason)?;
        *byte = (high << 4 | low) as u8;
    }
    Ok(hash)
}

fn roots(value: &Value, data_roots: &[DataRoot]) -> Result<Vec<PathBuf>, String> {
    let reason = || "roots is no list of texts".to_owned();
    let roots = value.as_array().ok_or_else(reason)?.iter();
    let roots = roots.map(|root| root.as_str().ok_or_else(reason));
    roots.map(|name| root(name?, data_roots)).collect()
}

/// An absolute path, or the name of a folder of the data roots.
fn root(name: &str, data_roots: &[DataRoot]) -> Result<PathBuf, String> {
    let path = Path::new(name);
    if path.is_absolute() {
        let mut parts = path.components();
        if parts.any(|part| part == std::path::Component::ParentDir) {
            return Err("a root has \"..\" in it".into());
        }
        return Ok(path.into());
    }
    if name.is_empty() || name.contains('/') {
        return Err("a root is neither an absolute path nor a name".into());
    }
    let named = data_roots.iter().find(|root| root.name() == name);
    let named = named.ok_or("a root is the name of none of paths.data_roots")?;
    Ok(named.path().to_path_buf())
}

fn limit(key: &str, value: &Value, most: i64) -> Result<u64, String> {
    let number = value
        .as_integer()
        .filter(|number| (1..=most).contains(number));
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| format!("{key} is no whole number from 1 to {most}"))
}
