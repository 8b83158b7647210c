//! Where a command writes to: standard output, or a file that appears whole.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::failure::Failure;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 16;

/// A destination. Nothing counts as written before [`Output::finish`].
pub(super) struct Output {
    writer: BufWriter<Target>,
}

enum Target {
    Stdout(Stdout),
    /// A pipe or a device under the output's name.
    Special {
        name: PathBuf,
        file: File,
    },
    /// A new file beside the one that it will become.
    Pending {
        name: PathBuf,
        file: NamedTempFile,
    },
}

impl Output {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self::to(Target::Stdout(io::stdout()))
    }

    /// A file, which takes its name when it is finished: a command that fails
    /// leaves what stood there before.
    pub(super) fn file(path: &Path) -> Result<Self, Failure> {
        Target::file(path)
            .map(Self::to)
            .map_err(|source| Failure::Output {
                file: path.into(),
                source,
            })
    }

    /// Whether it is drawn on a screen.
    pub(super) fn is_terminal(&self) -> bool {
        match self.writer.get_ref() {
            Target::Stdout(stdout) => stdout.is_terminal(),
            Target::Special { file, .. } => file.is_terminal(),
            Target::Pending { .. } => false,
        }
    }

    /// Whether something is there before it is finished that has to be removed where it
    /// never is.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.writer.get_ref(), Target::Pending { .. })
    }

    fn to(target: Target) -> Self {
        Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, target),
        }
    }

    /// Writes with `write`.
    pub(super) fn write_with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let outcome = write(&mut self.writer);
        outcome.map_err(|source| self.writer.get_ref().failure(source))
    }

    /// Writes what is still gathered, and gives a file its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.write_with(|writer| writer.flush())?;
        // Flushed, so there is nothing left for the writer itself to fail at.
        let (target, _) = self.writer.into_parts();
        target.finish()
    }
}

impl Target {
    fn file(path: &Path) -> io::Result<Self> {
        let name = match fs::metadata(path) {
            Ok(status) if !status.is_file() => {
                // Renaming over /dev/null would replace it.
                let file = File::options().write(true).open(path)?;
                let name = path.into();
                return Ok(Self::Special { name, file });
            }
            // A link stays a link: the file that it names is replaced.
            Ok(_) => fs::canonicalize(path)?,
            Err(_) => path.to_owned(),
        };
        let folder = match name.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".mef3-server-")
            .suffix(".part")
            // As any new file; the umask has its say.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        Ok(Self::Pending { name, file })
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(_) | Self::Special { .. } => Ok(()),
            Self::Pending { name, file } => {
                let persisted = file.persist(&name).map_err(|error| error.error);
                persisted
                    .map(drop)
                    .map_err(|source| Failure::Output { file: name, source })
            }
        }
    }

    fn failure(&self, source: io::Error) -> Failure {
        match self {
            Self::Stdout(_) => Failure::Stdout(source),
            Self::Special { name, .. } | Self::Pending { name, .. } => Failure::Output {
                file: name.clone(),
                source,
            },
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::Special { file, .. } => file.write(bytes),
            Self::Pending { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::Special { file, .. } => file.flush(),
            Self::Pending { file, .. } => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(output: &mut Output, text: &str) {
        output
            .write_with(|writer| writer.write_all(text.as_bytes()))
            .unwrap();
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "before").unwrap();

        let mut output = Output::file(&path).unwrap();
        write(&mut output, "after");
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::file(&folder.path().join("out")).unwrap();
        write(&mut output, "half");
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn devices_are_written_to_and_links_followed() {
        let mut null = Output::file(Path::new("/dev/null")).unwrap();
        write(&mut null, "gone");
        assert!(matches!(null.writer.get_ref(), Target::Special { .. }));
        null.finish().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut output = Output::file(&link).unwrap();
        write(&mut output, "text");
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn the_failure_names_the_file() {
        let failure = Output::file(Path::new("/nonexistent/out")).err().unwrap();
        assert!(failure.to_string().starts_with("/nonexistent/out: "));
    }
}
