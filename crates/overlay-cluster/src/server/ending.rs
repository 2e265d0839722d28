//! Answers that end before their service says so: at a deadline, or because who gets them may not any
//! more.
//!
//! ```text
//!   Idle ──the answer has to be waited for──► Watching ──it is time──► trailers with the status ──► Ended
//! ```

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tonic::{Status, codegen::http::HeaderMap};

/// What ends an answer.
pub trait End {
    /// Waits until it is time. The caller gets this status.
    fn wait(self) -> BoxFuture<'static, Status>;
}

/// The body of an answer that an `E` may end.
pub struct Ending<B, E> {
    inner: B,
    watch: Watch<E>,
}

enum Watch<E> {
    /// Most answers are there at once; only one that has to be waited for is watched over.
    Idle(E),
    Watching(BoxFuture<'static, Status>),
    /// Nothing ends it.
    Free,
    Ended,
}

impl<B, E: End> Ending<B, E> {
    /// Ended by `end` while it is waited for, if there is one.
    pub(super) fn lazily(inner: B, end: Option<E>) -> Self {
        Self { inner, watch: end.map_or(Watch::Free, Watch::Idle) }
    }

    /// Ended by `end`, also while there is always more of it, if there is one.
    pub(super) fn at_once(inner: B, end: Option<E>) -> Self {
        Self { inner, watch: end.map_or(Watch::Free, |end| Watch::Watching(end.wait())) }
    }

    /// The end of the answer, if it is time.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<HeaderMap> {
        let Watch::Watching(end) = &mut self.watch else { return Poll::Pending };
        let status = ready!(end.as_mut().poll(cx));
        self.watch = Watch::Ended;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("a status of ours has no control characters");
        Poll::Ready(trailers)
    }
}

impl<B: Default, E> Default for Ending<B, E> {
    fn default() -> Self {
        Self { inner: B::default(), watch: Watch::Free }
    }
}

impl<B, E> fmt::Debug for Ending<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

impl<B: Body + Unpin, E: End + Unpin> Body for Ending<B, E> {
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
        if let Poll::Ready(trailers) = this.poll_end(cx) {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        this.watch = match core::mem::replace(&mut this.watch, Watch::Free) {
            Watch::Idle(end) => Watch::Watching(end.wait()),
            watch => watch,
        };
        this.poll_end(cx).map(|trailers| Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.watch, Watch::Ended) || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
