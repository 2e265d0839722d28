//! Networks that get further subnets while containers are on them.

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use rstest::rstest;

use crate::{
    plane::{KERNEL_PAIR, MIXED_PAIR, Plane},
    probe::ping,
    setup::{Cluster, Container},
};

/// What a network of eight addresses has room for beside its gateway.
const FIRST: usize = 5;

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn n11_n17_a_full_network_gets_a_subnet_and_all_reach_one_another(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        lab.ctl(1, "network create --attachable --subnet 10.1.0.0/29 net")?;
        let containers = |count: usize| -> Result<Vec<Container>> {
            [1, 2].into_iter().cycle().take(count).map(|node| lab.container(node, "net")).collect()
        };
        let mut all = containers(FIRST)?;
        let full = lab.container(1, "net").err().context("there was no room")?;
        ensure!(format!("{full:#}").contains("address"), "{full:#}");

        let host = lab.refused(2, "network update --subnet-add 192.0.2.0/25 net")?;
        ensure!(host.contains("192.0.2.0/24"), "it is the host's: {host}");
        let own = lab.refused(2, "network update --subnet-add 10.1.0.0/28 net")?;
        ensure!(own.contains("10.1.0.0/29"), "it has one: {own}");
        lab.ctl(2, "network update --subnet-add 10.2.0.0/24 --label-add grown net")?;
        let shown = lab.json(1, "network inspect net")?;
        ensure!(shown[0]["subnets"][1]["subnet"] == "10.2.0.0/24", "{shown}");
        ensure!(shown[0]["labels"]["grown"] == "", "{shown}");

        let second: IpNet = "10.2.0.0/24".parse()?;
        for container in containers(2)? {
            ensure!(second.contains(&container.address()), "{:?}", container.addresses);
            all.push(container);
        }
        for from in &all {
            for to in all.iter().filter(|to| to.endpoint != from.endpoint) {
                ping(&from.netns, to.address())?;
            }
        }
        Ok(())
    })
}
