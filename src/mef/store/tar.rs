//! The headers of a tar archive: POSIX ustar, GNU and PAX (format section 1.1).
//!
//! Only what places a session's files is read: names, sizes and kinds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header; bodies are padded to a multiple of it.
pub(super) const BLOCK_BYTES: usize = 512;

/// Bytes of a long name or of PAX records that are taken into memory. Those of
/// tar tools, extended attributes included, stay far below.
pub(crate) const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// A POSIX header has a NUL here, and then a prefix to the name; a GNU header
/// has a space, and other things in the prefix's place.
const POSIX_MAGIC: &[u8; 6] = b"ustar\0";

const _: () = assert!(size_of::<RawHeader>() == BLOCK_BYTES);

/// A header as it stands in the archive.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    name: [u8; 100],
    mode: [u8; 8],
    uid: [u8; 8],
    gid: [u8; 8],
    size: [u8; 12],
    mtime: [u8; 12],
    checksum: [u8; 8],
    kind: u8,
    link_name: [u8; 100],
    magic: [u8; 6],
    version: [u8; 2],
    user_name: [u8; 32],
    group_name: [u8; 32],
    device_major: [u8; 8],
    device_minor: [u8; 8],
    prefix: [u8; 155],
    padding: [u8; 12],
}

/// What follows a header, as far as it matters to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file with its bytes.
    File,
    /// A folder; nothing follows.
    Folder,
    /// The name of the next member.
    LongName,
    /// PAX records about the next member.
    PaxRecords,
    /// Facts about other things than the next member's name and size.
    OtherFacts,
    /// A file without its holes.
    Sparse,
    /// A link or device; nothing follows, whatever the size says.
    Bodiless,
    /// A kind that no session has.
    Unknown,
}

impl RawHeader {
    /// Whether this is the block that ends an archive.
    pub(super) fn is_end(&self) -> bool {
        self.as_bytes().iter().all(|&byte| byte == 0)
    }

    /// Whether magic and checksum are those of a header. Some old writers
    /// summed the bytes as signed ones.
    pub(super) fn is_valid(&self) -> bool {
        if !self.magic.starts_with(b"ustar") {
            return false;
        }
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        let summed = Self {
            checksum: [b' '; 8],
            ..self.clone()
        };
        for &byte in summed.as_bytes() {
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let stored = number(&self.checksum).and_then(|sum| i64::try_from(sum).ok());
        stored == Some(unsigned) || stored == Some(signed)
    }

    /// The name with its prefix.
    pub(super) fn name(&self) -> Vec<u8> {
        let mut name = Vec::new();
        let prefix = until_nul(&self.prefix);
        if self.magic == *POSIX_MAGIC && !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
        name.extend_from_slice(until_nul(&self.name));
        name
    }

    /// Bytes of the body; `None` where the field is no number of 64 bits.
    pub(super) fn size(&self) -> Option<u64> {
        number(&self.size)
    }

    /// What follows.
    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            b'0' | 0 | b'7' => Kind::File,
            b'5' => Kind::Folder,
            b'L' => Kind::LongName,
            b'x' => Kind::PaxRecords,
            b'K' | b'g' => Kind::OtherFacts,
            b'S' => Kind::Sparse,
            b'1'..=b'4' | b'6' => Kind::Bodiless,
            _ => Kind::Unknown,
        }
    }
}

/// A field's bytes up to the first NUL, or all of them.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or base 256 after a byte of 0x80. A negative
/// number (first byte 0xFF) is none.
fn number(field: &[u8]) -> Option<u64> {
    let digits = match field {
        [0x80, big_endian @ ..] => {
            return big_endian.iter().try_fold(0_u64, |value, &byte| {
                Some(value.checked_mul(256)? | u64::from(byte))
            });
        }
        _ => until_nul(field).trim_ascii(),
    };
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 8)?;
        value.checked_mul(8)?.checked_add(digit.into())
    })
}

/// What PAX records say of the next member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxRecords {
    /// Its name, if that does not fit its header.
    pub(super) path: Option<Vec<u8>>,
    /// Bytes of its body, if they do not fit its header.
    pub(super) size: Option<u64>,
    /// Its holes are left out.
    pub(super) sparse: bool,
}

impl PaxRecords {
    /// Parses the records `LENGTH KEYWORD=VALUE\n`, where the length is that of
    /// the whole record in decimal. `None` where one contradicts itself. An
    /// empty value takes back what an earlier record said.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        // Some writers fill up with NULs.
        while bytes.first().is_some_and(|&byte| byte != 0) {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
            let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
            let (record, rest) = bytes.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let (keyword, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            match keyword {
                b"path" => records.path = (!value.is_empty()).then(|| value.to_vec()),
                b"size" if value.is_empty() => records.size = None,
                b"size" => records.size = Some(decimal(value)?),
                _ => records.sparse |= keyword.starts_with(b"GNU.sparse."),
            }
            bytes = rest;
        }
        Some(records)
    }
}

/// A decimal number without sign; `None` where it is beyond 64 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}
