//! The universal header.

use zerocopy::IntoBytes;

use super::common::{SECRETS, check_error, check_text, here, seal_file};
use super::oracle;
use crate::mef::crypto::{Access, Keys};
use crate::mef::error::{Malformation, MefError};
use crate::mef::header::{header_crc_is_right, parse_header, verify_body_crc, verify_header_crc};
use crate::mef::layout::{HEADER_BYTES, UniversalHeader, set_text, text};
use crate::mef::time;

const TYPES: [&str; 7] = ["tmet", "tidx", "tdat", "vmet", "vidx", "rdat", "ridx"];

/// The input is a file of any type, header and body.
pub fn header(input: &[u8]) {
    let mut accepted = 0;
    for file_type in TYPES {
        match parse_header(input, file_type, here()) {
            Ok(header) => {
                accepted += 1;
                assert_eq!(header.as_bytes(), &input[..HEADER_BYTES]);
                assert_eq!(&input[8..12], file_type.as_bytes());
                assert!([1, 0xFF].contains(&input[15]));
                fields(header);
                checksums(header, &input[HEADER_BYTES..]);
            }
            Err(error) => {
                check_error(&error);
                assert_eq!(
                    matches!(
                        error,
                        MefError::Malformed {
                            reason: Malformation::TooShort { .. },
                            ..
                        }
                    ),
                    input.len() < HEADER_BYTES
                );
            }
        }
    }
    assert!(accepted <= 1, "a file has one type");
    if input.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = input.to_vec();
    let file_type = TYPES[usize::from(input[8]) % TYPES.len()];
    seal_file(&mut sealed, file_type);
    let header = parse_header(&sealed, file_type, here()).expect("it was put right");
    verify_header_crc(header, here()).expect("it was put right");
    verify_body_crc(header, &sealed[HEADER_BYTES..], here()).expect("it was put right");
    fields(header);
    locks(header);
}

/// Texts and times.
fn fields(header: &UniversalHeader) {
    for field in [
        &header.channel_name,
        &header.session_name,
        &header.anonymized_name,
    ] {
        let name = text(field);
        check_text(&name, field.len());
        // What is written back is as much of it as fits, and a terminator.
        let mut written = *field;
        set_text(&mut written, &name);
        let kept = text(&written);
        assert!(name.starts_with(&kept));
        assert!(kept.len() == name.len() || kept.len() + 4 >= field.len());
        assert_eq!(written[field.len() - 1], 0);
    }
    let offset = header.number_of_entries.get();
    for stored in [header.start_time.get(), header.end_time.get()] {
        let absolute = time::absolute(stored, offset);
        assert_eq!(absolute.is_none(), stored == time::NO_TIME);
        // A time that can be stored reads back.
        for time in absolute.into_iter().chain([stored]) {
            if let Some(stored) = time::stored_under(time, offset) {
                assert_eq!(time::absolute(stored, offset), Some(time));
            }
        }
    }
}

fn checksums(header: &UniversalHeader, body: &[u8]) {
    let stored = header.header_crc.get();
    let right = stored == 0 || stored == oracle::crc(&header.as_bytes()[4..]);
    assert_eq!(header_crc_is_right(header), right);
    let verified = verify_header_crc(header, here());
    assert_eq!(verified.is_ok(), right);
    let stored = header.body_crc.get();
    let right = stored == 0 || stored == oracle::crc(body);
    let verified_body = verify_body_crc(header, body, here());
    assert_eq!(verified_body.is_ok(), right);
    for error in [verified, verified_body]
        .into_iter()
        .filter_map(Result::err)
    {
        check_error(&error);
    }
}

/// Passwords open what they should, whatever else the header says.
fn locks(header: &UniversalHeader) {
    let secrets = &*SECRETS;
    let access = |header: &UniversalHeader, password| {
        Keys::unlock(header, password)
            .map(|(access, _)| access)
            .ok()
    };
    let validation = [header.level_1_validation, header.level_2_validation];
    let without = access(header, None);
    let protected = validation != [[0; 16]; 2];
    let expected = if protected {
        Access::Locked
    } else {
        Access::Unprotected
    };
    assert_eq!(without, Some(expected));
    // Finding another password for these fields would be finding a collision.
    let known = validation == secrets.validation;
    if protected && validation[0] != secrets.validation[0] && !known {
        assert_eq!(access(header, Some(&secrets.level_1)), None);
    }
    let mut ours = header.clone();
    [ours.level_1_validation, ours.level_2_validation] = secrets.validation;
    assert_eq!(access(&ours, None), Some(Access::Locked));
    assert_eq!(access(&ours, Some(&secrets.level_1)), Some(Access::Level1));
    assert_eq!(access(&ours, Some(&secrets.level_2)), Some(Access::Level2));
    assert_eq!(access(&ours, Some(&secrets.other)), None);
}
