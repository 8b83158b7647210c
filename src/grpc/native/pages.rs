//! Lists in pages: a token names the entry that the next page begins with.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

use prost::Message;

use super::status::Refusal;

/// Most entries of a page.
pub(super) const MOST_ENTRIES: u32 = 10_000;
/// Bytes of entries after which a page ends, one entry excepted: what entries there are
/// is known to be shorter than a MiB.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// What is the same in all requests of a list, as a number.
pub(super) fn fingerprint(request: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(request)
}

/// The place of an entry: a channel of the request and an entry of that, or only the
/// latter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) channel: u64,
    pub(super) entry: u64,
}

/// Where a page begins, and how many entries it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) first: Place,
    pub(super) entries: usize,
    fingerprint: u64,
}

impl Page {
    /// The page that a request asks for.
    pub(super) fn of(token: &str, size: u32, fingerprint: u64) -> Result<Self, Refusal> {
        let first = match token {
            "" => Place::default(),
            token => place_of(token, fingerprint).ok_or_else(|| {
                let text = "page_token is not one of this list";
                Refusal::field("page_token", "PAGE_TOKEN_INVALID", text)
            })?,
        };
        let entries = match size {
            0 => MOST_ENTRIES,
            size => size.min(MOST_ENTRIES),
        };
        Ok(Self {
            first,
            entries: entries as usize,
            fingerprint,
        })
    }

    /// The token of the page that begins at a place.
    pub(super) fn token(&self, next: Place) -> String {
        format!("{:016x}-{}-{}", self.fingerprint, next.channel, next.entry)
    }
}

fn place_of(token: &str, fingerprint: u64) -> Option<Place> {
    let (list, place) = token.split_once('-')?;
    let (channel, entry) = place.split_once('-')?;
    let list = u64::from_str_radix(list, 16).ok()?;
    (list == fingerprint).then_some(())?;
    Some(Place {
        channel: channel.parse().ok()?,
        entry: entry.parse().ok()?,
    })
}

/// A page that is being filled.
#[derive(Debug)]
pub(super) struct Entries<T> {
    page: Page,
    pub(super) entries: Vec<T>,
    bytes: usize,
    next: Option<Place>,
}

impl<T: Message> Entries<T> {
    pub(super) fn new(page: Page) -> Self {
        Self {
            page,
            entries: Vec::new(),
            bytes: 0,
            next: None,
        }
    }

    /// Takes the entry of a place, if there is room for it; otherwise the next page
    /// begins with it.
    pub(super) fn push(&mut self, place: Place, entry: T) -> bool {
        let bytes = self.bytes + entry.encoded_len();
        let is_full = self.entries.len() >= self.page.entries;
        if is_full || bytes > PAGE_BYTES && !self.entries.is_empty() {
            self.next = Some(place);
            return false;
        }
        self.bytes = bytes;
        self.entries.push(entry);
        true
    }

    /// For the page after it; empty after the last.
    pub(super) fn next_token(&self) -> String {
        let next = self.next.map(|place| self.page.token(place));
        next.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::native::TimeSpan;

    #[test]
    fn tokens_name_places_of_one_list() {
        let page = Page::of("", 0, 7).unwrap();
        assert_eq!((page.first, page.entries), (Place::default(), 10_000));
        let place = Place {
            channel: 3,
            entry: 12,
        };
        let token = page.token(place);
        assert_eq!(Page::of(&token, 5, 7).unwrap().first, place);
        for wrong in ["x", "-", "--", "0-1", "7-1-x", &token.replace('7', "8")] {
            assert!(Page::of(wrong, 5, 7).is_err(), "{wrong}");
        }
        assert!(Page::of(&token, 5, 8).is_err());
    }

    #[test]
    fn a_page_ends_by_entries_or_bytes_and_has_at_least_one() {
        let span = TimeSpan {
            start_uutc: 1,
            end_uutc: 2,
        };
        let at = |entry| Place { channel: 0, entry };
        let mut entries = Entries::new(Page::of("", 2, 7).unwrap());
        assert!(entries.push(at(0), span) && entries.push(at(1), span));
        assert_eq!(entries.next_token(), "");
        assert!(!entries.push(at(2), span));
        assert_eq!(entries.next_token(), "0000000000000007-0-2");
        let long = crate::grpc::proto::native::Gap {
            channel: "x".repeat(PAGE_BYTES),
            span: None,
        };
        let mut entries = Entries::new(Page::of("", 0, 7).unwrap());
        assert!(entries.push(at(0), long.clone()));
        assert!(!entries.push(at(1), long));
    }
}
