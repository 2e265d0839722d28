//! Sockets that local callers and Prometheus connect to. When the system has no descriptors left,
//! they wait, say so, and go on when it has.

use core::time::Duration;
use std::{
    fs, io, mem,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdStream},
    path::Path,
};

use futures::{Stream, stream};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::{
    NodeError,
    callers::{LocalCaller, Seats},
};

/// Wait after the system refused to accept (no file descriptors, no memory), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals in a row from one line in the log to the next: a minute.
const TOLD_EVERY: u32 = 600;

/// The folder that a socket is made in must exist.
pub(crate) fn unix_listener(path: &Path) -> Result<UnixListener, NodeError> {
    let failed = |source| NodeError::Listen { address: path.display().to_string(), source };
    // A socket of a run that did not end well is in the way; one that answers is not removed.
    if StdStream::connect(path).is_err() {
        let _ = fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Connections to `listener`, as many as there are seats for. Never ends, and never yields an error.
pub(crate) fn local_callers(listener: UnixListener) -> impl Stream<Item = io::Result<LocalCaller>> {
    let (trouble, seats) = (Trouble::of("local callers"), Seats::new());
    stream::unfold((listener, trouble, seats), |(listener, mut trouble, mut seats)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    trouble.end();
                    if let Some(caller) = seats.admit(stream) {
                        return Some((Ok(caller), (listener, trouble, seats)));
                    }
                }
                Err(error) => trouble.pause_after(&error).await,
            }
        }
    })
}

/// Connections of Prometheus.
pub(crate) struct Scrapers {
    listener: TcpListener,
    trouble: Trouble,
}

impl Scrapers {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, trouble: Trouble::of("Prometheus") }
    }
}

impl axum::serve::Listener for Scrapers {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.trouble.end();
                    return accepted;
                }
                Err(error) => self.trouble.pause_after(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Errors of a listener in a row.
struct Trouble {
    callers: &'static str,
    errors: u32,
}

impl Trouble {
    const fn of(callers: &'static str) -> Self {
        Self { callers, errors: 0 }
    }

    #[expect(clippy::disallowed_methods, reason = "nothing tells when descriptors are free again")]
    async fn pause_after(&mut self, error: &io::Error) {
        if self.errors.is_multiple_of(TOLD_EVERY) {
            tracing::warn!(%error, callers = self.callers, "cannot accept connections for now");
        }
        self.errors = self.errors.wrapping_add(1);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn end(&mut self) {
        if mem::take(&mut self.errors) > 0 {
            tracing::info!(callers = self.callers, "connections are accepted again");
        }
    }
}
