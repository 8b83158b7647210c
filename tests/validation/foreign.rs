//! Videos, archives and names.

use std::fs;
use std::path::PathBuf;

use mef3_server::mef::{ArchiveError, Malformation, MefError, OpenOptions, open_session};

use crate::common::corpus::folder;
use crate::common::forge::Forged;

#[test]
fn video_file_offset_clip_bytes() {
    let forged = Forged::copy("video_pymef", "cam");
    let video = forged.file("vidx").with_extension("mp4");
    fs::write(&video, vec![0; 90_000]).unwrap();
    let outside = |forged: &Forged| {
        let videos = forged.open().video_channels;
        videos[0].segments[0].clips[1].outside_file
    };
    assert!(!outside(&forged), "50000 + 40000");
    for (offset, bytes, expected) in [
        (50_000, 40_001, true),
        (50_001, 40_000, true),
        (90_000, 0, false),
        (90_001, 0, true),
        (i64::MAX, i64::MAX, true),
        (i64::MAX, 1, true),
        (1, i64::MAX, true),
        (-1, -1, false),
        (-2, 10, true),
        (10, -2, true),
        (i64::MIN, i64::MIN, true),
    ] {
        forged.put_in("vidx", 1, 24, i64::to_le_bytes(offset));
        forged.put_in("vidx", 1, 32, i64::to_le_bytes(bytes));
        assert_eq!(outside(&forged), expected, "{offset} {bytes}");
    }
    // Where there is no video, nothing is said of it.
    fs::remove_file(video).unwrap();
    assert!(!outside(&forged));
    assert_eq!(forged.open().channels.len(), 1);
}

/// The archive of the corpus with an edited header of its first file.
fn edited_archive(edit: impl FnOnce(&mut [u8])) -> Result<usize, MefError> {
    let mut bytes = fs::read(folder().join("tar_archive.mefd.tar")).unwrap();
    let is_file = |header: &&mut [u8]| header[156] == b'0' && &header[257..262] == b"ustar";
    let header = bytes.chunks_mut(512).find(is_file).unwrap();
    edit(header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("edited.mefd.tar");
    fs::write(&path, bytes).unwrap();
    open_session(&path, &OpenOptions::default()).map(|recording| recording.channels.len())
}

fn archive_error(edit: impl FnOnce(&mut [u8])) -> ArchiveError {
    match edited_archive(edit) {
        Err(MefError::Malformed {
            reason: Malformation::Archive(error),
            ..
        }) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tar_sizes_names() {
    let channels = edited_archive(|_| {}).unwrap();
    assert!(channels > 0);
    let sized = |size: [u8; 12]| archive_error(|header| header[124..136].copy_from_slice(&size));
    // The most that octal digits can say.
    let octal = sized(*b"77777777777\0");
    assert!(matches!(octal, ArchiveError::Truncated { .. }), "{octal:?}");
    let big = |leading: u8, rest: [u8; 11]| {
        let mut size = [leading; 12];
        size[1..].copy_from_slice(&rest);
        sized(size)
    };
    // In base 256: beyond the archive, beyond 64 bits, and below zero.
    let mut most = [0; 11];
    most[3..].fill(0xFF);
    for (leading, rest) in [(0x80, [0xFF; 11]), (0xFF, [0xFF; 11])] {
        let error = big(leading, rest);
        assert!(matches!(error, ArchiveError::Size { .. }), "{error:?}");
    }
    let error = big(0x80, most);
    let known = matches!(
        error,
        ArchiveError::Size { .. } | ArchiveError::Truncated { .. }
    );
    assert!(known, "{error:?}");
    let error = sized(*b"not a size!!");
    assert!(matches!(error, ArchiveError::Size { .. }), "{error:?}");

    let named = |name: &[u8]| {
        let name = name.to_vec();
        move |header: &mut [u8]| {
            header[..100].fill(0);
            header[..name.len()].copy_from_slice(&name);
        }
    };
    for name in [
        &b"../etc/passwd"[..],
        b"tar_archive.mefd/../../x",
        b"a/..",
        b"..",
    ] {
        let error = archive_error(named(name));
        assert!(
            matches!(error, ArchiveError::MemberName { .. }),
            "{error:?}"
        );
    }
    // An absolute path is one within the archive.
    let outcome = edited_archive(named(b"/etc/passwd"));
    assert!(outcome.is_ok() || matches!(outcome, Err(MefError::NotASession { .. })));
}

#[test]
fn names_from_headers() {
    let forged = Forged::new();
    let outside = forged.path.parent().unwrap().join("outside");
    let names = [
        "../../../outside",
        "/etc/passwd",
        outside.to_str().unwrap(),
        "good",
        "",
    ];
    for name in names {
        for file in ["tmet", "tidx", "tdat"] {
            forged.patch(file, |bytes| {
                bytes[52..820].fill(0);
                for field in [52, 308, 564] {
                    bytes[field..field + name.len()].copy_from_slice(name.as_bytes());
                }
            });
        }
        let recording = forged.open();
        let channels: Vec<&str> = recording.channels.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            (recording.name.as_str(), channels),
            ("forged", vec!["bad", "good"])
        );
        let stem = &recording.channels[0].segments[0].stem;
        let data: PathBuf = recording.data_file("bad", stem);
        assert_eq!(data, forged.file("tdat"));
        forged.assert_right(name);
        forged.findings(true);
        assert!(!outside.exists());
    }
}
