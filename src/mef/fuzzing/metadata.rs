//! Metadata files of time series and videos, with and without passwords.

use super::common::{SECRETS, check_error, check_text, here, seal_file_up_to};
use crate::mef::crypto::{Access, Password};
use crate::mef::error::{Malformation, MefError};
use crate::mef::layout::{HEADER_BYTES, METADATA_BYTES};
use crate::mef::metadata::{Acquisition, SegmentMetadata, Subject, parse_metadata};
use crate::mef::video::{VideoMetadata, parse_video_metadata};

/// Where the validation fields are in the header.
const VALIDATION: usize = 868;
/// Where sections 2 and 3 begin.
const SECTIONS: [usize; 2] = [2560, 13312];

/// The input is a whole file. It is read as it is, with the right checksums, and
/// under passwords, where its two level bytes say what is encrypted.
pub fn metadata(input: &[u8]) {
    let is_video = input.get(8) == Some(&b'v');
    let read = if is_video { read_video } else { read_series };
    read(input, None);
    if input.len() < METADATA_BYTES {
        return;
    }
    let file_type = if is_video { "vmet" } else { "tmet" };
    let mut file = input.to_vec();
    file[VALIDATION..VALIDATION + 32].fill(0);
    seal_file_up_to(&mut file, file_type, METADATA_BYTES);
    read(&file, None);
    let levels = [HEADER_BYTES, HEADER_BYTES + 1].map(|at| file[at] as i8);
    if levels.iter().all(|level| ![1, 2].contains(level)) {
        // Nothing is encrypted.
        return;
    }

    // The same under passwords says the same to those who know them.
    let secrets = &*SECRETS;
    let mut open = file.clone();
    open[HEADER_BYTES..HEADER_BYTES + 2].fill(0);
    seal_file_up_to(&mut open, file_type, METADATA_BYTES);
    let open = read(&open, None);
    let ends = [SECTIONS[1], METADATA_BYTES];
    for ((start, end), level) in SECTIONS.into_iter().zip(ends).zip(levels) {
        // An undefined level encrypts nothing.
        let _ = secrets.keys.encrypt(level, &mut file[start..end]);
    }
    file[VALIDATION..VALIDATION + 16].copy_from_slice(&secrets.validation[0]);
    file[VALIDATION + 16..VALIDATION + 32].copy_from_slice(&secrets.validation[1]);
    seal_file_up_to(&mut file, file_type, METADATA_BYTES);
    let defined = levels.iter().all(|level| matches!(level, -128 | -2..=2));
    for (password, opens) in [
        (None, 0),
        (Some(&secrets.level_1), 1),
        (Some(&secrets.level_2), 2),
    ] {
        let Some(told) = read(&file, password) else {
            let fits = |level: &i8| *level <= opens;
            assert!(open.is_none() || !defined || !fits(&levels[0]) || !fits(&levels[1]));
            continue;
        };
        assert!(levels[0] <= opens, "section 2 was locked");
        if levels[1] <= opens {
            assert_eq!(Some(told), open);
        } else {
            assert!(told.subject.is_none() && told.offset.is_none());
        }
    }
    assert!(read(&file, Some(&secrets.other)).is_none());
}

/// What a file says, to be compared.
#[derive(Debug, Default, PartialEq)]
struct Told {
    times: [Option<i64>; 2],
    offset: Option<i64>,
    /// Bits, since a factor may be NaN.
    factor: u64,
    acquisition: Option<Acquisition>,
    subject: Option<Subject>,
    video: Option<VideoMetadata>,
}

fn read_series(bytes: &[u8], password: Option<&Password>) -> Option<Told> {
    let metadata = match parse_metadata(bytes, here(), password) {
        Ok(metadata) => metadata,
        Err(error) => {
            check_refusal(bytes, password, &error);
            return None;
        }
    };
    check_series(&metadata, password);
    let SegmentMetadata {
        mut acquisition, ..
    } = metadata;
    let factor = acquisition.units_conversion_factor.to_bits();
    acquisition.units_conversion_factor = 0.0;
    Some(Told {
        times: [metadata.start_uutc, metadata.end_uutc],
        offset: metadata.recording_time_offset,
        factor,
        acquisition: Some(acquisition),
        subject: metadata.subject,
        video: None,
    })
}

fn check_series(metadata: &SegmentMetadata, password: Option<&Password>) {
    let acquisition = &metadata.acquisition;
    let rate = acquisition.sampling_frequency;
    assert!(rate.is_finite() && rate > 0.0);
    let factor = acquisition.units_conversion_factor;
    match acquisition.scale() {
        Some(scale) => assert!(scale.is_finite() && (scale == factor || factor == 0.0)),
        None => assert!(!factor.is_finite()),
    }
    for frequency in [
        acquisition.low_frequency_filter,
        acquisition.high_frequency_filter,
        acquisition.notch_filter,
        acquisition.line_frequency,
    ] {
        assert!(frequency.is_none_or(|frequency| frequency >= 0.0));
    }
    for count in [
        acquisition.acquisition_channel_number,
        acquisition.declared_duration_us,
        acquisition.declared_start_sample,
        acquisition.declared_samples,
        acquisition.declared_blocks,
    ] {
        assert!(count.is_none_or(|count| count >= 0));
    }
    for extreme in [acquisition.declared_minimum, acquisition.declared_maximum] {
        assert!(extreme.is_none_or(|extreme| !extreme.is_nan()));
    }
    for (text, bytes) in [
        (&acquisition.units, 128),
        (&acquisition.channel_description, 2048),
        (&acquisition.session_description, 2048),
        (&acquisition.reference_description, 2048),
    ] {
        check_text(text, bytes);
    }
    assert_eq!(
        metadata.subject.is_some(),
        metadata.recording_time_offset.is_some()
    );
    if let Some(subject) = &metadata.subject {
        for text in [&subject.name_1, &subject.name_2, &subject.id] {
            check_text(text, 128);
        }
        check_text(&subject.recording_location, 512);
        let offset = subject.gmt_offset_s;
        assert!(offset.is_none_or(|offset| (-86_400..=86_400).contains(&offset)));
        assert_eq!(format!("{subject:?}"), "Subject { .. }");
    }
    match metadata.access {
        Access::Unprotected => {}
        Access::Locked => assert!(password.is_none()),
        Access::Level1 | Access::Level2 => assert!(password.is_some()),
    }
}

fn read_video(bytes: &[u8], password: Option<&Password>) -> Option<Told> {
    let metadata = match parse_video_metadata(bytes, here(), password) {
        Ok(metadata) => metadata,
        Err(error) => {
            check_refusal(bytes, password, &error);
            return None;
        }
    };
    let rate = metadata.frame_rate;
    assert!(rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
    check_text(&metadata.channel_description, 2048);
    check_text(&metadata.session_description, 2048);
    check_text(&metadata.format, 128);
    assert!(metadata.recording_duration_us.is_none_or(|us| us >= 0));
    Some(Told {
        times: [metadata.start_uutc, metadata.end_uutc],
        offset: metadata.recording_time_offset,
        video: Some(metadata),
        ..Told::default()
    })
}

fn check_refusal(bytes: &[u8], password: Option<&Password>, error: &MefError) {
    check_error(error);
    match error {
        MefError::Malformed {
            reason: Malformation::TooShort { need, have },
            ..
        } => {
            assert_eq!(*have, bytes.len() as u64);
            assert!(have < need && *need <= METADATA_BYTES as u64);
        }
        MefError::WrongPassword { .. } => assert!(password.is_some()),
        MefError::Encrypted { .. } | MefError::Malformed { .. } => {}
        other => panic!("{other}"),
    }
}
