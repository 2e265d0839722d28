//! A gRPC service that answers who called it; its messages are bare bytes.

use core::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut};
use futures::future::BoxFuture;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http,
    transport::Channel,
};
use tower::Service;

use crate::ca::ConnectionInfo;

/// Returns "peer at address" as the server saw it.
pub(super) async fn ask(channel: Channel, message: &[u8]) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/test.Who/AmI");
    let response = client.unary(Request::new(message.to_vec()), path, BareBytes).await?;
    Ok(String::from_utf8(response.into_inner()).unwrap())
}

#[derive(Clone)]
pub(super) struct Who;

impl Service<http::Request<Body>> for Who {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let handler = tower::service_fn(|request: Request<Vec<u8>>| {
                let answer = answer(&request);
                async move { Ok(Response::new(answer.into_bytes())) }
            });
            Ok(tonic::server::Grpc::new(BareBytes).unary(handler, request).await)
        })
    }
}

fn answer(request: &Request<Vec<u8>>) -> String {
    let info = ConnectionInfo::of(request).expect("every connection has it");
    let peer = info.peer.map_or_else(|| "nobody".to_owned(), |peer| peer.identity.to_string());
    format!("{peer} at {}", info.remote.ip())
}

#[derive(Clone, Copy, Default)]
struct BareBytes;

impl Codec for BareBytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BareBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for BareBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
