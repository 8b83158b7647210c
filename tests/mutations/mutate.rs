//! The ways to spoil a session, and to mend it again.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::base::Base;
use crate::common::patch::{HEADER, absurd, covered, field, repair, units};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    FlippedBit,
    FlippedField,
    AbsurdField,
    Truncated,
    Extended,
    SwappedFiles,
    DuplicatedFile,
    MissingFile,
    SwappedUnits,
    DuplicatedUnit,
    NoRegularFile,
    NoPermission,
    Huge,
    StrangeName,
    LoopedFolder,
    /// From here on, checksums are right.
    RepairedField,
    RepairedTime,
    RepairedUnits,
}

pub const KINDS: [Kind; 18] = [
    Kind::FlippedBit,
    Kind::FlippedField,
    Kind::AbsurdField,
    Kind::Truncated,
    Kind::Extended,
    Kind::SwappedFiles,
    Kind::DuplicatedFile,
    Kind::MissingFile,
    Kind::SwappedUnits,
    Kind::DuplicatedUnit,
    Kind::NoRegularFile,
    Kind::NoPermission,
    Kind::Huge,
    Kind::StrangeName,
    Kind::LoopedFolder,
    Kind::RepairedField,
    Kind::RepairedTime,
    Kind::RepairedUnits,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::FlippedBit => "flipped bit",
            Self::FlippedField => "flipped field",
            Self::AbsurdField => "absurd field",
            Self::Truncated => "truncated",
            Self::Extended => "extended",
            Self::SwappedFiles => "swapped files",
            Self::DuplicatedFile => "duplicated file",
            Self::MissingFile => "missing file",
            Self::SwappedUnits => "swapped units",
            Self::DuplicatedUnit => "duplicated unit",
            Self::NoRegularFile => "no regular file",
            Self::NoPermission => "no permission",
            Self::Huge => "huge",
            Self::StrangeName => "strange name",
            Self::LoopedFolder => "looped folder",
            Self::RepairedField => "field, repaired",
            Self::RepairedTime => "time, repaired",
            Self::RepairedUnits => "units, repaired",
        }
    }

    /// The checksums vouch for what is wrong: it is what the files say.
    pub fn repaired(self) -> bool {
        matches!(
            self,
            Self::RepairedField | Self::RepairedTime | Self::RepairedUnits
        )
    }
}

/// How to undo a mutation.
enum Original {
    Content(PathBuf, Vec<u8>),
    Moved {
        from: PathBuf,
        to: PathBuf,
    },
    Mode(PathBuf),
    /// A link that was not there.
    Link(PathBuf),
}

/// A mutation that was done.
pub struct Mutation {
    pub kind: Kind,
    pub description: String,
    /// A checksum of a single file must be wrong now.
    pub covered: bool,
    /// Record files were exchanged, which do not say whose they are, or have
    /// another name, by which nobody looks for them.
    pub other_records: bool,
    /// What was a segment's folder has a name that is no segment's, or another's.
    pub no_segment: bool,
    /// Files and folders that are not as they were, relative to the session.
    touched: Vec<PathBuf>,
    originals: Vec<Original>,
}

impl Mutation {
    /// Spoils the session; nothing, where this kind of mutation cannot be done with
    /// it.
    pub fn apply(kind: Kind, base: &Base, rng: &mut fastrand::Rng) -> Option<Self> {
        let name = &base.files[rng.usize(..base.files.len())];
        let mut mutation = Self {
            kind,
            description: format!("{} of {}", kind.name(), name.display()),
            covered: false,
            other_records: false,
            no_segment: false,
            touched: vec![name.clone()],
            originals: Vec::new(),
        };
        match kind {
            Kind::SwappedFiles | Kind::DuplicatedFile => mutation.exchange(base, name, rng)?,
            Kind::MissingFile => mutation.take_away(&base.file(name)),
            Kind::NoRegularFile => mutation.put_something_else(&base.file(name), rng),
            Kind::NoPermission => mutation.forbid(&base.file(name)),
            Kind::Huge => mutation.enlarge(&base.file(name)),
            Kind::StrangeName => mutation.rename(base, name, rng)?,
            Kind::LoopedFolder => mutation.make_loop(base, name, rng)?,
            _ => mutation.edit(&base.file(name), rng)?,
        }
        Some(mutation)
    }

    /// Whether nothing of a channel was touched. Nothing in an archive is certain.
    pub fn spares(&self, channel: &str) -> bool {
        let folder = format!("{channel}.timd");
        self.touched.iter().all(|touched| {
            let first = touched.components().next();
            first.is_some_and(|first| first.as_os_str() != folder.as_str())
        })
    }

    /// Whether what records say may be other than it was, with nobody to tell.
    pub fn spoils_records(&self) -> bool {
        // The offset of all times stands in the metadata.
        let speaks = |touched: &PathBuf| {
            let extension = touched.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("rdat" | "ridx" | "tmet"))
        };
        self.other_records || self.kind.repaired() && self.touched.iter().any(speaks)
    }

    pub fn undo(self) {
        for original in self.originals.into_iter().rev() {
            match original {
                Original::Content(path, bytes) => {
                    // Whatever stands there now.
                    let status = fs::symlink_metadata(&path);
                    match status {
                        Ok(status) if status.is_dir() => fs::remove_dir(&path).unwrap(),
                        Ok(_) => fs::remove_file(&path).unwrap(),
                        Err(_) => {}
                    }
                    fs::write(&path, bytes).unwrap();
                    age(&path);
                }
                Original::Moved { from, to } => fs::rename(to, from).unwrap(),
                Original::Link(path) => fs::remove_file(path).unwrap(),
                Original::Mode(path) => {
                    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
                }
            }
        }
    }

    fn keep(&mut self, path: &Path) -> Vec<u8> {
        let bytes = fs::read(path).unwrap();
        self.originals
            .push(Original::Content(path.into(), bytes.clone()));
        bytes
    }

    /// Changes the bytes of a file.
    fn edit(&mut self, path: &Path, rng: &mut fastrand::Rng) -> Option<()> {
        let bytes = fs::read(path).unwrap();
        let extension = path.extension()?.to_str()?.to_owned();
        let archive = extension == "tar";
        let mut edited = bytes.clone();
        match self.kind {
            Kind::FlippedBit => self.flip(&mut edited, rng.usize(..bytes.len()), rng),
            Kind::FlippedField if archive => {
                // A header of the archive, or of a file in it.
                let place = rng.usize(..bytes.len() / 512) * 512 + rng.usize(..512);
                self.flip(&mut edited, place, rng);
            }
            Kind::FlippedField => {
                let place = field(&extension, &bytes, rng);
                self.flip(&mut edited, place, rng);
            }
            Kind::AbsurdField | Kind::RepairedField => {
                let place = match archive {
                    true => rng.usize(..bytes.len() / 512) * 512 + rng.usize(..512),
                    false => field(&extension, &bytes, rng),
                };
                self.overwrite(&mut edited, place, &absurd(rng));
            }
            Kind::RepairedTime => {
                let place = time_field(&extension, &bytes, rng)?;
                let time = match rng.u8(..4) {
                    0 => rng.i64(..),
                    1 => i64::MIN + rng.i64(0..3),
                    2 => i64::MAX - rng.i64(0..3),
                    _ => rng.i64(-10_000_000..10_000_000),
                };
                self.overwrite(&mut edited, place, &time.to_le_bytes());
            }
            Kind::Truncated => {
                let ends = units(&extension, &bytes);
                let length = match rng.u8(..4) {
                    0 if !ends.is_empty() => ends[rng.usize(..ends.len())].0,
                    1 => rng.usize(..HEADER.min(bytes.len())),
                    _ => rng.usize(..bytes.len()),
                };
                self.description += &format!(" to {length} bytes");
                edited.truncate(length);
            }
            Kind::Extended => {
                let length = rng.usize(1..5000);
                self.description += &format!(" by {length} bytes");
                let more = match rng.u8(..3) {
                    0 => vec![0; length],
                    1 => vec![0x7E; length],
                    _ => (0..length).map(|_| rng.u8(..)).collect(),
                };
                edited.extend(more);
            }
            Kind::SwappedUnits | Kind::DuplicatedUnit | Kind::RepairedUnits => {
                let swap = self.kind == Kind::SwappedUnits || rng.bool();
                self.exchange_units(&extension, &mut edited, swap, rng)?;
            }
            other => panic!("{other:?} is no change of bytes"),
        }
        if edited == bytes {
            return None;
        }
        if self.kind.repaired() {
            if archive {
                return None;
            }
            repair(&extension, &mut edited);
        } else if !archive {
            self.covered = covered(&extension, &bytes, &edited);
        }
        self.originals.push(Original::Content(path.into(), bytes));
        fs::write(path, edited).unwrap();
        age(path);
        Some(())
    }

    fn flip(&mut self, bytes: &mut [u8], place: usize, rng: &mut fastrand::Rng) {
        let bit = rng.u32(..8);
        self.description += &format!(", byte {place}, bit {bit}");
        bytes[place] ^= 1 << bit;
    }

    fn overwrite(&mut self, bytes: &mut [u8], place: usize, value: &[u8]) {
        self.description += &format!(", byte {place} becomes {value:02x?}");
        for (byte, &new) in bytes[place..].iter_mut().zip(value) {
            *byte = new;
        }
    }

    /// Swaps two entries, blocks or records, or writes one over the other.
    fn exchange_units(
        &mut self,
        extension: &str,
        bytes: &mut Vec<u8>,
        swap: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<()> {
        let units = units(extension, bytes);
        if units.len() < 2 {
            return None;
        }
        let mut pick = || units[rng.usize(..units.len())];
        let (mut first, mut second) = (pick(), pick());
        if first.0 > second.0 {
            (first, second) = (second, first);
        }
        if first == second {
            return None;
        }
        self.description += &format!(", {first:?} and {second:?}, swapped: {swap}");
        let part = |(start, length): (usize, usize)| bytes[start..start + length].to_vec();
        let (one, two) = (part(first), part(second));
        // From behind, so that places stay true.
        let into_second = one.clone();
        let into_first = if swap { two } else { one };
        bytes.splice(second.0..second.0 + second.1, into_second);
        bytes.splice(first.0..first.0 + first.1, into_first);
        Some(())
    }

    /// Swaps two files of the same type, or copies one over the other.
    fn exchange(&mut self, base: &Base, name: &Path, rng: &mut fastrand::Rng) -> Option<()> {
        let others: Vec<_> = base
            .files
            .iter()
            .filter(|other| other.extension() == name.extension() && *other != name)
            .collect();
        if others.is_empty() {
            return None;
        }
        let other = others[rng.usize(..others.len())];
        self.description += &format!(" and {}", other.display());
        self.touched.push(other.clone());
        let extension = name.extension()?.to_str()?;
        self.other_records = ["rdat", "ridx"].contains(&extension);
        let paths = [base.file(name), base.file(other)];
        let [one, two] = [self.keep(&paths[0]), self.keep(&paths[1])];
        fs::write(&paths[1], &one).unwrap();
        if self.kind == Kind::SwappedFiles {
            fs::write(&paths[0], &two).unwrap();
        }
        paths.iter().for_each(|path| age(path));
        (one != two).then_some(())
    }

    fn take_away(&mut self, path: &Path) {
        self.keep(path);
        fs::remove_file(path).unwrap();
    }

    fn put_something_else(&mut self, path: &Path, rng: &mut fastrand::Rng) {
        self.take_away(path);
        let what = rng.u8(..6);
        self.description += [
            ": a FIFO",
            ": a folder",
            ": a socket",
            ": a link to itself",
            ": a link to nothing",
            ": a link to an endless device",
        ][usize::from(what)];
        match what {
            0 => make_node(path, FileType::Fifo),
            1 => fs::create_dir(path).unwrap(),
            2 => make_node(path, FileType::Socket),
            3 => symlink(path.file_name().unwrap(), path).unwrap(),
            4 => symlink("nowhere", path).unwrap(),
            _ => symlink("/dev/zero", path).unwrap(),
        }
    }

    /// Puts a link to a folder around it in the place of a folder.
    fn make_loop(&mut self, base: &Base, name: &Path, rng: &mut fastrand::Rng) -> Option<()> {
        let depth = rng.usize(1..name.components().count().max(2));
        let part: PathBuf = name.components().take(depth).collect();
        let folder = base.file(&part);
        if name.as_os_str().is_empty() || !folder.is_dir() {
            return None;
        }
        let aside = base.path.with_file_name("aside");
        let around = [".", "..", "../.."][rng.usize(..3)];
        self.description += &format!(": {} is a link to {around}", part.display());
        fs::rename(&folder, &aside).unwrap();
        symlink(around, &folder).unwrap();
        self.touched = vec![part];
        // Records are looked for in what is there.
        self.other_records = true;
        self.originals.push(Original::Moved {
            from: folder.clone(),
            to: aside,
        });
        self.originals.push(Original::Link(folder));
        Some(())
    }

    fn forbid(&mut self, path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        self.originals.push(Original::Mode(path.into()));
    }

    fn enlarge(&mut self, path: &Path) {
        self.keep(path);
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(1 << 40).unwrap();
        age(path);
    }

    /// Gives a folder or file a name that is not its own.
    fn rename(&mut self, base: &Base, name: &Path, rng: &mut fastrand::Rng) -> Option<()> {
        if name.as_os_str().is_empty() {
            return None;
        }
        let depth = rng.usize(1..=name.components().count());
        let part: PathBuf = name.components().take(depth).collect();
        let path = base.file(&part);
        let mut bytes = part.file_name()?.to_owned().into_vec();
        let place = rng.usize(..bytes.len());
        // Neither a slash nor a NUL.
        bytes[place] = [0xFF, 0xC3, b'.', b'-', b'9', b'\n'][rng.usize(..6)];
        let other = path.with_file_name(std::ffi::OsString::from_vec(bytes));
        if other.exists() {
            return None;
        }
        self.description += &format!(": {} renamed to {other:?}", part.display());
        self.touched = vec![part];
        self.other_records = true;
        self.no_segment = number(&path).is_some() && number(&path) != number(&other);
        fs::rename(&path, &other).unwrap();
        self.originals.push(Original::Moved {
            from: path,
            to: other,
        });
        Some(())
    }
}

/// The number of a segment's folder, if the name is that of one.
fn number(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_string_lossy();
    let visible = !name.starts_with('.');
    let stem = name.strip_suffix(".segd").filter(|_| visible)?;
    stem.rsplit_once('-')?.1.parse().ok()
}

/// Makes something in a folder that is no file.
fn make_node(path: &Path, kind: FileType) {
    mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A place where a file has a time.
fn time_field(extension: &str, bytes: &[u8], rng: &mut fastrand::Rng) -> Option<usize> {
    let units = units(extension, bytes);
    let offset = match extension {
        "tidx" => 8,
        "tdat" => 40,
        "rdat" | "ridx" => 16,
        "tmet" | "vmet" => return Some([16, 24, 6656, 13312][rng.usize(..4)]),
        _ => 0,
    };
    match units.is_empty() || rng.u8(..4) == 0 {
        true => Some([16, 24][rng.usize(..2)]),
        false => Some(units[rng.usize(..units.len())].0 + offset),
    }
}

/// Makes a file look as if nobody had written to it for an hour: what the end of a
/// growing file lacks is still to come, and no damage (format section 13.2).
fn age(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(hour_ago))
        .unwrap();
}
