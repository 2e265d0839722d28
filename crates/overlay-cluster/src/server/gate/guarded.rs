//! Answers that end when their caller would not be let in any more: a watch of a removed node.

use core::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tonic::{Status, codegen::http::HeaderMap};

use super::Access;
use crate::{ca::Peer, control::Control};

/// Whom an answer goes to, and what for.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) control: Control,
    pub(super) access: Access,
    pub(super) peer: Peer,
}

/// The body of an answer.
#[derive(Default)]
pub(in crate::server) struct Guarded<B> {
    inner: B,
    watch: Watch,
}

#[derive(Default)]
enum Watch {
    /// Most answers are there at once; only one that has to be waited for is watched over.
    Ready(Guard),
    Watching(BoxFuture<'static, Status>),
    /// For who needs no certificate, and for refusals.
    #[default]
    Free,
    Ended,
}

impl<B> Guarded<B> {
    pub(super) fn new(inner: B, guard: Option<Guard>) -> Self {
        Self { inner, watch: guard.map_or(Watch::Free, Watch::Ready) }
    }
}

impl<B> Guarded<B> {
    /// The end of the answer, if it is time.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<HeaderMap> {
        let Watch::Watching(refused) = &mut self.watch else { return Poll::Pending };
        let status = core::task::ready!(refused.as_mut().poll(cx));
        self.watch = Watch::Ended;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("a refusal is text without control characters");
        Poll::Ready(trailers)
    }
}

impl<B: Body + Unpin> Body for Guarded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if matches!(this.watch, Watch::Ended) {
            return Poll::Ready(None);
        }
        // First: what is always ready would go on for ever.
        if let Poll::Ready(trailers) = this.poll_refused(cx) {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Watch::Ready(_) = &this.watch
            && let Watch::Ready(guard) = core::mem::take(&mut this.watch)
        {
            this.watch = Watch::Watching(Box::pin(guard.refused()));
        }
        this.poll_refused(cx).map(|trailers| Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.watch, Watch::Ended) || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
