//! What honest and lying workers say.

use super::*;
use crate::mef::{
    BlockDamage, BlockError, ChannelOptions, Extrema, PlacedRecord, Record, RecordBody,
    RecordFilter, RecordType, Roots, SessionOptions, SessionWriter, open_session, refresh,
};

fn job() -> Arc<Job> {
    job_in(Form::Counts)
}

fn job_in(form: Form) -> Arc<Job> {
    let page = |first_block, samples: &[u32]| PageWork {
        first_block,
        blocks: samples.iter().zip(0..).map(planned).collect(),
        form,
    };
    let segment = SegmentWork {
        place: SegmentPlace {
            session: "s.mefd".into(),
            channel: "c".into(),
            stem: "c-000000".into(),
            password: None,
        },
        identity: any_identity(),
        recording_time_offset: 0,
        pages: vec![page(0, &[2]), page(1, &[1, 2])],
    };
    Arc::new(Job::new(7, Work::Decode(vec![segment])))
}

/// Any identity will do: the server never looks into it.
fn any_identity() -> FileIdentity {
    let identity = serde_json::json!({
        "device": 0, "inode": 0, "size": 0, "modified_ns": 0, "uuid": vec![0; 16]
    });
    serde_json::from_value(identity).unwrap()
}

/// A block of so many samples, in the given place of its page.
fn planned((&samples, place): (&u32, i64)) -> BlockEntry {
    BlockEntry {
        file_offset: 1024,
        start_uutc: place * 1000,
        samples,
        bytes: 312,
        flags: 0,
        extrema: Extrema::UNKNOWN,
    }
}

fn header(page: u32, samples: &[u32]) -> PageHeader {
    let blocks = samples.iter().zip(0..).map(planned);
    let blocks = blocks.map(|block| DecodedBlock {
        start_uutc: block.start_uutc,
        samples: block.samples,
        damage: None,
    });
    PageHeader {
        page,
        blocks: Ok(blocks.collect()),
    }
}

fn damaged(samples: u32, lost: u32) -> DecodedBlock {
    DecodedBlock {
        start_uutc: 0,
        samples,
        damage: Some(BlockDamage {
            file_offset: 1024,
            samples: lost,
            error: BlockError::StreamEnd,
        }),
    }
}

#[test]
fn an_honest_worker_is_believed() {
    let mut check = JobCheck::new(job());
    let headers = vec![header(0, &[2]), header(1, &[1, 2])];
    assert_eq!(check.headers(7, &headers), Ok(20));
    let pages = check.pages(headers, &[1; 20]).unwrap();
    assert_eq!(pages.len(), 2);
    assert_eq!(check.done(7), Ok(()));
}

#[test]
fn every_lie_is_seen() {
    let check = || JobCheck::new(job());
    assert!(matches!(check().headers(8, &[]), Err(Lie::Job { .. })));
    assert!(matches!(
        check().headers(7, &[header(1, &[1, 2])]),
        Err(Lie::Page { .. })
    ));
    assert_eq!(check().headers(7, &[header(0, &[3])]), Err(Lie::Blocks(0)));
    let too_many = [header(0, &[2]), header(1, &[1, 2]), header(2, &[1])];
    assert!(matches!(
        check().headers(7, &too_many),
        Err(Lie::Page { .. })
    ));
    assert!(matches!(check().done(7), Err(Lie::Incomplete { .. })));
    assert!(matches!(
        check().pages(vec![header(0, &[2])], &[0; 7]),
        Err(Lie::Payload {
            got: 7,
            expected: 8
        })
    ));
    let mut opened = Ok(Box::new(Recording::empty("s", "s.mefd")));
    assert_eq!(check().opened(7, &mut opened), Err(Lie::Kind));
}

#[test]
fn stored_blocks_have_the_bytes_that_the_index_says() {
    let mut check = JobCheck::new(job_in(Form::Stored));
    let mut headers = vec![header(0, &[2]), header(1, &[1, 2])];
    // One of the three is damaged, and has none.
    if let Ok(blocks) = &mut headers[1].blocks {
        blocks[0] = damaged(0, 1);
    }
    assert_eq!(check.headers(7, &headers), Ok(624));
    let short = check.pages(headers.clone(), &[1; 623]);
    assert!(matches!(short, Err(Lie::Payload { got: 623, .. })));
    let pages = check.pages(headers, &[1; 624]).unwrap();
    let (_, page) = pages.into_iter().nth(1).unwrap();
    let page = page.unwrap();
    let words = [1, 2].map(|block| page.block(block).unwrap().words.len());
    assert_eq!(words, [0, 78]);
}

#[test]
fn only_a_job_that_was_cancelled_may_end_so() {
    let job = job();
    let check = JobCheck::new(Arc::clone(&job));
    assert_eq!(check.cancelled(7), Err(Lie::Kind));
    job.cancel();
    assert_eq!(check.cancelled(7), Ok(()));
    assert!(matches!(check.cancelled(8), Err(Lie::Job { .. })));
}

#[test]
fn each_block_is_compared_with_the_index() {
    let answer = |headers: &[PageHeader]| JobCheck::new(job()).headers(7, headers);
    let lies = |page| Err(Lie::Blocks(page));
    // The sum is right, the blocks are not.
    let swapped = header(1, &[2, 1]);
    assert_eq!(answer(&[header(0, &[2]), swapped]), lies(1));
    assert_eq!(answer(&[header(0, &[1, 1])]), lies(0));
    let mut late = header(0, &[2]);
    late.blocks.as_mut().unwrap()[0].start_uutc += 1;
    assert_eq!(answer(&[late]), lies(0));

    let with = |block| PageHeader {
        page: 0,
        blocks: Ok(vec![block]),
    };
    assert_eq!(answer(&[with(damaged(0, 2))]), Ok(0));
    assert_eq!(answer(&[with(damaged(0, 3))]), lies(0));
    assert_eq!(answer(&[with(damaged(2, 2))]), lies(0));
}

/// A look that is asked for while so much is known.
fn look(known: &Known) -> JobCheck {
    let known = Arc::new(known.clone());
    let work = Work::Refresh("s.mefd".into(), OpenOptions::default(), known);
    JobCheck::new(Arc::new(Job::new(7, work)))
}

#[test]
fn news_are_compared_with_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.mefd");
    let options = OpenOptions::default();
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let mut knowledge = Vec::new();
    for name in ["a", "b"] {
        let mut channel = session.channel(ChannelOptions::new(name, 100.0)).unwrap();
        channel.write(1_600_000_000_000_000, &[1; 100]).unwrap();
        channel.finish().unwrap();
        knowledge.push(Known::of(&open_session(&path, &options).unwrap()));
    }
    let [before, after] = &knowledge[..] else {
        panic!("{knowledge:?}");
    };
    // The second channel, whose only segment is found.
    let news = refresh(&path, &options, before, &Roots::default(), &mut || {});
    let mut check = look(before);
    assert!(matches!(check.refreshed(8, &news), Err(Lie::Job { .. })));
    assert_eq!(check.refreshed(7, &news), Ok(()));
    assert_eq!(check.done(7), Ok(()));
    assert_eq!(check.refreshed(7, &news), Err(Lie::Kind), "told twice");
    assert_eq!(look(after).refreshed(7, &news), Err(Lie::News));
    assert_eq!(JobCheck::new(job()).refreshed(7, &news), Err(Lie::Kind));
    let nothing = refresh(&path, &options, after, &Roots::default(), &mut || {});
    assert_eq!(look(after).refreshed(7, &nothing), Ok(()));
}

/// Notes at some times, of the channel "c".
fn notes(times: &[i64]) -> RecordPage {
    let note = |&time| PlacedRecord {
        channel: Some("c".into()),
        segment: None,
        record: Record {
            kind: RecordType::NOTE,
            version: (1, 0),
            level: 0,
            time_uutc: Some(time),
            file_offset: 1024,
            body: RecordBody::Note {
                text: "note".into(),
            },
        },
        time_unresolved: false,
    };
    RecordPage {
        records: times.iter().map(note).collect(),
        total: 10,
        next: Some(2 + times.len() as u64),
        ..RecordPage::default()
    }
}

/// What is said when three notes of that channel are asked for, from the third on and
/// of some times.
fn told(page: RecordPage) -> Result<(), Lie> {
    let query = RecordQuery {
        filter: RecordFilter {
            types: vec![RecordType::NOTE],
            from_uutc: Some(10),
            until_uutc: Some(20),
        },
        channels: vec!["c".into()],
        skip: 2,
        limit: 3,
    };
    let reader = RecordReader::of(&Recording::empty("s", "s.mefd"));
    let work = Work::Records("s.mefd".into(), Arc::new(reader), query);
    JobCheck::new(Arc::new(Job::new(7, work))).records(7, &Ok(page))
}

/// What is said of a record, and how.
type Spoil = (&'static str, fn(&mut PlacedRecord));

#[test]
fn records_are_compared_with_what_was_asked_for() {
    assert_eq!(told(notes(&[10, 10, 19])), Ok(()));
    // Others were too long, or could not be read.
    assert_eq!(told(notes(&[10])), Ok(()));
    assert_eq!(
        told(RecordPage {
            next: Some(5),
            ..notes(&[10])
        }),
        Ok(())
    );
    assert_eq!(
        told(RecordPage {
            total: 3,
            next: None,
            ..notes(&[10])
        }),
        Ok(())
    );
    assert_eq!(told(RecordPage::default()), Ok(()), "there are not so many");

    let lies: [(&str, RecordPage); 10] = [
        ("too many", notes(&[10, 11, 12, 13])),
        ("out of order", notes(&[11, 10])),
        ("too early", notes(&[9, 10])),
        ("too late", notes(&[10, 20])),
        (
            "never again",
            RecordPage {
                next: None,
                ..notes(&[10])
            },
        ),
        (
            "the same again",
            RecordPage {
                next: Some(2),
                ..notes(&[])
            },
        ),
        (
            "more than are left out",
            RecordPage {
                next: Some(6),
                ..notes(&[10])
            },
        ),
        (
            "beyond the last",
            RecordPage {
                total: 3,
                ..notes(&[10])
            },
        ),
        (
            "more than there are",
            RecordPage {
                total: 2,
                next: None,
                ..notes(&[10])
            },
        ),
        ("more plain ones than there are", {
            RecordPage {
                plain_in_protected: 11,
                ..notes(&[10])
            }
        }),
    ];
    for (lie, page) in lies {
        assert_eq!(told(page), Err(Lie::Records), "{lie}");
    }
    let spoilt: [Spoil; 4] = [
        ("of the session", |it| it.channel = None),
        ("of another channel", |it| it.channel = Some("d".into())),
        ("of another type", |it| it.record.kind = RecordType::EDFA),
        ("without a time", |it| it.record.time_uutc = None),
    ];
    for (lie, spoil) in spoilt {
        let mut page = notes(&[10]);
        spoil(&mut page.records[0]);
        assert_eq!(told(page), Err(Lie::Records), "{lie}");
    }
}

#[test]
fn a_probe_is_believed_when_its_samples_are_right() {
    let expected = &probe_block().samples;
    let probe = || {
        JobCheck::new(Arc::new(Job::new(
            7,
            Work::Probe(probe_block().bytes.clone()),
        )))
    };
    let mut check = probe();
    assert_eq!(
        check.done(7),
        Err(Lie::Incomplete {
            got: 0,
            expected: 0
        })
    );
    assert_eq!(check.probed(7, expected), Ok(()));
    assert_eq!(check.done(7), Ok(()));
    assert_eq!(check.probed(7, expected), Err(Lie::Kind));
    let mut other = expected.clone();
    other[3] += 1;
    for wrong in [&other[..], &expected[1..], &[]] {
        assert_eq!(probe().probed(7, wrong), Err(Lie::Probe));
    }
    let job_8 = Lie::Job {
        got: 8,
        expected: 7,
    };
    assert_eq!(probe().probed(8, expected), Err(job_8));
    assert_eq!(JobCheck::new(job()).probed(7, expected), Err(Lie::Kind));
    assert!(probe().headers(7, &[header(0, &[2])]).is_err());
}
