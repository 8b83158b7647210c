//! Inputs to begin with, made of the reference corpus.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::index::{self, CONTROL_BYTES};
use super::records;
use super::session::tar_header;
use crate::mef::layout::{BLOCK_HEADER_BYTES, HEADER_BYTES, INDEX_ENTRY_BYTES};

/// Blocks of one input for the index, and what is kept of the data of each.
const MOST_BLOCKS: usize = 8;
const BLOCK_BYTES: usize = BLOCK_HEADER_BYTES + 8;
/// Bytes of a block that decoding begins with.
const MOST_BLOCK_BYTES: usize = 2048;
/// Bytes of a file in an archive, whose contents nobody reads.
const MOST_MEMBER_BYTES: usize = 24;

/// An input for a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// Name of the target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
}

/// All inputs that the corpus gives, each once.
///
/// # Errors
/// Where the corpus cannot be read.
pub fn seeds(corpus: &Path) -> io::Result<BTreeSet<Seed>> {
    let mut seeds = BTreeSet::new();
    for base in 0..2 {
        for mode in [0, 2, 4, 8, 10, 16] {
            add(&mut seeds, "session", vec![base, mode]);
        }
    }
    add_folder(corpus, &mut seeds)?;
    Ok(seeds)
}

fn add(seeds: &mut BTreeSet<Seed>, target: &'static str, input: Vec<u8>) {
    seeds.insert(Seed { target, input });
}

fn add_folder(folder: &Path, seeds: &mut BTreeSet<Seed>) -> io::Result<()> {
    let items = fs::read_dir(folder)?.map(|item| Ok(item?.path()));
    let mut items: Vec<PathBuf> = items.collect::<io::Result<_>>()?;
    items.sort();
    for item in items {
        if item.is_dir() {
            if item.extension() == Some(OsStr::new("mefd")) {
                add(seeds, "archive", pack(&item)?);
            }
            add_folder(&item, seeds)?;
        } else {
            add_file(&item, seeds)?;
        }
    }
    Ok(())
}

fn add_file(path: &Path, seeds: &mut BTreeSet<Seed>) -> io::Result<()> {
    let extension = path.extension().and_then(OsStr::to_str);
    let Some(extension @ ("tmet" | "vmet" | "tdat" | "tidx" | "vidx" | "rdat" | "ridx")) =
        extension
    else {
        return Ok(());
    };
    let bytes = fs::read(path)?;
    let head = HEADER_BYTES.min(bytes.len());
    add(seeds, "header", bytes[..head].to_vec());
    match extension {
        "tmet" | "vmet" => add(seeds, "metadata", bytes),
        "vidx" => add(seeds, "video", bytes),
        "rdat" => {
            let index = fs::read(path.with_extension("ridx")).unwrap_or_default();
            add_records(&bytes, &index, seeds);
        }
        "tdat" => {
            let index = fs::read(path.with_extension("tidx")).unwrap_or_default();
            add_blocks(&bytes, &index, seeds);
        }
        _ => {}
    }
    Ok(())
}

fn add_records(data: &[u8], index: &[u8], seeds: &mut BTreeSet<Seed>) {
    let entries = index.get(HEADER_BYTES..).unwrap_or_default();
    let records = data.get(HEADER_BYTES..).unwrap_or_default();
    let (entries, _) = entries.as_chunks::<24>();
    let entries = &entries[..entries.len().min(31)];
    for mode in [
        0,
        records::mode::ALONE,
        records::mode::GROWING,
        records::mode::ALIGNED,
    ] {
        let mut input = vec![mode, entries.len() as u8, 0xFF];
        input.extend([0; 8]);
        input.extend(entries.as_flattened());
        input.extend(records);
        add(seeds, "records", input);
    }
}

/// The first blocks of a segment: each for decoding, and all of them, cut short,
/// for the index.
fn add_blocks(data: &[u8], index: &[u8], seeds: &mut BTreeSet<Seed>) {
    let entries = index.get(HEADER_BYTES..).unwrap_or_default();
    let (entries, _) = entries.as_chunks::<INDEX_ENTRY_BYTES>();
    let (mut kept, mut blocks) = (Vec::new(), Vec::new());
    for entry in entries.iter().take(MOST_BLOCKS) {
        let at = u64::from_le_bytes(*entry.first_chunk().unwrap_or(&[0; 8]));
        let length = entry[28..]
            .first_chunk()
            .map_or(0, |&bytes| u32::from_le_bytes(bytes));
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let end = start.saturating_add(length as usize);
        let Some(block) = data
            .get(start..end)
            .filter(|block| block.len() >= BLOCK_BYTES)
        else {
            kept.extend(entry);
            continue;
        };
        // Zeros in the checksum's place: all that is wrong is put right.
        let mut input = block[..block.len().min(MOST_BLOCK_BYTES)].to_vec();
        input[..4].fill(0);
        add(seeds, "red_block", input);
        let mut samples = vec![128, 3, 0, 0];
        samples.extend(&block[BLOCK_HEADER_BYTES..block.len().min(1024)]);
        add(seeds, "red_block", samples);
        let mut entry = *entry;
        entry[..8].copy_from_slice(&((HEADER_BYTES + blocks.len()) as u64).to_le_bytes());
        entry[28..32].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        kept.extend(entry);
        let mut block = block[..BLOCK_BYTES].to_vec();
        block[36..40].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        blocks.extend(block);
    }
    for mode in [0, index::mode::DISTRUST, index::mode::GROWING] {
        let mut input = vec![mode, (kept.len() / INDEX_ENTRY_BYTES) as u8];
        input.resize(CONTROL_BYTES, 0);
        input.extend(&kept);
        input.extend(&blocks);
        add(seeds, "index", input);
    }
}

/// A session as an archive, its files cut short.
fn pack(session: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    let name = session.file_name().map(PathBuf::from).unwrap_or_default();
    pack_folder(session, &name, &mut archive)?;
    archive.extend([0; 1024]);
    Ok(archive)
}

fn pack_folder(folder: &Path, name: &Path, archive: &mut Vec<u8>) -> io::Result<()> {
    let shown = |name: &Path| {
        name.to_str()
            .filter(|name| name.len() < 100)
            .map(str::to_owned)
    };
    if let Some(name) = shown(name) {
        archive.extend(tar_header(&format!("{name}/"), 0, b'5'));
    }
    let mut items: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    items.sort_by_key(|item| item.file_name());
    for item in items.iter().take(4) {
        let (path, name) = (item.path(), name.join(item.file_name()));
        if path.is_dir() {
            pack_folder(&path, &name, archive)?;
        } else if let Some(name) = shown(&name) {
            let bytes = fs::read(&path)?;
            let bytes = &bytes[..bytes.len().min(MOST_MEMBER_BYTES)];
            archive.extend(tar_header(&name, bytes.len(), b'0'));
            archive.extend(bytes);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
    }
    Ok(())
}
