//! What a command can end in. The texts are what the user sees.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mef3_server::StartError;
use mef3_server::config::ConfigError;
use mef3_server::grpc::{ServeError, TlsError, TokenFileError};
use mef3_server::mef::{MefError, ReadError, Recording, WindowError, WriteError};
use thiserror::Error;

use super::client::ClientError;
use super::demo::TourError;
use super::health::HealthError;
use super::logging::LoggingError;
use super::sockets::SocketsError;

/// Why a command did not do what it was told. One line, which names the file or
/// folder and the reason.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The session, or a file of it, cannot be read.
    #[error(transparent)]
    Mef(#[from] MefError),
    /// What `check` was given cannot be checked, or the outcome not be told.
    #[error(transparent)]
    NotChecked(Box<Failure>),
    /// Samples of the window cannot be read; the error names the file.
    #[error(transparent)]
    Read(Box<ReadError>),
    /// Samples of the window cannot be read; the error says where in the file.
    #[error("{}: {source}", file.display())]
    ReadIn {
        file: PathBuf,
        source: Box<ReadError>,
    },
    /// Arguments that are right one by one, and not together.
    #[error("{0}")]
    Arguments(String),
    /// A password or a token cannot be had.
    #[error("{what}: {origin}: {reason}")]
    Secret {
        what: &'static str,
        origin: String,
        reason: String,
    },
    /// No channel has this name.
    #[error("{}: no channel {channel:?}, the session has {}", session.display(), listed(known))]
    UnknownChannel {
        session: PathBuf,
        channel: String,
        known: Vec<String>,
    },
    /// The channel is there and cannot be read.
    #[error("channel {channel} cannot be read: {source}")]
    UnreadableChannel { channel: String, source: MefError },
    /// No grid can be laid over the window.
    #[error("{}: channel {channel}: {source}", session.display())]
    Window {
        session: PathBuf,
        channel: String,
        source: WindowError,
    },
    /// The window has no column.
    #[error(
        "{}: channel {channel}: the window from {start_uutc} to {end_uutc} is shorter than one sample",
        session.display()
    )]
    ShorterThanOneSample {
        session: PathBuf,
        channel: String,
        start_uutc: i64,
        end_uutc: i64,
    },
    /// Not everything in the session is as it should be.
    #[error("{}: damaged: {what}", session.display())]
    Damaged { session: PathBuf, what: String },
    /// The window is written, with gaps where there is damage.
    #[error("{}: channel {channel}: masked: {what}", session.display())]
    Masked {
        session: PathBuf,
        channel: String,
        what: String,
    },
    /// Raw numbers would garble a terminal.
    #[error("raw numbers are not for a terminal: use --output FILE, a pipe, or --format csv")]
    BinaryToTerminal,
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The system refuses what a server needs.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Connections cannot be encrypted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The Unix domain socket cannot be listened on.
    #[error("cannot listen on {}: {error}", path.display())]
    UnixSocket { path: PathBuf, error: io::Error },
    /// Sockets were passed that cannot be served.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// A server that was asked is not well, or is not there.
    #[error("{address} does not serve: {reason}")]
    NotHealthy {
        address: String,
        reason: HealthError,
    },
    /// The engine cannot be started.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// The server cannot listen, or stopped.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The demo did not see what it should.
    #[error(transparent)]
    Tour(#[from] TourError),
    /// A server does not do what it is asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A session cannot be written.
    #[error("{}", located(session, source))]
    Write {
        session: PathBuf,
        source: WriteError,
    },
    /// Standard output does not take what is written.
    #[error("standard output: {0}")]
    Stdout(io::Error),
    /// The output file cannot be written.
    #[error("{}: {source}", file.display())]
    Output { file: PathBuf, source: io::Error },
}

impl Failure {
    /// The exit status of the program.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotChecked(_) | Self::Arguments(_) => ExitCode::from(2),
            Self::Masked { .. } | Self::Client(ClientError::Masked { .. }) => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }

    /// What there is to say beside the one line, in lines.
    pub(super) fn details(&self) -> Vec<String> {
        match self {
            Self::Client(error) => error.details(),
            _ => Vec::new(),
        }
    }

    /// A failure to read samples of `recording`.
    pub(super) fn reading(recording: &Recording, source: ReadError) -> Self {
        let file = match &source {
            ReadError::ConversionFactor { .. } => recording.path.clone(),
            _ => return Self::Read(source.into()),
        };
        Self::ReadIn {
            file,
            source: Box::new(source),
        }
    }

    /// Whether the reader of our output closed it, which is its right.
    pub(super) fn is_closed_pipe(&self) -> bool {
        match self {
            Self::NotChecked(failure) => failure.is_closed_pipe(),
            Self::Stdout(error) | Self::Output { source: error, .. } => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

/// An error with the session that it concerns, which many name themselves, or a file
/// in it.
fn located(session: &Path, error: &WriteError) -> String {
    let (session, error) = (session.display().to_string(), error.to_string());
    if error.starts_with(&session) {
        return error;
    }
    format!("{session}: {error}")
}

/// Names in a sentence.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no readable channel".into();
    }
    names.join(", ")
}
