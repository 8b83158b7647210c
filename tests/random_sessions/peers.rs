//! The other implementations: they write and read many sessions in one run of
//! Python.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::options::Writer;
use super::plan::Plan;
use super::windows::Window;
use crate::common;

/// Writes what is theirs to write: the first opening of their sessions, and the
/// second of those that they go on with.
///
/// Gives the sessions that could not be written, with the reasons.
pub fn write(plans: &[Plan], folder: &Path) -> BTreeMap<u64, String> {
    let theirs = |writer: Writer| writer != Writer::Ours;
    let plans: Vec<&Plan> = plans
        .iter()
        .filter(|plan| theirs(plan.writer) || plan.second.is_some_and(theirs))
        .collect();
    plans.iter().for_each(|plan| plan.store_samples());
    let file = folder.join("plans.json");
    fs::write(&file, serde_json::to_vec(&plans).unwrap()).unwrap();
    serde_json::from_str(&common::run_python("random_write.py", [&file])).unwrap()
}

/// The samples of a window.
#[derive(Debug)]
pub struct Samples {
    pub values: Vec<f64>,
    /// Counts; 0 or -2^31 in gaps.
    pub counts: Vec<i32>,
    /// Whether each is one, and no gap.
    pub valid: Vec<bool>,
}

/// What became of a window.
#[derive(Debug)]
pub enum Answer {
    Samples(Samples),
    Error(String),
    /// The reader crashed.
    Crash,
}

/// What a reader made of a session.
pub struct Answers {
    pub said: Value,
    pub windows: Vec<Answer>,
}

/// What both readers made of a session, or why there is nothing.
pub struct Read {
    pub mef3io: Result<Answers, String>,
    pub pymef: Result<Answers, String>,
    /// Crashes of pymef.
    pub crashes: u64,
}

/// Lets both readers read the windows of sessions; packs those first that are to
/// be packed.
pub fn read(sessions: &[(&Plan, Vec<Window>)], folder: &Path) -> Vec<Read> {
    let requests = sessions.iter().map(|(plan, windows)| {
        let windows = windows.iter();
        let windows: Vec<_> = windows
            .map(|w| json!([w.channel, w.start, w.end]))
            .collect();
        json!({
            "number": plan.number,
            "path": plan.path,
            "archive": plan.archive.map(|_| plan.read_path()),
            "by": plan.archive,
            "password": plan.passwords.map(|[_, level_2]| level_2),
            "level_1": plan.passwords.map(|[level_1, _]| level_1),
            "offset": plan.offset,
            "windows": windows,
        })
    });
    let file = folder.join("requests.json");
    let requests: Vec<Value> = requests.collect();
    fs::write(&file, serde_json::to_vec(&requests).unwrap()).unwrap();
    let ended = common::run_python("random_read.py", [file.as_path(), folder]);
    let ended: Value = serde_json::from_str(&ended).unwrap();
    let answers = sessions.iter().map(|(plan, _)| {
        let number = plan.number.to_string();
        let ended = &ended[&number];
        let of = |reader: &str| {
            let stem = folder.join(format!("{number}.{reader}"));
            let crashed = ended[reader].as_i64() < Some(0);
            match ended[reader].as_i64() {
                Some(status) if status > 0 || reader == "mef3io" && crashed => Err(format!(
                    "status {status}: {}",
                    ended[format!("{reader}_log")]
                )),
                _ => Ok(load(&stem)),
            }
        };
        Read {
            mef3io: of("mef3io"),
            pymef: of("pymef"),
            crashes: ended["crashes"].as_u64().unwrap(),
        }
    });
    answers.collect()
}

fn load(stem: &Path) -> Answers {
    let with = |extension: &str| format!("{}.{extension}", stem.display());
    let said: Value = serde_json::from_slice(&fs::read(with("json")).unwrap()).unwrap();
    let bytes = fs::read(with("bin")).unwrap();
    let mut rest = bytes.as_slice();
    let by_mef3io = stem.extension().is_some_and(|reader| reader == "mef3io");
    let windows = said["windows"].as_array().unwrap().iter().map(|window| {
        if let Some(error) = window["error"].as_str() {
            return Answer::Error(error.to_owned());
        }
        let Some(columns) = window["columns"].as_u64() else {
            return Answer::Crash;
        };
        let values = take(&mut rest, columns, f64::from_le_bytes);
        let (counts, valid) = if by_mef3io {
            let counts = take(&mut rest, columns, i32::from_le_bytes);
            let valid = take(&mut rest, columns, |[valid]: [u8; 1]| valid != 0);
            (counts, valid)
        } else {
            let counts = take(&mut rest, columns, f64::from_le_bytes);
            let count = |&count: &f64| {
                if count.is_nan() {
                    i32::MIN
                } else {
                    count as i32
                }
            };
            let valid = counts.iter().map(|count| !count.is_nan());
            (counts.iter().map(count).collect(), valid.collect())
        };
        Answer::Samples(Samples {
            values,
            counts,
            valid,
        })
    });
    let windows = windows.collect();
    assert!(rest.is_empty(), "{}", stem.display());
    Answers { said, windows }
}

fn take<T, const N: usize>(rest: &mut &[u8], number: u64, of: fn([u8; N]) -> T) -> Vec<T> {
    let (taken, more) = rest.split_at(number as usize * N);
    *rest = more;
    taken
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&bytes| of(bytes))
        .collect()
}
