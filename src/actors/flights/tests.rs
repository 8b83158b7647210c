use std::path::Path;

use super::*;
use crate::actors::coordinator::Readers;
use crate::mef::{ChannelOptions, OpenOptions, SessionOptions, SessionWriter, open_session};

/// A recording of eight pages of one block, and their keys.
fn recording() -> (Arc<PagedRecording>, Vec<PageKey>) {
    recording_in(tempfile::tempdir().unwrap().path())
}

fn recording_in(folder: &Path) -> (Arc<PagedRecording>, Vec<PageKey>) {
    recording_of(folder, &["c"])
}

/// Eight pages of each channel, channel after channel.
fn recording_of(folder: &Path, channels: &[&str]) -> (Arc<PagedRecording>, Vec<PageKey>) {
    let path = folder.join("s.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    for name in channels {
        let options = ChannelOptions {
            block_samples: Some(100),
            ..ChannelOptions::new(*name, 100.0)
        };
        let mut channel = session.channel(options).unwrap();
        let samples: Vec<i32> = (0..800).collect();
        channel.write(1_000_000_000_000_000, &samples).unwrap();
        channel.finish().unwrap();
    }
    let recording = PagedRecording::new(open_session(&path, &OpenOptions::default()).unwrap(), 100);
    let channels = 0..channels.len() as u32;
    let pages = channels.flat_map(|channel| (0..8).map(move |block| (channel, block)));
    let keys: Vec<_> = pages
        .map(|(channel, block)| recording.page_of(channel, 0, block).unwrap())
        .collect();
    (Arc::new(recording), keys)
}

#[test]
fn a_job_has_the_channels_of_one_lane_and_the_oldest_page_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, keys) = recording_of(folder.path(), &["a", "b", "c", "d"]);
    let mut flights = Flights::default();
    // As a request for all channels is: the pages of a moment side by side.
    let mixed: Vec<PageKey> = (0..32).map(|n| keys[n % 4 * 8 + n / 4]).collect();
    let _answer = asked(&mut flights, &recording, &mixed);
    let mut take = |pages| {
        flights.take(&Take {
            class: Class::Request,
            pages,
            samples: u64::MAX,
            lanes: 2,
            who: Readers::Workers,
            only_healthy: false,
        })
    };
    let of = |channels: [usize; 2], pages: std::ops::Range<usize>| -> Vec<PageKey> {
        let key = |page| channels.map(|channel| keys[channel * 8 + page]);
        pages.flat_map(key).collect()
    };
    for (pages, expected, lane) in [
        (6, of([0, 2], 0..3), 0),
        (64, of([1, 3], 0..8), 1),
        (64, of([0, 2], 3..8), 0),
        (64, Vec::new(), 0),
    ] {
        let taken = take(pages);
        assert_eq!((taken.keys, taken.lane), (expected, lane));
    }
}

#[test]
fn a_page_is_wanted_as_long_as_somebody_waits_or_is_expected() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let first = asked(&mut flights, &recording, &keys[..1]);
    let second = asked(&mut flights, &recording, &keys[..1]);
    for key in flights.predict(&recording, &keys[1..2], 7) {
        flights.enqueue(key);
    }
    let wanted = |flights: &Flights, page: usize| {
        (
            flights.is_requested(&keys[page]),
            flights.is_wanted(&keys[page]),
        )
    };
    drop(first);
    assert_eq!(wanted(&flights, 0), (true, true));
    drop(second);
    assert_eq!(wanted(&flights, 0), (false, false));
    assert_eq!(wanted(&flights, 1), (false, true));
    assert_eq!(wanted(&flights, 2), (false, false), "not in flight");
}

#[test]
fn the_longest_wait_is_that_of_the_first_page_for_a_reader() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    assert_eq!(flights.longest_wait(), Duration::ZERO);
    let _answer = asked(&mut flights, &recording, &keys[..1]);
    std::thread::sleep(Duration::from_millis(5));
    let _later = asked(&mut flights, &recording, &keys[1..]);
    assert!(flights.longest_wait() >= Duration::from_millis(5));
    take(&mut flights);
    assert_eq!(flights.longest_wait(), Duration::ZERO);
}

fn asked(
    flights: &mut Flights,
    recording: &Arc<PagedRecording>,
    keys: &[PageKey],
) -> oneshot::Receiver<Fetched> {
    let (reply, answer) = oneshot::channel();
    let (new, _) = flights.request(recording, keys, None, reply);
    for key in new {
        flights.enqueue(key);
    }
    answer
}

/// Takes what the next job may have of eight pages.
fn take(flights: &mut Flights) -> (Vec<PageKey>, bool) {
    take_for(flights, Readers::Workers)
}

fn take_for(flights: &mut Flights, who: Readers) -> (Vec<PageKey>, bool) {
    let taken = flights.take(&Take {
        class: Class::Request,
        pages: 64,
        samples: u64::MAX,
        lanes: 1,
        who,
        only_healthy: false,
    });
    (taken.keys, taken.suspect)
}

fn outcome(answer: &mut oneshot::Receiver<Fetched>) -> Result<Arc<Page>, Error> {
    answer.try_recv().unwrap().unwrap().remove(0)
}

#[test]
fn a_job_that_was_not_begun_goes_back_to_the_head_of_the_queue() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let _answer = asked(&mut flights, &recording, &keys[..4]);
    assert_eq!(take(&mut flights).0, keys[..4]);
    let _more = asked(&mut flights, &recording, &keys[4..]);
    assert_eq!(flights.put_back(&keys[..4], &Ending::NotBegun), 0);
    assert_eq!(take(&mut flights), (keys.clone(), false));
}

#[test]
fn pages_of_a_job_that_ended_its_reader_go_alone_after_the_others() {
    for (ending, deadly) in [
        (Ending::Died, true),
        (Ending::Panicked(String::new()), false),
    ] {
        let (recording, keys) = recording();
        let mut flights = Flights::default();
        let _answer = asked(&mut flights, &recording, &keys[..4]);
        take(&mut flights);
        let _more = asked(&mut flights, &recording, &keys[4..]);
        assert_eq!(
            flights.put_back(&keys[2..4], &ending),
            0,
            "none is given up"
        );
        assert_eq!(take(&mut flights), (keys[4..].to_vec(), false));
        assert_eq!(take(&mut flights), (vec![keys[3]], deadly));
        assert_eq!(take(&mut flights), (vec![keys[2]], deadly));
    }
}

#[test]
fn a_page_that_ends_a_second_reader_alone_is_given_up_and_no_other() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let mut answers = [0, 1].map(|page| asked(&mut flights, &recording, &keys[page..=page]));
    take(&mut flights);
    flights.put_back(&keys[..2], &Ending::Died);
    assert_eq!(take(&mut flights), (vec![keys[1]], true));
    assert_eq!(flights.put_back(&keys[1..2], &Ending::Died), 1);
    let error = outcome(&mut answers[1]).unwrap_err();
    assert!(matches!(&error, Error::PoisonedPage { place, deaths: 2 }
        if place.channel == "c" && place.first_block == keys[1].first_block));
    let mut again = asked(&mut flights, &recording, &keys[1..2]);
    assert_eq!(outcome(&mut again).unwrap_err(), error, "without a job");
    assert_eq!(take(&mut flights), (vec![keys[0]], true));
    assert!(answers[0].try_recv().is_err(), "still waits");
}

#[test]
fn a_page_that_panics_alone_is_given_up_with_its_place() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let mut answer = asked(&mut flights, &recording, &keys[3..4]);
    take(&mut flights);
    let ending = Ending::Panicked("index out of bounds".into());
    assert_eq!(flights.put_back(&keys[3..4], &ending), 1);
    let text = outcome(&mut answer).unwrap_err().to_string();
    for part in [
        "s.mefd",
        "channel c",
        "blocks from 3",
        "index out of bounds",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn suspicion_outlives_the_request_and_the_opening_and_ends_with_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (first, keys) = recording_in(folder.path());
    let mut flights = Flights::default();
    let answer = asked(&mut flights, &first, &keys[..2]);
    take(&mut flights);
    flights.put_back(&keys[..2], &Ending::Died);
    drop(answer);
    assert!(take(&mut flights).0.is_empty());
    assert_eq!(flights.len(), 0);

    let again = PagedRecording::new(
        open_session(&first.recording.path, &OpenOptions::default()).unwrap(),
        100,
    );
    let keys: Vec<_> = (0..2)
        .filter_map(|block| again.page_of(0, 0, block))
        .collect();
    let again = Arc::new(again);
    let _answer = asked(&mut flights, &again, &keys);
    assert_eq!(take(&mut flights), (vec![keys[0]], true));
    flights.answered(keys[0], &Err(Error::Stopped));
    let _answer = asked(&mut flights, &again, &keys[..1]);
    assert_eq!(take(&mut flights), (vec![keys[1]], true));
    assert_eq!(
        take(&mut flights),
        (vec![keys[0]], false),
        "it was survived"
    );
}

#[test]
fn what_a_reader_died_over_never_goes_to_the_server_process() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, keys) = recording_of(folder.path(), &["a", "b"]);
    let mut flights = Flights::default();
    let guilty = asked(&mut flights, &recording, &keys[..1]);
    take(&mut flights);
    flights.put_back(&keys[..1], &Ending::Died);
    // Where one page of a file is deadly, another may be.
    let beside = asked(&mut flights, &recording, &keys[1..2]);
    let _others = asked(&mut flights, &recording, &keys[8..]);
    let taken = take_for(&mut flights, Readers::Server);
    assert_eq!(taken, (keys[8..].to_vec(), false));
    for mut answer in [guilty, beside] {
        let error = outcome(&mut answer).unwrap_err();
        assert!(matches!(error, Error::NoWorker { .. }), "{error}");
    }
}

#[test]
fn suspects_wait_behind_others_while_enough_readers_are_at_them() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let _answer = asked(&mut flights, &recording, &keys[..2]);
    take(&mut flights);
    flights.put_back(&keys[..2], &Ending::Died);
    let _more = asked(&mut flights, &recording, &keys[2..4]);
    let mut take_others = || {
        let taken = flights.take(&Take {
            class: Class::Request,
            pages: 64,
            samples: u64::MAX,
            lanes: 1,
            who: Readers::Workers,
            only_healthy: true,
        });
        taken.keys
    };
    assert_eq!(take_others(), keys[2..4]);
    assert_eq!(take_others(), []);
    assert_eq!(take(&mut flights), (vec![keys[1]], true));
}

#[test]
fn storage_that_does_not_answer_is_tried_with_one_page_and_the_rest_refused() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let _first = asked(&mut flights, &recording, &keys[..4]);
    for _ in 0..2 {
        let (taken, _) = take(&mut flights);
        flights.put_back(&taken, &Ending::Stalled);
    }
    let mut fresh = asked(&mut flights, &recording, &keys[4..5]);
    // One page, though it has done nothing, and no other beside it.
    let (tried, _) = take(&mut flights);
    assert_eq!(tried.len(), 1);
    assert_eq!(take(&mut flights).0, []);
    flights.refuse_stuck();
    assert!(fresh.try_recv().is_err(), "waits for the outcome");
    let later = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
    flights.stuck.begin(device_of(&flights, &keys[4]), later);
    flights.refuse_stuck();
    let error = outcome(&mut fresh).unwrap_err();
    assert!(matches!(error, Error::StuckStorage { .. }), "{error}");
    // With the first answer all is as before.
    let _again = asked(&mut flights, &recording, &keys[4..]);
    assert_eq!(take(&mut flights).0, []);
    flights.answered(tried[0], &Err(Error::Stopped));
    assert_eq!(take(&mut flights).0, keys[4..]);
}

fn device_of(flights: &Flights, key: &PageKey) -> u64 {
    flights.device(key).unwrap()
}

#[test]
fn pages_whose_reader_was_killed_from_outside_are_as_good_as_before() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let _answer = asked(&mut flights, &recording, &keys);
    for expected in [8, 8, 1] {
        let (taken, suspect) = take_for(&mut flights, Readers::Server);
        // From the second time on, each has the best chances by itself.
        assert_eq!((taken.len(), suspect), (expected, false));
        assert_eq!(flights.put_back(&taken, &Ending::Killed), 0);
    }
    let (taken, suspect) = take(&mut flights);
    assert_eq!((taken.len(), suspect), (1, false));
    assert_eq!(
        flights.answered(taken[0], &Err(Error::Stopped)),
        Completed::Wanted
    );
}

#[test]
fn cancelled_requests_are_swept_out_and_their_pages_dropped() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let kept = asked(&mut flights, &recording, &keys[..2]);
    drop(asked(&mut flights, &recording, &keys));
    assert_eq!(flights.waiters, 10);
    flights.sweep();
    assert_eq!((flights.waiters, flights.len()), (2, 2));
    assert_eq!(flights.queued(Class::Request), 2);
    assert_eq!(take(&mut flights).0, keys[..2]);
    drop(kept);
    flights.sweep();
    assert_eq!((flights.waiters, flights.len()), (0, 2), "a job has them");
    flights.put_back(&keys[..2], &Ending::NotBegun);
    assert_eq!(flights.len(), 0, "and nobody wants them back");
}

#[test]
fn pages_in_flight_and_those_who_wait_for_them_have_limits() {
    let (recording, keys) = recording();
    let mut flights = Flights::default();
    let limits = Limits {
        pages: 4,
        waiters: 16,
    };
    let mut answers = Vec::new();
    for _ in 0..4 {
        flights.reserve(2, &limits).unwrap();
        answers.push(asked(&mut flights, &recording, &keys[..2]));
    }
    let refused = |flights: &mut Flights, pages| {
        flights.last_sweep = None;
        flights.reserve(pages, &limits).unwrap_err().to_string()
    };
    let text = refused(&mut flights, 3);
    assert!(text.contains("limits.queued_pages is 4"), "{text}");
    for _ in 0..4 {
        flights.reserve(2, &limits).unwrap();
        answers.push(asked(&mut flights, &recording, &keys[..2]));
    }
    let text = refused(&mut flights, 1);
    assert!(text.contains("limits.waiters is 16"), "{text}");
    answers.pop();
    flights.reserve(2, &limits).unwrap_err();
    flights.last_sweep = None;
    flights.reserve(2, &limits).unwrap();
}
