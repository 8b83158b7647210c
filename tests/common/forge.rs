//! Small sessions that are patched byte by byte, with all checksums put right: so
//! that a check refuses what it is there for, and nothing else is wrong.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use mef3_server::mef::{
    ChannelOptions, ChannelReader, Finding, Grid, MefError, NewRecord, OpenOptions, Password,
    Passwords, ReadError, RecordPage, RecordQuery, Recording, Rule, SampleValue, SessionOptions,
    SessionWriter, check_session, open_session,
};
use serde_json::Value;
use tempfile::TempDir;

use super::corpus::{copy_folder, folder};
use super::patch::{repair, units};

pub const START: i64 = 1_600_000_000_000_000;
pub const RATE: f64 = 100.0;
/// Samples of a block, and blocks of a channel.
pub const BLOCK: usize = 50;
pub const BLOCKS: usize = 4;
/// Microseconds from sample to sample.
pub const PERIOD: i64 = 10_000;

/// A session in a folder of its own.
pub struct Forged {
    _folder: TempDir,
    pub path: PathBuf,
    /// The channel and the segment that are patched.
    channel: &'static str,
    segment: u32,
}

/// The counts of each channel that [`Forged::new`] writes.
pub fn counts() -> Vec<i32> {
    (0..(BLOCK * BLOCKS) as i32).map(|i| i * 3 - 100).collect()
}

/// The same, as a reader of units shows them.
pub fn values() -> Vec<f64> {
    counts().into_iter().map(f64::from).collect()
}

pub fn passwords() -> Passwords {
    Passwords::new("first", "second").unwrap()
}

impl Forged {
    /// Two channels, `bad` and `good`, of one segment each.
    pub fn new() -> Self {
        Self::with(SessionOptions::default())
    }

    pub fn with(options: SessionOptions) -> Self {
        Self::written(options, |bad| bad.write(START, &counts()).unwrap())
    }

    /// The same, with other samples in `bad`.
    pub fn of(bad: &[i32]) -> Self {
        Self::written(SessionOptions::default(), |channel| {
            channel.write(START, bad).unwrap();
        })
    }

    /// Two segments of `bad`, each as long as the channel of [`Forged::new`] and one
    /// following the other; the second is patched.
    pub fn of_two_segments() -> Self {
        let forged = Self::written(SessionOptions::default(), |bad| {
            bad.write(START, &counts()).unwrap();
            bad.new_segment().unwrap();
            bad.write(START + 2_000_000, &counts()).unwrap();
        });
        Self {
            segment: 1,
            ..forged
        }
    }

    pub fn written(
        options: SessionOptions,
        write: impl FnOnce(&mut mef3_server::mef::ChannelWriter),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forged.mefd");
        let mut session = SessionWriter::create(&path, options).unwrap();
        let channel = |name: &str| ChannelOptions {
            block_samples: Some(BLOCK as u32),
            ..ChannelOptions::new(name, RATE)
        };
        let mut bad = session.channel(channel("bad")).unwrap();
        write(&mut bad);
        bad.finish().unwrap();
        let mut good = session.channel(channel("good")).unwrap();
        good.write(START, &counts()).unwrap();
        good.finish().unwrap();
        Self::settled(folder, path, "bad")
    }

    /// A copy of a session of the corpus, of which a channel is patched.
    pub fn copy(name: &str, channel: &'static str) -> Self {
        let copies = tempfile::tempdir().unwrap();
        let path = copies.path().join(format!("{name}.mefd"));
        copy_folder(&folder().join(format!("{name}.mefd")), &path);
        Self::settled(copies, path, channel)
    }

    fn settled(folder: TempDir, path: PathBuf, channel: &'static str) -> Self {
        let forged = Self {
            _folder: folder,
            path,
            channel,
            segment: 0,
        };
        forged.settle();
        forged
    }

    /// Adds records of the session.
    pub fn with_records(self, records: &[NewRecord]) -> Self {
        let mut session = SessionWriter::open(&self.path, &OpenOptions::default()).unwrap();
        session.records().unwrap().append(records).unwrap();
        self.settle();
        self
    }

    /// Makes all files as old as those that nobody writes to any more.
    pub fn settle(&self) {
        settle(&self.path);
    }

    /// A file of the patched segment, or a record file of the session.
    pub fn file(&self, extension: &str) -> PathBuf {
        if ["rdat", "ridx"].contains(&extension) {
            let name = self.path.file_stem().unwrap().to_str().unwrap();
            return self.path.join(format!("{name}.{extension}"));
        }
        let stem = format!("{}-{:06}", self.channel, self.segment);
        let kind = if extension.starts_with('v') {
            "vidd"
        } else {
            "timd"
        };
        let folder = self.path.join(format!("{}.{kind}", self.channel));
        folder.join(format!("{stem}.segd/{stem}.{extension}"))
    }

    pub fn bytes(&self, extension: &str) -> Vec<u8> {
        fs::read(self.file(extension)).unwrap()
    }

    /// Edits a file, and puts all its checksums right.
    pub fn patch(&self, extension: &str, edit: impl FnOnce(&mut Vec<u8>)) -> &Self {
        self.spoil(extension, |bytes| {
            edit(bytes);
            repair(extension, bytes);
        })
    }

    /// Edits a file, and leaves its checksums as they are.
    pub fn spoil(&self, extension: &str, edit: impl FnOnce(&mut Vec<u8>)) -> &Self {
        let mut bytes = self.bytes(extension);
        edit(&mut bytes);
        let file = self.file(extension);
        fs::write(&file, bytes).unwrap();
        age(&file);
        self
    }

    /// Puts bytes into a file that is too long to be read, and leaves its checksums.
    pub fn spoil_start(&self, extension: &str, offset: usize, bytes: &[u8]) {
        let file = File::options().write(true).open(self.file(extension));
        file.unwrap().write_all_at(bytes, offset as u64).unwrap();
    }

    /// Puts a value at an offset of a file.
    pub fn put<const N: usize>(&self, extension: &str, offset: usize, value: [u8; N]) -> &Self {
        self.patch(extension, |bytes| put(bytes, offset, value))
    }

    /// Puts a value into an entry, a block or a record.
    pub fn put_in<const N: usize>(
        &self,
        extension: &str,
        unit: usize,
        offset: usize,
        value: [u8; N],
    ) -> &Self {
        let (start, _) = units(extension, &self.bytes(extension))[unit];
        self.put(extension, start + offset, value)
    }

    /// Edits a block, whose checksum is that of its old extent even if its length is
    /// edited.
    pub fn patch_block(&self, block: usize, edit: impl FnOnce(&mut [u8])) -> &Self {
        self.spoil("tdat", |bytes| {
            let (start, length) = units("tdat", bytes)[block];
            let block = &mut bytes[start..start + length];
            edit(block);
            sign_block(block);
            sign_file(bytes);
        })
    }

    pub fn open(&self) -> Recording {
        self.open_with(None).unwrap()
    }

    pub fn open_with(&self, password: Option<&str>) -> Result<Recording, MefError> {
        open_session(&self.path, &options(password))
    }

    /// All samples of a channel from its start to its end.
    pub fn read<T: SampleValue>(&self, channel: &str) -> Result<Vec<T>, ReadError> {
        let recording = self.open();
        let position = recording.channel_position(channel).unwrap();
        let channel = &recording.channels[position];
        let span = (channel.start_uutc, channel.end_uutc);
        window(&recording, channel.name.as_str(), Rule::Mef3io, span)
    }

    /// The samples of `bad` are those that were written, and those of `good` are.
    pub fn assert_right(&self, what: &str) {
        assert_eq!(self.read::<f64>("bad").unwrap(), values(), "{what}");
        self.assert_good(what);
    }

    /// The other channel is as it was.
    pub fn assert_good(&self, what: &str) {
        assert_eq!(self.read::<f64>("good").unwrap(), values(), "{what}");
    }

    /// What is wrong with the segments and channels that cannot be read.
    pub fn refusals(&self) -> Vec<MefError> {
        let recording = self.open();
        let channels = recording.channels.iter();
        let segments = channels.flat_map(|channel| &channel.unreadable);
        let segments = segments.map(|segment| segment.error.clone());
        let channels = recording.unreadable.iter().map(|c| c.error.clone());
        segments.chain(channels).collect()
    }

    pub fn findings(&self, deep: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let found = &mut |finding| findings.push(finding);
        check_session(&self.path, &OpenOptions::default(), deep, found).unwrap();
        findings
    }

    pub fn records(&self, password: Option<&str>) -> RecordPage {
        let query = RecordQuery {
            limit: usize::MAX,
            ..RecordQuery::default()
        };
        self.open_with(password).unwrap().records(&query).unwrap()
    }

    /// What `mef3-server info` says.
    pub fn info(&self, flags: &[&str], password: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        command.arg("info").arg(&self.path).args(flags);
        command.env_remove("MEF3_PASSWORD");
        command.envs(password.map(|password| ("MEF3_PASSWORD", password)));
        command.output().unwrap()
    }

    pub fn info_json(&self, password: Option<&str>) -> Value {
        let output = self.info(&["--json"], password);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub fn options(password: Option<&str>) -> OpenOptions {
    OpenOptions {
        password: password.and_then(Password::new),
    }
}

/// The samples of a channel in a window.
pub fn window<T: SampleValue>(
    recording: &Recording,
    channel: &str,
    rule: Rule,
    (start, end): (i64, i64),
) -> Result<Vec<T>, ReadError> {
    let channel = &recording.channels[recording.channel_position(channel).unwrap()];
    let grid = Grid::new(rule, start, end, channel.sampling_frequency).unwrap();
    let mut row = vec![T::GAP; grid.columns() as usize];
    ChannelReader::new(recording, channel, grid)?.read(0, &mut row)?;
    Ok(row)
}

pub fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

/// Puts the checksum of a block right.
pub fn sign_block(block: &mut [u8]) {
    let crc = mef3_server::mef::crc::crc32(&block[4..]);
    put(block, 0, crc.to_le_bytes());
}

/// Puts the checksums of a file's body and header right, and leaves those within.
pub fn sign_file(bytes: &mut [u8]) {
    repair("", bytes);
}

/// Makes all files below a folder an hour old.
pub fn settle(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            settle(&path);
        } else {
            age(&path);
        }
    }
}

fn age(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(hour_ago).unwrap();
}
