//! Where commands get the password of a session from: never an argument, which
//! anybody on the machine could read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mef3_server::mef::{OpenOptions, Password};
use zeroize::Zeroizing;

use super::failure::Failure;

/// The environment variable that a password may come in.
pub(super) const VARIABLE: &str = "MEF3_PASSWORD";
/// Most bytes of a password file: a password has sixteen characters that count.
const MOST_BYTES: u64 = 1024;

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
        secret("password", self.password_file.as_deref(), VARIABLE)
    }
}

/// The first line of a file, or else what an environment variable holds: a password or
/// a token, as `what` says.
pub(super) fn secret(
    what: &'static str,
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(path) = file else {
        return match std::env::var(variable).map(Zeroizing::new) {
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(Failure::Secret {
                what,
                origin: variable.into(),
                reason: "is not valid UTF-8".into(),
            }),
        };
    };
    let failure = |reason: String| Failure::Secret {
        what,
        origin: path.display().to_string(),
        reason,
    };
    // All at once, so that no copy stays behind in a buffer that grew.
    let mut text = Zeroizing::new(String::with_capacity(MOST_BYTES as usize));
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|error| failure(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default().len();
    text.truncate(line);
    if Password::new(&text).is_none() {
        return Err(failure(format!("holds no {what}")));
    }
    Ok(Some(text))
}
