//! Look-ups: by name, by id, by unique prefix of an id; who is on a network; addresses in use.

use core::{fmt, ops::RangeInclusive};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use overlay_ipam::{NetworkIpam, SubnetUsage};
use overlay_types::{
    Endpoint, EndpointId, Network, NetworkId, Node, NodeId, RequestId, Service, ServiceId,
    id::ID_TEXT_LEN,
};

use super::{Rejection, Response, State, index::folded, kind::Kind, rejection::some_of};

impl State {
    /// The network with this id.
    pub fn network(&self, id: NetworkId) -> Result<&Network, Rejection> {
        self.view.networks().get(&id).ok_or_else(|| Rejection::not_found(Kind::Network, id))
    }

    /// The service with this id.
    pub fn service(&self, id: ServiceId) -> Result<&Service, Rejection> {
        self.view.services().get(&id).ok_or_else(|| Rejection::not_found(Kind::Service, id))
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> Result<&Endpoint, Rejection> {
        let endpoint = self.view.endpoints().get(&id).map(Arc::as_ref);
        endpoint.ok_or_else(|| Rejection::not_found(Kind::Endpoint, id))
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Result<&Node, Rejection> {
        self.view.nodes().get(&id).ok_or_else(|| Rejection::not_found(Kind::Node, id))
    }

    /// The network that `wanted` means: its id, its name, or a prefix that only its id has.
    pub fn find_network(&self, wanted: &str) -> Result<&Network, Rejection> {
        let named = self.index.networks.get(&folded(wanted)).copied();
        let id = find(Kind::Network, self.view.networks(), wanted, named)?;
        self.network(id)
    }

    /// The service that `wanted` means: its id, its name, or a prefix that only its id has.
    pub fn find_service(&self, wanted: &str) -> Result<&Service, Rejection> {
        let named = self.index.services.get(&folded(wanted)).copied();
        let id = find(Kind::Service, self.view.services(), wanted, named)?;
        self.service(id)
    }

    /// The node that `wanted` means: its id, its name if no other has it, or a prefix of its id.
    pub fn find_node(&self, wanted: &str) -> Result<&Node, Rejection> {
        let nodes = self.view.nodes().values();
        let named = nodes.filter(|n| n.name.eq_ignore_ascii_case(wanted)).map(|n| n.id);
        let id = find(Kind::Node, self.view.nodes(), wanted, named)?;
        self.node(id)
    }

    /// The endpoint that `wanted` means: its id, its name if no other has it, or a prefix of its
    /// id. A container on two networks has two endpoints of one name.
    pub fn find_endpoint(&self, wanted: &str) -> Result<&Endpoint, Rejection> {
        let named = self
            .view
            .endpoints()
            .values()
            .filter(|e| e.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(wanted)));
        let id = find(Kind::Endpoint, self.view.endpoints(), wanted, named.map(|e| e.id))?;
        self.endpoint(id)
    }

    /// Whether this request removed something (C12).
    pub fn was_removed_by(&self, request: RequestId) -> bool {
        self.requests.get(request) == Some(&Response::Done)
    }

    /// Exact counts of the addresses of a network, per subnet (N14).
    pub fn usage(&self, network: NetworkId) -> Result<Vec<SubnetUsage>, Rejection> {
        Ok(self.ipam_of(network)?.usage().collect())
    }

    /// Services on a network, in the order of their ids.
    pub fn services_on(&self, network: NetworkId) -> impl Iterator<Item = &Service> {
        self.index.services_on(network).filter_map(|id| self.view.services().get(&id))
    }

    /// Nodes with an endpoint on a network, in the order of their ids.
    pub fn peers_on(&self, network: NetworkId) -> impl Iterator<Item = &Node> {
        let ids: BTreeSet<NodeId> = self.view.endpoints_on(network).map(|e| e.node).collect();
        ids.into_iter().filter_map(|id| self.view.nodes().get(&id))
    }

    /// The ingress network, if there is one.
    pub fn ingress(&self) -> Option<&Network> {
        self.view.networks().get(&self.index.ingress?)
    }

    pub(super) fn ipam_of(&self, network: NetworkId) -> Result<&NetworkIpam, Rejection> {
        self.ipam.get(&network).ok_or_else(|| Rejection::not_found(Kind::Network, network))
    }
}

/// One id, of those that `wanted` could mean: an exact id, else a name, else a prefix.
fn find<I: Id, T: Label>(
    kind: Kind,
    objects: &BTreeMap<I, T>,
    wanted: &str,
    named: impl IntoIterator<Item = I>,
) -> Result<I, Rejection> {
    let range = id_range(wanted);
    if let Some(range) = range.as_ref().filter(|_| wanted.len() == ID_TEXT_LEN) {
        let id = I::of(*range.start());
        if objects.contains_key(&id) {
            return Ok(id);
        }
    }
    let mut candidates: Vec<I> = named.into_iter().collect();
    if candidates.is_empty() {
        let range = range.map(|range| I::of(*range.start())..=I::of(*range.end()));
        let ids = range.into_iter().flat_map(|range| objects.range(range));
        candidates.extend(ids.map(|(id, _)| *id));
    }
    match candidates.as_slice() {
        [] => Err(Rejection::not_found(kind, wanted)),
        [id] => Ok(*id),
        ids => {
            let labels = ids.iter().filter_map(|id| {
                let name = objects.get(id)?.name().unwrap_or("unnamed");
                Some(format!("{name} ({id})"))
            });
            let candidates = some_of(labels);
            Err(Rejection::Ambiguous { kind, wanted: wanted.to_owned(), candidates })
        }
    }
}

/// Ids whose text starts with `text`: their order is that of their texts. `None` if no id does.
pub(crate) fn id_range(text: &str) -> Option<RangeInclusive<u128>> {
    if text.is_empty() || text.len() > ID_TEXT_LEN {
        return None;
    }
    let mut first = 0_u128;
    for digit in text.chars() {
        let digit = digit.to_digit(36).filter(|_| !digit.is_ascii_uppercase())?;
        first = first.checked_mul(36)?.checked_add(digit.into())?;
    }
    let mut last = first;
    for _ in text.len()..ID_TEXT_LEN {
        first = first.checked_mul(36)?;
        last = last.saturating_mul(36).saturating_add(35);
    }
    Some(first..=last)
}

/// An id of any kind of object.
pub(crate) trait Id: Copy + Ord + fmt::Display {
    /// The id with this number.
    fn of(number: u128) -> Self;
}

/// An object with a name, maybe.
trait Label {
    fn name(&self) -> Option<&str>;
}

impl<T: Label> Label for Arc<T> {
    fn name(&self) -> Option<&str> {
        (**self).name()
    }
}

macro_rules! named {
    ($($id:ident, $object:ident, |$this:ident| $name:expr;)*) => {$(
        impl Id for $id {
            fn of(number: u128) -> Self {
                Self::from_u128(number)
            }
        }

        impl Label for $object {
            fn name(&self) -> Option<&str> {
                let $this = self;
                $name
            }
        }
    )*};
}

named! {
    NodeId, Node, |node| Some(&node.name);
    NetworkId, Network, |network| Some(&network.spec.name);
    ServiceId, Service, |service| Some(&service.spec.name);
    EndpointId, Endpoint, |endpoint| endpoint.name.as_deref();
}
