//! A task's namespace: rules, routes and tables that send answers back, as
//! [`nft::mesh::answer`](crate::kernel::nft::mesh::answer) explains them.

use core::net::IpAddr;
use std::{collections::BTreeSet, fmt::Display, path::PathBuf};

use ipnet::IpNet;
use overlay_types::{Addresses, EndpointId, MacAddr, Subnet};

use super::{
    super::{
        inside::Inside,
        link::{self, Link},
        neighbor::{Content, Entry, list_neighbors},
        netlink::{Message, RouteSocket},
        netns::NetNs,
        nft::{
            Batch, diff,
            mesh::answer::{
                FLAG, MOST_GATES, NEXT_HOP, NEXT_HOP_MAC, Numbers, number, read, table_ids, tables,
            },
        },
        policy::{self, PolicyRule},
        route::{NewRoute, Way},
        scaffold::run,
    },
    cable,
};
use crate::{
    Error,
    desired::{LocalEndpoint, PortKind},
};

/// Number of the table that answers are routed by: "mesh". Nobody else's, so it tags our rules.
const TABLE: u32 = 0x6d65_7368;
/// In front of the main table, and behind all of the kernel's own.
const FIRST: u32 = 7_946;
const LAST: u32 = 32_800;

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) device: String,
    pub(super) path: PathBuf,
}

impl Site {
    /// `None` for an endpoint without a namespace of its own.
    pub(super) fn of(port: &PortKind) -> Option<Self> {
        match port {
            PortKind::Veth { name, netns } | PortKind::Tap { name, netns: Some(netns) } => {
                Some(Self { device: name.clone(), path: netns.clone() })
            }
            PortKind::Memory | PortKind::Tap { netns: None, .. } => None,
        }
    }
}

/// What is known of a task from the last comparison.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) site: Site,
    inside: Inside,
    /// Generation of the namespace's rules when its tables agreed, and index of the interface then: up to
    /// Linux 6.15 a chain of frames goes with its interface, and that is no new generation.
    agreed: Option<(u32, u32)>,
    /// Numbers of gates as they were last. Connections are marked with them.
    numbers: Numbers,
}

/// A namespace that a task's answers are sent from.
struct Room<'a> {
    endpoint: EndpointId,
    site: &'a Site,
    netns: NetNs,
}

/// Has a task's answers find back to these gates. Says whether anything was changed. A task that is gone
/// with its namespace needs nothing, and what is known of it is forgotten: sockets keep a namespace alive.
pub(super) fn put(
    endpoint: EndpointId,
    local: &LocalEndpoint,
    gates: &BTreeSet<MacAddr>,
    host: u64,
    known: &mut Option<Known>,
) -> Result<bool, Error> {
    let failed = |reason: String| Error::Answers { endpoint, reason };
    let Some(site) = Site::of(&local.port) else {
        let reason = "it has no network namespace of its own; its node's kernel does not see its \
                      packets";
        return Err(failed(reason.into()));
    };
    let Some(netns) = NetNs::find(&site.path).map_err(|e| failed(e.to_string()))? else {
        *known = None;
        return Ok(false);
    };
    if netns.inode().ok() == Some(host) {
        return Err(failed("it is in the host's own network namespace".into()));
    }
    let kept = known.take().filter(|known| known.site == site && known.inside.is_in(&netns));
    let room = Room { endpoint, site: &site, netns };
    let kept = match kept {
        Some(kept) => kept,
        None => Known {
            site: site.clone(),
            inside: room.open()?,
            agreed: None,
            numbers: Numbers::new(),
        },
    };
    let kept = known.insert(kept);
    let link = room.link(&kept.inside.route)?;
    // Tables first: where they are, whoever clears finds the rest.
    let changed = room.put_tables(kept, link, gates)?;
    Ok(room.put_routes(&kept.inside.route, link, local.addresses)? || changed)
}

/// Takes away what was put for an endpoint, if it is there. Says whether it was.
pub(super) fn clear(endpoint: EndpointId, site: &Site) -> Result<bool, Error> {
    let failed = |reason: String| Error::Answers { endpoint, reason };
    let found = NetNs::find(&site.path).map_err(|e| failed(e.to_string()))?;
    let Some(netns) = found else { return Ok(false) };
    let room = Room { endpoint, site, netns };
    let mut inside = room.open()?;
    let mut batch = Batch::new();
    for id in table_ids(endpoint) {
        if inside.nft.observe(&id)?.is_some() {
            batch.delete_table(&id);
        }
    }
    // Another endpoint's.
    if batch.is_empty() {
        return Ok(false);
    }
    room.remove_routes(&inside.route)?;
    super::call()?;
    inside.nft.apply(&batch)?;
    Ok(true)
}

impl Room<'_> {
    fn failed(&self, what: impl Display) -> Error {
        Error::Answers { endpoint: self.endpoint, reason: what.to_string() }
    }

    fn open(&self) -> Result<Inside, Error> {
        let opened = Inside::open(&self.netns).map_err(|error| self.failed(error))?;
        Ok(opened?)
    }

    /// Index of the task's interface on the ingress network.
    fn link(&self, socket: &RouteSocket) -> Result<u32, Error> {
        let Site { device, path } = self.site;
        let found = socket.get(link::named(device.as_bytes()), Link::parse);
        let found = found.map_err(|error| self.failed(error))?;
        let path = path.display();
        let none = || self.failed(format!("there is no interface {device:?} in {path}"));
        Ok(found.ok_or_else(none)?.index)
    }

    fn put_routes(
        &self,
        socket: &RouteSocket,
        link: u32,
        addresses: Addresses,
    ) -> Result<bool, Error> {
        let mut steps = Vec::new();
        let neighbors = self.list(socket, list_neighbors(), Entry::parse)?;
        let rules = self.list(socket, policy::list(), PolicyRule::parse)?;
        for source in addresses.iter() {
            let ipv6 = source.is_ipv6();
            let next = NEXT_HOP[usize::from(ipv6)];
            let entry = Entry { link, content: Content::Neighbor(next, NEXT_HOP_MAC) };
            if !neighbors.contains(&entry) {
                steps.push(("add the next hop of answers to", entry.put()));
            }
            let wanted = rules_of(ipv6);
            let has_rules = wanted.iter().all(|rule| rules.contains(rule));
            let way = Way { link: Some(link), gateway: Some(next) };
            let anywhere = cable::ANYWHERE[usize::from(ipv6)];
            if !has_rules || cable::way(socket, anywhere, FLAG)? != Some(way) {
                steps.push(("add the route of answers to", route(link, source, next).put()));
            }
            let missing = wanted.into_iter().filter(|rule| !rules.contains(rule));
            steps.extend(missing.map(|rule| ("add a rule of routing to", rule.add())));
        }
        if steps.is_empty() {
            return Ok(false);
        }
        // Clients are anywhere, also where the namespace has no route to.
        steps.push(("set up", link::loose_source(link::set(link))));
        run(socket, &self.site.path.display().to_string(), steps)?;
        Ok(true)
    }

    fn list<T>(
        &self,
        socket: &RouteSocket,
        requests: [Message; 2],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        for request in requests {
            found.extend(socket.dump(request, &parse).map_err(|error| self.failed(error))?);
        }
        Ok(found)
    }

    fn put_tables(
        &self,
        known: &mut Known,
        link: u32,
        gates: &BTreeSet<MacAddr>,
    ) -> Result<bool, Error> {
        let nft = &mut known.inside.nft;
        super::call()?;
        let generation = nft.generation()?;
        let now = generation.map(|generation| (generation, link));
        if known.agreed.is_some() && known.agreed == now && known.numbers.keys().eq(gates) {
            return Ok(false);
        }
        known.agreed = None;
        let ids = table_ids(self.endpoint);
        let [packets, frames] = [nft.observe(&ids[0])?, nft.observe(&ids[1])?];
        let before = packets.as_ref().map(read).filter(|numbers| !numbers.is_empty());
        // Where somebody cleared the namespace, connections have their marks all the same.
        let numbers = number(before.as_ref().unwrap_or(&known.numbers), gates);
        let [wanted_packets, wanted_frames] = tables(&self.site.device, &numbers);
        let batches = [
            diff(&ids[1], Some(&wanted_frames), frames.as_ref()),
            diff(&ids[0], Some(&wanted_packets), packets.as_ref()),
        ];
        let changed = batches.iter().any(|batch| !batch.is_empty());
        for batch in batches.iter().filter(|batch| !batch.is_empty()) {
            super::call()?;
            nft.apply(batch)?;
        }
        let is_full = numbers.len() < gates.len();
        known.numbers = numbers;
        if is_full {
            return Err(self.failed(format!("there are more than {MOST_GATES} gates")));
        }
        // A change of somebody else's meanwhile shows in the next comparison.
        known.agreed = now.filter(|_| !changed);
        Ok(changed)
    }

    fn remove_routes(&self, socket: &RouteSocket) -> Result<(), Error> {
        let rules = self.list(socket, policy::list(), PolicyRule::parse)?;
        let ours = rules.iter().filter(|rule| rule.table == TABLE);
        let mut steps: Vec<_> =
            ours.map(|rule| ("remove a rule of routing from", rule.remove())).collect();
        let neighbors = self.list(socket, list_neighbors(), Entry::parse)?;
        let ours = neighbors.iter().filter(
            |entry| matches!(entry.content, Content::Neighbor(_, mac) if mac == NEXT_HOP_MAC),
        );
        for entry in ours {
            if let Content::Neighbor(next, _) = entry.content {
                let gone = route(entry.link, next, next).remove();
                steps.push(("remove the route of answers from", gone));
            }
            steps.push(("remove the next hop of answers from", entry.remove()));
        }
        let path = self.site.path.display().to_string();
        // What went with the interface is not there to be removed.
        let results = socket.batch(steps.into_iter().map(|(_, message)| message).collect());
        for refusal in results.into_iter().filter_map(Result::err) {
            use nix::errno::Errno;
            if !matches!(refusal.errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV) {
                let subject = path.clone();
                return Err(Error::Kernel { step: "clear", subject, source: refusal });
            }
        }
        Ok(())
    }
}

/// Marked packets are routed by our table, and so is what no other table has a route for: a socket asks
/// for one before its packet can be marked.
fn rules_of(ipv6: bool) -> [PolicyRule; 2] {
    [(FIRST, FLAG), (LAST, 0)].map(|(priority, mark)| PolicyRule {
        ipv6,
        priority,
        mark,
        table: TABLE,
    })
}

fn route(link: u32, source: IpAddr, next: IpAddr) -> NewRoute {
    let everywhere = match next {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    NewRoute {
        subnet: Subnet::containing(everywhere),
        table: TABLE,
        link,
        gateway: Some(next),
        // Of IPv6 the interface's address is chosen anyway; one that is being checked for a
        // duplicate would be refused.
        source: Some(source).filter(IpAddr::is_ipv4),
    }
}
