//! In place of `faults.rs` in every program that serves: workers are not spoilt.

use std::borrow::Cow;

use super::protocol::{PageWork, Reply, SegmentPlace, Work};

#[inline]
pub(crate) fn arm() {}

#[inline]
pub(crate) fn before_job(_: &Work) {}

#[inline]
pub(crate) fn before_page(_: &SegmentPlace, _: &PageWork) {}

#[inline]
pub(crate) fn spoilt(reply: Reply, samples: &[i32]) -> (Reply, Cow<'_, [i32]>) {
    (reply, Cow::Borrowed(samples))
}
