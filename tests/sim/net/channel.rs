//! Calls, as gRPC clients make them and servers answer them.

use core::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, stream};
use http_body_util::{BodyExt, StreamBody};
use overlay_cluster::ca::{ConnectionInfo, Peer, PeerIdentity};
use overlay_testkit::objects;
use overlay_types::{NodeId, UnixMillis};
use tokio::{sync::oneshot, time::timeout};
use tonic::{Status, body::Body, codegen::http};
use tower::Service;

use super::{Certificate, Ends, Net};
use crate::nodes;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Calls of one node to another.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) net: Net,
    /// The node, and in which life.
    pub(super) from: (NodeId, u64),
    pub(super) to: NodeId,
}

impl Service<Request> for Call {
    type Response = Response;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limit = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let limit = limit.and_then(parse_timeout);
        let (reply, answer) = oneshot::channel();
        let call = self.clone();
        tokio::spawn(async move { drop(reply.send(call.exchange(request).await)) });
        let answer = answer.map(|answer| answer.unwrap_or_else(|_| Err(Status::unknown("gone"))));
        Box::pin(async move {
            match limit {
                // As tonic's channels answer.
                Some(limit) => timeout(limit, answer)
                    .await
                    .unwrap_or_else(|_| Err(Status::cancelled("Timeout expired"))),
                None => answer.await,
            }
        })
    }
}

impl Call {
    async fn exchange(self, mut request: Request) -> Result<Response, Status> {
        let ends = Ends { from: self.from, to: (self.to, self.net.life(self.to)) };
        let caller = self.from.0;
        let path = request.uri().path();
        let (watches, appends) = (path.ends_with("/Watch"), path.ends_with("/Appends"));
        self.net.carry(ends).await?;
        self.net.inner().trace.note(|| {
            format!("{} -> {}: {}", nodes::short(caller), nodes::short(self.to), request.uri())
        });
        let mut server = self.net.server(self.to)?;
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let (node, Certificate { role, as_of }) = self.net.identity(caller);
        let identity = PeerIdentity { cluster: nodes::CLUSTER, node, role };
        let (issuer, anchor) = (objects::ROOT, objects::ROOT);
        let peer = Peer { identity, as_of, not_after: UnixMillis(u64::MAX), issuer, anchor };
        request.extensions_mut().insert(ConnectionInfo {
            local: nowhere,
            remote: nowhere,
            peer: Some(peer),
        });
        if appends {
            request = request.map(|body| self.clone().stream(ends, body));
        }
        let answered = server.call(request);
        let response = tokio::select! {
            biased;
            status = self.net.broken(ends) => return Err(status),
            answered = answered => answered.unwrap_or_else(|never| match never {}),
        };
        self.net.carry(ends.back()).await?;
        let goes_on = watches || appends;
        Ok(if goes_on { response.map(|body| self.stream(ends.back(), body)) } else { response })
    }

    /// Carries what one end says from time to time to the other, until the connection breaks.
    fn stream(self, ends: Ends, body: Body) -> Body {
        let frames = stream::unfold(Some((self.net, body)), move |state| async move {
            let (net, mut body) = state?;
            let frame = tokio::select! {
                biased;
                status = net.broken(ends) => Some(Err(status)),
                frame = body.frame() => frame,
            };
            let frame = match frame? {
                Ok(frame) => net.carry(ends).await.map(|()| frame),
                Err(status) => Err(status),
            };
            let next = frame.is_ok().then_some((net, body));
            Some((frame, next))
        });
        Body::new(StreamBody::new(Box::pin(frames)))
    }
}

/// The header's value: a number and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number.parse().ok()?;
    Some(match unit {
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
