//! Between nodes frames go past the bridges: where these carry nothing between ports and the VXLAN device,
//! connections are made all the same.

use anyhow::{Context, Result, ensure};
use overlay_testkit::lab::{self, Namespace};

use crate::{
    kernel::{Endpoint, USER, Underlay, inside},
    probe::{ping, transfer},
};

/// Octets of one transfer by TCP.
const TRANSFER: usize = 1_000_000;

/// Has the bridge of a network keep all its ports apart.
fn part(network: &Namespace) -> Result<()> {
    let links = network.run(&["bridge", "link", "show"])?;
    let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1).map(str::trim));
    for name in names {
        network.run(&["bridge", "link", "set", "dev", name, "isolated", "on"])?;
    }
    Ok(())
}

fn past_bridges(over_ipv6: bool) -> Result<()> {
    let underlay = Underlay::new(over_ipv6)?;
    let endpoints =
        [Endpoint::new(1, 1, 11)?, Endpoint::new(2, 1, 21)?, Endpoint::new(USER, 1, 31)?];
    let _dataplanes = underlay.start_all(&endpoints)?;
    let pairs = || {
        let from = endpoints.iter();
        from.flat_map(|from| endpoints.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.node != to.node)
    };
    for (from, to) in pairs() {
        // Neighbours are found by way of the bridge, and not asked again while this runs.
        for version in ["ipv4", "ipv6"] {
            let late = format!("net.{version}.neigh.eth0.delay_first_probe_time=600");
            from.netns.run(&["sysctl", "-q", "-w", &late])?;
        }
        to.addresses().iter().try_for_each(|address| ping(&from.netns, address))?;
    }
    let networks = [inside(1)?, inside(2)?];
    networks.iter().try_for_each(part)?;
    for (from, to) in pairs() {
        for address in to.addresses().iter() {
            transfer(&from.netns, &to.netns, address, TRANSFER)
                .with_context(|| format!("from node {} to {address}", from.node))?;
        }
    }
    // And only so.
    networks[1].run(&["tc", "filter", "delete", "dev", "vxlan0", "ingress"])?;
    let address = endpoints[1].addresses().v4.context("an IPv4 address")?.to_string();
    let answered = endpoints[0].netns.run(&["ping", "-c", "1", "-W", "1", &address]);
    ensure!(answered.is_err(), "the bridge carries frames between isolated ports");
    Ok(())
}

#[test]
fn n08_d01_d03_frames_go_past_bridges_between_nodes_over_ipv4() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| past_bridges(false)) }
}

#[test]
fn n08_d01_d03_frames_go_past_bridges_between_nodes_over_ipv6() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| past_bridges(true)) }
}
