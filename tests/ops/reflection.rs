//! Reflection, in both versions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::FileDescriptorProto;
use rustix::process::Signal;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::common::process::LIMIT;
use super::common::process::client::soon;
use super::launch;

/// The services that there are, the version of reflection aside.
const SERVICES: [&str; 3] = [
    "gRPCMef3Server",
    "grpc.health.v1.Health",
    "mef3.v1.RecordingService",
];

macro_rules! version {
    ($name:ident, $package:literal) => {
        mod $name {
            use tonic_reflection::pb::$name::ServerReflectionRequest;
            use tonic_reflection::pb::$name::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$name::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$name::server_reflection_response::MessageResponse;

            use super::*;

            async fn ask(
                channel: &Channel,
                request: MessageRequest,
            ) -> Result<MessageResponse, Status> {
                let mut client = ServerReflectionClient::new(channel.clone());
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(request),
                };
                let requests = tokio_stream::once(request);
                let answers = soon("reflection", client.server_reflection_info(requests)).await;
                let answer = answers?.into_inner().message().await?;
                Ok(answer.unwrap().message_response.unwrap())
            }

            /// A conversation that its client leaves open.
            pub async fn leave_open(channel: &Channel) -> impl Sized + use<> {
                let mut client = ServerReflectionClient::new(channel.clone());
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(MessageRequest::ListServices(String::new())),
                };
                let requests = tokio_stream::once(request).chain(tokio_stream::pending());
                let answers = soon("reflection", client.server_reflection_info(requests)).await;
                let mut answers = answers.unwrap().into_inner();
                answers.message().await.unwrap().unwrap();
                answers
            }

            pub async fn check(channel: &Channel) {
                let request = MessageRequest::ListServices(String::new());
                let Ok(MessageResponse::ListServicesResponse(list)) = ask(channel, request).await
                else {
                    panic!("no list");
                };
                let listed: BTreeSet<String> = list.service.into_iter().map(|it| it.name).collect();
                let own = concat!($package, ".ServerReflection");
                let expected = SERVICES.into_iter().chain([own]).map(String::from);
                assert_eq!(listed, expected.collect());
                for service in SERVICES.into_iter().chain([own]) {
                    let request = MessageRequest::FileContainingSymbol(service.into());
                    let Ok(MessageResponse::FileDescriptorResponse(files)) =
                        ask(channel, request).await
                    else {
                        panic!("{service} is not found");
                    };
                    assert!(defines(&files.file_descriptor_proto, service), "{service}");
                }
                let request = MessageRequest::FileContainingSymbol("mef3.v1.Nothing".into());
                let unknown = ask(channel, request).await.unwrap_err();
                assert_eq!(unknown.code(), Code::NotFound);
            }
        }
    };
}

version!(v1, "grpc.reflection.v1");
version!(v1alpha, "grpc.reflection.v1alpha");

/// Whether a service with methods is in one of the files.
fn defines(files: &[impl AsRef<[u8]>], service: &str) -> bool {
    files.iter().any(|file| {
        let file = FileDescriptorProto::decode(file.as_ref()).unwrap();
        let package = file.package().to_owned();
        file.service.iter().any(|it| {
            let name = match package.as_str() {
                "" => it.name().to_owned(),
                package => format!("{package}.{}", it.name()),
            };
            name == service && !it.method.is_empty()
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn all_services_are_listed_and_resolved_in_both_versions() {
    let server = launch().start();
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = soon("connect", endpoint.connect()).await.unwrap();
    v1::check(&channel).await;
    v1alpha::check(&channel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_are_left_open_do_not_delay_the_end() {
    let mut server = launch()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "20")
        .start();
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = soon("connect", endpoint.connect()).await.unwrap();
    let _open = (
        v1::leave_open(&channel).await,
        v1alpha::leave_open(&channel).await,
    );
    let told = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    let took = told.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
