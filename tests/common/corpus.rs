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

/// Every session that is a folder, unencrypted and undamaged.
pub fn plain_sessions() -> Vec<Session> {
    let folder = folder();
    let index = json(&folder.join("index.json"));
    let sessions: Vec<Session> = index["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| Session::load(&folder, entry["name"].as_str().unwrap()))
        .filter(|session| {
            let name = session.name.as_str();
            session.facts["password_level_1"].is_null()
                && name != "encrypted_blocks"
                && session.path.is_dir()
        })
        .collect();
    assert!(
        sessions.len() >= 30,
        "only {} plain sessions",
        sessions.len()
    );
    sessions
}

impl Session {
    pub fn load(folder: &Path, name: &str) -> Self {
        let facts = json(&folder.join(format!("{name}.json")));
        let truth = folder.join(format!("{name}.truth"));
        Self {
            name: name.into(),
            path: folder.join(format!("{name}.mefd")),
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
            part(&self.mef_tools_f64, &window["mef_tools_f64"])
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
