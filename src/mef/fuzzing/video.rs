//! The clip table of a video.

use super::common::{check_error, here, seal_file};
use crate::mef::layout::{HEADER_BYTES, VIDEO_INDEX_ENTRY_BYTES};
use crate::mef::video::{VideoClips, parse_clips};

/// Where applications keep what is theirs in the header; here, what the table is
/// held against.
const DISCRETIONARY: usize = 960;

/// The input is a whole file. Eight bytes of the header that mean nothing say the
/// recording time offset, the next eight the length of the video file, if they are
/// not zero.
pub fn video(input: &[u8]) {
    let number = |at: usize| -> Option<i64> {
        let field = input.get(at..)?.first_chunk()?;
        Some(i64::from_le_bytes(*field))
    };
    let offset = number(DISCRETIONARY).unwrap_or(0);
    let video_bytes = number(DISCRETIONARY + 8).unwrap_or(0) as u64;
    let video_bytes = Some(video_bytes).filter(|&bytes| bytes != 0);
    match parse_clips(input, here(), offset, video_bytes) {
        Ok(clips) => check(input, &clips, video_bytes),
        Err(error) => check_error(&error),
    }
    let mut sealed = input.to_vec();
    seal_file(&mut sealed, "vidx");
    let Ok(clips) = parse_clips(&sealed, here(), offset, video_bytes) else {
        assert!(input.len() < HEADER_BYTES);
        return;
    };
    check(&sealed, &clips, video_bytes);
    let again = parse_clips(&sealed, here(), offset, video_bytes);
    assert_eq!(again, Ok(clips.clone()));
    // Without a video file there is nothing to be outside of.
    let alone = parse_clips(&sealed, here(), offset, None).expect("as before");
    assert!(alone.clips.iter().all(|clip| !clip.outside_file));
    assert_eq!(alone.clips.len(), clips.clips.len());
}

fn check(file: &[u8], clips: &VideoClips, video_bytes: Option<u64>) {
    let body = &file[HEADER_BYTES..];
    assert!(clips.clips.len() <= body.len() / VIDEO_INDEX_ENTRY_BYTES);
    assert_eq!(
        clips.trailing_bytes,
        (body.len() % VIDEO_INDEX_ENTRY_BYTES) as u64
    );
    for clip in &clips.clips {
        let end = u128::from(clip.file_offset.unwrap_or(0)) + u128::from(clip.bytes.unwrap_or(0));
        if let Some(bytes) = video_bytes
            && !clip.outside_file
        {
            assert!(end <= u128::from(bytes));
        }
        for frame in [clip.start_frame, clip.end_frame] {
            assert_ne!(frame, Some(u32::MAX));
        }
    }
}
