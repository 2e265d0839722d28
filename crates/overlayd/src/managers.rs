//! Which manager a node asks: itself if it is one, else any that answers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use overlay_api::status::{Reason, with_reason};
use overlay_cluster::ca::{Dialer, NodeTls};
use overlay_types::{Node, NodeId, Role, View};
use rustls::ClientConfig;
use tokio::sync::watch;
use tonic::{Status, transport::Channel};

/// The managers of the cluster, and a connection to one of them.
#[derive(Clone, Debug)]
pub(crate) struct Managers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: NodeId,
    tls: Arc<NodeTls>,
    /// Where this node's own management API answers, whatever the state says.
    control: SocketAddr,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<(NodeId, SocketAddr)>,
    current: Option<Current>,
    /// Where the next search starts, so that a manager that failed is asked last.
    next: usize,
}

/// The connection in use, and the credentials that it was made with.
#[derive(Debug)]
struct Current {
    channel: Channel,
    credentials: Arc<ClientConfig>,
}

impl Managers {
    pub(crate) fn new(own: NodeId, tls: Arc<NodeTls>, control: SocketAddr) -> Self {
        Self(Arc::new(Inner { own, tls, control, known: Mutex::default() }))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the managers from a view: this node first, the others spread over the nodes.
    pub(crate) fn learn(&self, view: &View) {
        let own = self.0.own;
        let managers = view.nodes().values().filter(|node| node.role == Role::Manager);
        let control = |node: &Node| if node.id == own { self.0.control } else { node.control };
        let mut addresses: Vec<_> = managers.map(|node| (node.id, control(node))).collect();
        if addresses.is_empty() {
            return;
        }
        self.0.tls.whereabouts().set_told(addresses.iter().copied().collect());
        let start = own.to_u128() % addresses.len() as u128;
        addresses.rotate_left(start as usize);
        addresses.sort_by_key(|(id, _)| *id != own);
        let mut known = self.known();
        if known.addresses != addresses {
            known.addresses = addresses;
            known.next = 0;
        }
    }

    /// A connection to a manager: the one in use, or the first that answers. After a renewal of the
    /// certificate it is a new one; calls on the old one go on.
    pub(crate) async fn channel(&self) -> Result<Channel, Status> {
        let credentials = self.0.tls.client_config();
        let (addresses, start) = {
            let known = self.known();
            if let Some(current) = &known.current
                && Arc::ptr_eq(&current.credentials, &credentials)
            {
                return Ok(current.channel.clone());
            }
            (known.addresses.clone(), known.next)
        };
        let mut reasons = Vec::new();
        for offset in 0..addresses.len() {
            let place = (start + offset) % addresses.len();
            let (id, address) = addresses[place];
            let from = self.0.control.ip();
            let dialer = Dialer::member(Arc::clone(&self.0.tls), from, address, Some(id));
            match dialer.channel().await {
                Ok(channel) => {
                    let mut known = self.known();
                    known.current = Some(Current { channel: channel.clone(), credentials });
                    known.next = place;
                    return Ok(channel);
                }
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        let message = format!("no manager answers ({})", reasons.join("; "));
        Err(with_reason(Reason::NoManager, message))
    }

    /// Follows whether the certificate was renewed: what goes on for long moves to a new connection.
    pub(crate) fn renewed(&self) -> watch::Receiver<()> {
        self.0.tls.replaced()
    }

    /// The connection in use failed: another manager is tried next.
    pub(crate) fn failed(&self) {
        let mut known = self.known();
        if known.current.take().is_some() {
            known.next += 1;
        }
    }
}
