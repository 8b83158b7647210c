//! Which recordings there are.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use prost::Message;
use tonic::{Code, Status};

use super::annotations::cut;
use super::describe::check_span;
use super::pages::{PAGE_BYTES, fingerprint};
use super::status::Refusal;
use super::{Caller, Native, refused};
use crate::config::DataRoot;
use crate::engine::Listing;
use crate::error::Error;
use crate::grpc::proto::native::{
    ListRecordingsRequest, ListRecordingsResponse, RecordingEntry, TimeSpan,
};
use crate::mef::FoundSession;

/// Most recordings of an answer.
const MOST_RECORDINGS: usize = 256;
/// Most recordings of an answer for which they are opened.
const MOST_OPENED: usize = 32;
/// Longest pattern, in bytes.
const MOST_PATTERN: usize = 4096;

/// Where a list goes on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// Number of the root among those of the request.
    root: usize,
    /// After this path below it.
    after: Option<PathBuf>,
}

impl Native {
    /// Answers [`ListRecordingsRequest`].
    pub(super) async fn list(
        &self,
        caller: &Caller,
        request: &ListRecordingsRequest,
    ) -> Result<ListRecordingsResponse, Status> {
        check_span(request.span, "span")?;
        let roots = self.roots_of(&request.root)?;
        let pattern = matcher(&request.pattern)?;
        let ends = request.span.map(|span| (span.start_uutc, span.end_uutc));
        let list = fingerprint((&request.root, &request.pattern, ends));
        let mut cursor = cursor_of(&request.page_token, list)?;
        let most = match request.span {
            Some(_) => MOST_OPENED,
            None => MOST_RECORDINGS,
        };
        let most = match request.page_size as usize {
            0 => most,
            size => size.min(most),
        };
        let mut answer = ListRecordingsResponse::default();
        let Some(&root) = roots.get(cursor.root) else {
            return Ok(answer);
        };
        let listing = Listing {
            folder: root.path().to_path_buf(),
            after: cursor.after.take(),
            accepts: move |path: &Path| pattern.as_ref().is_none_or(|it| it.is_match(path)),
            most,
        };
        let walk = self.engine.find_sessions(listing).await.map_err(refused)?;
        for problem in &walk.unreadable {
            // What lies elsewhere is not even named.
            if caller.may_read(problem.file(), root.name()).await? {
                answer.problems.push(cut(problem.to_string()));
            }
        }
        cursor.after = walk.after;
        let mut bytes = 0;
        let mut before = None;
        for session in walk.found {
            if bytes > PAGE_BYTES {
                // The next answer begins with it.
                cursor.after = before;
                break;
            }
            let mut entry = entry(root, &session);
            let path = root.path().join(&session.path);
            if !caller.may_read(&path, &entry.id).await? {
                continue;
            }
            if let Some(wanted) = request.span {
                match self.span_of(caller, &path).await {
                    Ok(span) if !span.is_some_and(|span| overlap(span, wanted)) => continue,
                    Ok(span) => entry.span = span,
                    Err(problem) => entry.problem = problem.message().into(),
                }
            }
            bytes += entry.encoded_len();
            before = Some(session.path);
            answer.recordings.push(entry);
        }
        if cursor.after.is_none() {
            cursor.root += 1;
        }
        if cursor.root < roots.len() {
            answer.next_page_token = token(&cursor, list);
        }
        Ok(answer)
    }

    /// The data roots of a request.
    fn roots_of(&self, name: &str) -> Result<Vec<&DataRoot>, Refusal> {
        let roots = &self.options.data_roots;
        if roots.is_empty() {
            let text = "the server has no data roots to list the recordings of";
            return Err(Refusal::new(
                Code::FailedPrecondition,
                "NO_DATA_ROOTS",
                text,
            ));
        }
        let named: Vec<_> = roots
            .iter()
            .filter(|root| name.is_empty() || root.name() == name)
            .collect();
        if named.is_empty() {
            let text = format!("there is no data root called {name}");
            return Err(Refusal::new(Code::NotFound, "ROOT_NOT_FOUND", text).at("root"));
        }
        Ok(named)
    }

    /// The span of a recording; none, where it has no channels.
    async fn span_of(&self, caller: &Caller, path: &Path) -> Result<Option<TimeSpan>, Status> {
        let opened = self
            .open_at(caller, path.display().to_string(), path)
            .await?;
        let recording = &opened.paged().recording;
        let ends = recording.start_uutc().zip(recording.end_uutc());
        Ok(ends.map(|(start_uutc, end_uutc)| TimeSpan {
            start_uutc,
            end_uutc,
        }))
    }
}

impl Caller {
    /// Whether the token of the call, if it needs one, is for a path.
    async fn may_read(&self, path: &Path, name: &str) -> Result<bool, Status> {
        let Some(token) = &self.token else {
            return Ok(true);
        };
        match token.check(path, name).await {
            Err(Error::OutsideRoots { .. }) => Ok(false),
            checked => checked.map(|()| true).map_err(refused),
        }
    }
}

fn entry(root: &DataRoot, session: &FoundSession) -> RecordingEntry {
    let path = session.path.to_string_lossy().into_owned();
    RecordingEntry {
        id: format!("{}:{path}", root.name()),
        root: root.name().into(),
        path,
        is_archive: session.is_archive,
        modified_uutc: session.modified_uutc,
        span: None,
        problem: String::new(),
    }
}

fn overlap(one: TimeSpan, other: TimeSpan) -> bool {
    one.start_uutc < other.end_uutc && other.start_uutc < one.end_uutc
}

fn matcher(pattern: &str) -> Result<Option<GlobMatcher>, Refusal> {
    if pattern.is_empty() {
        return Ok(None);
    }
    let invalid = |text: String| Refusal::field("pattern", "PATTERN_INVALID", text);
    if pattern.len() > MOST_PATTERN {
        return Err(invalid(format!(
            "a pattern has at most {MOST_PATTERN} bytes"
        )));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    match glob {
        Ok(glob) => Ok(Some(glob.compile_matcher())),
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn token(cursor: &Cursor, list: u64) -> String {
    use std::fmt::Write;

    let mut text = format!("{list:016x}-{}-", cursor.root);
    let after = cursor.after.as_deref().unwrap_or(Path::new(""));
    for byte in after.as_os_str().as_encoded_bytes() {
        // A text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn cursor_of(token: &str, list: u64) -> Result<Cursor, Refusal> {
    if token.is_empty() {
        return Ok(Cursor::default());
    }
    read_token(token, list).ok_or_else(|| {
        let text = "page_token is not one of this list";
        Refusal::field("page_token", "PAGE_TOKEN_INVALID", text)
    })
}

fn read_token(token: &str, list: u64) -> Option<Cursor> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let mut parts = token.splitn(3, '-');
    let of = u64::from_str_radix(parts.next()?, 16).ok()?;
    (of == list).then_some(())?;
    let root = parts.next()?.parse().ok()?;
    let digits = parts.next()?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    // A number may have a sign, a byte has none.
    let is_plain = digits.iter().all(u8::is_ascii_hexdigit);
    (rest.is_empty() && is_plain).then_some(())?;
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let after = PathBuf::from(OsString::from_vec(bytes?));
    Some(Cursor {
        root,
        after: (!after.as_os_str().is_empty()).then_some(after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_a_place_of_one_list() {
        for after in [None, Some(PathBuf::from("a/\u{e4}-b.mefd"))] {
            let cursor = Cursor { root: 3, after };
            let text = token(&cursor, 7);
            assert_eq!(read_token(&text, 7), Some(cursor));
            assert_eq!(read_token(&text, 8), None);
            assert_eq!(read_token(&format!("{text}f"), 7), None);
            assert_eq!(read_token(&format!("{text}+f"), 7), None);
        }
        for wrong in ["", "x", "--", "7-x-", "7"] {
            assert_eq!(read_token(wrong, 7), None, "{wrong}");
        }
    }

    #[test]
    fn patterns_are_of_paths() {
        let matches = |pattern: &str, path: &str| {
            let matcher = matcher(pattern).unwrap().unwrap();
            matcher.is_match(path)
        };
        assert!(matches("*.mefd", "a.mefd") && !matches("*.mefd", "b/a.mefd"));
        assert!(matches("**/a*.mefd", "b/c/ab.mefd") && matches("**/a.mefd", "a.mefd"));
        assert!(matches("{x,y}/?.mefd*", "y/a.mefd.tar"));
        assert!(matcher("").unwrap().is_none());
        assert!(matcher("[").is_err() && matcher(&"a".repeat(5000)).is_err());
    }
}
