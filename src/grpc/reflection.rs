//! Which services and messages there are, for clients that learn it as they go.

use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use super::metrics::CallMetrics;
use super::proto::DESCRIPTOR_SET;

fn public_services() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Adds both versions of the reflection service.
pub(super) fn add_to(
    routes: &mut RoutesBuilder,
    request_message: usize,
    calls: &CallMetrics,
) -> Result<(), Error> {
    let v1 = public_services().build_v1()?;
    let v1alpha = public_services().build_v1alpha()?;
    routes.add_service(calls.of(v1.max_decoding_message_size(request_message)));
    routes.add_service(calls.of(v1alpha.max_decoding_message_size(request_message)));
    Ok(())
}
