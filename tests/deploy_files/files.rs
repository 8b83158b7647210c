//! The files themselves, as far as the tests look into them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file below `config/`, or beside it.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All documents of a text in YAML.
pub fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The only document of a file.
pub fn document(name: &str) -> Value {
    let mut documents = documents(&text(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The object of a kind and a name among those for Kubernetes.
pub fn object(kind: &str, name: &str) -> Value {
    let files = [
        "config/kubernetes/mef3-server.yaml",
        "config/kubernetes/envoy.yaml",
    ];
    let all = files.iter().flat_map(|file| documents(&text(file)));
    let mut found = all.filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// All values under a key, wherever it stands.
pub fn all_under<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(map) => {
            let own = map.get(key).into_iter();
            own.chain(map.values().flat_map(|it| all_under(it, key)))
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(|it| all_under(it, key)).collect(),
        _ => Vec::new(),
    }
}

pub fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

pub fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The lines of a file of instructions that begin with a word, without it.
pub fn instructions<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines
        .filter_map(|rest| rest.strip_prefix(' '))
        .map(str::trim)
        .collect()
}

/// The value of a setting of a unit.
pub fn of_unit<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(key));
    lines.filter_map(|rest| rest.strip_prefix('=')).collect()
}
