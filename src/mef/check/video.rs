//! A video's clips and checksum, held against the video file.

use super::{Check, PIECE, Problem};
use crate::mef::crc::RunningCrc;
use crate::mef::error::MefError;
use crate::mef::segment::{SegmentFiles, is_growing};
use crate::mef::store::StoredFile;
use crate::mef::video_channel::{VideoChannel, VideoSegment};

impl Check<'_> {
    /// Checks what the metadata and the clip table of a video declare.
    pub(super) fn video(
        &mut self,
        channel: &VideoChannel,
        segment: &VideoSegment,
    ) -> Result<(), MefError> {
        let folder = format!("{}.vidd", channel.name);
        let files = SegmentFiles::in_folder(folder.as_ref(), &segment.stem);
        let metadata = self.store.file(files.name("vmet"))?;
        if let Some(declared) = segment.metadata.declared_clips
            && declared != segment.clips.len() as u64
            && !is_growing(&metadata)
        {
            let what = "clips";
            let problem = Problem::Count {
                what,
                declared: i64::try_from(declared).unwrap_or(i64::MAX),
                found: segment.clips.len() as i64,
            };
            self.report(&metadata, None, problem);
        }
        let Some(path) = &segment.video_file else {
            return Ok(());
        };
        let name = path.strip_prefix(self.store.path("")).unwrap_or(path);
        let video = self.store.file(name)?;
        if is_growing(&video) {
            return Ok(());
        }
        let index = self.store.file(files.name("vidx"))?;
        for (number, clip) in segment.clips.iter().enumerate() {
            if clip.outside_file {
                self.report(&index, None, Problem::Clip(number));
            }
        }
        match segment.metadata.video_file_crc {
            // Videos are long.
            Some(stored) if self.deep => self.video_crc(&video, stored),
            _ => Ok(()),
        }
    }

    fn video_crc(&mut self, video: &StoredFile, stored: u32) -> Result<(), MefError> {
        let mut crc = RunningCrc::new();
        let mut offset = 0;
        loop {
            let piece = video.read(offset, PIECE)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            crc.update(&piece);
        }
        let computed = crc.value();
        if stored != computed {
            let part = "video file";
            let problem = Problem::Crc {
                part,
                stored,
                computed,
            };
            self.report(video, None, problem);
        }
        Ok(())
    }
}
