//! Where commands get the password of a session from: never an argument, which
//! anybody on the machine could read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use mef3_server::mef::{OpenOptions, Password};
use zeroize::Zeroizing;

use super::failure::Failure;

/// The environment variable that a password may come in.
pub(super) const VARIABLE: &str = "MEF3_PASSWORD";
/// Longest password that is taken: one has sixteen characters that count.
pub(super) const MOST_PASSWORD_BYTES: usize = 1024;

/// The password of a protected session.
#[derive(Debug, Args)]
pub(super) struct PasswordArguments {
    /// File with the session's password (level 1 or level 2) in its first line;
    /// without it, the environment variable MEF3_PASSWORD is used, if it is set
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArguments {
    /// How a session is to be opened.
    pub(super) fn open_options(&self) -> Result<OpenOptions, Failure> {
        let password = self.password()?;
        Ok(OpenOptions { password })
    }

    /// The password, if there is one.
    pub(super) fn password(&self) -> Result<Option<Password>, Failure> {
        Ok(self.text()?.and_then(|text| Password::new(&text)))
    }

    /// The password as it was typed, if there is one.
    pub(super) fn text(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        secret(
            "password",
            self.password_file.as_deref(),
            VARIABLE,
            MOST_PASSWORD_BYTES,
        )
    }
}

/// The first line of a file, or else what an environment variable holds: a password or
/// a token, as `what` says, of so many bytes at most.
pub(super) fn secret(
    what: &'static str,
    file: Option<&Path>,
    variable: &str,
    most_bytes: usize,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let origin = file.map_or_else(|| variable.into(), |path| path.display().to_string());
    let failure = |reason: String| Failure::Secret {
        what,
        origin: origin.clone(),
        reason,
    };
    let text = match file {
        Some(path) => first_line(path, most_bytes).map_err(|error| failure(error.to_string()))?,
        None => match std::env::var(variable) {
            Ok(text) => Zeroizing::new(text.into_bytes()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(failure("is not valid UTF-8".into()));
            }
        },
    };
    if text.is_empty() && file.is_none() {
        return Ok(None);
    }
    if text.len() > most_bytes {
        return Err(failure(format!("is longer than {most_bytes} bytes")));
    }
    let text = std::str::from_utf8(&text);
    let text = text.map_err(|_| failure("is not valid UTF-8".into()))?;
    if file.is_some() && Password::new(text).is_none() {
        return Err(failure(format!("holds no {what}")));
    }
    Ok(Some(Zeroizing::new(text.into())))
}

/// The first line of a file; of a line that is longer than `most_bytes`, some more.
fn first_line(path: &Path, most_bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // A line may end in two bytes.
    let room = most_bytes + 2;
    // All at once, so that no copy stays behind in a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let file = File::open(path)?;
    file.take(room as u64).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    let length = line.strip_suffix(b"\r").unwrap_or(line).len();
    bytes.truncate(length);
    Ok(bytes)
}
