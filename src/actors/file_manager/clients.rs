//! Who uses a recording, and what each client has set on it.
//!
//! Clients that give an id have a session for each recording that they open: a segment
//! grid, active channels and a served rate of their own, until they close it, are idle
//! too long, or are too many. All others share one, which lasts until it is closed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::RecordingName;
use crate::error::Error;
use crate::mef::Recording;

/// What a client calls itself. A name tag, and no proof of anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientId(Arc<str>);

impl ClientId {
    pub(crate) fn new(id: &str) -> Self {
        Self(id.into())
    }
}

/// Who uses a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Any of those that give no id.
    Shared,
    /// A client by its id.
    Named(ClientId),
    /// Somebody who needs it for one call. It stays open for the next one, until it
    /// was not used for a while, or another one needs its place.
    Passing,
}

/// What a client has set on a recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choices {
    /// Length of a segment of the grid in microseconds.
    pub(super) segment_us: Option<i64>,
    /// Names of the active channels; all, where none were set.
    pub(super) active: Option<Vec<String>>,
    /// Rate in Hz to which channels that have more are reduced.
    pub(super) served_rate: Option<f64>,
}

/// The rate that a client wants to be served at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ServedRate {
    /// In Hz.
    pub(crate) rate: f64,
    /// Whether channels may have less, and keep it.
    pub(crate) may_be_less: bool,
}

impl ServedRate {
    /// Refuses what is no rate, and one that channels do not have: nothing is made up
    /// between samples.
    pub(super) fn check(self, recording: &Recording) -> Result<(), Error> {
        if !self.rate.is_finite() || self.rate <= 0.0 {
            return Err(Error::ServedRate(self.rate));
        }
        if self.may_be_less {
            return Ok(());
        }
        let slow = recording.channels.iter();
        let slow = slow.filter(|channel| channel.sampling_frequency < self.rate);
        let slow: Vec<_> = slow
            .map(|channel| (channel.name.clone(), channel.sampling_frequency))
            .collect();
        if slow.is_empty() {
            return Ok(());
        }
        Err(Error::ServedRateTooHigh {
            rate: self.rate,
            channels: slow,
        })
    }
}

type SessionKey = (ClientId, RecordingName);

/// A client's use of a recording.
#[derive(Debug)]
struct Session {
    used_at: Instant,
    choices: Choices,
}

/// The sessions of all clients that have an id.
#[derive(Debug)]
pub(super) struct Sessions {
    idle_limit: Option<Duration>,
    most: NonZeroUsize,
    /// The one first that was used last. Never more than `most`.
    open: LruCache<SessionKey, Session>,
    /// What those had set that were ended for them, not by them.
    ended: LruCache<SessionKey, Choices>,
}

impl Sessions {
    /// At most so many, each until it was not used for so long.
    pub(super) fn new(most: NonZeroUsize, idle_limit: Option<Duration>) -> Self {
        Self {
            idle_limit,
            most,
            open: LruCache::unbounded(),
            ended: LruCache::new(most),
        }
    }

    /// Begins a session, or goes on with one, at another rate.
    ///
    /// Gives the recordings of which other clients' sessions made way for it.
    pub(super) fn open(
        &mut self,
        key: SessionKey,
        served_rate: Option<f64>,
        now: Instant,
    ) -> Vec<RecordingName> {
        self.ended.pop(&key);
        if let Some(session) = self.open.get_mut(&key) {
            session.used_at = now;
            session.choices.served_rate = served_rate;
            return Vec::new();
        }
        let choices = Choices {
            served_rate,
            ..Choices::default()
        };
        self.begin(key, choices, now)
    }

    fn begin(&mut self, key: SessionKey, choices: Choices, now: Instant) -> Vec<RecordingName> {
        let mut made_way = Vec::new();
        while self.open.len() >= self.most.get() {
            made_way.extend(self.end_oldest());
        }
        let used_at = now;
        self.open.put(key, Session { used_at, choices });
        made_way
    }

    /// Ends the session that was not used for the longest time, and keeps in mind what
    /// was set.
    fn end_oldest(&mut self) -> Option<RecordingName> {
        let (key, session) = self.open.pop_lru()?;
        let name = key.1.clone();
        self.ended.put(key, session.choices);
        Some(name)
    }

    /// Says that a client uses a recording now. A session that was ended for the
    /// client goes on as it was; that others make way for it is told.
    pub(super) fn touch(&mut self, key: &SessionKey, now: Instant) -> Vec<RecordingName> {
        if let Some(session) = self.open.get_mut(key) {
            session.used_at = now;
            return Vec::new();
        }
        match self.ended.pop(key) {
            Some(choices) => self.begin(key.clone(), choices, now),
            None => Vec::new(),
        }
    }

    /// What a client has set, if it has a session.
    pub(super) fn choices(&self, key: &SessionKey) -> Option<&Choices> {
        self.open.peek(key).map(|session| &session.choices)
    }

    pub(super) fn choices_mut(&mut self, key: &SessionKey) -> Option<&mut Choices> {
        self.open.peek_mut(key).map(|session| &mut session.choices)
    }

    /// Ends a client's session at its own wish.
    pub(super) fn close(&mut self, key: &SessionKey) {
        self.open.pop(key);
        self.ended.pop(key);
    }

    /// Ends the sessions that were idle too long, and gives their recordings.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<RecordingName> {
        let mut expired = Vec::new();
        let Some(limit) = self.idle_limit else {
            return expired;
        };
        let is_idle = |session: &Session| now.saturating_duration_since(session.used_at) > limit;
        while self
            .open
            .peek_lru()
            .is_some_and(|(_, oldest)| is_idle(oldest))
        {
            expired.extend(self.end_oldest());
        }
        expired
    }

    /// Whether any client has a session on a recording.
    pub(super) fn use_recording(&self, name: &RecordingName) -> bool {
        self.open.iter().any(|((_, open), _)| open == name)
    }

    /// Forgets a recording that is closed for everybody.
    pub(super) fn forget(&mut self, name: &RecordingName) {
        let of_it = self.open.iter().filter(|((_, open), _)| open == name);
        let of_it: Vec<SessionKey> = of_it.map(|(key, _)| key.clone()).collect();
        for key in of_it {
            self.open.pop(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mef::OpenOptions;

    const TTL: Duration = Duration::from_secs(10);

    fn sessions(most: usize) -> Sessions {
        Sessions::new(NonZeroUsize::new(most).unwrap(), Some(TTL))
    }

    fn name(name: &str) -> RecordingName {
        RecordingName {
            name: name.into(),
            options: OpenOptions::default(),
        }
    }

    fn key(client: &str, recording: &str) -> SessionKey {
        (ClientId::new(client), name(recording))
    }

    fn rate_of(sessions: &Sessions, key: &SessionKey) -> Option<f64> {
        sessions
            .choices(key)
            .and_then(|choices| choices.served_rate)
    }

    #[test]
    fn the_least_used_makes_way_and_comes_back_as_it_was() {
        let mut sessions = sessions(2);
        let now = Instant::now();
        assert!(sessions.open(key("a", "x"), Some(5.0), now).is_empty());
        assert!(sessions.open(key("b", "x"), None, now).is_empty());
        sessions.choices_mut(&key("b", "x")).unwrap().segment_us = Some(7);
        sessions.touch(&key("a", "x"), now);
        assert_eq!(sessions.open(key("c", "y"), None, now), [name("x")]);
        assert!(sessions.choices(&key("b", "x")).is_none());
        // The limit holds for those that come back, too.
        assert_eq!(sessions.touch(&key("b", "x"), now), [name("x")]);
        assert_eq!(sessions.len(), 2);
        let choices = sessions.choices(&key("b", "x")).unwrap();
        assert_eq!(choices.segment_us, Some(7));
        assert_eq!(rate_of(&sessions, &key("a", "x")), None);
        sessions.touch(&key("a", "x"), now);
        assert_eq!(rate_of(&sessions, &key("a", "x")), Some(5.0));
    }

    #[test]
    fn idle_sessions_end_in_the_order_of_their_use() {
        let mut sessions = sessions(9);
        let now = Instant::now();
        sessions.open(key("a", "x"), None, now);
        sessions.open(key("b", "y"), None, now);
        sessions.touch(&key("a", "x"), now + TTL);
        assert!(sessions.expire(now + TTL).is_empty());
        let later = now + TTL + Duration::from_millis(1);
        assert_eq!(sessions.expire(later), [name("y")]);
        assert!(sessions.use_recording(&name("x")) && !sessions.use_recording(&name("y")));
        assert_eq!(sessions.expire(later + TTL), [name("x")]);
        let mut without_limit = Sessions::new(NonZeroUsize::MIN, None);
        without_limit.open(key("a", "x"), None, now);
        assert!(without_limit.expire(now + 1000 * TTL).is_empty());
    }

    #[test]
    fn what_a_client_ends_itself_does_not_come_back() {
        let mut sessions = sessions(1);
        let now = Instant::now();
        sessions.open(key("a", "x"), Some(5.0), now);
        sessions.close(&key("a", "x"));
        sessions.touch(&key("a", "x"), now);
        assert_eq!(sessions.len(), 0);
        // Nor what it opens anew, at the rate before.
        sessions.open(key("a", "x"), Some(5.0), now);
        sessions.open(key("b", "x"), None, now);
        sessions.open(key("a", "x"), None, now);
        assert_eq!(rate_of(&sessions, &key("a", "x")), None);
        assert_eq!(sessions.len(), 1);
        sessions.forget(&name("x"));
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn only_rates_that_the_channels_have_are_served() {
        let recording = Recording::empty("", "");
        let check = |rate, may_be_less| ServedRate { rate, may_be_less }.check(&recording);
        assert_eq!(check(1.0, false), Ok(()));
        for rate in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(check(rate, true), Err(Error::ServedRate(rate)));
        }
        assert!(matches!(check(f64::NAN, true), Err(Error::ServedRate(_))));
    }
}
