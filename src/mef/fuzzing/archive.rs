//! Session archives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::common::Counted;
use crate::mef::error::MefError;
use crate::mef::store::{Archive, ItemKind};

const BLOCK: usize = 512;
const NAME: &str = "fuzzed.mefd.tar";
/// Levels of folders that are walked through: names may have thousands.
const MOST_LEVELS: usize = 8;

/// The input is an archive. The magic and the checksums of its headers are put
/// right, but for those that say otherwise.
pub fn archive(input: &[u8]) {
    let mut archive = input.to_vec();
    seal_headers(&mut archive);
    survives(&archive);
}

/// Puts every header right, as far as bodies can be stepped over. A block that
/// says so in bytes that nobody reads stays as it is.
fn seal_headers(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        let ends = block.iter().all(|&byte| byte == 0);
        let raw = block[511] == b'!';
        if ends || raw {
            at += BLOCK;
            continue;
        }
        if !block[257..].starts_with(b"ustar") {
            block[257..263].copy_from_slice(b"ustar\0");
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = std::str::from_utf8(&block[124..135]).unwrap_or_default();
        let digits = digits.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(digits, 8).unwrap_or(0);
        let has_body = !matches!(block[156], b'1'..=b'6');
        at += BLOCK;
        if has_body && size <= archive.len() {
            at += size.next_multiple_of(BLOCK);
        }
    }
}

/// Whatever the bytes are, each is read once at most, and all that is found lies
/// within them.
fn survives(bytes: &[u8]) {
    let data = Counted::new(bytes);
    let archive = Archive::read(&data, Path::new(NAME));
    assert!(data.taken.get() <= bytes.len() as u64);
    assert!(data.reads.get() <= (bytes.len() / BLOCK + 1) as u64);
    let archive = match archive {
        Ok(archive) => archive,
        Err(error) => {
            assert_eq!(error.file(), Path::new(NAME));
            assert!(matches!(error, MefError::Malformed { .. }), "{error}");
            // A name that cannot be shown is shown as three bytes for one.
            assert!(error.to_string().len() < 2048);
            return;
        }
    };
    assert!(archive.memory() <= 2 * bytes.len());
    let mut files = 0;
    walk(
        &archive,
        Path::new(""),
        MOST_LEVELS,
        bytes.len() as u64,
        &mut files,
    );
    assert!(files <= bytes.len() / BLOCK);
    for outside in ["..", "/", "../a", "/etc/passwd", "a/../../b"] {
        assert!(archive.file(Path::new(outside)).is_none());
        assert!(archive.list(Path::new(outside)).is_empty());
    }
    let again = Archive::read(&Counted::new(bytes), Path::new(NAME)).expect("as before");
    assert_eq!(again.session_name(), archive.session_name());
    assert_eq!(again.list(Path::new("")), archive.list(Path::new("")));
}

/// Goes through a folder: what it lists is there, once, and in order.
fn walk(archive: &Archive, folder: &Path, levels: usize, size: u64, files: &mut usize) {
    let items = archive.list(folder);
    assert!(items.is_sorted_by(|(a, _), (b, _)| a < b));
    for (name, kind) in items {
        assert!(is_component(&name), "{name:?}");
        let path = folder.join(&name);
        match kind {
            ItemKind::File => {
                *files += 1;
                let extent = archive.file(&path).expect("it is listed");
                assert!(extent.offset >= BLOCK as u64);
                assert!(extent.offset + extent.length <= size);
                assert!(extent.offset.is_multiple_of(BLOCK as u64));
            }
            ItemKind::Folder if levels > 0 => walk(archive, &path, levels - 1, size, files),
            ItemKind::Folder => {}
        }
    }
}

fn is_component(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/')
}
