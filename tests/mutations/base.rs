//! The sessions that are spoilt, and what is true of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mef3_server::mef::{OpenOptions, Password, PlacedRecord, RecordQuery, open_session};
use tempfile::TempDir;

use crate::common::corpus::{Session, copy_folder, folder};

/// Small ones, of all kinds of files.
const NAMES: [&str; 14] = [
    "plain_single",
    "multi_segment",
    "multi_segment_mef3io",
    "gaps_short_long",
    "encrypted_mef3io",
    "encrypted_pymef",
    "encrypted_blocks",
    "records_mef3io",
    "records_pymef",
    "tar_archive",
    "video_pymef",
    "appended_mef_tools",
    "time_offset_pymef",
    "tiny_blocks",
];

/// A private copy of a session of the corpus.
pub struct Base {
    pub name: &'static str,
    _folder: TempDir,
    pub path: PathBuf,
    pub options: OpenOptions,
    pub channels: Vec<Truth>,
    pub records: Vec<PlacedRecord>,
    /// All files of the format, relative to the session; the archive itself has an
    /// empty name.
    pub files: Vec<PathBuf>,
}

/// What both references read in the whole of a channel.
pub struct Truth {
    pub channel: String,
    pub start_uutc: i64,
    pub end_uutc: i64,
    pub mef3io: Vec<f64>,
    pub pymef: Option<Vec<f64>>,
}

impl Base {
    pub fn all() -> Vec<Self> {
        let corpus = folder();
        NAMES.map(|name| Self::new(name, &corpus)).into()
    }

    fn new(name: &'static str, corpus: &Path) -> Self {
        let session = Session::load(corpus, name);
        let memory = Path::new("/dev/shm");
        let copies = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let copies = copies.unwrap();
        // Some mutants are looked at by a user without rights.
        fs::set_permissions(copies.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = copies.path().join(session.path.file_name().unwrap());
        let mut files = Vec::new();
        if session.path.is_dir() {
            copy_folder(&session.path, &path);
            list(&path, Path::new(""), &mut files);
        } else {
            fs::copy(&session.path, &path).unwrap();
            files.push(PathBuf::new());
        }
        files.sort();
        let options = OpenOptions {
            password: session.password_level_2.as_deref().and_then(Password::new),
        };
        let full = session.windows().into_iter().filter(|w| w.kind == "full");
        let channels: Vec<Truth> = full
            .map(|window| Truth {
                channel: window.channel,
                start_uutc: window.start_uutc,
                end_uutc: window.end_uutc,
                mef3io: window.mef3io,
                pymef: window.pymef,
            })
            .collect();
        assert!(!channels.is_empty(), "{name}");
        let recording = open_session(&path, &options).unwrap();
        let query = RecordQuery {
            limit: 1000,
            ..RecordQuery::default()
        };
        // tests/records.rs compares them with what mef3io and pymef read.
        let records = recording.records(&query).unwrap().records;
        Self {
            name,
            _folder: copies,
            path,
            options,
            channels,
            records,
            files,
        }
    }

    /// The file of a relative name.
    pub fn file(&self, name: &Path) -> PathBuf {
        if name.as_os_str().is_empty() {
            return self.path.clone();
        }
        self.path.join(name)
    }
}

fn list(folder: &Path, relative: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = relative.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &name, files);
            continue;
        }
        let extension = name.extension().unwrap_or_default().to_str().unwrap();
        if ["tmet", "tidx", "tdat", "rdat", "ridx", "vmet", "vidx"].contains(&extension) {
            files.push(name);
        }
    }
}
