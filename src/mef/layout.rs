//! The fixed structures of the format, byte for byte: universal header,
//! metadata sections, index entries and block header
//! (format sections 3, 6, 7 and 8.2).
//!
//! The structs have no padding and an alignment of one; the constants below
//! hold their sizes against the document's. Reading one is a copy, writing one
//! is a copy, and neither can go out of bounds.

use zerocopy::little_endian::{F32, F64, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the universal header, at the start of every MEF file.
pub(super) const HEADER_BYTES: usize = 1024;
/// Bytes of a metadata file.
pub(super) const METADATA_BYTES: usize = 16384;
/// Bytes of one time-series index entry.
pub(super) const INDEX_ENTRY_BYTES: usize = 56;
/// Bytes of one video index entry.
pub(super) const VIDEO_INDEX_ENTRY_BYTES: usize = 64;
/// Bytes of a block's header, and so of an empty block.
pub(super) const BLOCK_HEADER_BYTES: usize = 304;

const _: () = {
    assert!(size_of::<UniversalHeader>() == HEADER_BYTES);
    assert!(size_of::<Metadata>() == METADATA_BYTES);
    assert!(size_of::<Section1>() == 1536);
    assert!(size_of::<Section2>() == 10752);
    assert!(size_of::<Section3>() == 3072);
    assert!(size_of::<IndexEntry>() == INDEX_ENTRY_BYTES);
    assert!(size_of::<VideoMetadataFile>() == METADATA_BYTES);
    assert!(size_of::<VideoSection2>() == 10752);
    assert!(size_of::<VideoIndexEntry>() == VIDEO_INDEX_ENTRY_BYTES);
    assert!(size_of::<BlockHeader>() == BLOCK_HEADER_BYTES);
};

/// The first 1024 bytes of every MEF file (format section 3).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct UniversalHeader {
    pub(crate) header_crc: U32,
    pub(crate) body_crc: U32,
    pub(crate) file_type: [u8; 5],
    pub(crate) version_major: u8,
    pub(crate) version_minor: u8,
    pub(crate) byte_order: u8,
    pub(crate) start_time: I64,
    pub(crate) end_time: I64,
    pub(crate) number_of_entries: I64,
    pub(crate) maximum_entry_size: I64,
    pub(crate) segment_number: I32,
    pub(crate) channel_name: [u8; 256],
    pub(crate) session_name: [u8; 256],
    pub(crate) anonymized_name: [u8; 256],
    pub(crate) level_uuid: [u8; 16],
    pub(crate) file_uuid: [u8; 16],
    pub(crate) provenance_uuid: [u8; 16],
    pub(crate) level_1_validation: [u8; 16],
    pub(crate) level_2_validation: [u8; 16],
    pub(crate) protected_region: [u8; 60],
    pub(crate) discretionary_region: [u8; 64],
}

/// A time-series metadata file (format section 6).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Metadata {
    pub(crate) header: UniversalHeader,
    pub(crate) section_1: Section1,
    pub(crate) section_2: Section2,
    pub(crate) section_3: Section3,
}

/// Encryption levels of the other sections (format section 6.1).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Section1 {
    pub(crate) section_2_encryption: i8,
    pub(crate) section_3_encryption: i8,
    pub(crate) protected_region: [u8; 766],
    pub(crate) discretionary_region: [u8; 768],
}

/// Technical metadata of a time series (format sections 6.2 and 6.3).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Section2 {
    pub(crate) channel_description: [u8; 2048],
    pub(crate) session_description: [u8; 2048],
    pub(crate) recording_duration: I64,
    pub(crate) reference_description: [u8; 2048],
    pub(crate) acquisition_channel_number: I64,
    pub(crate) sampling_frequency: F64,
    pub(crate) low_frequency_filter_setting: F64,
    pub(crate) high_frequency_filter_setting: F64,
    pub(crate) notch_filter_frequency_setting: F64,
    pub(crate) ac_line_frequency: F64,
    pub(crate) units_conversion_factor: F64,
    pub(crate) units_description: [u8; 128],
    pub(crate) maximum_native_sample_value: F64,
    pub(crate) minimum_native_sample_value: F64,
    pub(crate) start_sample: I64,
    pub(crate) number_of_samples: I64,
    pub(crate) number_of_blocks: I64,
    pub(crate) maximum_block_bytes: I64,
    pub(crate) maximum_block_samples: U32,
    pub(crate) maximum_difference_bytes: U32,
    pub(crate) block_interval: I64,
    pub(crate) number_of_discontinuities: I64,
    pub(crate) maximum_contiguous_blocks: I64,
    pub(crate) maximum_contiguous_block_bytes: I64,
    pub(crate) maximum_contiguous_samples: I64,
    pub(crate) protected_region: [u8; 2160],
    pub(crate) discretionary_region: [u8; 2160],
    // 11152 + 2160 = 13312, where section 3 begins.
}

/// A video metadata file (format section 6).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VideoMetadataFile {
    pub(crate) header: UniversalHeader,
    pub(crate) section_1: Section1,
    pub(crate) section_2: VideoSection2,
    pub(crate) section_3: Section3,
}

/// Technical metadata of a video (format sections 6.2 and 6.4).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VideoSection2 {
    pub(crate) channel_description: [u8; 2048],
    pub(crate) session_description: [u8; 2048],
    pub(crate) recording_duration: I64,
    pub(crate) horizontal_resolution: I64,
    pub(crate) vertical_resolution: I64,
    pub(crate) frame_rate: F64,
    pub(crate) number_of_clips: I64,
    pub(crate) maximum_clip_bytes: I64,
    pub(crate) video_format: [u8; 128],
    pub(crate) video_file_crc: U32,
    pub(crate) protected_region: [u8; 3236],
    pub(crate) discretionary_region: [u8; 3240],
    // 10072 + 3240 = 13312, where section 3 begins.
}

/// Subject metadata (format section 6.5).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Section3 {
    pub(crate) recording_time_offset: I64,
    pub(crate) dst_start_time: I64,
    pub(crate) dst_end_time: I64,
    pub(crate) gmt_offset: I32,
    pub(crate) subject_name_1: [u8; 128],
    pub(crate) subject_name_2: [u8; 128],
    pub(crate) subject_id: [u8; 128],
    pub(crate) recording_location: [u8; 512],
    pub(crate) protected_region: [u8; 1124],
    pub(crate) discretionary_region: [u8; 1024],
}

/// One entry of a time-series index (format section 7.1).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct IndexEntry {
    pub(crate) file_offset: I64,
    pub(crate) start_time: I64,
    pub(crate) start_sample: I64,
    pub(crate) number_of_samples: U32,
    pub(crate) block_bytes: U32,
    pub(crate) maximum_sample_value: I32,
    pub(crate) minimum_sample_value: I32,
    pub(crate) protected_region: [u8; 4],
    pub(crate) block_flags: u8,
    pub(crate) block_protected_region: [u8; 3],
    pub(crate) block_discretionary_region: [u8; 8],
}

/// One entry of a video index (format section 7.2).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VideoIndexEntry {
    pub(crate) start_time: I64,
    pub(crate) end_time: I64,
    pub(crate) start_frame: U32,
    pub(crate) end_frame: U32,
    pub(crate) file_offset: I64,
    pub(crate) clip_bytes: I64,
    pub(crate) protected_region: [u8; 16],
    pub(crate) discretionary_region: [u8; 8],
}

/// The fixed part of a RED block (format section 8.2).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BlockHeader {
    pub(crate) crc: U32,
    pub(crate) flags: u8,
    pub(crate) protected_region: [u8; 3],
    pub(crate) discretionary_region: [u8; 8],
    pub(crate) detrend_slope: F32,
    pub(crate) detrend_intercept: F32,
    pub(crate) scale_factor: F32,
    pub(crate) difference_bytes: U32,
    pub(crate) number_of_samples: U32,
    pub(crate) block_bytes: U32,
    pub(crate) start_time: I64,
    pub(crate) statistics: [u8; 256],
}

/// Block flag: the block does not follow seamlessly from the one before.
pub(crate) const FLAG_DISCONTINUITY: u8 = 1;
/// Block flag: statistics are encrypted at level 1.
pub(crate) const FLAG_ENCRYPTED_1: u8 = 2;
/// Block flag: statistics are encrypted at level 2.
pub(crate) const FLAG_ENCRYPTED_2: u8 = 4;
/// Bytes of the statistics that are encrypted in such blocks.
pub(crate) const ENCRYPTED_STATISTICS: usize = 16;

/// Text of a field: up to the first NUL, or the whole field where a writer
/// filled it; invalid UTF-8 is replaced.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// Fills a text field, cutting at a character boundary so that a terminator
/// remains.
pub(crate) fn set_text(field: &mut [u8], text: &str) {
    let mut end = text.len().min(field.len().saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (head, tail) = field.split_at_mut(end);
    head.copy_from_slice(text.as_bytes().get(..end).unwrap_or_default());
    tail.fill(0);
}
