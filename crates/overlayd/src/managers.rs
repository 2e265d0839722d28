//! Which manager a node asks: itself if it is one, else any that answers.
//!
//! ```text
//!   this node's calls ──► the one in use ──► own services, in this process
//!                          │                 (also asked first after a change)
//!                          └ failed, or silent: next ──► another manager, over TLS
//! ```

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use overlay_api::status::{Reason, with_reason};
use overlay_cluster::{
    ca::{CaError, Dialer, NodeTls},
    raft::transport::Channel,
};
use overlay_types::{Node, NodeId, Role, View};
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::Status;
use tower::ServiceExt;

use crate::patience::Patience;

/// How long one manager is dialed alone: several times what a handshake takes. One that lost power
/// does not refuse, it says nothing for seconds.
const STAGGER: Duration = Duration::from_millis(500);

/// The managers of the cluster, and a connection to one of them.
#[derive(Clone, Debug)]
pub struct Managers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: NodeId,
    tls: Arc<NodeTls>,
    /// Where this node's own management API answers, whatever the state says.
    control: SocketAddr,
    known: Mutex<Known>,
    /// Told when the manager in use is given up, because gossip says that it is dead.
    died: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<(NodeId, SocketAddr)>,
    /// This node's own services, while it is a manager.
    own: Option<Channel>,
    current: Option<Current>,
    /// Where the next search starts, so that a manager that failed is asked last.
    next: usize,
    /// How long the next one may be silent.
    patience: Patience,
}

/// The connection in use, and the credentials that it was made with.
#[derive(Debug)]
struct Current {
    manager: NodeId,
    channel: Channel,
    credentials: Arc<ClientConfig>,
    made: Instant,
}

impl Managers {
    /// Asks managers as the node `own` of `tls`, which answers at `control` itself if it is one. It
    /// knows none yet.
    pub fn new(own: NodeId, tls: Arc<NodeTls>, control: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            own,
            tls,
            control,
            known: Mutex::default(),
            died: watch::Sender::default(),
        }))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the managers from a view: this node first, the others in an order of this node's own,
    /// so that nodes spread over them, and those of one that dies over the others.
    pub fn learn(&self, view: &View) {
        let own = self.0.own;
        let managers = view.nodes().values().filter(|node| node.role == Role::Manager);
        let control = |node: &Node| if node.id == own { self.0.control } else { node.control };
        let mut addresses: Vec<_> = managers.map(|node| (node.id, control(node))).collect();
        if addresses.is_empty() {
            return;
        }
        self.0.tls.whereabouts().set_told(addresses.iter().copied().collect());
        addresses.sort_by_key(|(id, _)| (*id != own, place(own, *id)));
        let mut known = self.known();
        if known.addresses != addresses {
            known.addresses = addresses;
            known.next = 0;
        }
    }

    /// This node's own services: asked in place of a connection to itself. `None`: it is a manager
    /// no more, and nothing here keeps its services alive.
    pub(crate) fn serve_here(&self, own: Option<Channel>) {
        let mut known = self.known();
        known.own = own;
        // Whatever was in use, it is time for another look: at itself, or at anyone else.
        let left = known.current.take();
        known.next = match left {
            Some(current) if current.manager == self.0.own && known.own.is_none() => known.next + 1,
            _ => 0,
        };
    }

    /// A connection to a manager: the one in use, or the first that answers. After a renewal of the
    /// certificate it is a new one; calls on the old one go on.
    pub async fn channel(&self) -> Result<Channel, Status> {
        let credentials = self.0.tls.client_config();
        let (candidates, own, patience) = {
            let known = self.known();
            if let Some(current) = &known.current
                && Arc::ptr_eq(&current.credentials, &credentials)
            {
                return Ok(current.channel.clone());
            }
            let places = (0..known.addresses.len()).map(|offset| known.next + offset);
            let places = places.map(|place| place % known.addresses.len());
            let candidates: Vec<_> = places.map(|place| (place, known.addresses[place])).collect();
            (candidates, known.own.clone(), known.patience)
        };
        let silence = patience.limit(rand::random());
        let mut candidates = candidates.into_iter();
        let mut dials = FuturesUnordered::new();
        let mut reasons = Vec::new();
        loop {
            let next = candidates.next();
            let alone = if next.is_some() { STAGGER } else { Duration::MAX };
            if let Some((place, (id, address))) = next {
                let own = own.clone().filter(|_| id == self.0.own);
                dials.push(async move {
                    let was_own = own.is_some();
                    let channel = match own {
                        Some(own) => Ok(own),
                        None => self.dial(id, address, silence).await,
                    };
                    channel.map(|channel| (place, id, channel, was_own)).map_err(|e| (address, e))
                });
            } else if dials.is_empty() {
                let message = format!("no manager answers ({})", reasons.join("; "));
                return Err(with_reason(Reason::NoManager, message));
            }
            match timeout(alone, dials.next()).await {
                Ok(Some(Ok((place, manager, channel, was_own)))) => {
                    let (credentials, made) = (Arc::clone(&credentials), Instant::now());
                    let mut known = self.known();
                    if was_own && known.own.is_none() {
                        // It ceased to be a manager this very moment.
                        continue;
                    }
                    let current = Current { manager, channel, credentials, made };
                    let channel = current.channel.clone();
                    known.current = Some(current);
                    known.next = place;
                    return Ok(channel);
                }
                Ok(Some(Err((address, error)))) => reasons.push(format!("{address}: {error}")),
                // It is slow: the next one is dialed, too.
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn dial(
        &self,
        id: NodeId,
        address: SocketAddr,
        silence: Duration,
    ) -> Result<Channel, CaError> {
        let tls = Arc::clone(&self.0.tls);
        let dialer = Dialer::member(tls, self.0.control.ip(), address, Some(id));
        let channel = dialer.leaving_after(silence).channel().await?;
        Ok(Channel::new(channel.map_err(|error| Status::from_error(error.into()))))
    }

    /// Follows whether the certificate was renewed: what goes on for long moves to a new connection.
    pub(crate) fn renewed(&self) -> watch::Receiver<()> {
        self.0.tls.replaced()
    }

    /// Gossip says that these nodes are dead: a call to one of them could wait for long.
    pub(crate) fn avoid(&self, dead: &BTreeSet<NodeId>) {
        let mut known = self.known();
        let lost = |current: &Current| dead.contains(&current.manager);
        if known.current.as_ref().is_some_and(lost) {
            known.current = None;
            known.next += 1;
            self.0.died.send_replace(());
        }
    }

    /// Follows whether the manager in use was given up: what goes on for long moves to another.
    pub(crate) fn died(&self) -> watch::Receiver<()> {
        self.0.died.subscribe()
    }

    /// How many managers this node knows.
    pub(crate) fn count(&self) -> usize {
        self.known().addresses.len()
    }

    /// The connection in use failed: another manager is tried next.
    pub fn failed(&self) {
        let mut known = self.known();
        if let Some(lost) = known.current.take() {
            known.next += 1;
            known.patience.left(lost.made.elapsed());
        }
    }

    /// Whether the manager in use may be silent for longer than it should for good.
    pub(crate) fn is_patient(&self) -> bool {
        self.known().patience.is_long()
    }

    /// The connection in use lasted: it is made anew, to the same manager, with no more patience than
    /// others have. Calls on the old one go on.
    pub(crate) fn calm(&self) {
        let mut known = self.known();
        known.patience.calm();
        known.current = None;
    }
}

/// Where a manager stands among those that a node asks: as good as drawn at random, but the same
/// each time (rendezvous hashing, Thaler and Ravishankar 1998). The multiplier is that of
/// SplitMix64.
fn place(node: NodeId, manager: NodeId) -> u64 {
    let mixed = node.to_u128() ^ manager.to_u128().rotate_left(64);
    let mixed = (mixed >> 64) as u64 ^ (mixed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g03_nodes_spread_over_managers_and_those_of_one_that_dies_over_the_others() {
        let managers: Vec<_> =
            (1..=3_u128).map(|n| NodeId::from_u128(n * 0x1234_5678_9abc)).collect();
        let mut first = [0; 3];
        let mut second = [[0; 3]; 3];
        for node in 0..3000_u128 {
            let node =
                NodeId::from_u128(node.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            let mut order = [0, 1, 2];
            order.sort_by_key(|number| place(node, managers[*number]));
            first[order[0]] += 1;
            second[order[0]][order[1]] += 1;
        }
        assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
        for (dead, moved) in second.iter().enumerate() {
            let even = moved
                .iter()
                .enumerate()
                .all(|(to, count)| to == dead || (380..620).contains(count));
            assert!(even, "{second:?}");
        }
    }
}
