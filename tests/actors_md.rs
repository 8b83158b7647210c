//! `actors.md` names every message in the code, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of a folder and of those in it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    };
    paths.flat_map(below).collect()
}

/// Types in `src/actors` that derive `Message`.
fn messages_in_code() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/actors");
    let mut messages = BTreeSet::new();
    for file in files_below(&folder) {
        let text = fs::read_to_string(file).unwrap();
        let mut derived = false;
        for line in text.lines() {
            derived |= line.starts_with("#[derive(") && line.contains("Message");
            let declaration = line.strip_prefix("pub(crate) struct ");
            if let Some(name) = declaration.filter(|_| derived) {
                let end = name
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(name.len());
                messages.insert(name[..end].to_owned());
                derived = false;
            }
        }
    }
    messages
}

/// First cells of the tables under "Messages".
fn messages_in_document() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Messages\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let names = section.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some(name.to_owned())
    });
    names.collect()
}

#[test]
fn the_document_names_every_message_and_no_other() {
    let code = messages_in_code();
    assert!(code.len() > 20, "the search found only {code:?}");
    assert_eq!(messages_in_document(), code);
}
