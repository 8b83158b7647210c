//! Record headers, index entries and the fixed parts of bodies, byte for byte
//! (format sections 9.1 to 9.3).

use zerocopy::little_endian::{F64, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 24;
/// Bytes of an entry of the record index.
pub(crate) const RECORD_ENTRY_BYTES: usize = 24;
/// Bodies are padded to a multiple of this, one AES block.
pub(super) const BODY_UNIT: usize = 16;
/// The byte that they are padded with.
pub(super) const PAD: u8 = 0x7E;

const _: () = {
    assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
    assert!(size_of::<RecordEntry>() == RECORD_ENTRY_BYTES);
    assert!(size_of::<SeizureBody>() == 1312);
    assert!(size_of::<SeizureChannelEntry>() == 272);
    assert!(size_of::<CognitiveStimulusBody>() == 200);
    assert!(size_of::<ElectricalStimulusBody>() == 416);
    assert!(size_of::<CursorBody>() == 160);
    assert!(size_of::<EpochBody>() == 192);
};

/// What stands before each body in `.rdat` (format section 9.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    pub(crate) crc: U32,
    pub(crate) kind: [u8; 4],
    pub(crate) kind_end: u8,
    pub(crate) version_major: u8,
    pub(crate) version_minor: u8,
    pub(crate) encryption: i8,
    /// Length of the padded body, without this header.
    pub(crate) bytes: U32,
    pub(crate) time: I64,
}

/// One entry of `.ridx` (format section 9.2).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RecordEntry {
    pub(crate) kind: [u8; 4],
    pub(crate) kind_end: u8,
    pub(crate) version_major: u8,
    pub(crate) version_minor: u8,
    pub(crate) encryption: i8,
    pub(crate) file_offset: I64,
    pub(crate) time: I64,
}

/// The fixed part of `Seiz`; one [`SeizureChannelEntry`] per channel follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SeizureBody {
    pub(super) earliest_onset: I64,
    pub(super) latest_offset: I64,
    pub(super) duration: I64,
    pub(super) number_of_channels: I32,
    pub(super) onset_code: I32,
    pub(super) marker_name_1: [u8; 128],
    pub(super) marker_name_2: [u8; 128],
    pub(super) annotation: [u8; 1024],
}

/// A channel of `Seiz`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SeizureChannelEntry {
    pub(super) name: [u8; 256],
    pub(super) onset: I64,
    pub(super) offset: I64,
}

/// `CSti`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct CognitiveStimulusBody {
    pub(super) task_type: [u8; 64],
    pub(super) stimulus_duration: I64,
    pub(super) stimulus_type: [u8; 64],
    pub(super) patient_response: [u8; 64],
}

/// `ESti`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ElectricalStimulusBody {
    pub(super) amplitude: F64,
    pub(super) frequency: F64,
    pub(super) pulse_width: I64,
    pub(super) ampunit_code: I32,
    pub(super) mode_code: I32,
    pub(super) waveform: [u8; 128],
    pub(super) anode: [u8; 128],
    pub(super) cathode: [u8; 128],
}

/// `Curs`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct CursorBody {
    pub(super) id_number: I64,
    pub(super) trace_timestamp: I64,
    pub(super) latency: I64,
    pub(super) value: F64,
    pub(super) name: [u8; 128],
}

/// `Epoc`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct EpochBody {
    pub(super) id_number: I64,
    pub(super) timestamp: I64,
    pub(super) end_timestamp: I64,
    pub(super) duration: I64,
    pub(super) epoch_type: [u8; 32],
    pub(super) text: [u8; 128],
}
