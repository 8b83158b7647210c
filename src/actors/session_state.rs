//! What the file manager has workers find out: the state of a session's files.

use std::path::PathBuf;
use std::sync::Arc;

use actix::Addr;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::coordinator::{Coordinator, OpenSession, RefreshSession};
use crate::error::Error;
use crate::mef::{Known, OpenOptions, Recording, Refresh};
use crate::trace;
use crate::worker::page::PagedRecording;

/// Has a worker open a session.
pub(super) async fn open_session(
    coordinator: Addr<Coordinator>,
    path: PathBuf,
    options: OpenOptions,
) -> Result<Arc<PagedRecording>, Error> {
    let (reply, opened) = oneshot::channel();
    let question = OpenSession {
        path,
        options,
        trace: trace::current(),
        reply,
    };
    let sent = coordinator.send(question).await;
    sent.map_err(|_| Error::Stopped)?;
    opened.await.map_err(|_| Error::Stopped)?
}

/// The file system that the session is on, or one of those that it is on.
fn device_of(recording: &Recording) -> Option<u64> {
    let mut segments = recording.channels.iter().flat_map(|it| &it.segments);
    Some(segments.next()?.identity.data.place().0)
}

/// Has a worker look for what is new in a session.
pub(super) async fn news_of(
    coordinator: Addr<Coordinator>,
    path: PathBuf,
    options: OpenOptions,
    before: Arc<PagedRecording>,
) -> Result<Refresh, Error> {
    let device = device_of(&before.recording);
    let known = spawn_blocking(move || Known::of(&before.recording)).await;
    let (reply, news) = oneshot::channel();
    let question = RefreshSession {
        path,
        options,
        known: Arc::new(known.map_err(|_| Error::Stopped)?),
        device,
        trace: trace::current(),
        reply,
    };
    let sent = coordinator.send(question).await;
    sent.map_err(|_| Error::Stopped)?;
    news.await.map_err(|_| Error::Stopped)?
}

/// The state of an open recording now: the same, one with more of it, or a new
/// opening where something of it was replaced.
pub(super) async fn state_now(
    coordinator: Addr<Coordinator>,
    path: PathBuf,
    options: OpenOptions,
    before: Arc<PagedRecording>,
) -> Result<Arc<PagedRecording>, Error> {
    let news = news_of(
        coordinator.clone(),
        path.clone(),
        options.clone(),
        Arc::clone(&before),
    );
    match news.await? {
        Refresh::Unchanged => return Ok(before),
        Refresh::Replaced(_) => {}
        Refresh::Grown(growth) => {
            let grown = spawn_blocking(move || {
                let recording = before.recording.grown(*growth)?;
                Some(Arc::new(before.grown(recording)))
            });
            if let Some(grown) = grown.await.map_err(|_| Error::Stopped)? {
                return Ok(grown);
            }
            tracing::error!(path = %path.display(), "news that do not fit what was known");
        }
    }
    open_session(coordinator, path, options).await
}
