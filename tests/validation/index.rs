//! Entries of an index, which say again what the blocks say.

use mef3_server::mef::{BlockError, Problem, ReadError};

use crate::common::forge::{BLOCK, BLOCKS, Forged, counts, put};
use crate::common::patch::units;
use crate::{ABSURD, block_error};

/// Blocks that an entry points away from are found all the same, and it is told.
fn assert_found(forged: &Forged, what: &str) {
    forged.assert_right(what);
    let recording = forged.open();
    let segment = &recording.channels[0].segments[0];
    assert_eq!(segment.index.len(), BLOCKS, "{what}");
    assert!(!forged.findings(false).is_empty(), "{what}");
}

#[test]
fn index_file_offset() {
    let first = Forged::new();
    let (second, length) = units("tdat", &first.bytes("tdat"))[1];
    let end = first.bytes("tdat").len() as i64;
    let length = length as i64;
    let wrong = [
        1023,
        1,
        1024,
        end,
        end - length + 1,
        end - 1,
        second as i64 + 8,
    ];
    for offset in wrong.into_iter().chain(ABSURD) {
        let forged = Forged::new();
        forged.put_in("tidx", 1, 0, offset.to_le_bytes());
        assert_found(&forged, &format!("offset {offset}"));
    }
    // Where the data file ends before the block, nothing can be found.
    let forged = Forged::new();
    forged.patch("tdat", |bytes| bytes.truncate(end as usize - 8));
    let outside = BlockError::OutsideFile {
        offset: (end - length) as u64,
        bytes: length as u32,
        file_bytes: end as u64 - 8,
    };
    assert_eq!(block_error(&forged, 3), outside);
}

#[test]
fn index_block_bytes() {
    let length = units("tdat", &Forged::new().bytes("tdat"))[1].1 as u32;
    for bytes in [
        0,
        1,
        303,
        304,
        length - 8,
        length - 1,
        length + 1,
        length + 8,
        1 << 31,
        u32::MAX,
    ] {
        let forged = Forged::new();
        forged.put_in("tidx", 1, 28, bytes.to_le_bytes());
        let what = format!("{bytes} bytes");
        forged.assert_right(&what);
        let recording = forged.open();
        let segment = &recording.channels[0].segments[0];
        assert_eq!(segment.index.get(1).unwrap().bytes, length, "{what}");
        assert!(!forged.findings(false).is_empty(), "{what}");
    }
    // Where the block says so as well, there is no such block.
    let forged = Forged::new();
    forged.patch_block(1, |block| put(block, 36, 303_u32.to_le_bytes()));
    assert_eq!(block_error(&forged, 1), BlockError::Length(303));
}

#[test]
fn index_order_overlap_duplicates() {
    let entries = |forged: &Forged, edit: &dyn Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>| {
        forged.patch("tidx", |bytes| {
            let old = bytes.split_off(1024);
            let old = old.chunks(56).map(<[u8]>::to_vec).collect();
            bytes.extend(edit(old).concat());
        });
    };
    let forged = Forged::new();
    entries(&forged, &|mut old| {
        old.reverse();
        old
    });
    forged.assert_right("backwards");
    let forged = Forged::new();
    entries(&forged, &|mut old| {
        old.swap(1, 2);
        old
    });
    forged.assert_right("swapped");
    let forged = Forged::new();
    entries(&forged, &|old| [old.clone(), old].concat());
    forged.assert_right("twice");
    let forged = Forged::new();
    entries(&forged, &|old| vec![old[0].clone(); 5000]);
    forged.assert_right("one block five thousand times");
    // Entries into the midst of blocks might be all that is known of others: they
    // are kept, and refused.
    let forged = Forged::new();
    entries(&forged, &|old| {
        let inside = |entry: &Vec<u8>, by: i64| {
            let mut entry = entry.clone();
            let offset = i64::from_le_bytes(entry[..8].try_into().unwrap());
            entry[..8].copy_from_slice(&(offset + by).to_le_bytes());
            entry
        };
        let overlapping = old
            .iter()
            .flat_map(|entry| [entry.clone(), inside(entry, 8), inside(entry, 304)]);
        overlapping.collect()
    });
    assert!(matches!(
        forged.read::<f64>("bad"),
        Err(ReadError::Damaged(_))
    ));
    forged.assert_good("beside entries that overlap");
}

#[test]
fn index_number_of_samples() {
    for samples in [0, 1, 49, 51, 52, 1 << 27, u32::MAX - 1, u32::MAX] {
        for block in [0, 1, 3] {
            let forged = Forged::new();
            forged.put_in("tidx", block, 24, samples.to_le_bytes());
            forged.assert_right(&format!("{samples} samples"));
            let recording = forged.open();
            let index = &recording.channels[0].segments[0].index;
            assert_eq!(index.total_samples(), (BLOCK * BLOCKS) as u64);
            assert_eq!(forged.read::<i32>("bad").unwrap(), counts());
            let found = forged.findings(false);
            let told = |problem: &Problem| {
                let entry = block;
                *problem
                    == Problem::Entry {
                        entry,
                        field: "number of samples",
                    }
            };
            assert!(found.iter().any(|finding| told(&finding.problem)));
        }
    }
}
