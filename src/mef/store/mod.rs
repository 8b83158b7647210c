//! Where a session's files are, and how their bytes are had.

mod read_at;

pub(crate) use read_at::ReadAt;
