//! Who reads, and how much of it.

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// Tells readers apart, for the predictions.
    pub(crate) id: u64,
    /// Whose permits it takes: a client may have many readers.
    pub(crate) client: u64,
    /// What all reads of the client may hold, where that is not what any client may.
    pub(crate) client_bytes: Option<usize>,
    /// Bytes of samples of one request, where they are fewer than anybody may have.
    pub(crate) request_bytes: Option<u64>,
}

impl Reader {
    /// Bytes of samples that one request of the reader may have, where any may have
    /// `of_all`.
    pub(crate) fn request_bytes(&self, of_all: u64) -> u64 {
        self.request_bytes.map_or(of_all, |own| own.min(of_all))
    }
}

impl From<u64> for Reader {
    /// A reader that is a client of its own.
    fn from(id: u64) -> Self {
        Self {
            id,
            client: id,
            client_bytes: None,
            request_bytes: None,
        }
    }
}
