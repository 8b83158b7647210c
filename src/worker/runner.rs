//! Does jobs: the one piece of code that reads sessions for the server, in a
//! worker process and in the in-process reader alike.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::faults;
use super::page::Form;
use super::probe::decode_probe;
use super::protocol::{Job, JobId, PageHeader, Reply, SegmentPlace, SegmentWork, Work};
use crate::mef::{
    DecodedBlock, MefError, Roots, Scratch, SegmentReader, Store, open_session_watched, refresh,
};
use crate::panics::panic_text;

/// Samples after which a job's pages are sent while the rest is decoded:
/// 256 KiB, so that the first pages of a large job are not kept waiting.
const BATCH_SAMPLES: usize = 64 * 1024;

/// Archives whose members a worker remembers.
const OPEN_ARCHIVES: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// How often a job that takes long says that it goes on: a session of many segments,
/// or many pages, on a slow disk take longer than a worker may be silent.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);

/// Where a runner's answers go. An error ends the job: nobody listens.
pub(crate) trait Answers {
    fn answer(&mut self, reply: Reply, samples: &[i32]) -> Result<(), HangUp>;

    /// Says that a job makes progress, where somebody watches for it.
    fn working(&mut self, _job: JobId) {}

    /// Whether nobody wants the job any more.
    fn is_cancelled(&mut self, job: &Job) -> bool {
        job.is_cancelled()
    }
}

/// The other side is gone.
#[derive(Debug)]
pub(crate) struct HangUp;

/// Keeps files and indices open between jobs, within bounds.
pub(crate) struct Runner {
    segments: LruCache<SegmentPlace, SegmentReader>,
    /// Archives whose members are known.
    archives: LruCache<PathBuf, Store>,
    roots: Roots,
    scratch: Scratch,
    samples: Vec<i32>,
}

impl Runner {
    /// A runner that reads below the roots only, and keeps at most `open_segments`
    /// segments open.
    pub(crate) fn new(open_segments: NonZeroUsize, roots: Roots) -> Self {
        Self {
            segments: LruCache::new(open_segments),
            archives: LruCache::new(OPEN_ARCHIVES),
            roots,
            scratch: Scratch::default(),
            samples: Vec::new(),
        }
    }

    /// Does a job and answers it. A panic is caught and costs this job only.
    pub(crate) fn run(&mut self, job: &Job, answers: &mut dyn Answers) -> Result<(), HangUp> {
        let work = job.work.name();
        let span = tracing::error_span!("job", id = job.id, work, requests = %job.requests());
        let _entered = span.enter();
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(job, answers)));
        tracing::debug!(pid = process::id(), took = ?begun.elapsed(), "job has ended");
        match outcome {
            Ok(done) => done,
            Err(panic) => {
                // Whatever was half done is forgotten with its state.
                self.samples = Vec::new();
                self.scratch = Scratch::default();
                self.segments.clear();
                answers.answer(Reply::Panicked(job.id, panic_text(&*panic).to_owned()), &[])
            }
        }
    }

    /// Forgets what is open of a session.
    pub(crate) fn close(&mut self, session: &Path) {
        let open = self.segments.iter().map(|(place, _)| place);
        let closed: Vec<_> = open
            .filter(|place| place.session == session)
            .cloned()
            .collect();
        for place in closed {
            self.segments.pop(&place);
        }
        self.archives.pop(session);
    }

    fn work(&mut self, job: &Job, answers: &mut dyn Answers) -> Result<(), HangUp> {
        // Also where it is not asked again: notes of jobs that went elsewhere must not
        // pile up in the channel.
        if answers.is_cancelled(job) {
            return answers.answer(Reply::Cancelled(job.id), &[]);
        }
        faults::before_job(&job.work);
        match &job.work {
            Work::Open(path, options) => {
                let opened =
                    open_session_watched(path, options, &self.roots, &mut goes_on(job.id, answers));
                answers.answer(Reply::Opened(job.id, opened.map(Box::new)), &[])?;
            }
            Work::Refresh(path, options, known) => {
                let news = refresh(
                    path,
                    options,
                    known,
                    &self.roots,
                    &mut goes_on(job.id, answers),
                );
                answers.answer(Reply::Refreshed(job.id, news), &[])?;
            }
            Work::Records(path, reader, query) => {
                let page = store_at(&mut self.archives, path, &self.roots)
                    .and_then(|store| reader.read(&store, query, &mut goes_on(job.id, answers)));
                answers.answer(Reply::Records(job.id, page), &[])?;
            }
            Work::Decode(segments) => return self.decode(job, segments, answers),
            Work::Probe(block) => {
                answers.answer(Reply::Probed(job.id, decode_probe(block)), &[])?;
            }
        }
        answers.answer(Reply::Done(job.id), &[])
    }

    /// Decodes pages, until the last or until nobody wants them.
    fn decode(
        &mut self,
        job: &Job,
        segments: &[SegmentWork],
        answers: &mut dyn Answers,
    ) -> Result<(), HangUp> {
        let mut ending = Reply::Done(job.id);
        let mut headers = Vec::new();
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        let mut page = 0;
        let mut said = Instant::now();
        let mut session: Option<&Path> = None;
        'pages: for work in segments {
            let before = session.replace(&work.place.session);
            if before.is_some_and(|before| before != work.place.session) && !headers.is_empty() {
                // What is well must not seem undone where the next storage hangs.
                answers.answer(Reply::Pages(job.id, std::mem::take(&mut headers)), &samples)?;
                samples.clear();
            }
            let mut failing = false;
            let mut reader = self.reader(work);
            for ordered in &work.pages {
                if answers.is_cancelled(job) {
                    ending = Reply::Cancelled(job.id);
                    break 'pages;
                }
                sign_of_life(&mut said, job.id, answers);
                faults::before_page(&work.place, ordered);
                let blocks = match &mut reader {
                    Ok((reader, scratch)) => {
                        let mut blocks = Vec::with_capacity(ordered.blocks.len());
                        let read = match ordered.form {
                            Form::Counts => SegmentReader::decode,
                            Form::Stored => SegmentReader::copy,
                        };
                        read(reader, &ordered.blocks, scratch, &mut samples, &mut blocks);
                        failing |= blocks.iter().any(DecodedBlock::may_pass);
                        Ok(blocks)
                    }
                    Err(error) => Err(error.clone()),
                };
                headers.push(PageHeader { page, blocks });
                page += 1;
                if samples.len() >= BATCH_SAMPLES {
                    answers.answer(Reply::Pages(job.id, std::mem::take(&mut headers)), &samples)?;
                    samples.clear();
                }
            }
            if failing {
                // A handle may be stale for good, where the file itself is not.
                self.segments.pop(&work.place);
            }
        }
        if !headers.is_empty() {
            answers.answer(Reply::Pages(job.id, headers), &samples)?;
        }
        self.samples = samples;
        answers.answer(ending, &[])
    }

    /// The open segment, after making sure that it is the one that the recording
    /// was opened from.
    fn reader(&mut self, work: &SegmentWork) -> Result<(&SegmentReader, &mut Scratch), MefError> {
        let place = &work.place;
        // One that was opened before the file has grown is of no use, either.
        let current = match self.segments.peek(place) {
            Some(reader) => reader.check_identity(&work.identity).is_ok() && reader.is_current()?,
            None => false,
        };
        if !current {
            // Closed first: a descriptor is worth more than the old file.
            self.segments.pop(place);
            let store = store_at(&mut self.archives, &place.session, &self.roots)?;
            let reader = SegmentReader::open(
                &store,
                &place.channel,
                &place.stem,
                work.recording_time_offset,
                place.password.as_ref(),
            )?;
            self.segments.put(place.clone(), reader);
        }
        let reader = self.segments.get(place).ok_or_else(|| MefError::NotFound {
            path: place.session.clone(),
        })?;
        reader.check_identity(&work.identity)?;
        Ok((reader, &mut self.scratch))
    }
}

/// The store of a session. The members of an archive are listed once.
fn store_at(
    archives: &mut LruCache<PathBuf, Store>,
    session: &Path,
    roots: &Roots,
) -> Result<Store, MefError> {
    if let Some(store) = archives.get(session)
        && store.is_current_archive()
    {
        return Ok(store.clone());
    }
    let (store, _) = Store::open(session, roots)?;
    if store.is_current_archive() {
        archives.put(session.into(), store.clone());
    }
    Ok(store)
}

/// Says now and then that a job makes progress.
fn goes_on(job: JobId, answers: &mut dyn Answers) -> impl FnMut() {
    let mut said = Instant::now();
    move || sign_of_life(&mut said, job, answers)
}

fn sign_of_life(said: &mut Instant, job: JobId, answers: &mut dyn Answers) {
    if said.elapsed() >= SIGN_OF_LIFE {
        *said = Instant::now();
        answers.working(job);
    }
}
