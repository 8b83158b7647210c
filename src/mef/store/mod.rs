//! Where a session's files are, and how their bytes are had.

pub(crate) mod archive;
mod read_at;
mod tar;

pub(crate) use read_at::ReadAt;
pub(crate) use tar::MAX_EXTENSION_BYTES;
