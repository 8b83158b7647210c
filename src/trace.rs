//! Which request work is done for: in the log, in what goes wrong, and in traces.
//!
//! A call is a task, and its [`Trace`] is the task's: whoever asks actors for something
//! takes it from there and sends it along, so that a job can say for whom it is done.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use tracing::Span;
use tracing::span::Entered;

/// Requests that a job names at most. What is decoded for many is for the first of them.
pub(crate) const MOST_OF_JOB: usize = 4;

tokio::task_local! {
    static TASK: Arc<OnceLock<Trace>>;
}

/// A request, as far as those who work for it know it. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: Arc<str>,
    span: Span,
}

impl Trace {
    pub(crate) fn new(id: impl Into<Arc<str>>, span: Span) -> Self {
        let id = id.into();
        Self(Arc::new(Inner { id, span }))
    }

    /// What the client, or the server in its place, calls the request.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.0.id
    }

    /// What is done for the request now.
    pub(crate) fn span(&self) -> &Span {
        &self.0.span
    }

    /// A part of what is done for the request. Where nobody wants to know of parts, the
    /// whole stands for it.
    pub(crate) fn part(&self, span: Span) -> Self {
        if span.is_disabled() {
            return self.clone();
        }
        Self::new(Arc::clone(self.id()), span)
    }
}

/// Runs a future as a task that may be for a request.
pub(crate) fn in_task<F: Future>(future: F) -> impl Future<Output = F::Output> {
    TASK.scope(Arc::default(), future)
}

/// Does for a request what a future does.
pub(crate) fn within<F: Future>(
    trace: Option<Trace>,
    future: F,
) -> impl Future<Output = F::Output> {
    let task = OnceLock::new();
    if let Some(trace) = trace {
        // It was empty, so that this cannot fail.
        let _ = task.set(trace);
    }
    TASK.scope(Arc::new(task), future)
}

/// Says of lines of the log that they are about a request, as long as it is held.
pub(crate) fn entered(trace: Option<&Trace>) -> Option<Entered<'_>> {
    trace.map(|trace| trace.span().enter())
}

/// Notes what request the task is for. The first one stays.
pub(crate) fn begin(trace: &Trace) {
    // Outside of such tasks there is nothing to note it in.
    let _ = TASK.try_with(|task| task.set(trace.clone()));
}

/// The request that the task is for, if it is for one.
pub(crate) fn current() -> Option<Trace> {
    let trace = TASK.try_with(|task| task.get().cloned());
    trace.ok().flatten()
}

/// The ids of some requests, each once, and of no more than a job names.
pub(crate) fn ids<'a>(traces: impl IntoIterator<Item = &'a Trace>) -> Vec<Arc<str>> {
    let mut ids: Vec<Arc<str>> = Vec::new();
    for trace in traces {
        if ids.len() == MOST_OF_JOB {
            break;
        }
        if !ids.contains(trace.id()) {
            ids.push(Arc::clone(trace.id()));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: &str) -> Trace {
        Trace::new(id, Span::none())
    }

    #[tokio::test]
    async fn a_task_is_for_the_request_that_it_began_with() {
        assert!(current().is_none());
        let task = in_task(async {
            assert!(current().is_none());
            begin(&trace("a"));
            begin(&trace("b"));
            current().map(|trace| trace.id().to_string())
        });
        assert_eq!(task.await.as_deref(), Some("a"));
        begin(&trace("a"));
        assert!(current().is_none());
    }

    #[test]
    fn a_job_names_some_requests_and_each_once() {
        let traces: Vec<_> = "aabcbdefg"
            .chars()
            .map(|id| trace(&id.to_string()))
            .collect();
        let ids = ids(&traces);
        let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
    }
}
