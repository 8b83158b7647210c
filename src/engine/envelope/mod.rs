//! The least and the greatest sample of each pixel of a span.
//!
//! Blocks that lie wholly within a pixel are answered from the extrema in the index, by
//! pyramids over it where the view is wide. What a pixel edge cuts is decoded, a bounded
//! number of bytes at a time, and its extrema are kept for the next view.

mod fetching;
mod kept;
mod pixels;
mod pyramid;
mod shelf;
mod shelf_file;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::yield_now;

use self::fetching::{Need, Needs};
use self::kept::{GROUP_BLOCKS, Kept, KeptPiece, SegmentNumber, SegmentOf};
use self::pixels::{Division, Line, Pixels};
use self::pyramid::{FAN_OUT, Pyramid, Shown, Walk};
use self::shelf::Shelf;
use super::Engine;
use super::Reader;
use super::permits::Lease;
use super::windows::Masked;
use crate::actors::file_manager::Check;
use crate::actors::plan::no_channel;
use crate::actors::settings::Settings;
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::{Channel, Rule, Segment, WindowError, check_readable, scale_of};
use crate::trace;
use crate::worker::page::PagedRecording;

/// Bytes of the pixels of one item.
const ITEM_BYTES: usize = 128 << 10;
/// Bytes of a pixel: its least and its greatest value.
const PIXEL_BYTES: usize = 2 * size_of::<f32>();
/// Rows of one item: each has a name.
const MOST_ROWS: usize = 512;
/// What was masked is told when it is so much.
const MOST_MASKED: usize = 512;
/// A view of more blocks of a segment goes by its pyramid.
const WIDE_BLOCKS: usize = 512;
/// Blocks that are added to a pyramid, and nodes that are looked at, before others have
/// their turn: less than a millisecond.
const BUILD_STEP: usize = 1 << 15;
const WALK_STEP: usize = 1 << 13;

/// What envelopes of an engine leave for the next.
pub(super) struct Envelopes {
    kept: Arc<Kept>,
    shelf: Option<Arc<Shelf>>,
}

impl Envelopes {
    pub(super) fn new(settings: &Settings) -> Self {
        let folder = settings.envelope_folder.clone();
        let shelf = folder.map(|folder| Arc::new(Shelf::new(folder, settings.pyramid_disk_bytes)));
        Self {
            kept: Arc::new(Kept::new(settings.pyramid_bytes)),
            shelf,
        }
    }
}

/// An envelope that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeRequest {
    /// The span, uUTC, half-open.
    pub(crate) start_uutc: i64,
    pub(crate) end_uutc: i64,
    /// Pixels of each row.
    pub(crate) pixels: u32,
    /// Nothing is answered from the index.
    pub(crate) decode_all: bool,
    pub(crate) on_damage: OnDamage,
}

/// Some pixels of a row: NaN without a sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnvelopePart {
    /// The row of the request.
    pub(crate) row: usize,
    /// Position of its channel.
    pub(crate) channel: u32,
    /// The first of the pixels.
    pub(crate) first_pixel: u32,
    /// The least sample of each, in units.
    pub(crate) minima: Vec<f32>,
    /// The greatest.
    pub(crate) maxima: Vec<f32>,
}

impl EnvelopePart {
    fn fold(&mut self, pixel: usize, minimum: i32, maximum: i32, factor: f64) {
        let value = |count: i32| (f64::from(count) * factor) as f32;
        let (one, other) = (value(minimum), value(maximum));
        if let Some(least) = self.minima.get_mut(pixel) {
            *least = least.min(one).min(other);
        }
        if let Some(greatest) = self.maxima.get_mut(pixel) {
            *greatest = greatest.max(one).max(other);
        }
    }
}

/// What comes of an envelope at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnvelopeItem {
    pub(crate) parts: Vec<EnvelopePart>,
    /// Damage in these pixels.
    pub(crate) masked: Vec<Masked>,
    /// Blocks that were answered from the index.
    pub(crate) index_blocks: u64,
    /// Parts of blocks whose extrema were kept from an earlier answer.
    pub(crate) kept_pieces: u64,
    /// Blocks that were decoded.
    pub(crate) decoded_blocks: u64,
}

/// An envelope, row by row.
pub(crate) struct EnvelopeStream {
    engine: Engine,
    recording: Arc<PagedRecording>,
    /// Positions of the channels of the rows.
    channels: Vec<u32>,
    request: EnvelopeRequest,
    division: Division,
    /// Where the next part begins.
    row: usize,
    first_pixel: u32,
    /// Of the part that came last: many rows have the same.
    pixels: Option<Arc<Pixels>>,
    checked_at: Option<Instant>,
    lease: Lease,
    ended: bool,
    /// Something was decoded that is kept.
    has_new: bool,
    _room: OwnedSemaphorePermit,
}

/// A segment that a part shows.
#[derive(Clone, Copy)]
struct Place<'a> {
    line: Line,
    channel: &'a Channel,
    /// Positions of channel and segment.
    position: (u32, u32),
    segment: &'a Segment,
}

impl Engine {
    /// Starts to read an envelope of some channels, by position.
    ///
    /// # Errors
    /// [`Error::NoPoints`] and [`WindowError::Empty`] for what makes no sense;
    /// [`Error::LimitExceeded`] and [`Error::Busy`] where there is no room; and
    /// [`Error::Read`] for a segment that cannot be read and is not masked.
    pub(crate) fn read_envelope(
        &self,
        recording: &Arc<PagedRecording>,
        channels: Vec<u32>,
        request: EnvelopeRequest,
        reader: Reader,
    ) -> Result<EnvelopeStream, Error> {
        if request.pixels == 0 {
            return Err(Error::NoPoints);
        }
        if request.end_uutc <= request.start_uutc {
            return Err(WindowError::Empty.into());
        }
        let most = self.settings().channels_per_read;
        if channels.len() > most {
            return Err(Error::LimitExceeded {
                limit: "limits.channels_per_read",
                value: most as u64,
            });
        }
        if channels.is_empty() {
            return Err(no_channel(recording));
        }
        let pixels = u64::from(request.pixels).saturating_mul(channels.len() as u64);
        let bytes = pixels.saturating_mul(PIXEL_BYTES as u64);
        self.check_bytes(bytes, reader)?;
        let room = self.inner.points.take_bytes(bytes)?;
        if request.on_damage == OnDamage::Fail {
            let span = (request.start_uutc, request.end_uutc);
            for channel in channels.iter().filter_map(|&it| recording.channel(it)) {
                check_readable(channel, span)?;
            }
        }
        Ok(EnvelopeStream {
            lease: self.inner.permits.lease(reader),
            engine: self.clone(),
            recording: Arc::clone(recording),
            channels,
            division: Division {
                start_uutc: request.start_uutc,
                end_uutc: request.end_uutc,
                pixels: request.pixels,
            },
            request,
            row: 0,
            first_pixel: 0,
            pixels: None,
            checked_at: None,
            ended: false,
            has_new: false,
            _room: room,
        })
    }
}

impl Drop for EnvelopeStream {
    fn drop(&mut self) {
        let Envelopes { kept, shelf } = &self.engine.inner.envelopes;
        if let Some(shelf) = shelf.as_ref().filter(|_| self.has_new) {
            shelf.write_soon(kept, &self.recording);
        }
    }
}

impl EnvelopeStream {
    /// The next pixels; `None` after the last, and after an error.
    ///
    /// # Cancellation
    /// Whoever drops the future drops the pixels that were under way: it is polled to
    /// its end, or the stream is dropped, too.
    pub(crate) async fn next(&mut self) -> Option<Result<EnvelopeItem, Error>> {
        if self.ended || self.row >= self.channels.len() {
            return None;
        }
        let item = self.item().await;
        self.ended = item.is_err();
        Some(item)
    }

    async fn item(&mut self) -> Result<EnvelopeItem, Error> {
        self.check().await?;
        self.read_shelf().await?;
        let mut item = EnvelopeItem::default();
        let mut needs = Needs::default();
        let mut room = ITEM_BYTES / PIXEL_BYTES;
        while room > 0 && item.parts.len() < MOST_ROWS && item.masked.len() < MOST_MASKED {
            let Some(&position) = self.channels.get(self.row) else {
                break;
            };
            let recording = Arc::clone(&self.recording);
            let Some(channel) = recording.channel(position) else {
                self.row += 1;
                continue;
            };
            let pixels = self.pixels(Line::of(channel), room as u32);
            room -= pixels.len().min(room);
            item.parts.push(EnvelopePart {
                row: self.row,
                channel: position,
                first_pixel: self.first_pixel,
                minima: vec![f32::NAN; pixels.len()],
                maxima: vec![f32::NAN; pixels.len()],
            });
            if self.first_pixel == 0 && self.request.on_damage == OnDamage::Mask {
                let division = self.division;
                let unreadable = channel.unreadable_within(division.start_uutc, division.end_uutc);
                item.masked
                    .extend(unreadable.map(|segment| Masked::Segment {
                        channel: channel.name.clone(),
                        segment: Box::new(segment.clone()),
                    }));
            }
            self.part((channel, position), &pixels, &mut item, &mut needs)
                .await?;
            self.first_pixel += pixels.len() as u32;
            if self.first_pixel >= self.division.pixels || pixels.len() == 0 {
                self.row += 1;
                self.first_pixel = 0;
            }
        }
        self.fetch(&mut item, &mut needs).await?;
        Ok(item)
    }

    /// Takes from disk what an earlier run of the server has left.
    async fn read_shelf(&self) -> Result<(), Error> {
        let Envelopes { kept, shelf } = &self.engine.inner.envelopes;
        let shelf = shelf.as_ref().filter(|it| it.is_to_read(&self.recording));
        let Some(shelf) = shelf.cloned() else {
            return Ok(());
        };
        let (kept, recording) = (Arc::clone(kept), Arc::clone(&self.recording));
        let read = tokio::task::spawn_blocking(move || shelf.read(&kept, &recording));
        read.await.map_err(|_| Error::Stopped)
    }

    /// The next pixels of a row.
    fn pixels(&mut self, line: Line, most: u32) -> Arc<Pixels> {
        let left = self.division.pixels - self.first_pixel;
        let same = self.pixels.as_ref().filter(|pixels| {
            pixels.is(line, self.division, self.first_pixel)
                && pixels.len() == left.min(most) as usize
        });
        if let Some(same) = same {
            return Arc::clone(same);
        }
        let new = Pixels::new(line, self.division, self.first_pixel, left.min(most));
        let new = Arc::new(new);
        self.pixels = Some(Arc::clone(&new));
        new
    }

    /// Shows a channel in the last part of an item, but for what is to be decoded.
    async fn part(
        &mut self,
        (channel, position): (&Channel, u32),
        pixels: &Pixels,
        item: &mut EnvelopeItem,
        needs: &mut Needs,
    ) -> Result<(), Error> {
        let (from, until) = pixels.time_bounds();
        for (segment, number) in channel.segments.iter().zip(0u32..) {
            let candidates = segment.index.candidates(from, until);
            let is_before = segment.index.end_uutc().is_none_or(|end| end < from);
            if is_before || candidates.is_empty() {
                continue;
            }
            let place = Place {
                line: Line::of(channel),
                channel,
                position: (position, number),
                segment,
            };
            self.segment(place, candidates, pixels, item, needs).await?;
            yield_now().await;
        }
        Ok(())
    }

    async fn segment(
        &mut self,
        place: Place<'_>,
        candidates: std::ops::Range<usize>,
        pixels: &Pixels,
        item: &mut EnvelopeItem,
        needs: &mut Needs,
    ) -> Result<(), Error> {
        let index = &place.segment.index;
        let Some(number) = self.number(place) else {
            return Ok(());
        };
        let decode_all = self.request.decode_all;
        let pyramid = if candidates.len() > WIDE_BLOCKS && !decode_all {
            Some(self.pyramid(number, place).await)
        } else {
            None
        };
        let mut walk = match &pyramid {
            Some(pyramid) => Walk::down(pyramid, decode_all),
            None => Walk::along(candidates, decode_all),
        };
        let factor = scale_of::<f32>(place.channel, place.position.1, Rule::Mef3io)?.factor;
        let kept = Arc::clone(&self.engine.inner.envelopes.kept);
        // The group of blocks that the walk is in.
        let mut group: Option<(u32, Arc<[KeptPiece]>)> = None;
        let part = item.parts.len().saturating_sub(1);
        loop {
            let EnvelopeItem {
                parts,
                index_blocks,
                kept_pieces,
                ..
            } = &mut *item;
            let Some(shown_in) = parts.last_mut() else {
                return Ok(());
            };
            let mut show = |shown: Shown| match shown {
                Shown::Whole {
                    pixel,
                    minimum,
                    maximum,
                    blocks,
                } => {
                    shown_in.fold(pixel, minimum, maximum, factor);
                    *index_blocks += u64::from(blocks);
                }
                Shown::Piece(piece) => {
                    let of_it = piece.block / GROUP_BLOCKS;
                    let (_, pieces) = match &group {
                        Some(group) if group.0 == of_it => group,
                        _ => group.insert((of_it, kept.pieces(number, of_it))),
                    };
                    let known = KeptPiece::find(pieces, &piece).filter(|_| !decode_all);
                    if let Some(known) = known {
                        shown_in.fold(piece.pixel, known.minimum, known.maximum, factor);
                        *kept_pieces += 1;
                        return;
                    }
                    needs.push(Need {
                        part,
                        place: place.position,
                        number,
                        factor,
                        piece,
                    });
                }
            };
            let on = (place.line, index);
            let more = walk.step(pyramid.as_deref(), on, pixels, WALK_STEP, &mut show);
            if needs.are_many() {
                self.fetch(item, needs).await?;
            }
            if !more {
                return Ok(());
            }
            yield_now().await;
        }
    }

    /// The number of a segment; `None` where it has no block.
    fn number(&self, place: Place<'_>) -> Option<SegmentNumber> {
        let (channel, segment) = place.position;
        let page = self.recording.page_of(channel, segment, 0)?;
        Some(self.engine.inner.envelopes.kept.number(SegmentOf {
            opening: (page.recording, page.segment),
            identity: &place.segment.identity,
            access: self.recording.recording.access,
        }))
    }

    /// The pyramid of a segment, which is built where there is none.
    async fn pyramid(&self, number: SegmentNumber, place: Place<'_>) -> Arc<Pyramid> {
        let kept = &self.engine.inner.envelopes.kept;
        let index = &place.segment.index;
        if let Some(pyramid) = kept.pyramid(number, place.line, index) {
            return pyramid;
        }
        let mut pyramid = Pyramid::begin(place.line);
        while pyramid.add(index, BUILD_STEP - BUILD_STEP % FAN_OUT) {
            yield_now().await;
        }
        let pyramid = Arc::new(pyramid.finish());
        kept.put_pyramid(number, Arc::clone(&pyramid));
        pyramid
    }

    /// Makes sure that the files are still those that the index is of.
    async fn check(&mut self) -> Result<(), Error> {
        let staleness = self.engine.settings().staleness;
        let checked = self.checked_at.map(|checked| checked.elapsed());
        if checked.is_some_and(|age| age < staleness) {
            return Ok(());
        }
        let now = Instant::now();
        let (reply, same) = oneshot::channel();
        let question = Check {
            recording: Arc::clone(&self.recording),
            trace: trace::current(),
            reply,
        };
        let sent = self.engine.addresses().file_manager.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        same.await.map_err(|_| Error::Stopped)??;
        self.checked_at = Some(now);
        Ok(())
    }
}
