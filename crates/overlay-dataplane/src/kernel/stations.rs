//! Who is where on one network: the entries that the kernel has, who they are there for, and the
//! changes that are to be made to them. Pure.
//!
//! ```text
//!  endpoint ──► station: Ethernet address → node or port     bridge FDB, and VXLAN FDB for a node
//!           └─► neighbour: IP address → Ethernet address     neighbour table of the VXLAN device
//!  member ────► flood: data-path address                     VXLAN FDB, on networks that carry groups
//! ```
//!
//! Changes are gathered and made together, so that an entry that one operation removes and the next
//! puts back is never gone: so a restart renames endpoints without touching their traffic.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{Addresses, EndpointId, MacAddr};

use super::neighbor::{Content, Entry};
use crate::{
    desired::{LocalEndpoint, RemoteEndpoint},
    wire::announcement::Announcement,
};

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Station(MacAddr),
    Neighbor(IpAddr),
    Flood(IpAddr),
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// The station is on this node.
    Node(IpAddr),
    /// The station is behind this port.
    Port(u32),
    /// The address is at this station.
    At(MacAddr),
    /// Group frames go there.
    Flooded,
    /// Something is there, but not all that belongs to it, or more.
    Broken,
}

/// Devices that entries are made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Devices {
    pub(super) vxlan: u32,
}

/// The table of one network.
#[derive(Debug, Default)]
pub(super) struct Stations {
    present: BTreeMap<Key, Value>,
    /// Whom an entry is there for: the last that asked for it.
    owners: BTreeMap<Key, EndpointId>,
    /// Changes to come, each with the number of the operation that asked for it last.
    changes: BTreeMap<Key, (Option<Value>, usize)>,
}

impl Stations {
    /// The table that the kernel shows.
    pub(super) fn read(devices: Devices, entries: impl IntoIterator<Item = Entry>) -> Self {
        let (mut present, mut bridged) = (BTreeMap::new(), BTreeMap::new());
        for Entry { link, content } in entries {
            match content {
                Content::Bridge(mac) => drop(bridged.insert(mac, link)),
                _ if link != devices.vxlan => {}
                Content::Neighbor(address, mac) => {
                    present.insert(Key::Neighbor(address), Value::At(mac));
                }
                Content::Tunnel(mac, node) => {
                    present.insert(Key::Station(mac), Value::Node(node));
                }
                Content::Flood(node) => drop(present.insert(Key::Flood(node), Value::Flooded)),
            }
        }
        for (key, value) in &mut present {
            let Key::Station(mac) = key else { continue };
            // To a node: the bridge has to send it to the VXLAN device.
            if bridged.remove(mac) != Some(devices.vxlan) {
                *value = Value::Broken;
            }
        }
        for (mac, link) in bridged {
            let value = if link == devices.vxlan { Value::Broken } else { Value::Port(link) };
            present.insert(Key::Station(mac), value);
        }
        Self { present, ..Self::default() }
    }

    /// Takes note that an endpoint is there, and returns what is of it in the kernel.
    pub(super) fn claim_remote(
        &mut self,
        endpoint: EndpointId,
        remote: &RemoteEndpoint,
    ) -> Option<RemoteEndpoint> {
        let station = self.present.get(&Key::Station(remote.mac)).copied();
        let at = Some(&Value::At(remote.mac));
        let has = |address: &IpAddr| self.present.get(&Key::Neighbor(*address)) == at;
        let found = RemoteEndpoint {
            mac: remote.mac,
            addresses: Addresses {
                v4: remote.addresses.v4.filter(|address| has(&(*address).into())),
                v6: remote.addresses.v6.filter(|address| has(&(*address).into())),
            },
            node: match station {
                Some(Value::Node(node)) => node,
                _ => NOWHERE,
            },
        };
        if station.is_none() && found.addresses.iter().next().is_none() {
            return None;
        }
        self.own(endpoint, remote_entries(&found).map(|(key, _)| key));
        Some(found)
    }

    /// Whether all of a local endpoint's entries are there. Takes note of them.
    pub(super) fn claim_local(
        &mut self,
        endpoint: EndpointId,
        local: &LocalEndpoint,
        port: u32,
    ) -> bool {
        let whole =
            local_entries(local, port).all(|(key, value)| self.present.get(&key) == Some(&value));
        self.own(endpoint, [Key::Station(local.mac)]);
        if whole {
            self.own(endpoint, local_entries(local, port).map(|(key, _)| key));
        }
        whole
    }

    /// What nobody has claimed, as endpoints with ids made of what they are.
    pub(super) fn unclaimed(&mut self) -> Vec<(EndpointId, RemoteEndpoint)> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.present {
            if self.owners.contains_key(key) {
                continue;
            }
            let (id, remote) = match (*key, *value) {
                (Key::Station(mac), value) => {
                    let node = if let Value::Node(node) = value { node } else { NOWHERE };
                    (
                        made_of_mac(mac),
                        RemoteEndpoint { mac, addresses: Addresses::default(), node },
                    )
                }
                (Key::Neighbor(address), Value::At(mac)) => {
                    let addresses = match address {
                        IpAddr::V4(v4) => Addresses { v4: Some(v4), v6: None },
                        IpAddr::V6(v6) => Addresses { v4: None, v6: Some(v6) },
                    };
                    // Stations come first in the order of keys.
                    let station = found.get_mut(&made_of_mac(mac));
                    if let Some(station) = station.filter(|found| has_room(found, address)) {
                        let RemoteEndpoint { addresses: all, .. } = station;
                        all.v4 = all.v4.or(addresses.v4);
                        all.v6 = all.v6.or(addresses.v6);
                        continue;
                    }
                    (made_of_address(address), RemoteEndpoint { mac, addresses, node: NOWHERE })
                }
                (Key::Neighbor(_) | Key::Flood(_), _) => continue,
            };
            found.insert(id, remote);
        }
        for (id, remote) in &found {
            for (key, _) in remote_entries(remote) {
                // An address too many may be at somebody else's station.
                self.owners.entry(key).or_insert(*id);
            }
        }
        found.into_iter().collect()
    }

    /// Where group frames go.
    pub(super) fn flooded(&self) -> BTreeSet<IpAddr> {
        let flooded = |key: &Key| if let Key::Flood(node) = key { Some(*node) } else { None };
        self.present.keys().filter_map(flooded).collect()
    }

    /// Asks for the entries of a remote endpoint in the place of those it had.
    pub(super) fn put_remote(
        &mut self,
        op: usize,
        endpoint: EndpointId,
        old: Option<&RemoteEndpoint>,
        new: &RemoteEndpoint,
    ) {
        if let Some(old) = old {
            self.disown(op, endpoint, remote_entries(old).map(|(key, _)| key));
        }
        self.put(op, endpoint, remote_entries(new));
    }

    /// Asks for a remote endpoint's entries to go.
    pub(super) fn remove_remote(&mut self, op: usize, endpoint: EndpointId, old: &RemoteEndpoint) {
        self.disown(op, endpoint, remote_entries(old).map(|(key, _)| key));
    }

    /// Asks for the entries of an endpoint behind `port` in the place of those it had.
    pub(super) fn put_local(
        &mut self,
        op: usize,
        endpoint: EndpointId,
        old: Option<&LocalEndpoint>,
        (new, port): (&LocalEndpoint, u32),
    ) {
        if let Some(old) = old {
            self.disown(op, endpoint, local_entries(old, port).map(|(key, _)| key));
        }
        self.put(op, endpoint, local_entries(new, port));
    }

    /// Asks for a local endpoint's entries to go. Those on its port went with it.
    pub(super) fn remove_local(&mut self, op: usize, endpoint: EndpointId, old: &LocalEndpoint) {
        if let Some(Value::Port(_)) = self.present.get(&Key::Station(old.mac)) {
            self.present.remove(&Key::Station(old.mac));
        }
        self.disown(op, endpoint, local_entries(old, 0).map(|(key, _)| key));
    }

    /// Asks for group frames to go to these nodes and no others.
    pub(super) fn set_flooded(&mut self, op: usize, nodes: &BTreeSet<IpAddr>) {
        self.changes.retain(|key, _| !matches!(key, Key::Flood(_)));
        for node in self.flooded().difference(nodes) {
            self.changes.insert(Key::Flood(*node), (None, op));
        }
        for node in nodes.iter().filter(|node| **node != NOWHERE) {
            self.changes.insert(Key::Flood(*node), (Some(Value::Flooded), op));
        }
    }

    fn own(&mut self, endpoint: EndpointId, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.owners.insert(key, endpoint);
        }
    }

    fn put(
        &mut self,
        op: usize,
        endpoint: EndpointId,
        entries: impl Iterator<Item = (Key, Value)>,
    ) {
        for (key, value) in entries {
            self.owners.insert(key, endpoint);
            self.changes.insert(key, (Some(value), op));
        }
    }

    fn disown(&mut self, op: usize, endpoint: EndpointId, keys: impl Iterator<Item = Key>) {
        for key in keys {
            // Another endpoint may have come to the address meanwhile.
            if self.owners.get(&key) == Some(&endpoint) {
                self.owners.remove(&key);
                self.changes.insert(key, (None, op));
            }
        }
    }

    /// The changes that are still to be made, as entries to remove and to put, and what is there
    /// once they are made.
    pub(super) fn take_changes(&mut self, devices: Devices) -> Vec<Change> {
        let mut taken = Vec::new();
        for (key, (new, op)) in core::mem::take(&mut self.changes) {
            let old = self.present.get(&key).copied();
            if old == new {
                continue;
            }
            let (removed, put) = steps(devices, key, old, new);
            taken.push(Change { op, key, new, removed, put });
        }
        taken
    }

    /// A change was made, or is not known to be.
    pub(super) fn made(&mut self, change: &Change, done: bool) {
        match change.new {
            _ if !done => drop(self.present.insert(change.key, Value::Broken)),
            Some(value) => drop(self.present.insert(change.key, value)),
            None => drop(self.present.remove(&change.key)),
        }
    }
}

/// A node that is none: of an endpoint whose way there is missing.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One entry of the table that changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Number of the operation that wants it.
    pub(super) op: usize,
    key: Key,
    new: Option<Value>,
    /// Entries that may be there and have to go.
    pub(super) removed: Vec<Entry>,
    /// Entries to have.
    pub(super) put: Vec<Entry>,
}

impl Change {
    /// The address that it has somebody be reached by, and where that is.
    pub(super) const fn newcomer(&self) -> Option<Announcement> {
        match (self.key, self.new) {
            (Key::Neighbor(address), Some(Value::At(mac))) => Some(Announcement { address, mac }),
            _ => None,
        }
    }
}

/// What to tell the kernel. What replaces an entry is put without removing it first.
fn steps(
    devices: Devices,
    key: Key,
    old: Option<Value>,
    new: Option<Value>,
) -> (Vec<Entry>, Vec<Entry>) {
    let on = |link, content| Entry { link, content };
    let vxlan = devices.vxlan;
    let (mut removed, mut put) = (Vec::new(), Vec::new());
    match (key, new) {
        (Key::Station(mac), Some(Value::Node(node))) => {
            put.push(on(vxlan, Content::Tunnel(mac, node)));
            put.push(on(vxlan, Content::Bridge(mac)));
        }
        (Key::Station(mac), Some(Value::Port(port))) => {
            if !matches!(old, None | Some(Value::Port(_))) {
                removed.push(on(vxlan, Content::Tunnel(mac, NOWHERE)));
            }
            put.push(on(port, Content::Bridge(mac)));
        }
        (Key::Station(mac), _) => {
            let port = if let Some(Value::Port(port)) = old { port } else { vxlan };
            removed.push(on(port, Content::Bridge(mac)));
            if port == vxlan {
                removed.push(on(vxlan, Content::Tunnel(mac, NOWHERE)));
            }
        }
        (Key::Neighbor(address), Some(Value::At(mac))) => {
            put.push(on(vxlan, Content::Neighbor(address, mac)));
        }
        (Key::Neighbor(address), _) => {
            removed.push(on(vxlan, Content::Neighbor(address, MacAddr::default())));
        }
        (Key::Flood(node), Some(_)) => put.push(on(vxlan, Content::Flood(node))),
        (Key::Flood(node), None) => removed.push(on(vxlan, Content::Flood(node))),
    }
    (removed, put)
}

fn remote_entries(remote: &RemoteEndpoint) -> impl Iterator<Item = (Key, Value)> + use<> {
    let mac = remote.mac;
    let station = (Key::Station(mac), Value::Node(remote.node));
    let addresses: Vec<_> = remote.addresses.iter().collect();
    let neighbors = addresses.into_iter().map(move |a| (Key::Neighbor(a), Value::At(mac)));
    core::iter::once(station).chain(neighbors)
}

fn local_entries(local: &LocalEndpoint, port: u32) -> impl Iterator<Item = (Key, Value)> + use<> {
    let mac = local.mac;
    let station = (Key::Station(mac), Value::Port(port));
    let addresses: Vec<_> = local.addresses.iter().collect();
    let neighbors = addresses.into_iter().map(move |a| (Key::Neighbor(a), Value::At(mac)));
    core::iter::once(station).chain(neighbors)
}

fn has_room(remote: &RemoteEndpoint, address: IpAddr) -> bool {
    if address.is_ipv4() { remote.addresses.v4.is_none() } else { remote.addresses.v6.is_none() }
}

/// Ids of endpoints that are known by what they are only: after a restart, or put there by hand.
/// Ids that are drawn have 128 random bits.
fn made_of_mac(mac: MacAddr) -> EndpointId {
    let mut bytes = *b"station\0\0\0\0\0\0\0\0\0";
    bytes[10..].copy_from_slice(&mac.0);
    EndpointId::from_bytes(bytes)
}

fn made_of_address(address: IpAddr) -> EndpointId {
    let (tag, bits) = match address {
        IpAddr::V4(address) => (*b"ipv4", u128::from(address.to_bits())),
        IpAddr::V6(address) => (*b"ipv6", address.to_bits()),
    };
    // Of an IPv6 address 96 bits have room; what they do not tell apart is told apart one comparison
    // later, when the first of the two is gone.
    let mut bytes = bits.to_be_bytes();
    bytes[..4].copy_from_slice(&tag);
    EndpointId::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
