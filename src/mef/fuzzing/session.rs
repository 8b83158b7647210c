//! Whole sessions: opened, read in full by both rules, and checked.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::common::{Controls, seal, u32_at};
use crate::mef::crc::crc32;
use crate::mef::layout::{BLOCK_HEADER_BYTES, HEADER_BYTES};
use crate::mef::red::MAX_BLOCK_SAMPLES;
use crate::mef::{
    Channel, ChannelOptions, ChannelReader, Grid, NewRecord, OpenOptions, Password, Passwords,
    PlacedRecord, RecordBody, RecordQuery, RecordType, Recording, Rule, SessionOptions,
    SessionWriter, check_session, open_session,
};

/// The longest window that is read.
const MOST_COLUMNS: u64 = 10_000;
/// Samples of a block whose checksum is put right.
const MOST_SAMPLES: u32 = 1000;
/// More blocks than the sessions have bytes for.
const MOST_BLOCKS: u64 = 100;
/// Columns of a window that are read at a time.
const ROW: usize = 4096;
const TAR_BLOCK: usize = 512;

/// Bits of the second byte of an input.
mod mode {
    /// Checksums stay as they are.
    pub(super) const RAW: u8 = 1;
    /// The files were written to a moment ago.
    pub(super) const GROWING: u8 = 2;
    /// The password is not given.
    pub(super) const LOCKED: u8 = 4;
    /// The session is checked, not read.
    pub(super) const CHECK: u8 = 8;
    /// Samples are placed as pymef does.
    pub(super) const PYMEF: u8 = 16;
}

thread_local! {
    static BASES: Vec<Base> = vec![Base::new(false), Base::new(true)];
}

/// The input says which session, and then what is changed in it: the number of a
/// file, two bytes of offset in it, a length below 16, and the bytes.
pub fn session(input: &[u8]) {
    let mut controls = Controls(input);
    let [base, mode] = controls.array();
    BASES.with(|bases| {
        let base = &bases[usize::from(base) % bases.len()];
        let is = |what| mode & what != 0;
        let mut image = base.image.clone();
        let touched = base.change(&mut image, &mut controls, !is(mode::RAW));
        base.write(&image, &touched);
        let age = if is(mode::GROWING) { 0 } else { 1000 };
        let modified = SystemTime::now() - Duration::from_secs(age);
        base.file.set_modified(modified).unwrap();
        let password = base.password.as_ref();
        let options = OpenOptions {
            password: password.filter(|_| !is(mode::LOCKED)).cloned(),
        };
        if is(mode::CHECK) {
            check(&base.path, &options);
        } else {
            let rule = if is(mode::PYMEF) {
                Rule::Pymef
            } else {
                Rule::Mef3io
            };
            read(&base.path, &options, rule);
        }
        base.write(&base.image, &touched);
    });
}

fn read(path: &Path, options: &OpenOptions, rule: Rule) {
    let Ok(recording) = open_session(path, options) else {
        return;
    };
    assert!(recording.is_consistent());
    for channel in &recording.channels {
        read_channel(&recording, channel, rule);
    }
    let query = RecordQuery {
        limit: 1000,
        ..RecordQuery::default()
    };
    let page = recording.records(&query).expect("the archive is there");
    assert!(page.records.len() as u64 <= page.total);
    let time = |placed: &PlacedRecord| placed.record.time_uutc;
    assert!(page.records.is_sorted_by_key(time));
}

fn check(path: &Path, options: &OpenOptions) {
    let mut findings = 0;
    let checked = check_session(path, options, true, &mut |finding| {
        assert!(!finding.problem.to_string().is_empty());
        findings += 1;
    });
    match checked {
        Ok(checked) => assert!(checked.files >= 2 && checked.blocks <= MOST_BLOCKS),
        // What cannot be opened has nothing that could be looked at.
        Err(_) => assert_eq!(findings, 0),
    }
}

/// Reads all of a channel, or as much as fits; every answer is samples or an error.
fn read_channel(recording: &Recording, channel: &Channel, rule: Rule) {
    let rate = channel.sampling_frequency;
    let mut end = channel.end_uutc;
    if let Ok(grid) = Grid::new(rule, channel.start_uutc, end, rate)
        && grid.columns() > MOST_COLUMNS
    {
        let most = (MOST_COLUMNS as f64 / rate * 1e6) as i64;
        end = channel.start_uutc.saturating_add(most);
    }
    let Ok(grid) = Grid::new(rule, channel.start_uutc, end, rate) else {
        return;
    };
    let Ok(mut reader) = ChannelReader::new(recording, channel, grid) else {
        return;
    };
    let columns = grid.columns().min(2 * MOST_COLUMNS);
    let mut row = [0f32; ROW];
    let mut samples = 0u64;
    for first in (0..columns).step_by(ROW) {
        let length = (columns - first).min(ROW as u64) as usize;
        let row = &mut row[..length];
        match reader.read(first, row) {
            Ok(()) => samples += row.iter().filter(|sample| !sample.is_nan()).count() as u64,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(samples <= channel.stored_samples());
}

/// A session as an archive, in a file that is changed and changed back.
struct Base {
    image: Vec<u8>,
    /// Extension, and where the file is in the archive.
    members: Vec<(&'static str, usize, usize)>,
    password: Option<Password>,
    path: PathBuf,
    file: File,
    _folder: TempDir,
}

impl Base {
    fn new(protected: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("s.mefd");
        write_session(&session, protected);
        let (mut image, mut members) = (Vec::new(), Vec::new());
        add_folder(folder.path(), Path::new("s.mefd"), &mut image, &mut members);
        image.resize(image.len() + 2 * TAR_BLOCK, 0);
        let path = folder.path().join("s.mefd.tar");
        fs::write(&path, &image).unwrap();
        Self {
            image,
            members,
            password: protected.then(|| Password::new("level2").unwrap()),
            file: File::options().write(true).open(&path).unwrap(),
            path,
            _folder: folder,
        }
    }

    /// Writes the files that are touched, as they are in an image.
    fn write(&self, image: &[u8], touched: &BTreeSet<usize>) {
        for &number in touched {
            let (_, start, size) = self.members[number];
            let bytes = &image[start..start + size];
            self.file.write_all_at(bytes, start as u64).unwrap();
        }
    }

    /// Makes the changes of an input, and says which files they touch.
    fn change(
        &self,
        image: &mut [u8],
        controls: &mut Controls<'_>,
        sealed: bool,
    ) -> BTreeSet<usize> {
        let mut touched = BTreeSet::new();
        while !controls.0.is_empty() {
            let [member, low, high, length] = controls.array();
            let bytes = controls.take(usize::from(length & 15));
            let number = usize::from(member) % self.members.len();
            let (_, start, size) = self.members[number];
            let at = usize::from(u16::from_le_bytes([low, high])) % size;
            let bytes = &bytes[..bytes.len().min(size - at)];
            image[start + at..start + at + bytes.len()].copy_from_slice(bytes);
            touched.insert(number);
        }
        for &number in touched.iter().filter(|_| sealed) {
            let (extension, start, size) = self.members[number];
            seal_member(extension, &mut image[start..start + size]);
        }
        touched
    }
}

/// Puts all checksums of a file right.
fn seal_member(extension: &str, file: &mut [u8]) {
    let (length_at, least) = match extension {
        "tdat" => (36, BLOCK_HEADER_BYTES),
        "rdat" => (12, 24),
        _ => (0, 0),
    };
    let mut at = HEADER_BYTES;
    while least > 0
        && let Some(length) = u32_at(file, at + length_at)
    {
        // A record's length is that of its body.
        let fixed = if extension == "rdat" { least } else { 0 };
        let end = at + fixed + length as usize;
        let Some(part) = file.get_mut(at..end).filter(|part| part.len() >= least) else {
            break;
        };
        if extension == "tdat" {
            bound_samples(part);
        }
        seal(part);
        at = end;
    }
    let (header, body) = file.split_at_mut(HEADER_BYTES);
    header[4..8].copy_from_slice(&crc32(body).to_le_bytes());
    seal(header);
}

/// A constant signal of millions of samples is legal, and takes its time.
fn bound_samples(block: &mut [u8]) {
    let samples = u32_at(block, 32).unwrap_or(0);
    if (MOST_SAMPLES..=MAX_BLOCK_SAMPLES).contains(&samples) {
        block[32..36].copy_from_slice(&(samples % MOST_SAMPLES).to_le_bytes());
    }
}

/// A channel of two segments with a gap, records of the session and of the channel.
fn write_session(path: &Path, protected: bool) {
    let start = 1_600_000_000_000_000;
    let second = 1_000_000;
    let options = SessionOptions {
        seed: Some(1),
        passwords: protected.then(|| Passwords::new("level1", "level2").unwrap()),
        recording_time_offset: protected.then_some(start - second),
        subject_name_1: "name".into(),
        ..SessionOptions::default()
    };
    let mut session = SessionWriter::create(path, options).unwrap();
    let options = ChannelOptions {
        block_samples: Some(20),
        ..ChannelOptions::new("a", 100.0)
    };
    let mut channel = session.channel(options).unwrap();
    let samples: Vec<i32> = (0..30).map(|i| i * i % 37 - 10).collect();
    channel.write(start, &samples).unwrap();
    channel.write(start + 2 * second, &[1000; 10]).unwrap();
    channel.new_segment().unwrap();
    channel.write(start + 4 * second, &[-5; 10]).unwrap();
    channel.finish().unwrap();
    for channel in [None, Some("a")] {
        let mut writer = match channel {
            None => session.records().unwrap(),
            Some(channel) => session.channel_records(channel).unwrap(),
        };
        let text = "a note".to_owned();
        let note = NewRecord::new(RecordType::NOTE, start + second, RecordBody::Note { text });
        writer.append(&[note]).unwrap();
    }
}

fn add_folder(
    root: &Path,
    name: &Path,
    image: &mut Vec<u8>,
    members: &mut Vec<(&'static str, usize, usize)>,
) {
    let mut items: Vec<_> = fs::read_dir(root.join(name))
        .unwrap()
        .map(|item| name.join(item.unwrap().file_name()))
        .collect();
    items.sort();
    for item in items {
        if root.join(&item).is_dir() {
            add_folder(root, &item, image, members);
            continue;
        }
        let bytes = fs::read(root.join(&item)).unwrap();
        image.extend(tar_header(item.to_str().unwrap(), bytes.len(), b'0'));
        let extension = item.extension().and_then(|extension| extension.to_str());
        let known = ["tmet", "tidx", "tdat", "rdat", "ridx"];
        let known = known.into_iter().find(|known| Some(*known) == extension);
        members.extend(known.map(|known| (known, image.len(), bytes.len())));
        image.extend(&bytes);
        image.resize(image.len().next_multiple_of(TAR_BLOCK), 0);
    }
}

/// The header of a member, as all tar tools read it.
pub(super) fn tar_header(name: &str, size: usize, kind: u8) -> [u8; TAR_BLOCK] {
    let mut header = [0; TAR_BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
