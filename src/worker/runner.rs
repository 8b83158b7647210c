//! Does jobs: the one piece of code that reads sessions for the server, in a
//! worker process and in the in-process reader alike.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::protocol::{Job, JobId, PageHeader, PageWork, Reply, SegmentWork, Work};
use crate::mef::{DecodedBlock, MefError, Scratch, SegmentReader, open_session_watched};

/// Samples after which a job's pages are sent while the rest is decoded:
/// 256 KiB, so that the first pages of a large job are not kept waiting.
const BATCH_SAMPLES: usize = 64 * 1024;
/// Memory that the indices of open segments may take in one worker.
const MAX_INDEX_BYTES: usize = 64 << 20;

/// How often an opening that takes long says that it goes on: a session of many
/// segments on a slow disk takes longer than a worker may be silent.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);

/// Where a runner's answers go. An error ends the job: nobody listens.
pub(crate) trait Answers {
    fn answer(&mut self, reply: Reply, samples: &[i32]) -> Result<(), HangUp>;

    /// Says that a job makes progress, where somebody watches for it.
    fn working(&mut self, _job: JobId) {}
}

/// The other side is gone.
#[derive(Debug)]
pub(crate) struct HangUp;

/// Keeps files and indices open between jobs, within bounds.
pub(crate) struct Runner {
    segments: LruCache<(PathBuf, String), SegmentReader>,
    index_bytes: usize,
    scratch: Scratch,
    samples: Vec<i32>,
}

impl Runner {
    /// A runner that keeps at most `open_segments` segments open.
    pub(crate) fn new(open_segments: NonZeroUsize) -> Self {
        Self {
            segments: LruCache::new(open_segments),
            index_bytes: 0,
            scratch: Scratch::default(),
            samples: Vec::new(),
        }
    }

    /// Does a job and answers it. A panic is caught and costs this job only.
    pub(crate) fn run(&mut self, job: &Job, answers: &mut dyn Answers) -> Result<(), HangUp> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(job, answers)));
        match outcome {
            Ok(done) => done,
            Err(panic) => {
                // Whatever was half done is forgotten with its state.
                self.samples = Vec::new();
                self.scratch = Scratch::default();
                self.close_all();
                answers.answer(Reply::Panicked(job.id, panic_message(&*panic)), &[])
            }
        }
    }

    /// Forgets everything that is open below a session folder.
    pub(crate) fn close(&mut self, session: &Path) {
        let keys: Vec<_> = self.segments.iter().map(|(key, _)| key.clone()).collect();
        for key in keys
            .into_iter()
            .filter(|(folder, _)| folder.starts_with(session))
        {
            self.forget(&key);
        }
    }

    fn close_all(&mut self) {
        self.segments.clear();
        self.index_bytes = 0;
    }

    fn work(&mut self, job: &Job, answers: &mut dyn Answers) -> Result<(), HangUp> {
        match &job.work {
            Work::Open(path) => {
                let mut said = Instant::now();
                let opened = open_session_watched(path, &mut || {
                    if said.elapsed() >= SIGN_OF_LIFE {
                        said = Instant::now();
                        answers.working(job.id);
                    }
                });
                let opened = opened.map(Box::new);
                answers.answer(Reply::Opened(job.id, opened), &[])?;
            }
            Work::Decode(segments) => self.decode(job.id, segments, answers)?,
        }
        answers.answer(Reply::Done(job.id), &[])
    }

    fn decode(
        &mut self,
        job: JobId,
        segments: &[SegmentWork],
        answers: &mut dyn Answers,
    ) -> Result<(), HangUp> {
        let mut headers = Vec::new();
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        let mut page = 0;
        for work in segments {
            let mut ready = self.prepare(work);
            for ordered in &work.pages {
                let blocks = match &mut ready {
                    Ok(()) => self.decode_page(work, ordered, &mut samples),
                    Err(error) => Err(error.clone()),
                };
                headers.push(PageHeader { page, blocks });
                page += 1;
                if samples.len() >= BATCH_SAMPLES {
                    answers.answer(Reply::Pages(job, std::mem::take(&mut headers)), &samples)?;
                    samples.clear();
                }
            }
        }
        if !headers.is_empty() {
            answers.answer(Reply::Pages(job, headers), &samples)?;
        }
        self.samples = samples;
        Ok(())
    }

    /// Makes sure that the segment is open, and is the one that the recording
    /// was opened from.
    fn prepare(&mut self, work: &SegmentWork) -> Result<(), MefError> {
        let key = (work.channel_folder.clone(), work.stem.clone());
        if let Some(reader) = self.segments.get(&key)
            && reader.is_current()?
            && holds(reader, &work.pages)
        {
            return reader.check_identity(&work.identity);
        }
        self.forget(&key);
        let reader = SegmentReader::open(&work.channel_folder, &work.stem)?;
        reader.check_identity(&work.identity)?;
        if !holds(&reader, &work.pages) {
            return Err(reader.changed());
        }
        self.index_bytes += reader.memory();
        if let Some((_, evicted)) = self.segments.push(key, reader) {
            self.index_bytes -= evicted.memory();
        }
        while self.index_bytes > MAX_INDEX_BYTES && self.segments.len() > 1 {
            let Some((_, evicted)) = self.segments.pop_lru() else {
                break;
            };
            self.index_bytes -= evicted.memory();
        }
        Ok(())
    }

    fn decode_page(
        &mut self,
        work: &SegmentWork,
        page: &PageWork,
        samples: &mut Vec<i32>,
    ) -> Result<Vec<DecodedBlock>, MefError> {
        let key = (work.channel_folder.clone(), work.stem.clone());
        let Some(reader) = self.segments.get(&key) else {
            return Err(MefError::NotFound {
                path: work.channel_folder.join(&work.stem),
            });
        };
        let (first, count) = (page.first_block as usize, page.blocks.len());
        let mut blocks = Vec::with_capacity(count);
        reader.decode(first, count, &mut self.scratch, samples, &mut blocks);
        Ok(blocks)
    }

    fn forget(&mut self, key: &(PathBuf, String)) {
        if let Some(reader) = self.segments.pop(key) {
            self.index_bytes -= reader.memory();
        }
    }
}

/// Whether the segment's index still says of the pages' blocks what it said when
/// the recording was opened.
fn holds(reader: &SegmentReader, pages: &[PageWork]) -> bool {
    pages.iter().all(|page| {
        let positions = page.first_block as usize..;
        page.blocks.iter().zip(positions).all(|(planned, block)| {
            reader.block(block).is_some_and(|entry| {
                (entry.start_uutc, entry.samples) == (planned.start_uutc, planned.samples)
            })
        })
    })
}

/// The text of a panic, as far as it has one.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panic without a message").to_owned()
}
