//! Channels to other managers.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use overlay_types::NodeId;
use rustls::ClientConfig;
use tonic::{Status, body::Body, codegen::http};
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::ca::{Dialer, NodeTls};

/// Carries calls to one manager.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// How the other managers are reached.
pub trait Links: fmt::Debug + Send + Sync {
    /// A channel to the manager `id`, which must prove to be that node. Calls connect it.
    fn channel(&self, id: NodeId, address: SocketAddr) -> Channel;
}

/// One TLS connection to each manager.
#[derive(Debug)]
pub struct TlsLinks {
    tls: Arc<NodeTls>,
    from: IpAddr,
    connections: Mutex<BTreeMap<NodeId, Connection>>,
}

/// A channel, and what it was made with: when that changes, so does the channel.
#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    credentials: Arc<ClientConfig>,
    channel: Channel,
}

impl TlsLinks {
    /// Dials with these credentials, from this address of the node.
    pub fn new(tls: Arc<NodeTls>, from: IpAddr) -> Self {
        Self { tls, from, connections: Mutex::default() }
    }
}

impl Links for TlsLinks {
    fn channel(&self, id: NodeId, address: SocketAddr) -> Channel {
        let credentials = self.tls.client_config();
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let current = connections.get(&id).filter(|known| {
            known.address == address && Arc::ptr_eq(&known.credentials, &credentials)
        });
        if let Some(known) = current {
            return known.channel.clone();
        }
        let dialer = Dialer::member(Arc::clone(&self.tls), self.from, address, Some(id));
        let lazy = dialer.lazy_channel();
        let channel = Channel::new(lazy.map_err(|error| Status::from_error(error.into())));
        connections.insert(id, Connection { address, credentials, channel: channel.clone() });
        channel
    }
}
