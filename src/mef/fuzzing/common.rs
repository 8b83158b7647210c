//! What several targets need.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use crate::mef::crc::crc32;
use crate::mef::crypto::{Keys, Password};
use crate::mef::error::MefError;
use crate::mef::layout::HEADER_BYTES;
use crate::mef::store::ReadAt;

/// What errors call the file.
pub(super) fn here() -> &'static Path {
    Path::new("fuzzed")
}

/// Bytes as a file, and how much of them was read.
pub(super) struct Counted<'a> {
    pub(super) bytes: &'a [u8],
    /// Calls that read.
    pub(super) reads: Cell<u64>,
    /// Bytes that they asked for and got.
    pub(super) taken: Cell<u64>,
}

impl<'a> Counted<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            reads: Cell::new(0),
            taken: Cell::new(0),
        }
    }
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let filled = self.bytes.read_at(buffer, offset)?;
        // A file is not asked for nothing.
        self.reads
            .set(self.reads.get() + u64::from(!buffer.is_empty()));
        self.taken.set(self.taken.get() + filled as u64);
        Ok(filled)
    }
}

/// Takes control values from the front of an input; zeros after its end.
pub(super) struct Controls<'a>(pub(super) &'a [u8]);

impl<'a> Controls<'a> {
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.take(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }
}

/// Two passwords, and the keys and validation fields of a session with them.
pub(super) struct Secrets {
    pub(super) level_1: Password,
    pub(super) level_2: Password,
    pub(super) other: Password,
    pub(super) keys: Keys,
    pub(super) validation: [[u8; 16]; 2],
}

pub(super) static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let [level_1, level_2, other] =
        ["level1", "level2", "other"].map(|text| Password::new(text).unwrap());
    let (keys, validation) = Keys::for_writing(&level_1, &level_2);
    Secrets {
        level_1,
        level_2,
        other,
        keys,
        validation,
    }
});

/// Puts the checksum in the first four bytes right.
pub(super) fn seal(bytes: &mut [u8]) {
    if let Some((crc, covered)) = bytes.split_first_chunk_mut::<4>() {
        *crc = crc32(covered).to_le_bytes();
    }
}

/// Makes the first bytes of a file a header of this type, with the right
/// checksums. What else it says stays.
pub(super) fn seal_file(file: &mut [u8], file_type: &str) {
    seal_file_up_to(file, file_type, usize::MAX);
}

/// As [`seal_file`], where bytes from `end` on belong to no body.
pub(super) fn seal_file_up_to(file: &mut [u8], file_type: &str, end: usize) {
    let end = end.min(file.len());
    let Some((header, body)) = file[..end].split_at_mut_checked(HEADER_BYTES) else {
        return;
    };
    header[4..8].copy_from_slice(&crc32(body).to_le_bytes());
    header[8..12].copy_from_slice(file_type.as_bytes());
    header[12] = 0;
    // Version 3.0, little-endian.
    header[13..16].copy_from_slice(&[3, 0, 1]);
    seal(header);
}

/// Holds an error to what every error promises: it names the file at fault and
/// says something, and not too much.
pub(super) fn check_error(error: &MefError) {
    assert_eq!(error.file(), here());
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 2048, "{text}");
}

/// Whether text can have come from a field of so many bytes: it has no NUL, and
/// a byte that is no UTF-8 becomes three.
pub(super) fn check_text(text: &str, field_bytes: usize) {
    assert!(!text.contains('\0'));
    assert!(text.len() <= 3 * field_bytes);
}

/// Little-endian, from the front of `bytes`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}
