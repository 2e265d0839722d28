//! A channel to a node's unix socket; whole [`lists`], and many [`writes`] over one call.

pub mod lists;
pub mod writes;

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Where a node listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/overlayd/overlayd.sock";

/// The node's socket cannot be reached. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the overlay daemon at {}: {source}; is overlayd running, and may this user open \
     its socket?",
    path.display()
)]
pub struct ConnectError {
    path: PathBuf,
    source: tonic::transport::Error,
}

/// Opens a channel to the node that listens at `path`.
pub async fn connect_unix(path: &Path) -> Result<Channel, ConnectError> {
    let target = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let target = target.clone();
        async move { UnixStream::connect(target).await.map(TokioIo::new) }
    });
    // The URI is never resolved; HTTP/2 wants an authority.
    Endpoint::from_static("http://overlayd")
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError { path: path.to_owned(), source })
}
