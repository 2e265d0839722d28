//! Reading back what there is.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_types::Subnet;

use super::{
    super::{
        address::{self, Assigned},
        link::{self, Kind, Link},
        neighbor,
        netlink::{Refusal, RouteSocket},
        netns::NetNs,
        nft::{Nft, endpoint, gateway},
        route::{self, Route},
        scaffold::GROUP,
    },
    KernelGateway, barrier,
    known::Known,
    plan::{ALIAS, Bridge, FoundUplink, Inside, NetNsId, Observed},
    setting, uplink,
};
use crate::Error;

/// MTU of a host without a way out.
const DEFAULT_MTU: u32 = 1500;

impl KernelGateway {
    /// Reads everything anew. What cannot be read of a container is told, and the rest shown as if
    /// nothing of it were there.
    pub(super) fn observe(
        &mut self,
        containers: &BTreeMap<NetNsId, NetNs>,
    ) -> Result<(Observed, Vec<(NetNsId, Error)>), Error> {
        let read = |source| Error::Kernel { step: "read", subject: "the gateway".into(), source };
        let links = self.host.dump(link::list(), Link::parse).map_err(read)?;
        let settings = setting::read(&self.netns)?;
        super::super::call().map_err(|source| read(source.into()))?;
        let mut observed = Observed {
            bridge: self.read_bridge(&links)?,
            table: self.nft.observe(&gateway::table_id())?,
            forwards: settings.forwards,
            mode: settings.mode,
            mtu: DEFAULT_MTU,
            ..Observed::default()
        };
        self.read_ports(&links, containers, &mut observed)?;
        self.read_surroundings(&links, &mut observed).map_err(read)?;
        let mut failed = Vec::new();
        for (id, netns) in containers {
            let known = self.known_as(*id, observed.uplinks.get(id).map(|found| &found.port));
            match known.map_or_else(|| read_inside(netns), |known| Ok(known.inside.clone())) {
                Ok(inside) => drop(observed.containers.insert(*id, inside)),
                Err(error) => failed.push((*id, error)),
            }
        }
        Ok((observed, failed))
    }

    /// A container that need not be read. The number of a namespace may be another one's by now, whose uplink
    /// is another device then.
    fn known_as(&self, id: NetNsId, port: Option<&Link>) -> Option<&Known> {
        self.known.get(&id).filter(|known| port == Some(&known.uplink.port))
    }

    fn read_bridge(&self, links: &[Link]) -> Result<Option<Bridge>, Error> {
        let name = self.config.bridge.as_bytes();
        let Some(link) = links.iter().find(|link| link.name == name) else { return Ok(None) };
        if link.kind != Kind::Bridge {
            let reason = "it is no bridge";
            return Err(Error::GatewayDevice { name: self.config.bridge.clone(), reason });
        }
        let failed = |source| Error::Kernel {
            step: "read",
            subject: format!("gateway bridge {}", self.config.bridge),
            source,
        };
        let all = self.host.dump(address::list(), Assigned::parse).map_err(failed)?;
        let own = all.into_iter().filter(|a| a.link == link.index);
        let (local, global): (Vec<_>, Vec<_>) = own.partition(|a| a.is_link_local());
        let [link_local, nets] = [local, global].map(|all| all.iter().map(|a| a.net).collect());
        Ok(Some(Bridge { link: link.clone(), nets, link_local, is_ours: is_ours(link) }))
    }

    fn read_ports(
        &self,
        links: &[Link],
        containers: &BTreeMap<NetNsId, NetNs>,
        observed: &mut Observed,
    ) -> Result<(), Error> {
        let name = self.config.bridge.as_bytes();
        for link in links {
            let Some((id, path)) = uplink::identify(link) else {
                let other_bridge = link.name != name && is_ours(link);
                if other_bridge || uplink::is_ours(link) {
                    observed.stale.push(link.index);
                }
                continue;
            };
            if let Some(known) = self.known_as(id, Some(link)) {
                observed.uplinks.insert(id, known.uplink.clone());
                continue;
            }
            let failed = |source| Error::Kernel {
                step: "read",
                subject: format!("uplink {}", String::from_utf8_lossy(&link.name)),
                source,
            };
            let number = match containers.get(&id) {
                Some(netns) => netns.number_in(&self.host).map_err(failed)?,
                None => None,
            };
            let (interface, nets) = uplink::read(&self.host, link, number)?.unzip();
            let nets = nets.unwrap_or_default();
            observed.uplinks.insert(id, FoundUplink { port: link.clone(), path, interface, nets });
        }
        Ok(())
    }

    /// What a new bridge has to respect, and on one of somebody else, who is there.
    fn read_surroundings(&self, links: &[Link], observed: &mut Observed) -> Result<(), Refusal> {
        let own = observed.bridge.as_ref().map(|bridge| bridge.link.index);
        let is_foreign = observed.bridge.as_ref().is_some_and(|bridge| !bridge.is_ours);
        if is_foreign {
            for request in neighbor::list_neighbors() {
                let found = self.host.dump(request, neighbor::known)?;
                let on_bridge = found.into_iter().filter(|(link, _)| Some(*link) == own);
                observed.neighbors.extend(on_bridge.map(|(_, address)| address));
            }
            return Ok(());
        }
        let has = observed.bridge.iter().flat_map(|bridge| &bridge.nets);
        let has: BTreeSet<Subnet> = has.map(|net| Subnet::containing(*net)).collect();
        if !has.is_empty() && self.config.subnets.iter().all(|subnet| has.contains(subnet)) {
            return Ok(());
        }
        let routes = routes(&self.host)?;
        let way_out = routes.iter().find(|route| route.is_default());
        let device = links.iter().find(|link| way_out.is_some_and(|r| r.link == Some(link.index)));
        observed.mtu = device.map_or(DEFAULT_MTU, |device| device.mtu.min(u16::MAX.into()));
        let elsewhere =
            routes.iter().filter(|r| !r.is_default() && (r.link.is_none() || r.link != own));
        observed.routes = elsewhere.map(|route| route.subnet).collect();
        Ok(())
    }
}

fn routes(socket: &RouteSocket) -> Result<Vec<Route>, Refusal> {
    let mut routes = Vec::new();
    for request in route::list() {
        routes.extend(socket.dump(request, Route::parse)?);
    }
    // Each device has these.
    routes.retain(|route| match route.subnet.net() {
        IpNet::V4(_) => true,
        IpNet::V6(net) => !net.addr().is_unicast_link_local() && !net.addr().is_multicast(),
    });
    Ok(routes)
}

/// What there is in a container.
fn read_inside(netns: &NetNs) -> Result<Inside, Error> {
    let failed = |source: std::io::Error| Error::Kernel {
        step: "enter",
        subject: "a container".into(),
        source: source.into(),
    };
    let (socket, nft) = netns.enter(|| Ok((RouteSocket::open()?, Nft::open()))).map_err(failed)?;
    let listing = |source| Error::Kernel {
        step: "list",
        subject: "the routes of a container".into(),
        source,
    };
    let routes = routes(&socket).map_err(listing)?;
    let barriers = barrier::read(&socket).map_err(listing)?;
    let has = |is_v4| routes.iter().any(|r| r.is_default() && r.subnet.is_ipv4() == is_v4);
    let table = nft?.observe(&endpoint::table_id())?;
    Ok(Inside { default_routes: [has(true), has(false)], barriers, table })
}

/// Whether a device is a gateway bridge that was made here.
pub(super) fn is_ours(bridge: &Link) -> bool {
    bridge.kind == Kind::Bridge && (bridge.group == GROUP || bridge.alias == ALIAS)
}
