//! Local callers: how many there are at a time, and what one too many is told.
//!
//! ```text
//!   connection ──► a seat is free ────► served
//!               └► none, but a stool ─► every call is refused with the reason, for a while
//!               └► neither ───────────► closed
//! ```

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{io, sync::Arc};

use axum::{extract::Request, middleware::Next, response::Response};
use overlay_api::status::{Reason, retry_after};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::transport::server::Connected;

/// Connections that are served at a time: a quarter of the 1024 descriptors that a process has where
/// nobody allows it more. The others are for nodes, ports and files. One connection carries many
/// calls, and a watch.
const SEATS: usize = 256;
/// Connections beyond that are told why they are refused; who comes when these are taken, too, is
/// not worth a descriptor.
const STOOLS: usize = 16;
/// How long one that is refused may stay to be told. A call takes milliseconds.
const STAY: Duration = Duration::from_secs(5);
/// When the refused had better come again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Who is connected.
#[derive(Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    stools: Arc<Semaphore>,
    full: bool,
}

/// What a connection gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    Served,
    Refused,
}

impl Seats {
    pub(crate) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { free: places(SEATS), stools: places(STOOLS), full: false }
    }

    /// The connection with its place; `None` if there is none, and it is closed.
    #[expect(clippy::disallowed_methods, reason = "who is refused may not stay")]
    pub(crate) fn admit(&mut self, stream: UnixStream) -> Option<LocalCaller> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            self.full = false;
            let admission = Admission::Served;
            return Some(LocalCaller { stream, admission, until: None, _place: place });
        }
        if !core::mem::replace(&mut self.full, true) {
            tracing::warn!(limit = SEATS, "too many local callers are connected; more are refused");
        }
        let place = Arc::clone(&self.stools).try_acquire_owned().ok()?;
        let until = Some(Box::pin(tokio::time::sleep(STAY)));
        Some(LocalCaller { stream, admission: Admission::Refused, until, _place: place })
    }
}

/// The connection of a local caller, who gives the place back when it ends.
#[derive(Debug)]
pub(crate) struct LocalCaller {
    stream: UnixStream,
    admission: Admission,
    /// When it ends at the latest.
    until: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for LocalCaller {
    type ConnectInfo = Admission;

    fn connect_info(&self) -> Admission {
        self.admission
    }
}

impl AsyncRead for LocalCaller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            // As if the caller had said all.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LocalCaller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Refuses the calls of a connection that has no seat.
pub(crate) async fn refuse_the_unseated(request: Request, next: Next) -> Response {
    if request.extensions().get() != Some(&Admission::Refused) {
        return next.run(request).await;
    }
    let message = format!(
        "{SEATS} callers are connected to the node's socket, as many as it serves at a time; close \
         some, or try again"
    );
    let status = retry_after(Reason::TooManyCallers, COME_AGAIN, message);
    status.into_http::<tonic::body::Body>().map(axum::body::Body::new)
}
