//! The form of a file of kept parts, little-endian throughout: a header of 24 bytes
//! (what it is, version, CRC of the rest, length of the rest), then the segments. Each
//! is the digest of its identity (32 bytes), the number of its parts (8 bytes), and the
//! parts, of 20 bytes: block, first sample, sample after the last, least and greatest
//! count.

use super::kept::KeptPiece;
use crate::mef::crc32;

const MAGIC: [u8; 8] = *b"MEF3ENVE";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const SEGMENT_BYTES: usize = 40;
/// Bytes of a part.
pub(super) const PIECE_BYTES: usize = 20;

/// Names a segment by its files: SHA-256 of their identity.
pub(super) type SegmentDigest = [u8; 32];

/// The parts of a segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SegmentPieces {
    pub(super) segment: SegmentDigest,
    pub(super) pieces: Vec<KeptPiece>,
}

/// Writes segments, those that have room in so many bytes.
pub(super) fn encode(segments: impl Iterator<Item = SegmentPieces>, most_bytes: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for SegmentPieces { segment, pieces } in segments {
        let bytes = HEADER_BYTES + body.len() + SEGMENT_BYTES + pieces.len() * PIECE_BYTES;
        if bytes as u64 > most_bytes {
            continue;
        }
        body.extend(segment);
        body.extend((pieces.len() as u64).to_le_bytes());
        for piece in &pieces {
            body.extend(piece.to_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32(&body).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Reads them; `None` where anything is not as it should be.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<SegmentPieces>> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let (length, body) = rest.split_first_chunk()?;
    let is_ours = *magic == MAGIC && u32::from_le_bytes(*version) == VERSION;
    let is_whole = u64::from_le_bytes(*length) == body.len() as u64;
    if !is_ours || !is_whole || u32::from_le_bytes(*crc) != crc32(body) {
        return None;
    }
    let mut segments = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (segment, after) = rest.split_first_chunk::<32>()?;
        let (count, after) = after.split_first_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (pieces, after) = after.split_at_checked(count.checked_mul(PIECE_BYTES)?)?;
        let (pieces, _) = pieces.as_chunks::<PIECE_BYTES>();
        segments.push(SegmentPieces {
            segment: *segment,
            pieces: pieces.iter().map(KeptPiece::from_bytes).collect(),
        });
        rest = after;
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<SegmentPieces> {
        let piece = |number: u8| KeptPiece::from_bytes(&[number; PIECE_BYTES]);
        let segment = |number: u8| SegmentPieces {
            segment: [number; 32],
            pieces: (0..number).map(piece).collect(),
        };
        (0..5).map(segment).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = encode(some().into_iter(), u64::MAX);
        assert_eq!(decode(&bytes), Some(some()));
        let few = encode(some().into_iter(), 150);
        assert!(few.len() <= 150);
        assert_eq!(decode(&few), Some(some()[..2].to_vec()));
    }

    #[test]
    fn what_was_cut_or_turned_is_nothing() {
        let bytes = encode(some().into_iter(), u64::MAX);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&turned), None, "bit {bit}");
        }
    }

    #[test]
    fn a_right_checksum_makes_no_lie_dangerous() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut body: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
            if body.len() >= SEGMENT_BYTES && rng.bool() {
                let count = [0, 1, 2, u64::MAX, u64::MAX / 20, 1 << 61][rng.usize(..6)];
                body[32..40].copy_from_slice(&count.to_le_bytes());
            }
            let mut bytes = MAGIC.to_vec();
            bytes.extend(VERSION.to_le_bytes());
            bytes.extend(crc32(&body).to_le_bytes());
            bytes.extend((body.len() as u64).to_le_bytes());
            bytes.extend(&body);
            if let Some(segments) = decode(&bytes) {
                let pieces: usize = segments.iter().map(|it| it.pieces.len()).sum();
                assert!(pieces * PIECE_BYTES <= body.len());
            }
        }
    }
}
