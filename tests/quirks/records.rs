//! Records as the legacy stack writes them.

use mef3_server::mef::{NewRecord, RecordBody, RecordType};

use crate::common::forge::{Forged, START};

/// The bodies of a record whose bytes are these.
fn body_of(kind: RecordType, bytes: Vec<u8>) -> RecordBody {
    let raw = NewRecord::new(kind, START, RecordBody::Unknown(bytes));
    let forged = Forged::new().with_records(&[raw]);
    let page = forged.records(None);
    assert_eq!(page.damaged, []);
    assert_eq!(page.records.len(), 1);
    page.records[0].record.body.clone()
}

#[test]
fn row_15_the_level_in_the_index_is_not_believed() {
    let notes = [
        NewRecord::note(START, "one"),
        NewRecord::note(START + 1, "two"),
    ];
    let forged = Forged::new().with_records(&notes);
    for level in [-2_i8, 2, 1, 127] {
        for entry in 0..2 {
            forged.put_in("ridx", entry, 7, level.to_le_bytes());
        }
        let page = forged.records(None);
        assert_eq!(page.damaged, []);
        let bodies: Vec<_> = page
            .records
            .iter()
            .map(|placed| &placed.record.body)
            .collect();
        let note = |text: &str| RecordBody::Note { text: text.into() };
        assert_eq!(bodies, [&note("one"), &note("two")], "level {level}");
        assert!(page.records.iter().all(|placed| placed.record.level == 0));
        assert_eq!(forged.findings(true), []);
    }
}

#[test]
fn row_17_elements_of_a_template_may_be_eight_bytes_wide() {
    let elements = [1_i64, -2, 300, i64::from(i32::MIN), i64::from(i32::MAX), 0];
    let length = (elements.len() as i64).to_le_bytes();
    let narrow: Vec<i32> = elements.map(|element| element as i32).to_vec();
    let template = RecordBody::LineNoiseTemplate {
        template: narrow.clone(),
    };
    let wide: Vec<u8> = elements.iter().flat_map(|e| e.to_le_bytes()).collect();
    assert_eq!(
        body_of(RecordType::LNTP, [&length[..], &wide].concat()),
        template
    );
    // As the definition has it.
    let four: Vec<u8> = narrow.iter().flat_map(|e| e.to_le_bytes()).collect();
    assert_eq!(
        body_of(RecordType::LNTP, [&length[..], &four].concat()),
        template
    );
    // High halves that are none: elements of four bytes, with more behind them.
    let length = 2_i64.to_le_bytes();
    let pairs: Vec<u8> = [5, 6, 7, 8_i32]
        .iter()
        .flat_map(|e| e.to_le_bytes())
        .collect();
    let template = RecordBody::LineNoiseTemplate {
        template: vec![5, 6],
    };
    assert_eq!(
        body_of(RecordType::LNTP, [&length[..], &pairs].concat()),
        template
    );
}

#[test]
fn row_18_texts_may_be_cut_and_lack_their_end() {
    // Room for a byte a character: the last bytes of "nöte ß" are lost.
    let text = "nöte ß";
    let cut = &text.as_bytes()[..text.chars().count()];
    let duration = 1_500_000_i64.to_le_bytes();
    let expected = RecordBody::EdfAnnotation {
        duration_us: Some(1_500_000),
        text: "nöte ".into(),
    };
    assert_eq!(
        body_of(RecordType::EDFA, [&duration[..], cut].concat()),
        expected
    );
    // In the midst of a character.
    let half = &text.as_bytes()[..7];
    let RecordBody::EdfAnnotation { text, .. } =
        body_of(RecordType::EDFA, [&duration[..], half].concat())
    else {
        panic!("no annotation");
    };
    assert_eq!(text, "nöte \u{fffd}");
    // A text that ends in the pad byte itself, where there is a NUL.
    let note = body_of(RecordType::NOTE, b"~~\0".to_vec());
    assert_eq!(note, RecordBody::Note { text: "~~".into() });
    let whole = body_of(RecordType::NOTE, b"0123456789abcdef".to_vec());
    assert_eq!(
        whole,
        RecordBody::Note {
            text: "0123456789abcdef".into()
        }
    );
}
