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

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;
    use zerocopy::little_endian::{I64, U32};

    use super::*;
    use crate::mef::layout::set_text;

    #[test]
    fn vector_of_section_18_2() {
        let counting = |first: u8| std::array::from_fn(|byte| first + byte as u8);
        let mut header = UniversalHeader::new_zeroed();
        header.body_crc = U32::new(0xD2C2_2F51);
        header.file_type = *b"tdat\0";
        (header.version_major, header.byte_order) = (3, LITTLE_ENDIAN);
        header.start_time = I64::new(-1_600_000_000_000_000);
        header.end_time = I64::new(-1_600_000_010_000_000);
        header.number_of_entries = I64::new(1);
        header.maximum_entry_size = I64::new(10);
        set_text(&mut header.channel_name, "ch1");
        set_text(&mut header.session_name, "sess");
        header.level_uuid = counting(0);
        header.file_uuid = counting(16);
        header.provenance_uuid = counting(16);
        let bytes = header.as_bytes();
        let first: String = bytes[..56]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            first,
            "00000000512fc2d2746461740003000100005cf8ce50faff8069c3f7ce50faff\
             01000000000000000a000000000000000000000063683100"
        );
        assert_eq!(computed_header_crc(&header), 0x3A8A_166D);
        // Zero is no checksum; this one is right, and no other.
        let file = Path::new("ch1.tdat");
        for (crc, right) in [(0, true), (0x3A8A_166D, true), (0x3A8A_166C, false)] {
            header.header_crc = U32::new(crc);
            assert_eq!(header_crc_is_right(&header), right);
            assert_eq!(verify_header_crc(&header, file).is_ok(), right);
        }
        assert!(parse_header(header.as_bytes(), "tdat", file).is_ok());
    }
}
