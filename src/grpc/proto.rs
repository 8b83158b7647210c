//! Messages, servers and clients of the services, as generated from the files in
//! `proto/`: of the legacy service here, of the native one in [`native`].

/// The generated code, kept apart: the lints of this crate do not hold for it.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod generated {
    // A file without a package statement is generated under the name "_".
    tonic::include_proto!("_");
}

// Names the messages one by one, since the generated modules of server and
// client carry awkward names that nobody should import.
pub use generated::{
    ChannelEnvelope, CloseFileRequest, CloseFileResponse, EnvelopeRequest, FileInfoRequest,
    FileInfoResponse, GetActiveChannelsRequest, GetActiveChannelsResponse,
    GetNumberOfSegmentsResponse, ListOpenFilesRequest, ListOpenFilesResponse, OpenFileRequest,
    SetActiveChannelsRequest, SetActiveChannelsResponse, SetSignalSegmentRequest,
    SetSignalSegmentResponse, SignalChunk, SignalChunkRequest, SignalRangeRequest,
};

/// What a server implements and serves.
pub mod server {
    pub use super::generated::g_rpc_mef3_server_server::{
        GRpcMef3Server as LegacyService, GRpcMef3ServerServer as LegacyServer, SERVICE_NAME,
    };
}

/// What a caller uses.
pub mod client {
    pub use super::generated::g_rpc_mef3_server_client::GRpcMef3ServerClient as LegacyClient;
}

/// The native service, from `proto/mef3/v1/mef3.proto`.
pub mod native {
    #[allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    mod generated {
        tonic::include_proto!("mef3.v1");
    }

    pub use generated::{
        Access, Annotation, CacheStats, Channel, Compression, DamageInfo, FollowRequest,
        FollowResponse, Gap, GetRecordingRequest, GetRecordingResponse, GetStatsRequest,
        GetStatsResponse, Limits, ListAnnotationsRequest, ListAnnotationsResponse, ListGapsRequest,
        ListGapsResponse, ListRecordingsRequest, ListRecordingsResponse, ListSegmentsRequest,
        ListSegmentsResponse, Missing, MissingReason, OnDamage, RateGroup, ReadReducedRequest,
        ReadReducedResponse, ReadSignalRequest, ReadSignalResponse, RecordingEntry, RedBlock,
        Revision, SampleForm, SampleSpan, Scale, Segment, SignalChunk, SignalGroup, SignalHeader,
        Subject, TimeSpan, WatchRecordingRequest, WatchRecordingResponse, WorkerStats,
        read_signal_request,
    };
    pub use generated::{EnvelopeHeader, EnvelopePart, ReadEnvelopeRequest, ReadEnvelopeResponse};

    /// What a server implements and serves.
    pub mod server {
        pub use super::generated::recording_service_server::{
            RecordingService, RecordingServiceServer, SERVICE_NAME,
        };
    }

    /// What a caller uses.
    pub mod client {
        pub use super::generated::recording_service_client::RecordingServiceClient;
    }
}

/// The encoded file descriptor set of the protocol, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

#[cfg(test)]
mod tests;
