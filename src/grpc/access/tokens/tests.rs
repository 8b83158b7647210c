use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hyper::header::HeaderValue;
use tempfile::NamedTempFile;

use super::*;
use crate::config::DataRoot;

const CALL: &str = "/mef3.v1.RecordingService/ReadSignal";

fn hex(token: &str) -> String {
    let hash = Sha256::digest(token);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
    file
}

fn entry(name: &str, token: &str, more: &str) -> String {
    let hash = hex(token);
    format!("[[token]]\nname = {name:?}\nsha256 = {hash:?}\nroots = [\"/\"]\n{more}\n")
}

fn load(text: &str) -> Result<Tokens, TokenFileError> {
    Tokens::load(file(text).path(), &[], false)
}

fn with_authorization(value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    headers
}

fn name_of(found: Result<Option<Arc<Token>>, Status>) -> Result<String, (Code, String)> {
    match found {
        Ok(token) => Ok(token.map(|token| token.name.clone()).unwrap_or_default()),
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

#[test]
fn calls_need_a_token_that_is_known_and_was_kept_secret() {
    let text = entry("a", "first", "") + &entry("b", "second", "");
    let tokens = load(&text).unwrap();
    assert_eq!(tokens.count(), 2);
    let call = |value: &[u8], is_private| {
        let headers = with_authorization(value);
        name_of(tokens.of_call(CALL, &headers, is_private))
    };
    assert_eq!(call(b"Bearer first", true), Ok("a".into()));
    assert_eq!(call(b"bearer  second ", true), Ok("b".into()));
    let unauthenticated = |text: &str| Err((Code::Unauthenticated, text.to_owned()));
    for unknown in [
        &b"Bearer third"[..],
        b"Bearer ",
        b"Bearer",
        b"",
        b"Basic first",
        b"Bearer firs",
        b"Bearer first\xff",
        b"first",
    ] {
        let expected = unauthenticated("no such token");
        assert_eq!(call(unknown, true), expected, "{unknown:?}");
    }
    let in_clear = unauthenticated("a token came over a connection that anybody can listen to");
    assert_eq!(call(b"Bearer first", false), in_clear);
    assert_eq!(call(b"Bearer third", false), in_clear);
    let missing = name_of(tokens.of_call(CALL, &HeaderMap::new(), true));
    let text = "a token is needed, as metadata authorization: Bearer TOKEN";
    assert_eq!(missing, unauthenticated(text));
}

#[test]
fn health_and_reflection_are_open_to_all() {
    let tokens = load(&entry("a", "first", "")).unwrap();
    for (path, is_open) in [
        ("/grpc.health.v1.Health/Check", true),
        ("/grpc.health.v1.Health/Watch", true),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            true,
        ),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            true,
        ),
        ("/grpc.health.v1.HealthX/Check", false),
        ("/grpc.healthX", false),
        ("//grpc.health.v1.Health/Check", false),
        (CALL, false),
        ("", false),
    ] {
        let found = tokens.of_call(path, &HeaderMap::new(), false);
        assert_eq!(found.is_ok(), is_open, "{path}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_without_its_secrets() {
    let hash = hex("x");
    let head = format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\n");
    for (text, fault) in [
        (String::new(), "the file: there is no entry [[token]]"),
        ("token = \"secret\"".into(), "the file: there is no entry"),
        ("secret = 1".into(), "the file: there is more in it"),
        (
            "[[token]]\ntoken = \"secret\"".into(),
            "token 1: a token itself has no place here",
        ),
        ("[[token]]\nname = secret".into(), ", line 2: no TOML"),
        (
            format!("{head}roots = []"),
            "token 1: roots is missing or empty",
        ),
        (head.clone(), "token 1: roots is missing or empty"),
        (
            format!("{head}roots = [\"secret/..\"]"),
            "token 1: a root is neither",
        ),
        (
            format!("{head}roots = [\"/secret/..\"]"),
            "token 1: a root has",
        ),
        (
            format!("{head}roots = [\"secret\"]"),
            "token 1: a root is the name of none",
        ),
        (
            format!("{head}roots = [\"/\"]\nsecret = 1"),
            "token 1: there are other keys than",
        ),
        (
            format!("{head}roots = [\"/\"]\ncalls = 0"),
            "token 1: calls is no whole number",
        ),
        (
            format!("{head}roots = [\"/\"]\ncalls = \"secret\""),
            "token 1: calls is no whole",
        ),
        (
            format!("{head}roots = [\"/\"]\nrequest_mb = -1"),
            "token 1: request_mb is no",
        ),
        (
            "[[token]]\nsha256 = \"secret\"".into(),
            "token 1: sha256 is no text of 64",
        ),
        (
            format!("[[token]]\nsha256 = \"{}g\"", &hash[1..]),
            "token 1: sha256 is no text of 64",
        ),
        (
            "[[token]]\nname = \"a\"\nroots = [\"/\"]".into(),
            "token 1: sha256 is missing",
        ),
        (
            format!("[[token]]\nsha256 = \"{hash}\"\nroots = [\"/\"]"),
            "token 1: name is missing",
        ),
        (
            "[[token]]\nname = \"secret\\n\"".into(),
            "token 1: name is no text",
        ),
        (
            entry("a", "x", "") + &entry("a", "y", ""),
            "token 2: its name is there twice",
        ),
        (
            entry("a", "x", "") + &entry("b", "x", ""),
            "token 2: its sha256 is there twice",
        ),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(fault), "{error:?} for {text:?}");
        assert!(!error.contains("secret"), "{error:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let file = file(&entry("a", "x", ""));
    for (mode, is_fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        let outcome = Tokens::load(file.path(), &[], false);
        assert_eq!(outcome.is_ok(), is_fine, "{mode:o}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
    let gone = Tokens::load(Path::new("/nowhere/tokens.toml"), &[], false);
    assert!(matches!(gone, Err(TokenFileError::Unreadable { .. })));
}

#[test]
fn names_stand_for_data_roots() {
    let hash = hex("x");
    let text = format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroots = [\"ward\", \"/x\"]");
    let file = file(&text);
    let roots = |data_roots: &[&str]| {
        let data_roots = data_roots
            .iter()
            .map(|&root| DataRoot::from(root.to_owned()));
        let data_roots: Vec<DataRoot> = data_roots.collect();
        let tokens = Tokens::load(file.path(), &data_roots, false).ok()?;
        let token = tokens.find(b"x")?;
        Some(token.roots.clone())
    };
    let expected: Vec<PathBuf> = vec!["/data/ward".into(), "/x".into()];
    for named in ["/data/ward", "ward=/data/ward"] {
        assert_eq!(roots(&["/data/other", named]), Some(expected.clone()));
    }
    assert_eq!(roots(&["other=/data/ward"]), None);
    assert_eq!(roots(&["/data/wards"]), None);
}

#[test]
fn calls_are_counted_also_over_a_change_of_the_file() {
    let file = file(&entry("a", "x", "calls = 2"));
    let tokens = Tokens::load(file.path(), &[], false).unwrap();
    let token = tokens.find(b"x").unwrap();
    let first = token.call_place().unwrap();
    let _second = token.call_place().unwrap();
    let refusal = token.call_place().unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    fs::write(file.path(), entry("a", "y", "calls = 2")).unwrap();
    tokens.reload().unwrap();
    assert!(tokens.find(b"x").is_none());
    let token = tokens.find(b"y").unwrap();
    token.call_place().unwrap_err();
    drop(first);
    token.call_place().unwrap();
    // What cannot be read leaves what is there.
    fs::write(file.path(), "nonsense").unwrap();
    tokens.reload().unwrap_err();
    assert!(tokens.find(b"y").is_some());
}

#[test]
fn readers_of_a_token_are_one_client() {
    let text = entry("a", "x", "request_mb = 3\nclient_mb = 2") + &entry("b", "y", "");
    let tokens = load(&text).unwrap();
    let (a, b) = (tokens.find(b"x").unwrap(), tokens.find(b"y").unwrap());
    assert_eq!(a.reader(1).client, a.reader(2).client);
    assert_ne!(a.reader(1).client, b.reader(1).client);
    assert_ne!(a.reader(1).id, a.reader(2).id);
    assert_eq!(a.reader(1).client_bytes, Some(2 << 20));
    assert_eq!(a.reader(1).request_bytes(5 << 20), 3 << 20);
    assert_eq!(a.reader(1).request_bytes(1 << 20), 1 << 20);
    assert_eq!(b.reader(1).request_bytes(5 << 20), 5 << 20);
    assert_ne!(a.name_of("viewer"), b.name_of("viewer"));
}

#[test]
fn no_secret_is_shown() {
    let tokens = load(&entry("a", "secret", "")).unwrap();
    let token = tokens.find(b"secret").unwrap();
    let shown = format!("{tokens:?} {token:?}");
    assert!(
        !shown.contains("secret") && !shown.contains(&hex("secret")),
        "{shown}"
    );
    assert!(!shown.contains(&format!("{:?}", token.hash)), "{shown}");
}
