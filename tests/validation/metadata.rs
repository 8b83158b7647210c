//! Numbers of the metadata.

use mef3_server::mef::{Grid, Malformation, MefError, Problem, ReadError, Rule, WindowError};

use crate::common::forge::{Forged, START, counts, values, window};
use crate::{ABSURD, refusal};

#[test]
fn section_level_bytes() {
    for section in [2_u8, 3] {
        let offset = 1022 + usize::from(section);
        for level in i8::MIN..=i8::MAX {
            // Each of them at both ends, and what is defined.
            if (-120..-5).contains(&level) || (5..120).contains(&level) {
                continue;
            }
            let forged = Forged::new();
            forged.put("tmet", offset, level.to_le_bytes());
            match level {
                -128 | -2..=0 => forged.assert_right("plain"),
                1 | 2 if section == 2 => {
                    forged.assert_good("beside a locked one");
                    let refused = forged.refusals();
                    assert!(
                        matches!(refused[..], [MefError::Encrypted { .. }]),
                        "{level}"
                    );
                }
                1 | 2 => {
                    // The subject, and with it the offset, is locked; the signal is not.
                    let recording = forged.open();
                    assert_eq!(recording.subject, None);
                    assert!(recording.channels[0].times_unresolved());
                    forged.assert_right("a locked subject");
                }
                _ => {
                    let undefined = Malformation::EncryptionLevel { section, level };
                    assert_eq!(refusal(&forged), undefined);
                }
            }
        }
    }
}

#[test]
fn sampling_frequency() {
    let forged = Forged::new();
    // At the last, fifty samples are no 64-bit number of microseconds.
    let refused = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        -1.0,
        f64::MIN_POSITIVE,
        5.3e-12,
    ];
    for rate in refused {
        forged.put("tmet", 8720, rate.to_le_bytes());
        let Malformation::SamplingFrequency(told) = refusal(&forged) else {
            panic!("{rate}");
        };
        assert_eq!(told.to_bits(), rate.to_bits());
    }
    for rate in [5.6e-12, 1.0, 1e9, f64::MAX] {
        forged.put("tmet", 8720, rate.to_le_bytes());
        let recording = forged.open();
        let channel = &recording.channels[0];
        assert_eq!(channel.sampling_frequency, rate);
        assert_eq!(channel.segments[0].index.total_samples(), 200);
        forged.assert_good("beside a strange rate");
    }
    // The length of a window is bounded before anything is allocated for it.
    let grid = Grid::new(Rule::Mef3io, START, START + 2_000_000, f64::MAX);
    assert!(matches!(grid, Err(WindowError::TooLong { .. })));
    let grid = Grid::new(Rule::Pymef, i64::MIN, i64::MAX, 5.6e-12);
    assert!(grid.is_err() || grid.unwrap().columns() < 1 << 20);
}

#[test]
fn units_conversion_factor() {
    let forged = Forged::new();
    for factor in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        forged.put("tmet", 8760, factor.to_le_bytes());
        let refused = forged.read::<f64>("bad").unwrap_err();
        assert!(
            matches!(refused, ReadError::ConversionFactor { .. }),
            "{refused}"
        );
        let refused = forged.read::<f32>("bad").unwrap_err();
        assert!(
            matches!(refused, ReadError::ConversionFactor { .. }),
            "{refused}"
        );
        assert_eq!(
            forged.read::<i32>("bad").unwrap(),
            counts(),
            "counts are offered"
        );
        let found = forged.findings(false);
        assert!(matches!(found[..], [ref f] if matches!(f.problem, Problem::ConversionFactor(_))));
        forged.assert_good("beside a factor that is none");
    }
    for factor in [1.0, -0.5, f64::MIN_POSITIVE, 1e300] {
        forged.put("tmet", 8760, factor.to_le_bytes());
        let scaled: Vec<f64> = values().iter().map(|value| value * factor).collect();
        assert_eq!(forged.read::<f64>("bad").unwrap(), scaled);
    }
}

#[test]
fn recording_time_offset_and_all_times() {
    for time in ABSURD {
        // The offset.
        let forged = Forged::new();
        forged.put("tmet", 13312, time.to_le_bytes());
        let offset = if time == i64::MIN { 0 } else { time };
        let recording = forged.open();
        let channel = &recording.channels[0];
        let start = START.saturating_add(offset);
        assert_eq!(channel.segments[0].start_uutc, start, "offset {time}");
        assert!(channel.start_uutc <= channel.end_uutc);
        forged.info_json(None);
        forged.findings(true);
        forged.assert_good("beside an offset");

        // Times of headers: entries and blocks say when the samples were.
        let forged = Forged::new();
        for (file, place) in [("tidx", 16), ("tidx", 24), ("tmet", 24)] {
            forged.put(file, place, time.to_le_bytes());
        }
        let recording = forged.open();
        let span = (START, START + 2_000_000);
        let read = window::<f64>(&recording, "bad", Rule::Mef3io, span);
        assert_eq!(read.unwrap(), values(), "header time {time}");
        forged.info_json(None);
        forged.findings(true);
        forged.assert_good("beside a header's time");

        // Times of a block and of its entry.
        let forged = Forged::new();
        forged.patch_block(1, |block| {
            block[40..48].copy_from_slice(&time.to_le_bytes())
        });
        forged.put_in("tidx", 1, 8, time.to_le_bytes());
        let recording = forged.open();
        let entry = recording.channels[0].segments[0].index.get(1).unwrap();
        let absolute = match time {
            i64::MIN => i64::MIN,
            0.. => time,
            _ => -time,
        };
        assert_eq!(entry.start_uutc, absolute);
        let first = (START, START + 500_000);
        let read = window::<f64>(&recording, "bad", Rule::Mef3io, first);
        assert_eq!(read.unwrap(), values()[..50], "block time {time}");
        forged.info_json(None);
        forged.findings(true);
        forged.assert_good("beside a block's time");
    }
}

#[test]
fn number_of_samples_blocks_maximum_section_2() {
    let forged = Forged::new();
    let exact = forged.bytes("tmet");
    for number in ABSURD {
        forged.patch("tmet", |bytes| {
            for place in (8912..8944).chain(8952..8992).step_by(8) {
                bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
            }
            let narrow = number as u32;
            bytes[8944..8948].copy_from_slice(&narrow.to_le_bytes());
            bytes[8948..8952].copy_from_slice(&narrow.to_le_bytes());
        });
        forged.assert_right("declared numbers");
        let told = forged.findings(true);
        let count = |what| Problem::Count {
            what,
            declared: number,
            found: if what == "samples" { 200 } else { 4 },
        };
        let expected = if number > 0 {
            vec![count("samples"), count("blocks")]
        } else {
            Vec::new()
        };
        let told: Vec<Problem> = told.into_iter().map(|finding| finding.problem).collect();
        assert_eq!(told, expected, "{number}");
    }
    forged.spoil("tmet", |bytes| *bytes = exact);
    assert_eq!(forged.findings(true), []);
}
