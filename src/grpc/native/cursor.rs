//! Where a reply was left, so that another one goes on from there.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::status::Refusal;
use crate::grpc::proto::native::ReadSignalRequest;
use crate::worker::page::PagedRecording;

/// What the cursors of a reply have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Of what was asked.
    request: u64,
    /// Of the files that are read.
    files: u64,
}

/// A cursor as it is sent.
#[derive(Clone, PartialEq, Message)]
struct Sent {
    #[prost(fixed64, tag = "1")]
    request: u64,
    #[prost(fixed64, tag = "2")]
    files: u64,
    /// Columns of each group that were sent.
    #[prost(uint64, repeated, tag = "3")]
    columns: Vec<u64>,
}

/// How far a reply has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    cursor: Cursor,
    columns: Vec<u64>,
}

impl Cursor {
    /// Of the replies to a request for some channels.
    pub(super) fn of(
        request: &ReadSignalRequest,
        recording: &PagedRecording,
        channels: &[u32],
    ) -> Self {
        let mut asked = DefaultHasher::new();
        let bare = ReadSignalRequest {
            cursor: Bytes::new(),
            // How it is packed may change on the way.
            compression: 0,
            ..request.clone()
        };
        bare.encode_to_vec().hash(&mut asked);
        let mut files = DefaultHasher::new();
        for channel in channels.iter().filter_map(|&it| recording.channel(it)) {
            channel.name.hash(&mut files);
            for segment in channel.segments.iter().take(1) {
                segment.stem.hash(&mut files);
                segment.start_uutc.hash(&mut files);
                segment.identity.data.place().hash(&mut files);
            }
        }
        Self {
            request: asked.finish(),
            files: files.finish(),
        }
    }

    /// The place that a cursor names, or the start where there is none, in groups of so
    /// many columns.
    pub(super) fn place(self, sent: &[u8], totals: Vec<u64>) -> Result<Place, Status> {
        if sent.is_empty() {
            return Ok(Place {
                columns: vec![0; totals.len()],
                cursor: self,
            });
        }
        let invalid = || {
            let text = "cursor is not one of a reply to this request";
            Status::from(Refusal::field("cursor", "CURSOR_INVALID", text))
        };
        let sent = Sent::decode(sent).map_err(|_| invalid())?;
        if sent.request != self.request {
            return Err(invalid());
        }
        if sent.files != self.files {
            let text = "the recording is another one, or has other channels, since the cursor";
            return Err(Refusal::new(Code::Aborted, "FILES_REPLACED", text).into());
        }
        let is_inside = sent.columns.len() == totals.len()
            && sent.columns.iter().zip(&totals).all(|(at, end)| at <= end);
        if !is_inside {
            return Err(invalid());
        }
        Ok(Place {
            columns: sent.columns,
            cursor: self,
        })
    }
}

impl Place {
    /// Columns of each group that were sent.
    pub(super) fn columns(&self) -> &[u64] {
        &self.columns
    }

    pub(super) fn advance(&mut self, group: usize, columns: u64) {
        if let Some(sent) = self.columns.get_mut(group) {
            *sent = columns;
        }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        let sent = Sent {
            request: self.cursor.request,
            files: self.cursor.files,
            columns: self.columns.clone(),
        };
        sent.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_to_no_other() {
        let cursor = Cursor {
            request: 1,
            files: 2,
        };
        let mut place = cursor.place(&[], vec![10, 20]).unwrap();
        assert_eq!(place.columns(), [0, 0]);
        place.advance(1, 15);
        let sent = place.to_bytes();
        assert_eq!(cursor.place(&sent, vec![10, 20]).unwrap(), place);
        let code =
            |cursor: Cursor, sent: &[u8], totals| cursor.place(sent, totals).unwrap_err().code();
        assert_eq!(code(cursor, &sent, vec![10, 14]), Code::InvalidArgument);
        assert_eq!(code(cursor, &sent, vec![10]), Code::InvalidArgument);
        assert_eq!(
            code(cursor, b"nonsense", vec![10, 20]),
            Code::InvalidArgument
        );
        let request = Cursor {
            request: 3,
            ..cursor
        };
        assert_eq!(code(request, &sent, vec![10, 20]), Code::InvalidArgument);
        let files = Cursor { files: 3, ..cursor };
        assert_eq!(code(files, &sent, vec![10, 20]), Code::Aborted);
    }
}
