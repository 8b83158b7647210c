//! Spoilt workers, for tests: a file `.fault` in a session's folder says what a
//! worker does when it comes to a page, an opening or a file of that session.
//!
//! Only a worker process looks for it, never the in-process reader. Lines of the
//! file, each a word and its value:
//!
//! ```text
//! do ACTION       abort, exit, panic, loop, hang, bomb, slow MS, lie WHAT, errno NAME
//! at WORK         page (unless set), open, refresh or records; not for errno
//! channel NAME    only for this channel
//! blocks A..B     only for pages whose first block is in the range
//! pid NUMBER      only in this process
//! call CALL       errno only: open, read or status; any, unless set
//! file EXTENSION  errno only: files of this extension
//! ```

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::protocol::{PageHeader, PageWork, Reply, SegmentPlace, Work};
use crate::mef::Refresh;
use crate::mef::obstacle::{self, Call};

/// What a fault begins with on standard error. That a program holds this text shows
/// that it can be spoilt.
const MARKER: &str = "mef3-server fault injection";
/// The file that is looked for in a session's folder.
const FILE: &str = ".fault";
/// What a bomb takes at a time.
const BOMB_BYTES: usize = 16 << 20;

static ARMED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The lie that the next answer tells.
    static LIE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Files whose handle has gone stale: they stay so until they are opened anew.
    static STALE: RefCell<HashSet<PathBuf>> = RefCell::new(HashSet::new());
}

/// Makes this process, a worker, look for faults.
pub(crate) fn arm() {
    ARMED.store(true, Ordering::Relaxed);
    obstacle::put_up(obstruct);
}

/// What a `.fault` file says.
#[derive(Default)]
struct Fault {
    action: String,
    at: Option<String>,
    channel: Option<String>,
    blocks: Option<(u32, u32)>,
    pid: Option<u32>,
    call: Option<String>,
    extension: Option<String>,
}

impl Fault {
    /// The fault of a session, if there is one for this process.
    fn of(session: &Path) -> Option<Self> {
        if !ARMED.load(Ordering::Relaxed) {
            return None;
        }
        let text = std::fs::read_to_string(session.join(FILE)).ok()?;
        let fault = Self::parse(&text);
        let here = fault.pid.is_none_or(|pid| pid == process::id());
        here.then_some(fault)
    }

    fn parse(text: &str) -> Self {
        let mut fault = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let owned = Some(value.to_owned());
            match word {
                "do" => value.clone_into(&mut fault.action),
                "at" => fault.at = owned,
                "channel" => fault.channel = owned,
                "blocks" => {
                    let range = value.split_once("..");
                    let bound = |text: &str| text.parse().ok();
                    fault.blocks = range.and_then(|(a, b)| Some((bound(a)?, bound(b)?)));
                    demand(fault.blocks.is_some(), line);
                }
                "pid" => {
                    fault.pid = value.parse().ok();
                    demand(fault.pid.is_some(), line);
                }
                "call" => fault.call = owned,
                "file" => fault.extension = owned,
                _ => demand(false, line),
            }
        }
        fault
    }

    fn is_errno(&self) -> bool {
        self.action.starts_with("errno")
    }

    fn carry_out(&self) {
        eprintln!("{MARKER}: {}", self.action);
        let (verb, value) = self.action.split_once(' ').unwrap_or((&self.action, ""));
        match verb {
            "abort" => process::abort(),
            "exit" => process::exit(0),
            "panic" => demand(false, "panic"),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "hang" => loop {
                thread::sleep(Duration::from_secs(3600));
            },
            "bomb" => {
                let mut bomb = Vec::new();
                loop {
                    bomb.push(std::hint::black_box(vec![1u8; BOMB_BYTES]));
                }
            }
            "slow" => thread::sleep(Duration::from_millis(value.parse().unwrap_or(0))),
            "lie" => LIE.set(Some(value.to_owned())),
            _ => demand(false, &self.action),
        }
    }
}

/// Panics where a fault makes no sense, which fails the job and so the test.
#[allow(clippy::panic, reason = "a panic is one of the faults")]
fn demand(holds: bool, what: &str) {
    if !holds {
        panic!("{MARKER}: {what}");
    }
}

/// Does what the session's fault says for a job that is no decoding.
pub(crate) fn before_job(work: &Work) {
    let (session, kind) = match work {
        Work::Open(session, _) => (session, "open"),
        Work::Refresh(session, ..) => (session, "refresh"),
        Work::Records(session, ..) => (session, "records"),
        Work::Decode(_) | Work::Probe(_) => return,
    };
    if let Some(fault) = Fault::of(session)
        && !fault.is_errno()
        && fault.at.as_deref() == Some(kind)
    {
        fault.carry_out();
    }
}

/// Does what the session's fault says for a page.
pub(crate) fn before_page(place: &SegmentPlace, page: &PageWork) {
    let Some(fault) = Fault::of(&place.session) else {
        return;
    };
    let at_page = fault.at.as_deref().unwrap_or("page") == "page";
    let channel = fault.channel.as_ref().is_none_or(|it| *it == place.channel);
    let first = page.first_block;
    let blocks = fault.blocks.is_none_or(|(a, b)| (a..b).contains(&first));
    if !fault.is_errno() && at_page && channel && blocks {
        fault.carry_out();
    }
}

/// Turns an answer into the lie that is due.
pub(crate) fn spoilt(reply: Reply, samples: &[i32]) -> (Reply, Cow<'_, [i32]>) {
    let honest = Cow::Borrowed(samples);
    let can_lie = matches!(
        reply,
        Reply::Pages(..) | Reply::Opened(..) | Reply::Refreshed(..)
    );
    let Some(lie) = can_lie.then(|| LIE.take()).flatten() else {
        return (reply, honest);
    };
    match (reply, lie.as_str()) {
        (Reply::Pages(job, headers), "job") => (Reply::Pages(job + 1, headers), honest),
        (Reply::Pages(job, _), "done") => (Reply::Done(job), Cow::default()),
        (Reply::Pages(job, _), "kind") => {
            let error = crate::mef::MefError::NotFound { path: lie.into() };
            (Reply::Opened(job, Err(error)), Cow::default())
        }
        (Reply::Pages(job, headers), "payload") => {
            let short = samples.split_last().map(|(_, short)| short);
            (
                Reply::Pages(job, headers),
                Cow::Borrowed(short.unwrap_or_default()),
            )
        }
        (Reply::Pages(job, mut headers), lie) => {
            headers.iter_mut().for_each(|header| spoil(header, lie));
            (Reply::Pages(job, headers), honest)
        }
        (Reply::Opened(job, Ok(mut recording)), "identity") => {
            recording.path.push("another");
            (Reply::Opened(job, Ok(recording)), honest)
        }
        (Reply::Opened(job, Ok(mut recording)), "recording") => {
            recording.channels.reverse();
            (Reply::Opened(job, Ok(recording)), honest)
        }
        // The session has lost all that was known of it, and has grown.
        (Reply::Refreshed(job, _), "news") => {
            let news = Refresh::Grown(Box::default());
            (Reply::Refreshed(job, Ok(news)), honest)
        }
        (Reply::Opened(job, recording), "job") => (Reply::Opened(job + 1, recording), honest),
        (reply, _) => (reply, honest),
    }
}

/// Turns what is said of a page into a lie.
fn spoil(header: &mut PageHeader, lie: &str) {
    match (lie, &mut header.blocks) {
        ("page", _) => header.page += 1,
        ("blocks", Ok(blocks)) => drop(blocks.pop()),
        ("samples", Ok(blocks)) => blocks.iter_mut().for_each(|block| block.samples += 1),
        ("time", Ok(blocks)) => blocks.iter_mut().for_each(|block| block.start_uutc += 1),
        _ => demand(false, lie),
    }
}

/// Answers a call of the system with the error that the session's fault names.
fn obstruct(path: &Path, call: Call) -> io::Result<()> {
    let is_session = |path: &&Path| path.extension() == Some(OsStr::new("mefd"));
    let Some(session) = path.ancestors().find(is_session) else {
        return Ok(());
    };
    if call == Call::Open {
        STALE.with_borrow_mut(|stale| stale.remove(path));
    }
    if call == Call::Read && STALE.with_borrow(|stale| stale.contains(path)) {
        return Err(Errno::STALE.into());
    }
    let Some(fault) = Fault::of(session).filter(Fault::is_errno) else {
        return Ok(());
    };
    let name = match call {
        Call::Open => "open",
        Call::Read => "read",
        Call::Status => "status",
    };
    let inside = path.strip_prefix(session).unwrap_or(path);
    let folder = inside.components().next();
    let in_channel = |channel: &String| {
        folder.is_some_and(|it| it.as_os_str() == OsStr::new(&format!("{channel}.timd")))
    };
    let fits = fault.call.as_ref().is_none_or(|call| call == name)
        && fault.channel.as_ref().is_none_or(in_channel)
        && (fault.extension.as_ref())
            .is_none_or(|wanted| path.extension() == Some(OsStr::new(wanted)));
    if !fits {
        return Ok(());
    }
    eprintln!("{MARKER}: {} at {name} of {}", fault.action, path.display());
    let errno = match fault.action.trim_start_matches("errno ") {
        "EIO" => Errno::IO,
        "ESTALE" => {
            STALE.with_borrow_mut(|stale| stale.insert(path.into()));
            Errno::STALE
        }
        "EMFILE" => Errno::MFILE,
        "ENFILE" => Errno::NFILE,
        "ENOMEM" => Errno::NOMEM,
        "ENOSPC" => Errno::NOSPC,
        "ENOENT" => Errno::NOENT,
        "EACCES" => Errno::ACCESS,
        other => {
            demand(false, other);
            Errno::INVAL
        }
    };
    Err(errno.into())
}
