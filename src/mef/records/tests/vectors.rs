//! The vectors of format section 18.9.

use super::*;

const PLAIN: &str = "0bbacb934e6f7465000100001000000000005cf8ce50faff\
                     6869007e7e7e7e7e7e7e7e7e7e7e7e7e";
const ENCRYPTED: &str = "1e837b114e6f7465000100021000000000005cf8ce50faff\
                         c46172e7aba059ef4d13c01e9a290134";
const ENTRY: &str = "4e6f746500010000000400000000000000005cf8ce50faff";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn level_2_keys() -> (Keys, UniversalHeader) {
    let [first, second] = ["level1", "level2"].map(|text| Password::new(text).unwrap());
    let (keys, [one, two]) = Keys::for_writing(&first, &second);
    let mut header = UniversalHeader::new_zeroed();
    header.level_1_validation = one;
    header.level_2_validation = two;
    (keys, header)
}

#[test]
fn a_note_is_encoded_byte_for_byte() {
    let note = NewRecord::note(START, "hi");
    let plain = encode_record(&note, None, 0, 1024).unwrap();
    assert_eq!(hex(&plain.bytes), PLAIN);
    assert_eq!(hex(plain.entry.as_bytes()), ENTRY);
    let (keys, _) = level_2_keys();
    let encrypted = encode_record(&note, Some(&keys), 0, 1024).unwrap();
    assert_eq!(hex(&encrypted.bytes), ENCRYPTED);
    // The entry says the same level as the record.
    assert_eq!(encrypted.entry.encryption, 2);
}

#[test]
fn a_note_is_read_with_and_without_its_key() {
    let (_, header) = level_2_keys();
    let hi = RecordBody::Note { text: "hi".into() };
    for (record, password, level, body) in [
        (PLAIN, None, 0, hi.clone()),
        (ENCRYPTED, Some("level2"), 2, hi),
        (ENCRYPTED, Some("level1"), 2, RecordBody::Locked),
        (ENCRYPTED, None, 2, RecordBody::Locked),
    ] {
        let pair = Pair {
            data: file(b"rdat\0", 1, &bytes(record)),
            index: Some(file(b"ridx\0", 1, &bytes(ENTRY))),
        };
        let scan = pair.scan(false);
        assert_eq!(findings(&scan), []);
        let keys = keys(&header, password);
        let read = load(&Bytes(&pair.data), &scan.positions[0], &keys, 0).unwrap();
        let expected = Record {
            kind: RecordType::NOTE,
            version: (1, 0),
            level,
            time_uutc: Some(START),
            file_offset: 1024,
            body,
        };
        assert_eq!(read, expected, "{password:?}");
    }
}
