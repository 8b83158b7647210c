//! Archives that no tar tool makes, byte by byte.

use std::io;

use super::tests::everything;
use super::walk::walk;
use super::*;
use crate::mef::error::{ArchiveError, Malformation};
use crate::mef::store::MAX_EXTENSION_BYTES;

pub(super) const HERE: &str = "/place/hostile.mefd.tar";
pub(super) const BLOCK: usize = 512;

/// The field of a size that fits octal digits.
pub(super) fn octal(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[..11].copy_from_slice(format!("{size:011o}").as_bytes());
    field
}

/// A header of the POSIX kind with the checksum that belongs to it.
pub(super) fn header(name: &[u8], kind: u8, size: [u8; 12]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let length = name.len().min(100);
    block[..length].copy_from_slice(&name[..length]);
    block[124..136].copy_from_slice(&size);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut block, |byte| byte.into());
    block
}

/// Puts in the checksum, of bytes that are counted as `value` says.
pub(super) fn sign(block: &mut [u8], value: fn(u8) -> i64) {
    block[148..156].fill(b' ');
    let sum: i64 = block.iter().map(|&byte| value(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A member of any kind with its padded body.
pub(super) fn member(name: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, octal(body.len() as u64));
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

pub(super) fn read(bytes: &[u8]) -> Result<Archive, MefError> {
    Archive::read(bytes, Path::new(HERE))
}

fn refused(bytes: &[u8]) -> ArchiveError {
    match read(bytes) {
        Err(MefError::Malformed {
            file,
            reason: Malformation::Archive(error),
        }) => {
            assert_eq!(file, Path::new(HERE));
            *error
        }
        other => panic!("{other:?}"),
    }
}

/// The files' names, sizes and places of an archive that is readable.
fn files(bytes: &[u8]) -> Vec<(String, u64, u64)> {
    let (files, _) = everything(&read(bytes).unwrap(), Path::new(""));
    let row = |(path, extent): (std::path::PathBuf, Extent)| {
        (
            path.to_str().unwrap().to_owned(),
            extent.offset,
            extent.length,
        )
    };
    files.into_iter().map(row).collect()
}

#[test]
fn headers_need_magic_and_checksum() {
    let good = member(b"S.mefd/S.rdat", b'0', b"abc");
    for place in [0, 99, 124, 148, 156, 257, 261, 344] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        assert_eq!(refused(&bad), ArchiveError::NotTar, "{place}");
        let second = [good.clone(), bad].concat();
        let offset = good.len() as u64;
        assert_eq!(refused(&second), ArchiveError::Header { offset }, "{place}");
    }
    // Of the version and the fields without a meaning here only the sum counts.
    let mut old = good.clone();
    old[263] = b' ';
    old[300] = 0xFF;
    sign(&mut old[..BLOCK], |byte| byte.into());
    assert_eq!(files(&old), files(&good));
    // Without its magic it is a file of the seventh edition.
    old[257..265].fill(0);
    sign(&mut old[..BLOCK], |byte| byte.into());
    assert_eq!(refused(&old), ArchiveError::NotTar);
}

#[test]
fn checksums_of_signed_bytes_count() {
    let mut block = header("S.mefd/é.rdat".as_bytes(), b'0', octal(0));
    let unsigned = block.clone();
    sign(&mut block, |byte| byte.cast_signed().into());
    assert_ne!(block, unsigned);
    assert_eq!(files(&block), files(&unsigned));
    assert_eq!(files(&block), [("é.rdat".into(), 512, 0)]);
}

#[test]
fn prefixes_belong_to_names_only_in_posix_headers() {
    let mut block = header(b"name", b'0', octal(0));
    block[345..357].copy_from_slice(b"14712374113\0");
    sign(&mut block, |byte| byte.into());
    let archive = read(&block).unwrap();
    assert_eq!(archive.session_name(), "14712374113");
    assert!(archive.file(Path::new("name")).is_some());
    // What GNU tar's incremental archives have there is a time.
    block[257..265].copy_from_slice(b"ustar  \0");
    sign(&mut block, |byte| byte.into());
    assert_eq!(files(&block), [("name".into(), 512, 0)]);
    assert_eq!(read(&block).unwrap().session_name(), "hostile");
}

#[test]
fn impossible_sizes_are_refused_with_the_member_s_name() {
    let base_256 = |first: u8, low: [u8; 8], above: u8| {
        let mut field = [0; 12];
        field[0] = first;
        field[3] = above;
        field[4..].copy_from_slice(&low);
        field
    };
    let cases = [
        (*b"0000000008\0\0", None),
        (*b"-0000000001\0", None),
        (*b"00000 00001\0", None),
        (*b"0x0000000010", None),
        // Minus one, other first bytes, and one bit too many.
        ([0xFF; 12], None),
        (base_256(0x81, [0; 8], 0), None),
        (base_256(0xC0, [0; 8], 0), None),
        (base_256(0x80, [0; 8], 1), None),
        (base_256(0x80, [0xFF; 8], 0), Some(u64::MAX)),
        (
            base_256(0x80, u64::MAX.wrapping_sub(511).to_be_bytes(), 0),
            Some(u64::MAX - 511),
        ),
        (
            base_256(0x80, (1_u64 << 63).to_be_bytes(), 0),
            Some(1 << 63),
        ),
        (*b"777777777777", Some((1 << 36) - 1)),
        (*b"00000001001\0", Some(0o1001)),
    ];
    for (field, size) in cases {
        for kind in *b"0\x007LKxgV" {
            let bytes = [header(b"S.mefd/x", kind, field), vec![0; BLOCK]].concat();
            let member = "S.mefd/x".to_owned();
            let expected = match size {
                None => ArchiveError::Size { member },
                Some(bytes) => ArchiveError::Truncated {
                    member,
                    end: bytes.saturating_add(512),
                    archive_bytes: 1024,
                },
            };
            assert_eq!(refused(&bytes), expected, "{field:?} of kind {kind}");
        }
        // Nothing follows a folder or link, whatever the size.
        for kind in *b"123456" {
            assert_eq!(files(&header(b"S.mefd/x", kind, field)), []);
        }
    }
    let fits = [
        (*b"1000        ", 512),
        (*b"     1000\0\0\0", 512),
        (base_256(0x80, 512_u64.to_be_bytes(), 0), 512),
        ([0; 12], 0),
        (*b"            ", 0),
    ];
    for (field, length) in fits {
        let bytes = [header(b"S.mefd/x", b'0', field), vec![0; BLOCK]].concat();
        assert_eq!(files(&bytes), [("x".into(), 512, length)]);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = [b"S.mefd/".as_slice(), &[b'n'; 4090]].concat();
    let refused_names: [&[u8]; 6] = [
        b"..",
        b"../x",
        b"S.mefd/../x",
        b"S.mefd/..",
        b"/../x",
        &long,
    ];
    for name in refused_names {
        let by_name = member(name, b'0', b"");
        let by_record = [pax(name), member(b"short", b'5', b"")].concat();
        let by_long_name = [member(b"long", b'L', name), member(b"short", b'0', b"")].concat();
        let short = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
        let expected = ArchiveError::MemberName { member: short };
        if name.len() <= 100 {
            assert_eq!(refused(&by_name), expected);
        }
        assert_eq!(refused(&by_record), expected);
        assert_eq!(refused(&by_long_name), expected);
    }
    // A name with a NUL is possible in a record only.
    let bytes = [pax(b"S.mefd/x\0y"), member(b"short", b'0', b"")].concat();
    assert!(matches!(refused(&bytes), ArchiveError::MemberName { .. }));
    // Dots within a name are nothing special.
    for name in ["S.mefd/..x", "S.mefd/x..", "S.mefd/...", "./S.mefd//./x/"] {
        assert_eq!(
            files(&member(name.as_bytes(), b'0', b"")).len(),
            1,
            "{name}"
        );
    }
    // The archive's own top is no member.
    for name in ["", "/", "./", ".//."] {
        let bytes = [
            member(name.as_bytes(), b'5', b""),
            member(b"S.mefd/x", b'0', b""),
        ]
        .concat();
        assert_eq!(files(&bytes), [("x".into(), 1024, 0)]);
    }
}

/// A member of PAX records that names the next one.
pub(super) fn pax(path: &[u8]) -> Vec<u8> {
    member(b"PaxHeaders/x", b'x', &record(b"path", path))
}

/// A record with the length that belongs to it.
fn record(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let length = (rest..)
        .find(|length| *length == rest + length.to_string().len())
        .unwrap();
    let start = format!("{length} ");
    [start.as_bytes(), keyword, b"=", value, b"\n"].concat()
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let bad: [&[u8]; 18] = [
        b"99999999999999999999999 path=x\n",
        b"18446744073709551615 path=x\n",
        b"11 path=x\n",
        b"8 path=x\n",
        b"0 path=x\n",
        b"1 path=x\n",
        b"2 path=x\n",
        b" path=x\n",
        b"-10 path=x\n",
        b"+10 path=x\n",
        b"10",
        b"10 ",
        b"9 pathx \n",
        b"10 path=x ",
        b"path=x\n",
        b"11 size=-1\n",
        b"31 size=99999999999999999999999\n",
        b"13 size=0x10\n",
    ];
    for records in bad {
        let bytes = [member(b"x", b'x', records), member(b"S.mefd/f", b'0', b"")].concat();
        let shown = String::from_utf8_lossy(records).into_owned();
        assert_eq!(
            refused(&bytes),
            ArchiveError::ExtendedHeader { offset: 512 },
            "{shown}"
        );
        // What is not about the next member is not looked at.
        let bytes = [member(b"x", b'g', records), member(b"S.mefd/f", b'0', b"")].concat();
        assert_eq!(files(&bytes), [("f".into(), 1536, 0)], "{shown}");
    }
}

#[test]
fn records_apply_to_the_next_member_only() {
    let next = |records: &[&[u8]], kind, body: &[u8]| {
        let records = member(b"x", b'x', &records.concat());
        let bytes = [
            records,
            member(b"global", b'g', &record(b"path", b"S.mefd/global")),
            member(b"link", b'K', b"S.mefd/target"),
            member(b"S.mefd/f", kind, body),
            member(b"S.mefd/after", b'0', b""),
        ];
        files(&bytes.concat())
    };
    let at = 512 * 7;
    let after = |offset| ("after".to_owned(), offset, 0);
    let path = record(b"path", b"S.mefd/by record");
    let size = record(b"size", b"00513");
    assert_eq!(
        next(&[&path], b'0', b""),
        [after(at + 512), ("by record".into(), at, 0)]
    );
    // The header's own size may be whatever did not fit it.
    assert_eq!(
        next(&[&size, b"\0\0"], b'0', &[1; 600]),
        [after(at + 1536), ("f".into(), at, 513)]
    );
    // An empty value takes a record back.
    let taken_back = [
        path.clone(),
        record(b"path", b""),
        size.clone(),
        record(b"size", b""),
    ];
    let taken_back: Vec<&[u8]> = taken_back.iter().map(Vec::as_slice).collect();
    assert_eq!(
        next(&taken_back, b'0', b"abc"),
        [after(at + 1024), ("f".into(), at, 3)]
    );
    // A link uses them up, and has no body in any case.
    assert_eq!(next(&[&path, &size], b'2', b""), [after(at + 512)]);
}

#[test]
fn extensions_beyond_the_limit_are_refused() {
    let limit = usize::try_from(MAX_EXTENSION_BYTES).unwrap();
    for kind in [b'x', b'L'] {
        let bytes = member(b"long", kind, &vec![b'1'; limit + 1]);
        let expected = ArchiveError::ExtendedHeaderTooLong {
            offset: 512,
            bytes: MAX_EXTENSION_BYTES + 1,
        };
        assert_eq!(refused(&bytes), expected);
    }
    let value = vec![b'v'; limit - 30];
    let large = member(b"x", b'x', &record(b"SCHILY.xattr", &value));
    let bytes = [large, member(b"S.mefd/f", b'0', b"")].concat();
    assert_eq!(files(&bytes).len(), 1);
}

/// An archive of one header, again and again.
struct Endless(Vec<u8>);

impl ReadAt for Endless {
    fn size(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
        let length = buffer.len().min(self.0.len());
        buffer[..length].copy_from_slice(&self.0[..length]);
        Ok(length)
    }
}

#[test]
fn archives_without_an_end_are_refused() {
    for kind in *b"05Lxg1V" {
        let endless = Endless(header(b"S.mefd/x", kind, octal(0)));
        for limit in [1, 1000] {
            let error = walk(&endless, Path::new(HERE), limit).unwrap_err();
            let expected = MefError::malformed(
                Path::new(HERE),
                ArchiveError::TooManyMembers { limit }.into(),
            );
            assert_eq!(error, expected);
        }
    }
    // As many as the limit are fine.
    let bytes = member(b"S.mefd/x", b'0', b"").repeat(10);
    let Walked { members, .. } = walk(bytes.as_slice(), Path::new(HERE), 10).unwrap();
    assert_eq!(members.len(), 10);
}

/// A file that shrinks or breaks after its size was asked.
struct Failing(Option<io::ErrorKind>);

impl ReadAt for Failing {
    fn size(&self) -> io::Result<u64> {
        Ok(4096)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        self.0.map_or(Ok(100), |kind| Err(kind.into()))
    }
}

#[test]
fn failures_of_the_file_are_told_from_damage() {
    let shrunk = Archive::read(&Failing(None), Path::new(HERE)).unwrap_err();
    assert_eq!(shrunk, MefError::Changed { file: HERE.into() });
    let broken = Failing(Some(io::ErrorKind::TimedOut));
    let broken = Archive::read(&broken, Path::new(HERE)).unwrap_err();
    assert!(matches!(broken, MefError::Io { path, .. } if path == Path::new(HERE)));
}

#[test]
fn archives_end_where_a_tar_tool_says_they_do() {
    let bodies: [(&[u8], usize); 4] = [(b"a", 0), (b"b", 1), (b"c", 512), (b"d", 1300)];
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    for (name, length) in bodies {
        let start = bytes.len();
        bytes.extend(member(&[b"S.mefd/", name].concat(), b'0', &vec![1; length]));
        places.push((start + BLOCK, start + BLOCK + length));
    }
    let whole = bytes.len();
    bytes.resize(whole + 3 * BLOCK, 0);
    // What stands after the end does not count.
    bytes.extend(member(b"S.mefd/e", b'0', b""));
    for length in 0..=bytes.len() {
        let cut = &bytes[..length];
        let torn = places
            .iter()
            .find(|(body, end)| *body <= length && length < *end);
        let found = places
            .iter()
            .filter(|(body, end)| *body <= length && *end <= length);
        match (torn, length) {
            (Some(_), _) => assert!(matches!(refused(cut), ArchiveError::Truncated { .. })),
            (None, 1..BLOCK) => assert_eq!(refused(cut), ArchiveError::NotTar),
            (None, _) => {
                assert_eq!(files(cut).len(), found.count(), "{length}");
                let is_whole = read(cut).unwrap().is_whole();
                assert_eq!(is_whole, length >= whole + BLOCK, "{length}");
            }
        }
    }
    // An archive of nothing, and one that was never written.
    for nothing in [0, 100, 512, 1024] {
        assert_eq!(files(&vec![0; nothing]), []);
    }
    assert_eq!(read(&[]).unwrap().session_name(), "hostile");
}

#[test]
fn only_whole_archives_are_called_compressed() {
    let zstd = [0x28, 0xB5, 0x2F, 0xFD, 0, 0];
    assert_eq!(refused(&zstd), ArchiveError::Compressed("zstd".into()));
    // A folder may be called like anything.
    assert_eq!(files(&member(b"BZh9.mefd/x", b'0', b"")).len(), 1);
}

#[test]
fn of_equal_names_the_last_counts_whatever_its_kind() {
    let both = |first, second| {
        let more = member(b"S.mefd/z", b'0', b"");
        files(
            &[
                member(b"S.mefd/a", first, b""),
                more,
                member(b"S.mefd/a", second, b""),
            ]
            .concat(),
        )
    };
    let z = || ("z".to_owned(), 1024, 0);
    assert_eq!(both(b'0', b'5'), [z()]);
    assert_eq!(both(b'5', b'0'), [("a".into(), 1536, 0), z()]);
    assert_eq!(both(b'0', b'7'), [("a".into(), 1536, 0), z()]);
    // A link does not replace what it stands for.
    assert_eq!(both(b'0', b'1'), [("a".into(), 512, 0), z()]);
    // What others are below is a folder.
    let bytes = [
        member(b"S.mefd/a/b", b'0', b""),
        member(b"S.mefd/a", b'0', b""),
    ]
    .concat();
    let archive = read(&bytes).unwrap();
    assert_eq!(
        archive.list(Path::new("")),
        [("a".into(), ItemKind::Folder)]
    );
}
