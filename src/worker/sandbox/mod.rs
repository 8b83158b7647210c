//! What a worker may do once it runs: read below the data roots, talk to its
//! server, and nothing else. A decoder that a hostile file has taken over cannot
//! write, connect, or start anything.
//!
//! Files are confined by landlock, system calls by seccomp, memory and descriptors
//! by limits. What the kernel does not offer is told and done without, unless it
//! was made mandatory.

mod calls;

use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The newest landlock that we know what we ask of.
const LANDLOCK: ABI = ABI::V6;

/// What a worker is confined to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confines {
    /// Whether there is a sandbox at all.
    pub(crate) enabled: bool,
    /// Folders below which files may be read. None: everywhere.
    pub(crate) roots: Vec<PathBuf>,
    /// Address space in bytes.
    pub(crate) memory_bytes: u64,
    /// File descriptors.
    pub(crate) descriptors: u64,
}

/// How much of a worker's sandbox is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sandbox {
    /// Files are read below the data roots only, and never written (landlock).
    pub files: Guard,
    /// System calls are those of reading and answering (seccomp).
    pub calls: Guard,
}

impl Sandbox {
    /// Everything that was asked for is in force.
    pub fn is_whole(&self) -> bool {
        self.files == Guard::Enforced && self.calls == Guard::Enforced
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, calls } = self;
        write!(formatter, "files {files}, system calls {calls}")
    }
}

/// One part of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Guard {
    /// Switched off.
    #[default]
    Off,
    /// In force.
    Enforced,
    /// In force as far as the kernel can.
    Partial,
    /// Not in force, for this reason.
    Missing(String),
}

impl fmt::Display for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(formatter, "not confined"),
            Self::Enforced => write!(formatter, "confined"),
            Self::Partial => write!(formatter, "partly confined by this kernel"),
            Self::Missing(reason) => write!(formatter, "not confined: {reason}"),
        }
    }
}

/// A limit that the system does not grant.
#[derive(Debug, Error)]
#[error("limit of {what} cannot be set: {error}")]
pub(crate) struct LimitError {
    what: &'static str,
    error: rustix::io::Errno,
}

/// Confines this process for the rest of its life. Files that are open stay open.
pub(crate) fn enter(confines: &Confines) -> Result<Sandbox, LimitError> {
    limit("memory", Resource::As, confines.memory_bytes)?;
    limit("file descriptors", Resource::Nofile, confines.descriptors)?;
    // A dump would hold patients' data, and passwords.
    limit("core dumps", Resource::Core, 0)?;
    if !confines.enabled {
        return Ok(Sandbox::default());
    }
    let missing = |error: String| Guard::Missing(error);
    Ok(Sandbox {
        // The calls that confine files are forbidden afterwards.
        files: confine_files(&confines.roots).unwrap_or_else(missing),
        calls: calls::confine().map_or_else(missing, |()| Guard::Enforced),
    })
}

/// Sets a limit for good, where it is not lower already.
fn limit(what: &'static str, resource: Resource, value: u64) -> Result<(), LimitError> {
    let granted = rustix::process::getrlimit(resource).maximum;
    let value = granted.map_or(value, |granted| granted.min(value));
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    setrlimit(resource, limit).map_err(|error| LimitError { what, error })
}

fn confine_files(roots: &[PathBuf]) -> Result<Guard, String> {
    let everywhere = [PathBuf::from("/")];
    let roots = if roots.is_empty() { &everywhere } else { roots };
    let status = restrict(roots).map_err(|error| error.to_string())?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Guard::Enforced,
        RulesetStatus::PartiallyEnforced => Guard::Partial,
        RulesetStatus::NotEnforced => Guard::Missing("this kernel has no landlock".into()),
    })
}

fn restrict(roots: &[PathBuf]) -> Result<RestrictionStatus, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    for root in roots.iter().filter_map(open_root) {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        ruleset = ruleset.add_rule(PathBeneath::new(root, read))?;
    }
    ruleset.restrict_self()
}

/// A root that is not there now has nothing to be read.
fn open_root(root: impl AsRef<Path>) -> Option<PathFd> {
    PathFd::new(root).ok()
}

#[cfg(test)]
mod tests;
