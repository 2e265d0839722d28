//! The way out of a container that is on several networks: one, in whichever order it joins and leaves them.

use core::net::IpAddr;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use overlay_testkit::{hosts::address_v4, until::until};
use rstest::rstest;

use crate::{
    plane::Plane::{self, Kernel, User},
    probe::ping,
    setup::{Cluster, Container, Lab, PATIENCE},
};

/// A network: its name, how it is created, and whether it has a way out.
struct Network {
    name: &'static str,
    flags: &'static str,
    has_way_out: bool,
}

const NETWORKS: [Network; 3] = [
    Network { name: "inside", flags: "--internal", has_way_out: false },
    Network { name: "front", flags: "", has_way_out: true },
    Network { name: "back", flags: "", has_way_out: true },
];

/// Networks by their places: the internal one first, last and between, each of the others before the other.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]];

/// A container on node 1, and the endpoints that it has, by the network's place.
struct Joined {
    container: Container,
    endpoints: BTreeMap<usize, String>,
}

impl Joined {
    fn interface(place: usize) -> String {
        format!("lan{place}")
    }

    fn join(&mut self, lab: &Lab, place: usize) -> Result<()> {
        let (name, netns) = (NETWORKS[place].name, self.container.netns.path());
        let port = format!("--interface {} --netns {}", Self::interface(place), netns.display());
        let id = lab.ctl(1, &format!("endpoint attach --network {name} {port}"))?;
        self.endpoints.insert(place, id.trim().to_owned());
        Ok(())
    }

    fn leave(&mut self, lab: &Lab, place: usize) -> Result<()> {
        let id = self.endpoints.remove(&place).context("it is on that network")?;
        lab.ctl(1, &format!("endpoint detach {id}"))?;
        Ok(())
    }

    /// Waits until the default route is as the networks ask for, and tries where it and the others lead.
    fn check(&self, peers: &[Container]) -> Result<()> {
        let netns = &self.container.netns;
        let is_out = self.endpoints.keys().any(|place| NETWORKS[*place].has_way_out);
        let expected = usize::from(is_out);
        until(&format!("there are {expected} default routes"), PATIENCE, || {
            let shown = netns.ip("-4 route show default")?;
            ensure!(shown.lines().count() == expected, "{shown}");
            ensure!(shown.lines().all(|line| line.contains("dev gw0")), "{shown}");
            Ok(())
        })?;
        for place in self.endpoints.keys() {
            let (peer, own) = (peers[*place].address(), Self::interface(*place));
            let way = netns.ip(&format!("route get {peer}"))?;
            ensure!(way.contains(&format!("dev {own} ")), "{}: {way}", NETWORKS[*place].name);
            ping(netns, peer).context(NETWORKS[*place].name)?;
        }
        if expected == 1 {
            ping(netns, address_v4(2).into()).context("outside")?;
        }
        Ok(())
    }
}

fn peers(lab: &Lab) -> Result<Vec<Container>> {
    let peer = |network: &Network| {
        let Network { name, flags, .. } = network;
        lab.ctl(1, &format!("network create --attachable {flags} {name}"))?;
        lab.container(2, name)
    };
    NETWORKS.iter().map(peer).collect()
}

#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn n18_n08_a_container_on_several_networks_has_one_way_out_in_every_order(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let peers = peers(lab)?;
        for order in ORDERS {
            let container = Container::on_no_network()?;
            let mut joined = Joined { container, endpoints: BTreeMap::new() };
            let names = order.map(|place| NETWORKS[place].name);
            for place in order {
                joined.join(lab, place)?;
                joined.check(&peers).with_context(|| format!("joining {names:?}"))?;
            }
            // The first one goes first: who comes later has the way out of who was there before.
            for place in order {
                joined.leave(lab, place)?;
                joined.check(&peers).with_context(|| format!("leaving {names:?}"))?;
            }
        }
        Ok(())
    })
}

/// A default route that the container had before is its own affair.
#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn n18_a_container_keeps_a_way_out_of_its_own(#[case] planes: [Plane; 2]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let peers = peers(lab)?;
        let container = Container::on_no_network()?;
        for line in [
            "link add own0 type bridge",
            "link set own0 up",
            "address add 172.25.0.2/24 dev own0",
            "route add default via 172.25.0.1",
        ] {
            container.netns.ip(line)?;
        }
        let mut joined = Joined { container, endpoints: BTreeMap::new() };
        let outside: IpAddr = address_v4(2).into();
        let own = |joined: &Joined| {
            let way = joined.container.netns.ip(&format!("route get {outside}"))?;
            ensure!(way.contains("via 172.25.0.1 dev own0"), "{way}");
            Ok(())
        };
        for (place, peer) in peers.iter().enumerate() {
            joined.join(lab, place)?;
            own(&joined)?;
            ping(&joined.container.netns, peer.address())?;
        }
        for place in 0..NETWORKS.len() {
            joined.leave(lab, place)?;
            own(&joined)?;
        }
        Ok(())
    })
}
