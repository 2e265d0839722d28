//! The errors of this crate. Bad traffic is none of them: it is counted ([`crate::Counters`]).

use std::{io, net::SocketAddr, path::PathBuf};

use crate::config::MAX_REMOVED;

/// Why gossip could not start or do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The identity's address cannot be reached by others.
    #[error(
        "gossip address {0} is not a unicast address with a port; give the address that other nodes reach this node at"
    )]
    UnusableAddress(SocketAddr),
    /// A listener could not be opened. Nothing runs.
    #[error("cannot listen for gossip on {protocol} {address}: {source}")]
    Listen {
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The incarnation file could not be read or written. Nothing runs; starting without it could
    /// reuse an incarnation, and with it a nonce.
    #[error("incarnation file {path}: {problem}")]
    IncarnationFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// More nodes are to be refused than can be. The set in use stays.
    #[error(
        "{count} removed nodes are more than the {MAX_REMOVED} that gossip can refuse; leave out those removed before the last two rotations of the gossip key"
    )]
    TooManyRemoved {
        /// How many they were.
        count: usize,
    },
    /// The task that runs gossip has ended.
    #[error("gossip has stopped")]
    Stopped,
}
