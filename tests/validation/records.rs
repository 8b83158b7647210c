//! Headers, bodies and index entries of records.

use mef3_server::mef::crc::crc32;
use mef3_server::mef::{NewRecord, RecordBody, RecordError, RecordType, Seizure, SeizureChannel};

use crate::common::forge::{Forged, START, sign_file};
use crate::common::patch::units;

fn notes() -> [NewRecord; 3] {
    ["one", "two", "three"].map(|text| NewRecord::note(START, text))
}

fn errors(forged: &Forged) -> Vec<RecordError> {
    let damaged = forged.records(None).damaged.into_iter();
    damaged.map(|damaged| damaged.error).collect()
}

#[test]
fn record_bytes() {
    let length = |bytes: u32| {
        let forged = Forged::new().with_records(&notes());
        let (start, _) = units("rdat", &forged.bytes("rdat"))[2];
        forged.spoil("rdat", |file| {
            file[start + 12..start + 16].copy_from_slice(&bytes.to_le_bytes());
            // To the end of the file, as far as its length says so.
            let end = (start + 24).saturating_add(bytes as usize).min(file.len());
            let crc = crc32(&file[start + 4..end]);
            file[start..start + 4].copy_from_slice(&crc.to_le_bytes());
            sign_file(file);
        });
        forged
    };
    // All that is left, and less: another body.
    for bytes in [16, 0] {
        let forged = length(bytes);
        assert_eq!(errors(&forged), [], "{bytes}");
        assert_eq!(forged.records(None).records.len(), 3);
    }
    for bytes in [17, 32, 1 << 31, u32::MAX - 24, u32::MAX] {
        let forged = length(bytes);
        let outside = RecordError::OutsideFile {
            bytes,
            available: 16,
        };
        assert_eq!(errors(&forged), [outside]);
        assert_eq!(forged.records(None).records.len(), 2);
        forged.assert_right("beside records");
    }
}

/// The record's body after an edit of its bytes.
fn edited(record: NewRecord, edit: impl FnOnce(&mut [u8])) -> RecordBody {
    let forged = Forged::new().with_records(&[record]);
    let (start, length) = units("rdat", &forged.bytes("rdat"))[0];
    forged.patch("rdat", |bytes| edit(&mut bytes[start + 24..start + length]));
    assert_eq!(errors(&forged), []);
    forged.assert_right("beside records");
    forged.records(None).records[0].record.body.clone()
}

#[test]
fn record_number_of_channels_length() {
    let channels = ["a", "b"].map(|name| SeizureChannel {
        name: name.into(),
        ..SeizureChannel::default()
    });
    let seizure = RecordBody::Seizure(Seizure {
        channels: channels.to_vec(),
        ..Seizure::default()
    });
    let record = NewRecord::new(RecordType::SEIZ, START, seizure);
    for (declared, found) in [
        (2, 2),
        (1, 1),
        (0, 0),
        (3, 2),
        (i32::MAX, 2),
        (-1, 0),
        (i32::MIN, 0),
    ] {
        let body = edited(record.clone(), |body| {
            body[24..28].copy_from_slice(&declared.to_le_bytes());
        });
        let RecordBody::Seizure(seizure) = body else {
            panic!("{body:?}");
        };
        assert_eq!(seizure.channels, channels[..found], "{declared}");
    }
    // Shorter than the fixed part: bytes.
    let short = RecordBody::Unknown(vec![0; 1296]);
    let raw = NewRecord::new(RecordType::SEIZ, START, short.clone());
    assert_eq!(edited(raw, |_| {}), short);

    // Elements that are no sign extensions, so that each has four bytes.
    let template = vec![1, 2, 3, 4, 5, 6];
    let body = RecordBody::LineNoiseTemplate {
        template: template.clone(),
    };
    let record = NewRecord::new(RecordType::LNTP, START, body);
    for (declared, found) in [
        (6, 6),
        (1, 1),
        (0, 0),
        (i64::MAX, 6),
        (-1, 0),
        (i64::MIN, 0),
    ] {
        let body = edited(record.clone(), |body| {
            body[..8].copy_from_slice(&i64::to_le_bytes(declared));
        });
        let RecordBody::LineNoiseTemplate { template: read } = body else {
            panic!("{body:?}");
        };
        assert_eq!(read, template[..found], "{declared}");
    }
    let short = RecordBody::Unknown(Vec::new());
    let raw = NewRecord::new(RecordType::LNTP, START, short.clone());
    assert_eq!(edited(raw, |_| {}), short);
}

#[test]
fn record_index_offsets() {
    let forged = Forged::new().with_records(&notes());
    let size = forged.bytes("rdat").len() as i64;
    let right = 1024 + 40;
    for offset in [right, 1024, size - 24] {
        forged.put_in("ridx", 1, 8, i64::to_le_bytes(offset));
        // Within the file, but no record of this type and time begins there.
        let astray = (offset == size - 24).then_some(RecordError::IndexOnly {
            kind: RecordType::NOTE,
            offset: offset as u64,
        });
        assert_eq!(errors(&forged), Vec::from_iter(astray), "{offset}");
        assert_eq!(forged.records(None).records.len(), 3);
    }
    for offset in [
        1023,
        0,
        -1,
        i64::MIN,
        size - 23,
        size,
        i64::MAX - 24,
        i64::MAX,
    ] {
        forged.put_in("ridx", 1, 8, offset.to_le_bytes());
        let outside = RecordError::IndexOffset {
            offset,
            file_bytes: size as u64,
        };
        assert_eq!(errors(&forged), [outside]);
        // The records themselves are where they are.
        assert_eq!(forged.records(None).records.len(), 3);
    }
    forged.assert_right("beside records");
}
