//! More local callers than the daemon serves at a time.

use std::{
    io::{ErrorKind, Read},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
};

use overlay_api::{
    status::{Reason, reason},
    v1::{self, local_node_client::LocalNodeClient},
};
use tonic::{Code, Status};

use crate::{
    Daemon, PATIENCE,
    calls::{channel_of, until},
};

/// Connections that are served at a time, and that are told why they are not.
const SEATS: usize = 256;
const STOOLS: usize = 16;

/// What a new connection is answered; `None`: nothing.
async fn status(daemon: &Daemon) -> Option<Result<(), Status>> {
    let mut local = LocalNodeClient::new(channel_of(daemon).await?);
    Some(local.get_status(v1::GetStatusRequest {}).await.map(drop))
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_one_local_caller_too_many_is_told_and_the_next_one_served() {
    let daemon = Daemon::start(Ipv4Addr::new(127, 51, 5, 1), "info");
    let kept = until("its socket answers", || channel_of(&daemon)).await;
    let mut kept = LocalNodeClient::new(kept);
    kept.get_status(v1::GetStatusRequest {}).await.unwrap();
    let connect = || UnixStream::connect(daemon.socket()).unwrap();
    let mut others: Vec<UnixStream> = (1..SEATS).map(|_| connect()).collect();
    let refused = until("all seats are taken", async || status(&daemon).await?.err()).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(reason(&refused), Some(Reason::TooManyCallers), "{refused}");
    daemon.until_logged("more are refused");
    // Who is connected is served all the same.
    kept.get_status(v1::GetStatusRequest {}).await.unwrap();

    // Those that are not even told, and those that have been, are disconnected.
    let more: Vec<UnixStream> = (0..2 * STOOLS).map(|_| connect()).collect();
    for mut stream in more {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Some have been sent a greeting, and some are reset.
        let end = stream.read_to_end(&mut Vec::new());
        assert_ne!(end.err().map(|e| e.kind()), Some(ErrorKind::WouldBlock), "it is connected");
    }
    others.pop();
    until("somebody else is served", async || status(&daemon).await?.ok()).await;
}
