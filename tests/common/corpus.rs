//! The reference corpus: sessions with truth from two independent readers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The corpus folder, beside the checkout. Tests that need it fail where it is
/// missing: a skipped comparison would pass for a made one.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-corpus");
    assert!(
        folder.join("index.json").is_file(),
        "the reference corpus is missing: expected it at {}",
        folder.display()
    );
    folder
}

/// A session of the corpus.
pub struct Session {
    pub name: String,
    pub path: PathBuf,
    pub password_level_1: Option<String>,
    pub password_level_2: Option<String>,
    pub facts: Value,
    mef3io_f64: Vec<f64>,
    mef3io_i32: Vec<i32>,
    mef_tools_f64: Vec<f64>,
}

/// A window with what the references read in it.
pub struct Window {
    pub channel: String,
    pub kind: String,
    pub start_uutc: i64,
    pub end_uutc: i64,
    pub mef3io: Vec<f64>,
    pub counts: Vec<i32>,
    /// What mef_tools over pymef reads; `None` where it fails.
    pub pymef: Option<Vec<f64>>,
}

/// Every session of the corpus.
pub fn sessions() -> Vec<Session> {
    let folder = folder();
    let index = json(&folder.join("index.json"));
    let sessions: Vec<Session> = index["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| Session::load(&folder, entry["name"].as_str().unwrap()))
        .collect();
    assert!(sessions.len() >= 35, "only {} sessions", sessions.len());
    sessions
}

/// Every session that is a folder and can be read without a password.
pub fn plain_sessions() -> Vec<Session> {
    let mut sessions = sessions();
    sessions.retain(|session| session.password_level_2.is_none() && session.path.is_dir());
    sessions
}

impl Session {
    pub fn load(folder: &Path, name: &str) -> Self {
        let facts = json(&folder.join(format!("{name}.json")));
        let truth = folder.join(format!("{name}.truth"));
        let password = |level: &str| facts[level].as_str().map(str::to_owned);
        Self {
            name: name.into(),
            path: folder.join(facts["path"].as_str().unwrap()),
            password_level_1: password("password_level_1"),
            password_level_2: password("password_level_2"),
            mef3io_f64: numbers(&truth.join("mef3io.f64"), f64::from_le_bytes),
            mef3io_i32: numbers(&truth.join("mef3io.i32"), i32::from_le_bytes),
            mef_tools_f64: numbers(&truth.join("mef_tools.f64"), f64::from_le_bytes),
            facts,
        }
    }

    pub fn windows(&self) -> Vec<Window> {
        let windows = self.facts["windows"].as_array().unwrap();
        windows.iter().map(|window| self.window(window)).collect()
    }

    fn window(&self, window: &Value) -> Window {
        let mef3io = part(&self.mef3io_f64, &window["mef3io_f64"]).unwrap();
        let pymef = if window["mef_tools_f64"]["same_as"] == "mef3io_f64" {
            Some(mef3io.clone())
        } else {
            let pymef = part(&self.mef_tools_f64, &window["mef_tools_f64"]);
            // pymef crashes on blocks that are themselves encrypted.
            pymef.or_else(|| (self.name == "encrypted_blocks").then(|| mef3io.clone()))
        };
        Window {
            channel: window["channel"].as_str().unwrap().into(),
            kind: window["kind"].as_str().unwrap().into(),
            start_uutc: window["t0"].as_i64().unwrap(),
            end_uutc: window["t1"].as_i64().unwrap(),
            counts: part(&self.mef3io_i32, &window["mef3io_i32"]).unwrap(),
            mef3io,
            pymef,
        }
    }
}

/// Copies a session, so that it may be spoilt.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn part<T: Clone>(numbers: &[T], place: &Value) -> Option<Vec<T>> {
    let offset = place["offset"].as_u64()? as usize;
    let count = place["count"].as_u64()? as usize;
    Some(numbers[offset..offset + count].to_vec())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Numbers of a file; none where the file is not there.
fn numbers<T, const N: usize>(path: &Path, from_bytes: fn([u8; N]) -> T) -> Vec<T> {
    let bytes = fs::read(path).unwrap_or_default();
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty());
    chunks.iter().map(|&chunk| from_bytes(chunk)).collect()
}
