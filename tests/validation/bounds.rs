//! The time and the memory that it takes to refuse what is hostile: bounded by its
//! size, whatever its numbers claim.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mef3_server::mef::{Malformation, NewRecord, RecordBody, RecordError, RecordType};

use crate::common::corpus::folder;
use crate::common::forge::{Forged, START, put, values};
use crate::common::patch::units;
use crate::refusal;

/// Longest run of the program.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Address space of the program, its code included, in KiB: a block of 2^27 samples
/// alone would take twice as much.
const ADDRESS_SPACE_KIB: u64 = 256 * 1024;

/// Runs the program on a session, bounded in memory and time. A machine that is busy
/// gets three tries.
fn run(command: &str, path: &Path, flags: &[&str]) -> Output {
    for _ in 0..3 {
        let begun = Instant::now();
        let output = bounded(command, path, flags);
        if begun.elapsed() < TIME_LIMIT {
            return output;
        }
    }
    panic!("{command} {flags:?} takes longer than {TIME_LIMIT:?}");
}

fn bounded(command: &str, path: &Path, flags: &[&str]) -> Output {
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -v "$0" && exec "$@""#])
        .arg(ADDRESS_SPACE_KIB.to_string())
        .arg(env!("CARGO_BIN_EXE_mef3-server"))
        .arg(command)
        .arg(path)
        .args(flags)
        .env_remove("MEF3_PASSWORD")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    // Not killed, and not for want of memory.
    let status = output.status.code();
    assert!(
        matches!(status, Some(0 | 1)),
        "{command} {flags:?}: {error}"
    );
    assert!(!error.contains("memory"), "{command} {flags:?}: {error}");
    output
}

/// All that looks at a session ends soon and in little memory; the other channel is
/// read right.
fn assert_bounded(forged: &Forged) {
    for (command, flags) in [
        ("info", &[][..]),
        ("info", &["--json"]),
        ("info", &["--deep"]),
        ("info", &["--records", "--json"]),
        ("check", &[]),
        ("check", &["--deep"]),
        ("read", &["--channel", "bad", "--end", "1600000001000000"]),
    ] {
        run(command, &forged.path, flags);
    }
    let good = run(
        "read",
        &forged.path,
        &["--channel", "good", "--format", "f64"],
    );
    let (chunks, _) = good.stdout.as_chunks::<8>();
    let read: Vec<f64> = chunks
        .iter()
        .map(|&bytes| f64::from_le_bytes(bytes))
        .collect();
    assert_eq!(read, values());
}

#[test]
fn blocks_that_claim_to_hold_years_are_refused_in_little_memory() {
    for samples in [1 << 27, (1 << 24) + 1, u32::MAX] {
        let forged = Forged::of(&[7]);
        forged.patch_block(0, |block| {
            put(block, 28, samples.saturating_add(4).to_le_bytes());
            put(block, 32, samples.to_le_bytes());
        });
        forged.put_in("tidx", 0, 24, samples.to_le_bytes());
        assert_bounded(&forged);
    }
}

#[test]
fn numbers_of_headers_and_entries_cost_nothing() {
    let forged = Forged::new();
    for file in ["tmet", "tidx", "tdat"] {
        forged.put(file, 32, i64::MAX.to_le_bytes());
        forged.put(file, 40, i64::MAX.to_le_bytes());
    }
    forged.patch("tmet", |bytes| bytes[8912..8992].fill(0x7F));
    for (offset, value) in [(0, i64::MAX), (24, -1), (8, i64::MAX)] {
        forged.put_in("tidx", 1, offset, value.to_le_bytes());
    }
    assert_bounded(&forged);
    // A time that makes the recording hundreds of thousands of years long.
    forged.patch_block(3, |block| put(block, 40, i64::MAX.to_le_bytes()));
    forged.put_in("tidx", 3, 8, i64::MAX.to_le_bytes());
    assert_bounded(&forged);
}

#[test]
fn an_index_of_one_block_over_and_over_is_bounded() {
    let forged = Forged::new();
    forged.patch("tidx", |bytes| {
        let entry = bytes[1024..1080].to_vec();
        bytes.truncate(1024);
        bytes.extend(entry.repeat(5_000));
    });
    assert_bounded(&forged);
}

#[test]
fn an_index_far_longer_than_its_data_is_not_read() {
    let forged = Forged::new();
    let index = File::options()
        .write(true)
        .open(forged.file("tidx"))
        .unwrap();
    // Almost none of it is on the disk.
    index.set_len(1 << 40).unwrap();
    drop(index);
    forged.settle();
    // A check reads every byte that there is.
    for flags in [&["--json"][..], &["--deep"]] {
        run("info", &forged.path, flags);
    }
    run("read", &forged.path, &["--channel", "good"]);
    let refused = refusal(&forged);
    let too_long = Malformation::IndexTooLong {
        have: 1 << 40,
        most: 1024 + 56 * ((1 << 20) + forged.bytes("tdat").len() as u64 / 304),
    };
    assert_eq!(refused, too_long);
}

#[test]
fn counts_and_lengths_of_records_cost_nothing() {
    let seizure = RecordBody::Unknown(vec![0x7F; 1312]);
    let template = RecordBody::Unknown(vec![0x7F; 64]);
    let records = [
        NewRecord::new(RecordType::SEIZ, START, seizure),
        NewRecord::new(RecordType::LNTP, START, template),
        NewRecord::note(START, "last"),
    ];
    let forged = Forged::new().with_records(&records);
    assert_bounded(&forged);
    let (last, _) = units("rdat", &forged.bytes("rdat"))[2];
    for bytes in [u32::MAX, 1 << 31, 1 << 20] {
        forged.spoil("rdat", |file| put(file, last + 12, bytes.to_le_bytes()));
        forged.put("ridx", 32, i64::MAX.to_le_bytes());
        assert_bounded(&forged);
    }
    // A body that is there as far as the size of the file goes.
    let data = File::options()
        .write(true)
        .open(forged.file("rdat"))
        .unwrap();
    data.set_len(1 << 33).unwrap();
    drop(data);
    forged.spoil_start("rdat", last + 12, &0x7000_0000_u32.to_le_bytes());
    forged.settle();
    let page = forged.records(None);
    assert!(
        page.damaged
            .iter()
            .any(|damaged| { damaged.error == RecordError::TooLong(0x7000_0000) })
    );
    run("info", &forged.path, &["--json"]);
    run("info", &forged.path, &["--records", "--json"]);
}

#[test]
fn sizes_of_archive_members_cost_nothing() {
    let archive = folder().join("tar_archive.mefd.tar");
    let bytes = fs::read(archive).unwrap();
    let copies = tempfile::tempdir().unwrap();
    let path = copies.path().join("edited.mefd.tar");
    for (kind, size) in [
        (b'0', *b"77777777777\0"),
        (b'L', *b"77777777777\0"),
        (b'x', *b"00077777777\0"),
    ] {
        let mut bytes = bytes.clone();
        let is_file = |header: &&mut [u8]| header[156] == b'0' && &header[257..262] == b"ustar";
        let header = bytes.chunks_mut(512).find(is_file).unwrap();
        header[156] = kind;
        header[124..136].copy_from_slice(&size);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        fs::write(&path, bytes).unwrap();
        let output = run("info", &path, &[]);
        assert_eq!(output.status.code(), Some(1));
    }
}
