//! What hostile or damaged input is checked against: one test for each row of the
//! table in section 14 of the format document, named after its field, and tests of
//! the time and memory that a refusal takes. `format_document.rs` makes sure that
//! there is one for each.
//!
//! All checksums are right, so that nothing but the check itself refuses.

#[path = "validation/blocks.rs"]
mod blocks;
#[path = "validation/bounds.rs"]
mod bounds;
mod common;
#[path = "validation/files.rs"]
mod files;
#[path = "validation/foreign.rs"]
mod foreign;
#[path = "validation/index.rs"]
mod index;
#[path = "validation/metadata.rs"]
mod metadata;
#[path = "validation/records.rs"]
mod records;

use common::forge::Forged;
use mef3_server::mef::{BlockError, Malformation, MefError, ReadError};

/// Numbers that no count, offset or time expects.
const ABSURD: [i64; 6] = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];

/// Why the segment or channel that was patched cannot be read; the other channel is
/// as it was.
fn refusal(forged: &Forged) -> Malformation {
    forged.assert_good("beside what is refused");
    match &forged.refusals()[..] {
        [MefError::Malformed { reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// Why a block of `bad` cannot be read; the other channel is as it was.
fn block_error(forged: &Forged, block: u32) -> BlockError {
    forged.assert_good("beside a damaged block");
    match forged.read::<f64>("bad") {
        Err(ReadError::Damaged(damaged)) => {
            assert_eq!(damaged.block, block);
            damaged.damage.error
        }
        other => panic!("{other:?}"),
    }
}
