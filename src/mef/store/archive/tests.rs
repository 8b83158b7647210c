//! Archives by other programs: Python's tarfile, the system's tar and mef3io.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::mef::error::{ArchiveError, Malformation};
use crate::mef::peers::run_python;

/// Archives, and what other programs say of them.
struct Archives {
    truth: Value,
    bytes: BTreeMap<String, Vec<u8>>,
}

static ARCHIVES: LazyLock<Archives> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let printed = run_python("make_archives.py", [folder.path(), &corpus_archive()]);
    let truth: Value = serde_json::from_str(&printed).unwrap();
    let bytes = ["listed", "roots", "refused"]
        .into_iter()
        .flat_map(|list| truth[list].as_array().unwrap())
        .map(|case| case["path"].as_str().unwrap().to_owned())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    Archives { truth, bytes }
});

fn cases(list: &str, at_least: usize) -> &'static [Value] {
    let cases = ARCHIVES.truth[list].as_array().unwrap();
    assert!(cases.len() >= at_least, "only {} {list}", cases.len());
    cases
}

fn read(case: &Value) -> Result<Archive, MefError> {
    let path = case["path"].as_str().unwrap();
    Archive::read(ARCHIVES.bytes[path].as_slice(), Path::new(path))
}

fn corpus_archive() -> PathBuf {
    let corpus =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-corpus/tar_archive.mefd.tar");
    assert!(
        corpus.is_file(),
        "the reference corpus is missing: expected {}",
        corpus.display()
    );
    corpus
}

fn unhex(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn path(hex: &Value) -> PathBuf {
    OsString::from_vec(unhex(hex)).into()
}

/// All files and folders below a folder, as the table lists them.
pub(super) fn everything(
    archive: &Archive,
    folder: &Path,
) -> (BTreeMap<PathBuf, Extent>, BTreeSet<PathBuf>) {
    let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::new());
    let items = archive.list(folder);
    assert!(items.is_sorted_by(|a, b| a.0 < b.0));
    for (name, kind) in items {
        let path = folder.join(name);
        if kind == ItemKind::File {
            files.insert(path.clone(), archive.file(&path).unwrap());
        } else {
            let below = everything(archive, &path);
            files.extend(below.0);
            folders.extend(below.1);
            folders.insert(path);
        }
    }
    (files, folders)
}

#[test]
fn members_are_those_of_tarfile_in_every_dialect() {
    for case in cases("listed", 54) {
        let archive = read(case).unwrap();
        let (files, folders) = everything(&archive, Path::new(""));
        let name = &case["path"];
        let expected: BTreeMap<PathBuf, Extent> = case["files"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, place)| {
                let extent = Extent {
                    offset: place[0].as_u64().unwrap(),
                    length: place[1].as_u64().unwrap(),
                };
                (path(&Value::from(name.as_str())), extent)
            })
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(files, expected, "{name}");
        let expected = case["folders"]
            .as_array()
            .unwrap()
            .iter()
            .map(path)
            .collect();
        assert_eq!(folders, expected, "{name}");
        assert_eq!(archive.session_name(), path(&case["session"]), "{name}");
        assert!(archive.memory() > 0);
    }
}

#[test]
fn roots_and_names_are_those_of_mef3io() {
    for case in cases("roots", 8) {
        let archive = read(case).unwrap();
        let channels: Vec<String> = archive
            .list(Path::new(""))
            .into_iter()
            .filter_map(|(name, _)| Some(name.to_str()?.strip_suffix(".timd")?.to_owned()))
            .collect();
        assert_eq!(case["channels"], Value::from(channels), "{case}");
        assert_eq!(case["session"], archive.session_name().to_str().unwrap());
    }
}

#[test]
fn what_cannot_be_read_in_place_is_refused_by_its_reason() {
    for case in cases("refused", 8) {
        let Err(MefError::Malformed { file, reason }) = read(case) else {
            panic!("{case} was not refused");
        };
        assert_eq!(file.to_str(), case["path"].as_str());
        let Malformation::Archive(error) = reason else {
            panic!("{case}: {reason}");
        };
        match (case["reason"].as_str().unwrap(), *error) {
            ("sparse", ArchiveError::Sparse { member }) => {
                assert!(member.contains("S.rdat"), "{member}");
            }
            ("not tar", ArchiveError::NotTar) => {}
            (compression, ArchiveError::Compressed(name)) => assert_eq!(name, compression),
            (_, error) => panic!("{case}: {error}"),
        }
    }
}

/// Pieces at their places, with nothing but zeros between.
struct Pieces(Vec<(u64, Vec<u8>)>);

impl ReadAt for Pieces {
    fn size(&self) -> io::Result<u64> {
        Ok(1 << 50)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        buffer.fill(0);
        for (start, piece) in &self.0 {
            let skipped = offset.checked_sub(*start).map(usize::try_from);
            if let Some(rest) = skipped.and_then(|skipped| piece.get(skipped.ok()?..)) {
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
            }
        }
        Ok(buffer.len())
    }
}

#[test]
fn sizes_beyond_octal_are_those_that_tarfile_wrote() {
    for case in cases("huge", 2) {
        let header = unhex(&case["header"]);
        let (offset, length) = (header.len() as u64, case["size"].as_u64().unwrap());
        let pieces = Pieces(vec![(0, header), (offset + length, unhex(&case["after"]))]);
        let archive = Archive::read(&pieces, Path::new("huge.mefd.tar")).unwrap();
        let huge = archive.file(Path::new("huge"));
        assert_eq!(huge, Some(Extent { offset, length }));
        let after = archive.file(Path::new("after")).unwrap();
        assert_eq!(after.offset, offset + length + 512);
    }
}

#[test]
fn members_of_the_corpus_archive_are_readable_where_the_table_says() {
    let corpus =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-corpus/tar_archive.mefd.tar");
    let bytes = fs::read(&corpus).unwrap();
    let archive = Archive::read(bytes.as_slice(), &corpus).unwrap();
    let (files, _) = everything(&archive, Path::new(""));
    assert_eq!(files.len(), 8);
    let mut contents = BTreeSet::new();
    for (path, extent) in files {
        let start = usize::try_from(extent.offset).unwrap();
        let body = &bytes[start..][..usize::try_from(extent.length).unwrap()];
        // Each begins with a universal header of the type that its name says,
        // and its body CRC is over just these bytes.
        let kind = path.extension().unwrap().as_bytes();
        assert_eq!(&body[8..12], kind, "{}", path.display());
        let stored = u32::from_le_bytes(body[4..8].try_into().unwrap());
        assert_eq!(stored, crate::mef::crc::crc32(&body[1024..]));
        contents.insert(Sha256::digest(body));
    }
    assert_eq!(contents.len(), 8);
}

#[test]
fn names_of_archives_end_with_mefd_tar_in_any_case() {
    let stem = |name: &str| archive_stem(Path::new(name)).map(OsStr::to_os_string);
    assert_eq!(stem("/a/b.c.mefd.tar"), Some("b.c".into()));
    assert_eq!(stem("B.MEFD.Tar"), Some("B".into()));
    for name in ["b.tar", "b.mefd", "b.mefd.tar.gz", "tar", "/", "é"] {
        assert_eq!(stem(name), None, "{name}");
        let error = Archive::read([].as_slice(), Path::new(name)).unwrap_err();
        assert!(matches!(error, MefError::NotASession { .. }));
    }
}

#[test]
fn paths_that_leave_the_session_find_nothing() {
    let archive = read(&cases("listed", 1)[0]).unwrap();
    let inside = Path::new("t1.timd");
    assert_eq!(
        archive.list(inside),
        archive.list(&Path::new(".").join(inside))
    );
    assert_eq!(archive.list(inside).len(), 1);
    for outside in [
        "..",
        "/",
        "/t1.timd",
        "t1.timd/..",
        "t1",
        "tar_archive.rdat",
    ] {
        assert_eq!(archive.list(Path::new(outside)), [], "{outside}");
    }
    for no_file in [
        "",
        "t1.timd",
        "../tar_archive.rdat",
        "/tar_archive.rdat",
        "tar_archive.rda",
    ] {
        assert_eq!(archive.file(Path::new(no_file)), None, "{no_file}");
    }
}
