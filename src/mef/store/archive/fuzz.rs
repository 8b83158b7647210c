//! Archives of random bytes, damaged ones, and random ones without a fault.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::hostile::{BLOCK, HERE, header, member, octal, pax, read, sign};
use super::tests::everything;
use super::*;

/// Counts what is read.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: Cell<usize>,
    taken: Cell<usize>,
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        self.taken.set(self.taken.get() + buffer.len());
        self.bytes.read_at(buffer, offset)
    }
}

/// Reads any bytes; whatever they are, each is read once at most and all that
/// is found lies within them.
fn survives(bytes: &[u8]) {
    let counted = Counted {
        bytes,
        reads: Cell::new(0),
        taken: Cell::new(0),
    };
    let archive = Archive::read(&counted, Path::new(HERE));
    assert!(counted.taken.get() <= bytes.len());
    assert!(counted.reads.get() <= bytes.len() / BLOCK + 1);
    if let Ok(archive) = archive {
        assert!(archive.memory() <= 2 * bytes.len());
        let (files, _) = everything(&archive, Path::new(""));
        for extent in files.values() {
            assert!(extent.offset + extent.length <= bytes.len() as u64);
        }
    }
}

/// A name of a few short components, so that names meet.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        Just(b"S.mefd".to_vec()),
        Just(b"a.timd".to_vec()),
        Just(b"a-".to_vec()),
        Just(b"a".to_vec()),
        Just(b"\xFF".to_vec()),
        Just("é".repeat(70).into_bytes()),
    ];
    prop::collection::vec(component, 1..4).prop_map(|components| components.join(&b'/'))
}

/// Files and folders in the order of an archive.
fn any_members() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Vec<u8>>)>> {
    let body = prop::option::of(prop::collection::vec(any::<u8>(), 0..700));
    prop::collection::vec((any_name(), body), 0..12)
}

fn archive_of(members: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (name, body)) in members.iter().enumerate() {
        if number % 2 == 0 {
            bytes.extend(member(b"long", b'L', name));
        } else {
            bytes.extend(pax(name));
        }
        let kind = if body.is_some() { b'0' } else { b'5' };
        bytes.extend(member(b"short", kind, body.as_deref().unwrap_or_default()));
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        kind in prop::sample::select(b"0\x00157LKxgSV".to_vec()),
        size in 0_u64..4000,
    ) {
        survives(&bytes);
        survives(&[header(&bytes, kind, octal(size)), bytes.clone()].concat());
    }

    #[test]
    fn damaged_archives_do_no_harm(
        members in any_members(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        signed in any::<bool>(),
    ) {
        let mut bytes = archive_of(&members);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            // With its checksum put right the damage is believed.
            let block = &mut bytes[place / BLOCK * BLOCK..][..BLOCK];
            if signed && block[257..262] == *b"ustar" {
                sign(block, |byte| byte.into());
            }
        }
        survives(&bytes);
    }

    #[test]
    fn the_last_member_of_a_name_is_found(members in any_members()) {
        let bytes = archive_of(&members);
        survives(&bytes);
        let expected: BTreeMap<&[u8], Option<&[u8]>> = members
            .iter()
            .map(|(name, body)| (name.as_slice(), body.as_deref()))
            .collect();
        let archive = read(&bytes).unwrap();
        let mut root = archive.session_name().as_bytes().to_vec();
        if root == b"hostile" {
            root.clear();
        } else {
            if root == b"S" {
                root.extend_from_slice(b".mefd");
            }
            root.push(b'/');
        }
        for (name, body) in expected {
            let Some(below) = name.strip_prefix(root.as_slice()) else {
                // Only folders stand beside the root.
                prop_assert_eq!(body, None);
                continue;
            };
            let found = archive.file(Path::new(OsStr::from_bytes(below))).map(|extent| {
                let start = usize::try_from(extent.offset).unwrap();
                &bytes[start..][..usize::try_from(extent.length).unwrap()]
            });
            prop_assert_eq!(found, body);
        }
    }
}
