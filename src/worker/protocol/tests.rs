//! What honest and lying workers say.

use super::*;
use crate::mef::{BlockDamage, BlockError};

fn job() -> Arc<Job> {
    let page = |first_block, samples: &[u32]| PageWork {
        first_block,
        blocks: samples.iter().zip(0..).map(planned).collect(),
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
