//! The way through an archive, from header to header.

use std::mem;
use std::path::Path;

use zerocopy::{FromZeros, IntoBytes};

use super::super::ReadAt;
use super::super::tar::{BLOCK_BYTES, Kind, MAX_EXTENSION_BYTES, PaxRecords, RawHeader, until_nul};
use super::{Extent, Member, push_component};
use crate::mef::error::{ArchiveError, MefError};

/// Headers of all kinds that are read from an archive, so that neither a
/// hostile file nor a huge one of another purpose keeps a reader busy for
/// hours. A session of a thousand channels with a hundred segments each has
/// 400 thousand members, and in the PAX format two headers for each.
pub(super) const MAX_HEADERS: u64 = 1 << 21;

/// Bytes of a member's name: as many as a path in a file system can have.
const MAX_NAME_BYTES: usize = 4096;

/// Bytes of a member's name that an error shows.
const SHOWN_NAME_BYTES: usize = 256;

/// What only the start of a compressed file looks like.
const COMPRESSIONS: [(&[u8], &str); 4] = [
    (&[0x1F, 0x8B], "gzip"),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
    (b"BZh", "bzip2"),
];

/// What the headers of an archive say.
#[derive(Debug)]
pub(super) struct Walked {
    /// All names, one after the other.
    pub(super) names: Vec<u8>,
    /// The members in their order.
    pub(super) members: Vec<Member>,
    /// Whether the block of zeros is there that ends an archive.
    pub(super) is_whole: bool,
}

/// Reads all headers of an archive, at most `limit`.
pub(super) fn walk(
    data: &(impl ReadAt + ?Sized),
    path: &Path,
    limit: u64,
) -> Result<Walked, MefError> {
    let mut walk = Walk {
        data,
        path,
        size: data.size().map_err(|error| MefError::io(path, &error))?,
        names: Vec::new(),
        members: Vec::new(),
    };
    let end = walk.run(limit)?;
    let is_whole = walk.size.saturating_sub(end) >= BLOCK_BYTES as u64;
    Ok(Walked {
        names: walk.names,
        members: walk.members,
        is_whole,
    })
}

/// A walk that is under way.
struct Walk<'a, D: ?Sized> {
    data: &'a D,
    path: &'a Path,
    /// Bytes of the archive.
    size: u64,
    names: Vec<u8>,
    members: Vec<Member>,
}

/// What earlier headers say of the next member.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<D: ReadAt + ?Sized> Walk<'_, D> {
    /// Gives the place where there is no further header.
    fn run(&mut self, limit: u64) -> Result<u64, MefError> {
        let mut ahead = Ahead::default();
        let mut headers = 0;
        let mut offset = 0;
        while let Some(header) = self.header(offset)? {
            headers += 1;
            if headers > limit {
                return self.refuse(ArchiveError::TooManyMembers { limit });
            }
            let body = offset.saturating_add(BLOCK_BYTES as u64);
            let end = self.take(&header, body, &mut ahead)?;
            // Beyond any file where that overflows.
            offset = end
                .checked_next_multiple_of(BLOCK_BYTES as u64)
                .unwrap_or(u64::MAX);
        }
        Ok(offset)
    }

    /// The header at `offset`; `None` where the archive ends, be it with a
    /// block of zeros or because there is no whole block left.
    fn header(&self, offset: u64) -> Result<Option<RawHeader>, MefError> {
        let rest = self.size.saturating_sub(offset);
        if offset > 0 && rest < BLOCK_BYTES as u64 {
            return Ok(None);
        }
        let mut header = RawHeader::new_zeroed();
        // A file shorter than a header is read for the marks of compression.
        let (block, _) = header
            .as_mut_bytes()
            .split_at_mut(usize::try_from(rest).unwrap_or(usize::MAX).min(BLOCK_BYTES));
        self.fill(block, offset)?;
        if rest >= BLOCK_BYTES as u64 && header.is_valid() {
            return Ok(Some(header));
        }
        if header.is_end() {
            return Ok(None);
        }
        if offset > 0 {
            return self.refuse(ArchiveError::Header { offset });
        }
        let bytes = header.as_bytes();
        let compression = COMPRESSIONS
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic));
        self.refuse(match compression {
            Some((_, name)) => ArchiveError::Compressed((*name).into()),
            None => ArchiveError::NotTar,
        })
    }

    /// Takes in what a header and its body say, and gives the body's end.
    fn take(&mut self, header: &RawHeader, body: u64, ahead: &mut Ahead) -> Result<u64, MefError> {
        let kind = header.kind();
        let about_next = matches!(kind, Kind::LongName | Kind::PaxRecords | Kind::OtherFacts);
        // Long names and records have a name and a size of their own.
        let Ahead { name, size, sparse } = if about_next {
            Ahead::default()
        } else {
            mem::take(ahead)
        };
        let name = name.unwrap_or_else(|| header.name());
        if kind == Kind::Sparse || (sparse && kind == Kind::File) {
            return self.refuse(ArchiveError::Sparse {
                member: shown(&name),
            });
        }
        let extent = match kind {
            Kind::Folder | Kind::Bodiless => Extent {
                offset: body,
                length: 0,
            },
            _ => self.extent(body, size.or_else(|| header.size()), &name)?,
        };
        match kind {
            Kind::File => self.add(&name, Some(extent))?,
            Kind::Folder => self.add(&name, None)?,
            Kind::LongName => ahead.name = Some(until_nul(&self.extension(extent)?).to_vec()),
            Kind::PaxRecords => {
                let Some(records) = PaxRecords::parse(&self.extension(extent)?) else {
                    return self.refuse(ArchiveError::ExtendedHeader { offset: body });
                };
                ahead.name = records.path.or(ahead.name.take());
                ahead.size = records.size.or(ahead.size);
                ahead.sparse |= records.sparse;
            }
            Kind::OtherFacts | Kind::Sparse | Kind::Bodiless | Kind::Unknown => {}
        }
        // Within the archive, so it does not overflow.
        Ok(extent.offset.saturating_add(extent.length))
    }

    /// The place of a body, which lies within the archive.
    fn extent(&self, offset: u64, size: Option<u64>, name: &[u8]) -> Result<Extent, MefError> {
        let Some(length) = size else {
            return self.refuse(ArchiveError::Size {
                member: shown(name),
            });
        };
        let end = offset.saturating_add(length);
        // A sum beyond 64 bits is beyond any archive, too.
        if end > self.size || end == u64::MAX {
            return self.refuse(ArchiveError::Truncated {
                member: shown(name),
                end,
                archive_bytes: self.size,
            });
        }
        Ok(Extent { offset, length })
    }

    /// The body of a long name or of PAX records.
    fn extension(&self, extent: Extent) -> Result<Vec<u8>, MefError> {
        let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
        if extent.length > MAX_EXTENSION_BYTES {
            return self.refuse(ArchiveError::ExtendedHeaderTooLong {
                offset: extent.offset,
                bytes: extent.length,
            });
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, extent.offset)?;
        Ok(bytes)
    }

    /// Adds a member under its name without empty and `.` components. The
    /// archive's own top is no member.
    fn add(&mut self, name: &[u8], extent: Option<Extent>) -> Result<(), MefError> {
        let components = || {
            name.split(|&byte| byte == b'/')
                .filter(|component| !component.is_empty() && *component != b".")
        };
        if name.len() > MAX_NAME_BYTES || name.contains(&0) || components().any(|c| c == b"..") {
            return self.refuse(ArchiveError::MemberName {
                member: shown(name),
            });
        }
        let start = self.names.len();
        for component in components() {
            push_component(&mut self.names, start, component);
        }
        if self.names.len() > start {
            let name = start..self.names.len();
            self.members.push(Member { name, extent });
        }
        Ok(())
    }

    /// Fills `bytes`, which lie within the archive as it was at first.
    fn fill(&self, bytes: &mut [u8], offset: u64) -> Result<(), MefError> {
        match self.data.read_at(bytes, offset) {
            Ok(length) if length == bytes.len() => Ok(()),
            Ok(_) => Err(MefError::Changed {
                file: self.path.into(),
            }),
            Err(error) => Err(MefError::io(self.path, &error)),
        }
    }

    fn refuse<T>(&self, error: ArchiveError) -> Result<T, MefError> {
        Err(MefError::malformed(self.path, error.into()))
    }
}

/// A name as errors show it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..SHOWN_NAME_BYTES).unwrap_or(name)).into_owned()
}
