//! Who connects, by which way, and what is said where that does not work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::common::certificates::{Authority, Files};
use super::common::corpus::folder;
use super::common::process::{ClosedPort, LIMIT, Launch, Server};
use super::{client, failure, output, text};

/// A token of some length, as those that say who holds them are.
const LONG: usize = 6000;

/// A server that takes calls with the token `secret` only, or with one of that length.
fn guarded(folder: &Path) -> Server {
    let tokens = [("a", "secret"), ("b", &"s".repeat(LONG))].map(|(name, token)| {
        let hash = Sha256::digest(token);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nroots = [\"/\"]\n")
    });
    let file = folder.join("tokens.toml");
    fs::write(&file, tokens.concat()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    Launch::new().env("MEF3_SERVER_AUTH_TOKENS", file).start()
}

#[test]
fn nobody_at_the_address_is_one_line_at_once() {
    let closed = ClosedPort::new();
    let port = closed.address;
    for command in [&["list"][..], &["read", "a.mefd"], &["top"], &["stats"]] {
        let begun = Instant::now();
        let ended = client(port, command).run();
        failure(
            &ended,
            1,
            &[&format!("{port}: cannot connect: "), "Connection refused"],
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(begun.elapsed() < LIMIT);
    }
    let ended = client("unix:/nowhere/mef3.sock", &["list"]).run();
    failure(
        &ended,
        1,
        &["unix:/nowhere/mef3.sock: cannot connect: ", "No such file"],
    );
    let ended = client("ftp://127.0.0.1", &["list"]).run();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("unix:PATH"), "{}", ended.stderr);
}

#[test]
fn tokens_come_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded(folder.path());
    let stats = || client(server.address, &["stats"]);
    let ended = stats().run();
    failure(
        &ended,
        1,
        &[
            ": UNAUTHENTICATED: ",
            "\nmef3-server:   reason: TOKEN_MISSING\n",
        ],
    );
    let ended = stats().env("MEF3_TOKEN", "other").run();
    failure(&ended, 1, &["reason: TOKEN_UNKNOWN"]);
    output(stats().env("MEF3_TOKEN", "secret"));
    let file = folder.path().join("token");
    fs::write(&file, "secret\n").unwrap();
    output(stats().arg("--token-file").arg(&file));
    fs::write(&file, "").unwrap();
    let ended = stats().arg("--token-file").arg(&file).run();
    failure(&ended, 1, &["token: ", text(&file), "holds no token"]);

    // None is cut, and it is said where one comes from that does not serve.
    fs::write(&file, "s".repeat(LONG)).unwrap();
    output(stats().arg("--token-file").arg(&file));
    for (bad, reason) in [
        ("s".repeat(9000), "is longer than 8192 bytes"),
        ("se\u{1}cret".into(), "has characters that cannot be sent"),
    ] {
        fs::write(&file, format!("{bad}\n")).unwrap();
        let ended = stats().arg("--token-file").arg(&file).run();
        failure(&ended, 1, &[&format!("token: {}: {reason}", text(&file))]);
        let ended = stats().env("MEF3_TOKEN", bad).run();
        failure(&ended, 1, &[&format!("token: MEF3_TOKEN: {reason}")]);
    }
}

#[test]
fn secrets_are_not_sent_where_anybody_can_listen() {
    // An address for documentation: nobody is there, and nobody is asked.
    for variable in ["MEF3_TOKEN", "MEF3_PASSWORD"] {
        for address in ["192.0.2.1:1", "http://192.0.2.1:1"] {
            let ended = client(address, &["info", "a.mefd"])
                .env(variable, "secret")
                .run();
            failure(&ended, 2, &["anybody can listen", "https://"]);
            assert!(!ended.stderr.contains("secret"));
        }
    }
    // Figures need no password, so none would be sent.
    let ended = client("http://127.0.0.1:1", &["stats"])
        .env("MEF3_PASSWORD", "secret")
        .run();
    failure(&ended, 1, &["cannot connect"]);
}

#[test]
fn the_socket_of_this_machine_is_an_address() {
    let folder_of_socket = tempfile::tempdir().unwrap();
    let socket = folder_of_socket.path().join("mef3.sock");
    let _server = Launch::new()
        .env("MEF3_SERVER_SERVER_UNIX_SOCKET", &socket)
        .start();
    let address = format!("unix:{}", socket.display());
    let session = folder().join("encrypted_mef3io.mefd");
    let ended = client(&address, &["info", text(&session)]).run();
    failure(
        &ended,
        1,
        &["FAILED_PRECONDITION", "reason: PASSWORD_REQUIRED"],
    );
    let facts = super::common::corpus::Session::load(&folder(), "encrypted_mef3io");
    let password = facts.password_level_2.unwrap();
    let shown = output(client(&address, &["info", text(&session)]).env("MEF3_PASSWORD", password));
    assert!(shown.contains("Access    level 2"), "{shown}");
}

#[test]
fn connections_are_encrypted_and_both_sides_known() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let files = Files::write(folder.path(), &servers.issue());
    let file = |name: &str, text: String| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let (ca, others) = (
        file("ca.pem", servers.pem()),
        file("others.pem", Authority::new().pem()),
    );
    let own = clients.issue();
    let (cert, key) = (file("own.pem", own.certificate), file("own.key", own.key));
    let server = Launch::new()
        .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
        .env("MEF3_SERVER_TLS_KEY", files.key())
        .env(
            "MEF3_SERVER_TLS_CLIENT_CA",
            file("clients.pem", clients.pem()),
        )
        .start();
    let near = server.address.to_string();
    let pair = ["--cert", text(&cert), "--key", text(&key)];
    let with = |address: &str, ca: &Path, pair: &[&str]| {
        client(address, &[&["stats", "--ca", text(ca)], pair].concat())
    };
    for address in [near.clone(), format!("https://{near}")] {
        output(with(&address, &ca, &pair));
    }
    let distrusted = with(&near, &others, &pair).run();
    failure(&distrusted, 1, &["cannot connect: ", "certificate"]);
    assert!(!distrusted.stderr.contains("does the server encrypt?"));
    // The server hangs up, with a reason that may not arrive.
    failure(&with(&near, &ca, &[]).run(), 1, &[&near]);
    failure(
        &with(&near, &ca, &pair[..2]).run(),
        2,
        &["--cert and --key need each other"],
    );
    failure(
        &with(&format!("http://{near}"), &ca, &pair).run(),
        2,
        &["use https://"],
    );
    let nonsense = file("nonsense.pem", "nonsense".into());
    for wrong in [&key, &nonsense] {
        let told = format!("{}: holds no certificate in PEM", text(wrong));
        failure(&with(&near, wrong, &pair).run(), 1, &[&told]);
        let wrong_pair = ["--cert", text(wrong), "--key", text(&key)];
        failure(&with(&near, &ca, &wrong_pair).run(), 1, &[&told]);
    }
    let wrong_pair = ["--cert", text(&cert), "--key", text(&cert)];
    let told = format!("{}: holds no private key in PEM", text(&cert));
    failure(&with(&near, &ca, &wrong_pair).run(), 1, &[&told]);
    let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let hollow = file("hollow.pem", hollow.into());
    failure(&with(&near, &hollow, &pair).run(), 1, &[text(&hollow)]);
}

#[test]
fn where_only_one_side_encrypts_it_is_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = Files::write(folder.path(), &authority.issue());
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let encrypted = Launch::new()
        .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
        .env("MEF3_SERVER_TLS_KEY", files.key())
        .start();
    let plain = Launch::new().start();
    for command in [&["list"][..], &["read", "a.mefd"], &["stats"]] {
        let ended = client(encrypted.address, command).run();
        failure(
            &ended,
            1,
            &["\nmef3-server:   does the server encrypt? if so, use https://"],
        );
        let ended = client(plain.address, command).arg("--ca").arg(&ca).run();
        failure(
            &ended,
            1,
            &["\nmef3-server:   does the server encrypt? if not, use http://"],
        );
    }
    let closed = ClosedPort::new();
    let ended = client(closed.address, &["stats", "--ca", text(&ca)]).run();
    failure(&ended, 1, &["Connection refused"]);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}
