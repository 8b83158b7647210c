//! What clients that give themselves a name set on a recording is their own.

mod common;

use common::corpus;
use common::server::Server;
use mef3_server::grpc::proto::client::LegacyClient;
use mef3_server::grpc::proto::{
    FileInfoRequest, GetActiveChannelsRequest, OpenFileRequest, SetActiveChannelsRequest,
    SetSignalSegmentRequest, SignalChunkRequest,
};
use tonic::Request;
use tonic::transport::Channel;

/// A client with a name, or without one.
struct Named {
    service: LegacyClient<Channel>,
    name: Option<&'static str>,
    path: String,
}

impl Named {
    async fn open(server: &Server, name: Option<&'static str>, path: &str) -> Self {
        let service = LegacyClient::connect(server.url()).await.unwrap();
        let mut client = Self {
            service,
            name,
            path: path.into(),
        };
        let request = client.request(OpenFileRequest {
            file_path: path.into(),
            ..OpenFileRequest::default()
        });
        let opened = client.service.open_file(request).await.unwrap();
        assert!(opened.into_inner().file_opened);
        client
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(name) = self.name {
            let metadata = request.metadata_mut();
            metadata.insert("x-mef3io-client-id", name.parse().unwrap());
        }
        request
    }

    fn file(&self) -> Request<FileInfoRequest> {
        self.request(FileInfoRequest {
            file_path: self.path.clone(),
        })
    }

    async fn set_segments(&mut self, seconds: i64) -> i64 {
        let request = self.request(SetSignalSegmentRequest {
            file_path: self.path.clone(),
            seconds,
        });
        let set = self.service.set_signal_segment_size(request).await.unwrap();
        set.into_inner().number_of_segments
    }

    async fn segments(&mut self) -> i64 {
        let request = self.file();
        let counted = self.service.get_number_of_segments(request).await.unwrap();
        counted.into_inner().number_of_segments
    }

    async fn activate(&mut self, channels: &[&str]) {
        let request = self.request(SetActiveChannelsRequest {
            file_path: self.path.clone(),
            channel_names: channels.iter().map(|&name| name.into()).collect(),
        });
        let set = self.service.set_active_channels(request).await.unwrap();
        assert_eq!(set.into_inner().error_message.as_deref(), Some(""));
    }

    async fn active(&mut self) -> Vec<String> {
        let request = self.request(GetActiveChannelsRequest {
            file_path: self.path.clone(),
        });
        let active = self.service.get_active_channels(request).await.unwrap();
        active.into_inner().active_channels
    }

    /// The rows of a segment, or what is wrong.
    async fn rows(&mut self, segment: i64) -> Result<Vec<String>, String> {
        let request = self.request(SignalChunkRequest {
            file_path: self.path.clone(),
            chunk_idx: segment,
        });
        let reply = self.service.get_signal_segment(request).await.unwrap();
        let first = reply.into_inner().message().await.unwrap().unwrap();
        match first.error_message.as_deref() {
            Some("") => Ok(first.channel_names),
            error => Err(error.unwrap_or_default().into()),
        }
    }

    /// Whether the file is open after it.
    async fn close(&mut self) -> bool {
        let request = self.file();
        let closed = self.service.close_file(request).await.unwrap();
        closed.into_inner().file_opened
    }
}

#[tokio::test]
async fn segments_and_active_channels_are_each_clients_own() {
    let server = Server::start(&[]);
    let path = corpus::folder().join("eight_channels.mefd");
    let path = path.to_str().unwrap();
    let mut plain = Named::open(&server, None, path).await;
    let mut other_plain = Named::open(&server, None, path).await;
    let mut first = Named::open(&server, Some("first"), path).await;
    let mut second = Named::open(&server, Some("second"), path).await;
    let all = plain.active().await;

    let shared = plain.set_segments(1).await;
    let own = first.set_segments(2).await;
    assert!(shared > own);
    assert_eq!(other_plain.segments().await, shared);
    assert_eq!(first.segments().await, own);
    assert_eq!(second.segments().await, 0);
    let error = second.rows(0).await.unwrap_err();
    assert!(error.contains("Set a segment size"), "{error}");
    let error = first.rows(own).await.unwrap_err();
    assert!(error.contains("Invalid chunk request"), "{error}");

    first.activate(&[&all[2], &all[0]]).await;
    plain.activate(&[&all[1]]).await;
    second.set_segments(3).await;
    assert_eq!(
        first.rows(0).await.unwrap(),
        [all[2].clone(), all[0].clone()]
    );
    assert_eq!(other_plain.rows(0).await.unwrap(), [all[1].clone()]);
    assert_eq!(second.rows(0).await.unwrap(), all);

    // What is left by those without a name begins anew with the next of them.
    assert!(plain.close().await);
    let mut plain = Named::open(&server, None, path).await;
    assert_eq!(plain.active().await, all);
    assert_eq!(plain.segments().await, 0);
    assert_eq!(first.segments().await, own);
    assert!(plain.close().await && first.close().await);
    assert!(!second.close().await);
}

#[tokio::test]
async fn a_name_that_is_none_is_that_of_everybody() {
    let server = Server::start(&[]);
    let path = corpus::folder().join("eight_channels.mefd");
    let path = path.to_str().unwrap();
    let longest: &'static str = Box::leak("x".repeat(128).into_boxed_str());
    let too_long: &'static str = Box::leak("x".repeat(129).into_boxed_str());
    let mut plain = Named::open(&server, None, path).await;
    let mut nameless = Named::open(&server, Some(too_long), path).await;
    let mut named = Named::open(&server, Some(longest), path).await;
    let segments = nameless.set_segments(1).await;
    assert_eq!(plain.segments().await, segments);
    assert_eq!(named.segments().await, 0);
}
