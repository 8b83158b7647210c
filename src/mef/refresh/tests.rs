//! What an honest worker says of a session, and what a dishonest one might.

use super::*;
use crate::mef::{
    ChannelOptions, ChannelWriter, OpenOptions, SessionOptions, SessionWriter, open_session,
};

const START: i64 = 1_600_000_000_000_000;

/// What is said, and how.
type Lie = (&'static str, fn(&mut Growth));

/// Writes two blocks, of a second each.
fn write(mut channel: ChannelWriter, from_s: i64) {
    let start = START + from_s * 1_000_000;
    channel.write(start, &[1; 200]).unwrap();
    channel.finish().unwrap();
}

fn growth(news: Refresh) -> Growth {
    match news {
        Refresh::Grown(growth) => *growth,
        other => panic!("{other:?}"),
    }
}

fn longer(growth: &mut Growth) -> &mut Longer {
    match &mut growth.channels[0].1[0] {
        SegmentNews::Longer(longer) => longer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn news_that_no_honest_worker_has_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let channel = |name| ChannelOptions {
        block_samples: Some(100),
        ..ChannelOptions::new(name, 100.0)
    };
    write(session.channel(channel("a")).unwrap(), 0);
    write(session.channel(channel("b")).unwrap(), 0);
    let options = OpenOptions::default();
    let before = open_session(&path, &options).unwrap();
    let known = Known::of(&before);
    write(session.continue_channel("a").unwrap(), 2);
    write(session.channel(channel("c")).unwrap(), 0);
    let news = refresh(&path, &options, &known, &Roots::default(), &mut || {}).unwrap();
    assert!(news.fits(&known));
    let honest = growth(news);
    let grown = before.grown(honest.clone()).unwrap();
    assert!(Refresh::Unchanged.fits(&known) && Refresh::Replaced(path.clone()).fits(&known));
    // They are told to somebody who has them already.
    assert!(!honest.fits(&Known::of(&grown)));

    let lies: [Lie; 12] = [
        ("a channel is missing", |it| drop(it.channels.remove(1))),
        ("channels change places", |it| it.channels.swap(0, 1)),
        ("a channel comes twice", |it| {
            let twice = it.channels[2].clone();
            it.channels.push(twice);
        }),
        ("a new channel is empty", |it| it.channels[2].1.clear()),
        ("a segment is missing", |it| it.channels[0].1.clear()),
        ("a segment too many", |it| {
            it.channels[1].1.push(SegmentNews::Known);
        }),
        ("a new channel was known", |it| {
            it.channels[2].1 = vec![SegmentNews::Known];
        }),
        ("a segment comes twice", |it| {
            let found = it.channels[2].1[0].clone();
            it.channels[2].1.push(found);
        }),
        ("a block lies in another", |it| {
            let longer = longer(it);
            longer.blocks[0].file_offset -= 1;
        }),
        ("blocks change places", |it| longer(it).blocks.reverse()),
        ("the file is another", |it| {
            let longer = longer(it);
            longer.identity.data = longer.identity.metadata;
        }),
        ("videos are new and the same", |it| {
            it.videos = Some((0, Vec::new()));
        }),
    ];
    for (lie, tell) in lies {
        let mut spoilt = honest.clone();
        tell(&mut spoilt);
        let known = Known {
            video_print: 0,
            ..known.clone()
        };
        assert!(!spoilt.fits(&known), "{lie}");
    }
}
