//! The universal header's checks (format sections 3, 4 and 14).

use std::path::Path;

use zerocopy::{FromBytes, IntoBytes};

use super::crc::{CRC_NOT_COMPUTED, crc32};
use super::error::{Malformation, MefError};
use super::layout::{HEADER_BYTES, UniversalHeader};

const LITTLE_ENDIAN: u8 = 1;
/// Major versions of files that say what they are, or nothing: 0 and 0xFF are "no
/// entry".
const KNOWN_VERSIONS: [u8; 3] = [3, 0, NO_ENTRY];
/// "No entry" for version and byte order.
const NO_ENTRY: u8 = 0xFF;

/// Reads the universal header of a file of the given type ("tmet", "tidx", ...)
/// from the file's first bytes.
///
/// The stored type and byte order are checked; the CRC is [`verify_header_crc`]'s
/// business, since a growing file's is stale by design. Another version is no
/// reason not to read it: see [`verify_version`].
pub(crate) fn parse_header<'a>(
    bytes: &'a [u8],
    file_type: &str,
    file: &Path,
) -> Result<&'a UniversalHeader, MefError> {
    let refuse = |reason| Err(MefError::malformed(file, reason));
    let Ok((header, _)) = UniversalHeader::ref_from_prefix(bytes) else {
        return refuse(Malformation::TooShort {
            need: HEADER_BYTES as u64,
            have: bytes.len() as u64,
        });
    };
    if header.file_type.get(..4) != Some(file_type.as_bytes()) {
        return refuse(Malformation::FileType {
            expected: file_type.into(),
            found: String::from_utf8_lossy(&header.file_type)
                .trim_end_matches('\0')
                .into(),
        });
    }
    if ![LITTLE_ENDIAN, NO_ENTRY].contains(&header.byte_order) {
        return refuse(Malformation::ByteOrder(header.byte_order));
    }
    Ok(header)
}

/// Checks that the header has the major version 3, or none. What others mean is not
/// known: whoever checks a session is told of it, and nothing is added to the file.
pub(crate) fn verify_version(header: &UniversalHeader, file: &Path) -> Result<(), MefError> {
    let version = header.version_major;
    if KNOWN_VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(MefError::malformed(file, Malformation::Version(version)))
}

/// Checks the header's own CRC.
pub(crate) fn verify_header_crc(header: &UniversalHeader, file: &Path) -> Result<(), MefError> {
    if header_crc_is_right(header) {
        return Ok(());
    }
    let (stored, computed) = (header.header_crc.get(), computed_header_crc(header));
    Err(MefError::malformed(
        file,
        Malformation::HeaderCrc { stored, computed },
    ))
}

/// Whether the header is what was written; a stored zero means that there is no
/// CRC.
pub(crate) fn header_crc_is_right(header: &UniversalHeader) -> bool {
    let stored = header.header_crc.get();
    stored == CRC_NOT_COMPUTED || stored == computed_header_crc(header)
}

fn computed_header_crc(header: &UniversalHeader) -> u32 {
    let covered = header.as_bytes().get(size_of::<u32>()..);
    crc32(covered.unwrap_or_default())
}

/// Checks the CRC over `body`, what follows the header and belongs to the
/// format; a stored zero means that there is none.
pub(crate) fn verify_body_crc(
    header: &UniversalHeader,
    body: &[u8],
    file: &Path,
) -> Result<(), MefError> {
    let stored = header.body_crc.get();
    let computed = crc32(body);
    if stored == CRC_NOT_COMPUTED || stored == computed {
        return Ok(());
    }
    Err(MefError::malformed(
        file,
        Malformation::BodyCrc { stored, computed },
    ))
}
