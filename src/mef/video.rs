//! Video channels: their metadata and clip tables (format sections 6.4 and 7.2).
//!
//! The video itself is in a foreign format and none of ours: nothing here opens
//! or decodes it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use super::crypto::{Keys, Password};
use super::error::{Malformation, MefError};
use super::header::{parse_header, verify_body_crc, verify_header_crc};
use super::layout::{
    HEADER_BYTES, METADATA_BYTES, VIDEO_INDEX_ENTRY_BYTES, VideoIndexEntry, VideoMetadataFile, text,
};
use super::metadata::decrypt;
use super::time::{self, NO_TIME};

/// "No entry" for a frame's number.
const NO_FRAME: u32 = u32::MAX;

/// What a `.vmet` file says of its segment. `None` is "no entry".
///
/// Times are absolute uUTC, unless [`recording_time_offset`] is `None`.
///
/// [`recording_time_offset`]: Self::recording_time_offset
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoMetadata {
    /// Start of the segment.
    pub start_uutc: Option<i64>,
    /// End of the segment.
    pub end_uutc: Option<i64>,
    /// Offset that stored times are relative to, in microseconds; zero where
    /// there is none. `None` means that it is encrypted and the password does
    /// not open it: times that it was subtracted from are then relative to an
    /// unknown day, as if it were zero.
    pub recording_time_offset: Option<i64>,
    /// Free text.
    pub channel_description: String,
    /// Free text.
    pub session_description: String,
    /// Duration that the file declares, in microseconds; informational.
    pub recording_duration_us: Option<i64>,
    /// Width in pixels.
    pub horizontal_resolution: Option<u64>,
    /// Height in pixels.
    pub vertical_resolution: Option<u64>,
    /// Frames a second, finite and positive; `None` also where it varies.
    pub frame_rate: Option<f64>,
    /// Number of clips that the file declares; informational.
    pub declared_clips: Option<u64>,
    /// Bytes of the largest clip that the file declares; informational.
    pub declared_maximum_clip_bytes: Option<u64>,
    /// Name of the video's format, such as `MPEG-4`; empty where there is none.
    pub format: String,
    /// CRC over the whole video file.
    pub video_file_crc: Option<u32>,
}

/// One entry of a `.vidx` file. `None` is "no entry".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoClip {
    /// Time of the first frame, absolute uUTC.
    pub start_uutc: Option<i64>,
    /// Time of the last frame, absolute uUTC.
    pub end_uutc: Option<i64>,
    /// Number of the first frame, from 0.
    pub start_frame: Option<u32>,
    /// Number of the last frame.
    pub end_frame: Option<u32>,
    /// Byte offset of the clip in the video file.
    pub file_offset: Option<u64>,
    /// Length of the clip in bytes.
    pub bytes: Option<u64>,
    /// The clip is not, or not wholly, within the video file. Not set where
    /// there is no video file to hold it against.
    pub outside_file: bool,
}

/// The clips of a `.vidx` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VideoClips {
    /// In file order.
    pub(crate) clips: Vec<VideoClip>,
    /// Bytes after the last whole entry: a torn write or foreign padding.
    pub(crate) trailing_bytes: u64,
}

/// Parses the bytes of a `.vmet` file. Bytes beyond the format's 16384 are
/// ignored, as foreign writers append some.
///
/// # Errors
/// [`MefError::WrongPassword`], [`MefError::Encrypted`] where section 2 is
/// ciphertext that the password does not open, and [`MefError::Malformed`] for a file
/// that breaks the format.
pub(crate) fn parse_video_metadata(
    bytes: &[u8],
    file: &Path,
    password: Option<&Password>,
) -> Result<VideoMetadata, MefError> {
    let header = parse_header(bytes, "vmet", file)?;
    verify_header_crc(header, file)?;
    let Ok((metadata, _)) = VideoMetadataFile::ref_from_prefix(bytes) else {
        return Err(MefError::malformed(
            file,
            Malformation::TooShort {
                need: METADATA_BYTES as u64,
                have: bytes.len() as u64,
            },
        ));
    };
    let body = metadata.as_bytes().get(HEADER_BYTES..).unwrap_or_default();
    verify_body_crc(header, body, file)?;
    let wrong = |_| MefError::WrongPassword { file: file.into() };
    let (_, keys) = Keys::unlock(header, password).map_err(wrong)?;
    let offset = recording_time_offset(metadata, &keys, file)?;

    let mut section = metadata.section_2.clone();
    let level = metadata.section_1.section_2_encryption;
    if !decrypt(&keys, 2, level, section.as_mut_bytes(), file)? {
        return Err(MefError::Encrypted { file: file.into() });
    }
    // The initialiser of the reference library leaves some fields at zero where
    // it means "no entry" (format section 6.3).
    let positive = |value: i64| u64::try_from(value).ok().filter(|&value| value > 0);
    let duration = section.recording_duration.get();
    let frame_rate = section.frame_rate.get();
    Ok(VideoMetadata {
        start_uutc: time::absolute(header.start_time.get(), offset.unwrap_or(0)),
        end_uutc: time::absolute(header.end_time.get(), offset.unwrap_or(0)),
        recording_time_offset: offset,
        channel_description: text(&section.channel_description),
        session_description: text(&section.session_description),
        recording_duration_us: (duration > 0).then_some(duration),
        horizontal_resolution: section.horizontal_resolution.get().try_into().ok(),
        vertical_resolution: section.vertical_resolution.get().try_into().ok(),
        frame_rate: (frame_rate.is_finite() && frame_rate > 0.0).then_some(frame_rate),
        declared_clips: positive(section.number_of_clips.get()),
        declared_maximum_clip_bytes: positive(section.maximum_clip_bytes.get()),
        format: text(&section.video_format),
        video_file_crc: Some(section.video_file_crc.get()).filter(|&crc| crc != 0),
    })
}

/// The offset of section 3, `None` if that is locked. Only the AES block that
/// holds it is deciphered, and the subject stays as it is.
fn recording_time_offset(
    metadata: &VideoMetadataFile,
    keys: &Keys,
    file: &Path,
) -> Result<Option<i64>, MefError> {
    let level = metadata.section_1.section_3_encryption;
    let mut block = [0; 16];
    for (byte, stored) in block.iter_mut().zip(metadata.section_3.as_bytes()) {
        *byte = *stored;
    }
    if !decrypt(keys, 3, level, &mut block, file)? {
        return Ok(None);
    }
    let offset = block
        .first_chunk()
        .map_or(0, |&bytes| i64::from_le_bytes(bytes));
    Ok(Some(if offset == NO_TIME { 0 } else { offset }))
}

/// Parses a whole `.vidx` file, header included, of which the segment's video
/// file has `video_bytes` bytes, if there is one.
///
/// The number of clips follows from the length; the header's counts may be
/// stale. Entries that are padding are left out. The legacy index writer never
/// subtracts a recording time offset, and its times come out too late by one
/// that is not zero (format section 5).
pub(crate) fn parse_clips(
    bytes: &[u8],
    file: &Path,
    recording_time_offset: i64,
    video_bytes: Option<u64>,
) -> Result<VideoClips, MefError> {
    parse_header(bytes, "vidx", file)?;
    let entries = bytes
        .get(HEADER_BYTES..)
        .unwrap_or_default()
        .chunks_exact(VIDEO_INDEX_ENTRY_BYTES);
    let mut clips = Vec::with_capacity(entries.len());
    let trailing_bytes = entries.remainder().len() as u64;
    for bytes in entries {
        let Ok(entry) = VideoIndexEntry::ref_from_bytes(bytes) else {
            continue;
        };
        if !is_padding(entry) {
            clips.push(clip(entry, recording_time_offset, video_bytes));
        }
    }
    Ok(VideoClips {
        clips,
        trailing_bytes,
    })
}

fn clip(entry: &VideoIndexEntry, offset: i64, video_bytes: Option<u64>) -> VideoClip {
    let frame = |number: u32| (number != NO_FRAME).then_some(number);
    let file_offset = u64::try_from(entry.file_offset.get()).ok();
    let bytes = u64::try_from(entry.clip_bytes.get()).ok();
    // Of the negative numbers only minus one means something.
    let possible = entry.file_offset.get() >= -1 && entry.clip_bytes.get() >= -1;
    let end = file_offset.unwrap_or(0).checked_add(bytes.unwrap_or(0));
    let within = |have| possible && end.is_some_and(|end| end <= have);
    VideoClip {
        start_uutc: time::absolute(entry.start_time.get(), offset),
        end_uutc: time::absolute(entry.end_time.get(), offset),
        start_frame: frame(entry.start_frame.get()),
        end_frame: frame(entry.end_frame.get()),
        file_offset,
        bytes,
        outside_file: video_bytes.is_some_and(|have| !within(have)),
    }
}

/// Padding by recorders: entries of zeros or of "no entry" (format 15, row 21).
fn is_padding(entry: &VideoIndexEntry) -> bool {
    let number = |value: i64| [0, -1].contains(&value);
    let time = |value: i64| number(value) || value == NO_TIME;
    let frame = |value: u32| [0, NO_FRAME].contains(&value);
    time(entry.start_time.get())
        && time(entry.end_time.get())
        && frame(entry.start_frame.get())
        && frame(entry.end_frame.get())
        && number(entry.file_offset.get())
        && number(entry.clip_bytes.get())
}

#[cfg(test)]
mod tests;
