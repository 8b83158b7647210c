//! Every window of the reference corpus through the library's file reader.
mod common {
    pub mod corpus;
}
use common::corpus;
use mef3_server::mef::{ChannelReader, Grid, Rule, SampleValue, open_session};

fn read<T: SampleValue>(session: &corpus::Session, w: &corpus::Window, rule: Rule) -> Vec<T> {
    let recording = open_session(&session.path).unwrap();
    let channel = &recording.channels[recording.channel_position(&w.channel).unwrap()];
    let grid = Grid::new(rule, w.start_uutc, w.end_uutc, channel.sampling_frequency).unwrap();
    let mut row = vec![T::GAP; grid.columns() as usize];
    ChannelReader::new(&recording, channel, grid)
        .unwrap()
        .read(0, &mut row)
        .unwrap();
    row
}
#[test]
fn all() {
    let mut n = 0;
    for s in corpus::plain_sessions() {
        for w in s.windows() {
            let f: Vec<f64> = read(&s, &w, Rule::Mef3io);
            assert_eq!(
                f.len(),
                w.mef3io.len(),
                "{} {} {}",
                s.name,
                w.channel,
                w.kind
            );
            for (i, (a, b)) in f.iter().zip(&w.mef3io).enumerate() {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{} {} {} {i}: {a} {b}",
                    s.name,
                    w.channel,
                    w.kind
                );
            }
            let p: Vec<f64> = read(&s, &w, Rule::Pymef);
            let t = w
                .pymef
                .as_ref()
                .unwrap_or_else(|| panic!("{} {}", s.name, w.channel));
            assert_eq!(p.len(), t.len(), "{} {} {}", s.name, w.channel, w.kind);
            for (i, (a, b)) in p.iter().zip(t).enumerate() {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "pymef {} {} {} {i}: {a} {b}",
                    s.name,
                    w.channel,
                    w.kind
                );
            }
            let c: Vec<i32> = read(&s, &w, Rule::Mef3io);
            for (i, (a, b)) in c.iter().zip(&w.counts).enumerate() {
                assert!(
                    a == b || *a == i32::MIN && w.mef3io[i].is_nan(),
                    "i32 {} {i}",
                    s.name
                );
            }
            n += 1;
        }
    }
    println!("{n}");
}
