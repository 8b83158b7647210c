//! What server and worker say to each other, and the checks that the server
//! makes before it believes a word.
//!
//! A job brings the password that it needs with it, as plain bytes. Both processes
//! wipe the [`Password`] itself when they drop it. The serialised form they do not: it
//! lies in a buffer of ipc-channel in the server and in another in the worker, which
//! are freed as they are, and for a moment in the socket between them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::log;
use super::page::{Form, Page};
use super::probe::probe_block;
use super::sandbox::Sandbox;
use crate::mef::{
    BlockEntry, DecodedBlock, FileIdentity, Known, MefError, OpenOptions, Password, RecordPage,
    RecordQuery, RecordReader, Recording, Refresh,
};

/// Numbers a job within the server's life.
pub(crate) type JobId = u64;

/// One unit of work for a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The job's number.
    pub id: JobId,
    /// What to do.
    pub work: Work,
    /// Some of the requests that it is for.
    requests: Vec<Arc<str>>,
    /// How much the server logs of what workers do.
    pub(super) detail: u8,
    /// Nobody wants it any more. Only the server's own copy knows.
    #[serde(skip)]
    cancelled: AtomicBool,
}

impl Job {
    pub(crate) fn new(id: JobId, work: Work) -> Self {
        Self {
            id,
            work,
            requests: Vec::new(),
            detail: log::detail(),
            cancelled: AtomicBool::new(false),
        }
    }

    /// The same, for some requests.
    pub(crate) fn of(mut self, requests: Vec<Arc<str>>) -> Self {
        self.requests = requests;
        self
    }

    /// The requests that it is for, as the log has them.
    pub(crate) fn requests(&self) -> impl fmt::Display {
        self.requests.join(",")
    }

    /// Notes that nobody wants the job; its reader stops before the next page.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The work of a job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Read the metadata and indices of the session at this path.
    Open(PathBuf, OpenOptions),
    /// Find out what is new in the session at this path.
    Refresh(PathBuf, OpenOptions, Arc<Known>),
    /// Read records of the session at this path.
    Records(PathBuf, Arc<RecordReader>, RecordQuery),
    /// Decode pages.
    Decode(Vec<SegmentWork>),
    /// Decode this block, to show that it can be done. No file is read.
    Probe(Arc<[u8]>),
}

impl Work {
    /// What it is, in a word.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Open(..) => "open",
            Self::Refresh(..) => "refresh",
            Self::Records(..) => "records",
            Self::Decode(_) => "decode",
            Self::Probe(_) => "probe",
        }
    }
}

/// Pages of one segment. Over a whole job, pages are numbered from 0 in the
/// order in which they stand in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SegmentWork {
    /// Where the segment is.
    pub place: SegmentPlace,
    /// The data file that the recording was opened from.
    pub identity: FileIdentity,
    /// Offset that the blocks' times are relative to, in microseconds.
    pub recording_time_offset: i64,
    /// What each page holds.
    pub pages: Vec<PageWork>,
}

/// A segment, and what it is opened with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SegmentPlace {
    /// The session's folder or archive.
    pub session: PathBuf,
    /// Name of the channel.
    pub channel: String,
    /// Stem of the segment.
    pub stem: String,
    /// For blocks that are encrypted.
    pub password: Option<Password>,
}

/// The blocks of one page, as the index had them when the recording was opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PageWork {
    /// Position of the first block in the segment's index.
    pub first_block: u32,
    /// Every block.
    pub blocks: Vec<BlockEntry>,
    /// What is wanted of them.
    pub form: Form,
}

impl PageWork {
    /// Words of each block: none of those that are damaged.
    fn words<'a>(&'a self, blocks: &'a [DecodedBlock]) -> impl Iterator<Item = u32> + 'a {
        let planned = blocks.iter().zip(&self.blocks);
        planned.map(|(block, planned)| match block.damage {
            None => self.form.words_of(planned),
            Some(_) => 0,
        })
    }
}

/// From the server to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Do a job, and answer it with `Done` or `Panicked` at the end.
    Do(Arc<Job>),
    /// Forget what is open below this session folder.
    Close(PathBuf),
}

/// From a worker to the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The worker has started, and is confined so far.
    Ready(Sandbox),
    /// The worker begins a job. A worker that dies before it says so has not
    /// died of the job.
    Begun(JobId),
    /// The worker makes progress with a job that has no answer yet.
    Working(JobId),
    /// The session of an [`Work::Open`] job.
    Opened(JobId, Result<Box<Recording>, MefError>),
    /// The outcome of a [`Work::Refresh`] job.
    Refreshed(JobId, Result<Refresh, MefError>),
    /// The outcome of a [`Work::Records`] job.
    Records(JobId, Result<RecordPage, MefError>),
    /// The next pages of a [`Work::Decode`] job, in order. Their words follow
    /// as raw bytes on the payload channel, unless there are none.
    Pages(JobId, Vec<PageHeader>),
    /// The samples of a [`Work::Probe`] job.
    Probed(JobId, Vec<i32>),
    /// The job is complete.
    Done(JobId),
    /// The job ends unfinished, because nobody wants the rest of it.
    Cancelled(JobId),
    /// The job ended in a panic, which was caught.
    Panicked(JobId, String),
}

/// The head of one decoded page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PageHeader {
    /// Number of the page within the job.
    pub page: u32,
    /// Its blocks, or why its segment cannot be read.
    pub blocks: Result<Vec<DecodedBlock>, MefError>,
}

/// A reply that no honest worker sends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Lie {
    /// Answer to a job that was not given.
    #[error("answer to job {got} while job {expected} was due")]
    Job {
        /// The job that was answered.
        got: JobId,
        /// The job that was due.
        expected: JobId,
    },
    /// The answer does not belong to the kind of job.
    #[error("answer of the wrong kind")]
    Kind,
    /// Pages out of order or too many.
    #[error("page {got} while page {expected} was due")]
    Page {
        /// The page that was answered.
        got: u32,
        /// The page that was due.
        expected: u32,
    },
    /// Number, times or samples of the blocks are not those of the index.
    #[error("page {0} has other blocks than the index")]
    Blocks(u32),
    /// The payload's length is not that of the headers' blocks.
    #[error("payload of {got} bytes, {expected} were announced")]
    Payload {
        /// Bytes that came.
        got: u64,
        /// Bytes that the headers announced.
        expected: u64,
    },
    /// The job was called complete before its last page.
    #[error("job ended after {got} of {expected} pages")]
    Incomplete {
        /// Pages that were answered.
        got: u32,
        /// Pages of the job.
        expected: u32,
    },
    /// The recording is inconsistent in itself.
    #[error("recording is inconsistent")]
    Recording,
    /// The news do not fit what was known of the session.
    #[error("news do not fit what was known")]
    News,
    /// The records are not those that were asked for.
    #[error("records are not those that were asked for")]
    Records,
    /// The samples of the probe are others.
    #[error("the probe was not decoded to its samples")]
    Probe,
}

/// A page that was answered: its number in the job, and its content.
pub(crate) type PageOutcome = (u32, Result<Page, MefError>);

/// The server's side of one job: what has been answered, and whether the next
/// answer can be true.
#[derive(Debug)]
pub(crate) struct JobCheck {
    job: Arc<Job>,
    /// Position of each page in the job: its segment, and its place there.
    pages: Vec<(usize, usize)>,
    answered: u32,
    opened: bool,
}

impl JobCheck {
    pub(crate) fn new(job: Arc<Job>) -> Self {
        let pages = match &job.work {
            Work::Open(..) | Work::Refresh(..) | Work::Records(..) | Work::Probe(_) => Vec::new(),
            Work::Decode(segments) => segments
                .iter()
                .enumerate()
                .flat_map(|(number, segment)| {
                    (0..segment.pages.len()).map(move |page| (number, page))
                })
                .collect(),
        };
        Self {
            job,
            pages,
            answered: 0,
            opened: false,
        }
    }

    pub(crate) fn job_id(&self) -> JobId {
        self.job.id
    }

    /// What was ordered as a page of the job.
    fn page(&self, number: u32) -> Option<&PageWork> {
        let &(segment, page) = self.pages.get(number as usize)?;
        match &self.job.work {
            Work::Open(..) | Work::Refresh(..) | Work::Records(..) | Work::Probe(_) => None,
            Work::Decode(segments) => segments.get(segment)?.pages.get(page),
        }
    }

    fn check_job(&self, got: JobId) -> Result<(), Lie> {
        let expected = self.job.id;
        if got == expected {
            Ok(())
        } else {
            Err(Lie::Job { got, expected })
        }
    }

    /// Checks an opened recording, and gives it what it was opened with.
    pub(crate) fn opened(
        &mut self,
        id: JobId,
        recording: &mut Result<Box<Recording>, MefError>,
    ) -> Result<(), Lie> {
        self.check_job(id)?;
        let Work::Open(path, options) = &self.job.work else {
            return Err(Lie::Kind);
        };
        if std::mem::replace(&mut self.opened, true) {
            return Err(Lie::Kind);
        }
        let Ok(recording) = recording else {
            return Ok(());
        };
        if !recording.is_consistent() || recording.path != *path {
            return Err(Lie::Recording);
        }
        recording.password.clone_from(&options.password);
        Ok(())
    }

    /// Checks that the news of a session were asked for, and fit what was known of it.
    pub(crate) fn refreshed(
        &mut self,
        id: JobId,
        news: &Result<Refresh, MefError>,
    ) -> Result<(), Lie> {
        self.check_job(id)?;
        let Work::Refresh(_, _, known) = &self.job.work else {
            return Err(Lie::Kind);
        };
        if std::mem::replace(&mut self.opened, true) {
            return Err(Lie::Kind);
        }
        match news {
            Ok(news) if !news.fits(known) => Err(Lie::News),
            _ => Ok(()),
        }
    }

    /// Checks that records were asked for, and that these are such.
    pub(crate) fn records(
        &mut self,
        id: JobId,
        page: &Result<RecordPage, MefError>,
    ) -> Result<(), Lie> {
        self.check_job(id)?;
        let Work::Records(_, _, query) = &self.job.work else {
            return Err(Lie::Kind);
        };
        if std::mem::replace(&mut self.opened, true) {
            return Err(Lie::Kind);
        }
        match page {
            Ok(page) if !page.answers(query) => Err(Lie::Records),
            _ => Ok(()),
        }
    }

    /// Checks that a probe was asked for, and was decoded to its samples.
    pub(crate) fn probed(&mut self, id: JobId, samples: &[i32]) -> Result<(), Lie> {
        self.check_job(id)?;
        let Work::Probe(_) = &self.job.work else {
            return Err(Lie::Kind);
        };
        if std::mem::replace(&mut self.opened, true) {
            return Err(Lie::Kind);
        }
        if samples == probe_block().samples {
            Ok(())
        } else {
            Err(Lie::Probe)
        }
    }

    /// Checks page headers; the result is the number of payload bytes that must
    /// follow.
    pub(crate) fn headers(&mut self, id: JobId, headers: &[PageHeader]) -> Result<u64, Lie> {
        self.check_job(id)?;
        let mut words = 0u64;
        for header in headers {
            let expected = self.answered;
            if header.page != expected {
                return Err(Lie::Page {
                    got: header.page,
                    expected,
                });
            }
            let page = self.page(expected).ok_or(Lie::Page {
                got: header.page,
                expected,
            })?;
            if let Ok(blocks) = &header.blocks {
                if !are_as_planned(blocks, &page.blocks) {
                    return Err(Lie::Blocks(header.page));
                }
                let of_page = page.words(blocks).map(u64::from);
                words = of_page.fold(words, u64::saturating_add);
            }
            self.answered += 1;
        }
        Ok(words.saturating_mul(size_of::<i32>() as u64))
    }

    /// Cuts a payload into the pages that `headers` announce.
    pub(crate) fn pages(
        &self,
        headers: Vec<PageHeader>,
        payload: &[u8],
    ) -> Result<Vec<PageOutcome>, Lie> {
        let got = payload.len() as u64;
        let mut rest = payload;
        let mut expected = 0u64;
        let mut pages = Vec::with_capacity(headers.len());
        for PageHeader { page, blocks } in headers {
            let work = self.page(page).ok_or(Lie::Blocks(page))?;
            let outcome = match blocks {
                Err(error) => Err(error),
                Ok(blocks) => {
                    let words: Vec<u32> = work.words(&blocks).collect();
                    let of_page = words.iter().map(|&it| u64::from(it)).sum::<u64>() * 4;
                    expected += of_page;
                    let cut = usize::try_from(of_page).ok();
                    let (bytes, tail) = cut
                        .and_then(|at| rest.split_at_checked(at))
                        .ok_or(Lie::Payload { got, expected })?;
                    rest = tail;
                    let content = bytemuck::pod_collect_to_vec(bytes).into_boxed_slice();
                    let blocks = blocks.into_iter().zip(words);
                    Ok(Page::new(work.first_block, blocks, content).ok_or(Lie::Blocks(page))?)
                }
            };
            pages.push((page, outcome));
        }
        if rest.is_empty() {
            Ok(pages)
        } else {
            Err(Lie::Payload { got, expected })
        }
    }

    /// Checks that the job was cancelled.
    pub(crate) fn cancelled(&self, id: JobId) -> Result<(), Lie> {
        self.check_job(id)?;
        if self.job.is_cancelled() {
            Ok(())
        } else {
            Err(Lie::Kind)
        }
    }

    /// Checks that the job may be called complete.
    pub(crate) fn done(&self, id: JobId) -> Result<(), Lie> {
        self.check_job(id)?;
        let complete = match self.job.work {
            Work::Open(..) | Work::Refresh(..) | Work::Records(..) | Work::Probe(_) => self.opened,
            Work::Decode(_) => self.answered as usize == self.pages.len(),
        };
        let expected = self.pages.len() as u32;
        let got = self.answered;
        if complete {
            Ok(())
        } else {
            Err(Lie::Incomplete { got, expected })
        }
    }
}

/// Each block begins when the index says and has the samples that it promises,
/// or is damaged, has none, and promises the same.
fn are_as_planned(blocks: &[DecodedBlock], planned: &[BlockEntry]) -> bool {
    let fits = |(block, planned): (&DecodedBlock, &BlockEntry)| {
        let samples = match &block.damage {
            None => Some(block.samples),
            Some(damage) => (block.samples == 0).then_some(damage.samples),
        };
        block.start_uutc == planned.start_uutc && samples == Some(planned.samples)
    };
    blocks.len() == planned.len() && blocks.iter().zip(planned).all(fits)
}

#[cfg(test)]
mod tests;
