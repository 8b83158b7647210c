//! Passwords, and what they leave open.

use std::fs;

use mef3_server::mef::{Access, MefError, NewRecord, Passwords, RecordBody, Rule, SessionOptions};
use serde_json::Value;

use crate::common::forge::{Forged, START, passwords, put, sign_file, values, window};

fn protected() -> SessionOptions {
    SessionOptions {
        seed: Some(5),
        passwords: Some(passwords()),
        ..named()
    }
}

fn named() -> SessionOptions {
    SessionOptions {
        seed: Some(5),
        subject_id: "S-77".into(),
        gmt_offset: Some(-21_600),
        ..SessionOptions::default()
    }
}

#[test]
fn row_16_plain_records_of_a_protected_session_are_read_and_told() {
    let forged = Forged::with(protected());
    let notes = [NewRecord::note(START, "anybody reads this")];
    let plain = Forged::new().with_records(&notes);
    let validation = forged.bytes("tmet")[868..900].to_vec();
    for file in ["rdat", "ridx"] {
        let mut bytes = plain.bytes(file);
        bytes[868..900].copy_from_slice(&validation);
        sign_file(&mut bytes);
        fs::write(forged.file(file), bytes).unwrap();
    }
    forged.settle();
    for password in ["first", "second"] {
        let page = forged.records(Some(password));
        assert_eq!(page.damaged, []);
        let text = "anybody reads this".into();
        assert_eq!(page.records[0].record.body, RecordBody::Note { text });
        assert_eq!((page.total, page.plain_in_protected), (1, 1));
    }
    let output = forged.info(&["--records"], Some("second"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("1 of 1 can be read without the session's password"),
        "{text}"
    );
    let output = forged.info(&["--records", "--json"], Some("second"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["plain_in_protected"], 1);
    // Those of a session without passwords are meant to be read.
    assert_eq!(plain.records(None).plain_in_protected, 0);
}

#[test]
fn row_31_a_plain_section_3_beside_an_encrypted_section_2_is_read() {
    let forged = Forged::with(protected());
    let plain = Forged::with(named()).bytes("tmet");
    for channel in ["bad", "good"] {
        let stem = format!("{channel}-000000");
        let file = forged
            .path
            .join(format!("{channel}.timd/{stem}.segd/{stem}.tmet"));
        let mut bytes = fs::read(&file).unwrap();
        assert_eq!(bytes[1024..1026], [1, 2]);
        bytes[1025] = -2_i8 as u8;
        bytes[13312..16384].copy_from_slice(&plain[13312..16384]);
        // There is no second password.
        put(&mut bytes, 884, [0; 16]);
        sign_file(&mut bytes);
        fs::write(&file, bytes).unwrap();
    }
    let missing = forged.open_with(None).unwrap_err();
    assert!(matches!(missing, MefError::Encrypted { .. }), "{missing}");
    let recording = forged.open_with(Some("first")).unwrap();
    assert_eq!(recording.access, Access::Level1);
    let subject = recording.subject.unwrap();
    assert_eq!(subject.id, "S-77");
    assert_eq!(subject.gmt_offset_s, Some(-21_600));
    assert!(!recording.channels[0].times_unresolved());
    let report = forged.info_json(Some("first"));
    assert_eq!(report["subject_locked"], false);
    assert_eq!(report["clock"]["gmt_offset_s"], -21_600);
}

#[test]
fn row_32_passwords_of_old_mef3io_open_and_are_told() {
    // Up to 1.2.0 it took the last byte of a character's UTF-8 form: A9 of "é".
    let old = Passwords::new("f\u{a9}rst", "s\u{a9}cond").unwrap();
    let forged = Forged::with(SessionOptions {
        passwords: Some(old),
        ..SessionOptions::default()
    });
    for (password, access, old) in [
        ("férst", Access::Level1, true),
        ("sécond", Access::Level2, true),
        ("f\u{a9}rst", Access::Level1, false),
        ("s\u{a9}cond", Access::Level2, false),
    ] {
        let recording = forged.open_with(Some(password)).unwrap();
        assert_eq!(recording.access, access, "{password}");
        assert_eq!(recording.password_by_old_mapping, old, "{password}");
        let span = (START, START + 2_000_000);
        let read = window::<f64>(&recording, "bad", Rule::Mef3io, span);
        assert_eq!(read.unwrap(), values());
        let report = forged.info_json(Some(password));
        assert_eq!(report["password_by_old_mapping"], old);
    }
    let output = forged.info(&[], Some("sécond"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("only as mef3io up to 1.2.0 took it"),
        "{text}"
    );
    let wrong = forged.open_with(Some("fèrst")).unwrap_err();
    assert!(matches!(wrong, MefError::WrongPassword { .. }), "{wrong}");
}
