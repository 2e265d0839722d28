//! Networks and endpoints by `overlayctl`.

use anyhow::{Context, Result, ensure};
use overlay_testkit::until::until;
use rstest::rstest;

use crate::{
    ear::Ear,
    plane::{KERNELS, MIXED, Plane, USERS},
    probe::ping,
    setup::{Cluster, Container, PATIENCE},
};

/// Pools and the port of VXLAN are the cluster's, on all nodes.
fn defaults(planes: &[Plane]) -> Result<()> {
    let init = "--default-addr-pool 10.77.0.0/16 --default-addr-pool-mask-length 26 \
                --data-path-port 5789";
    Cluster { init, ..Cluster::of(planes) }.run(|lab| {
        lab.ctl(2, "network create --attachable one")?;
        lab.ctl(3, "network create --attachable two")?;
        for (name, subnet) in
            [("ingress", "10.77.0.0/26"), ("one", "10.77.0.64/26"), ("two", "10.77.0.128/26")]
        {
            let shown = lab.json(1, &format!("network inspect {name}"))?;
            ensure!(shown[0]["subnets"][0]["subnet"] == subnet, "{name}: {shown}");
        }
        let mut wire = Ear::in_namespace(&lab.wire)?;
        let containers: Vec<_> =
            (1..=3).map(|node| lab.container(node, "one")).collect::<Result<_>>()?;
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            ping(&containers[from].netns, containers[to].address())?;
        }
        let ports = wire.udp_ports()?;
        ensure!(ports.contains(&5789) && !ports.contains(&4789), "{ports:?}");
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn n02_c03_case_4_and_5_pools_and_data_path_port_hold_on_all_nodes(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    defaults(&planes)
}

/// The endpoints of a network, as a node lists them.
fn endpoints(lab: &crate::setup::Lab, network: &str) -> Result<String> {
    lab.ctl(1, &format!("endpoint ls --quiet --network {network}"))
}

fn names(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        // Five addresses for endpoints: 8 without the network's, the gateway's and the broadcast.
        lab.ctl(1, "network create --attachable --subnet 10.91.0.0/29 small")?;
        lab.ctl(1, "network create --attachable other")?;
        lab.ctl(1, "network create closed")?;

        let said = lab.refused(2, "endpoint attach --network closed --name x")?;
        ensure!(said.contains("attachable"), "n05: {said}");

        let first = lab.container(2, "small")?;
        first.until_plugged()?;
        let before = endpoints(lab, "small")?;
        let own = first.netns.path();
        for _ in 0..8 {
            let clash = lab.refused(
                2,
                &format!(
                    "endpoint attach --network small --interface eth0 --netns {}",
                    own.display()
                ),
            )?;
            ensure!(clash.contains("eth0"), "the clash is not named: {clash}");
            let nowhere = lab.refused(
                2,
                "endpoint attach --network small --interface eth0 --netns /run/netns/none",
            )?;
            ensure!(nowhere.contains("/run/netns/none"), "the path is not named: {nowhere}");
            let wrong =
                lab.refused(2, "endpoint attach --network small --interface a/b --netns /run")?;
            ensure!(wrong.contains("a/b"), "the name is not named: {wrong}");
        }
        ensure!(endpoints(lab, "small")? == before, "something stayed attached");
        first.until_plugged()?;

        // None of the addresses was lost: the other four are there, and no fifth.
        let more: Vec<_> = (0..4).map(|_| lab.container(2, "small")).collect::<Result<_>>()?;
        let full = lab.refused(2, "endpoint attach --network small --name x")?;
        ensure!(full.contains("10.91.0.0/29"), "{full}");
        for container in &more {
            ping(&first.netns, container.address())?;
        }

        // A second network in the same container, under another name.
        let lan =
            format!("endpoint attach --network other --interface lan7 --netns {}", own.display());
        lab.ctl(2, &lan)?;
        let devices = first.netns.ip("-brief link show")?;
        ensure!(devices.contains("lan7") && devices.contains("eth0"), "{devices}");
        let there = lab.container(1, "other")?;
        ping(&first.netns, there.address())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn n05_n03_case_9_10_and_11_names_clash_and_failed_attaches_leave_nothing(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    names(&planes)
}

fn detach(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let (one, two) = (lab.container(1, "net")?, lab.container(2, "net")?);
        ping(&one.netns, two.address())?;
        let said = lab.refused(3, "network rm net")?;
        ensure!(said.contains("\"net\""), "{said}");
        for container in [&one, &two] {
            let shown = lab.json(1, &format!("endpoint inspect {}", container.endpoint))?;
            let name = shown[0]["name"].as_str().unwrap_or("none").to_owned();
            ensure!(said.contains(&name), "n13: {name} is not named: {said}");
        }

        // Detached on its node, and from another one.
        for (node, container) in [(2, &two), (3, &one)] {
            lab.ctl(node, &format!("endpoint detach {}", container.endpoint))?;
            until("the device goes", PATIENCE, || {
                let devices = container.netns.ip("-brief link show")?;
                ensure!(!devices.contains("eth0"), "{devices}");
                Ok(())
            })?;
        }

        // Hot: the containers stay, with another address, and with the one that they had.
        let address = one.address().to_string();
        let one = one.joined(lab, 1, "net", &["--ip", &address])?;
        let two = two.joined(lab, 2, "net", &[])?;
        ensure!(one.address().to_string() == address, "{:?}", one.addresses);
        ping(&one.netns, two.address())?;
        ping(&two.netns, one.address())?;
        for (node, container) in [(1, &one), (2, &two)] {
            lab.ctl(node, &format!("endpoint detach {}", container.endpoint))?;
        }
        lab.ctl(3, "network rm net")?;
        ensure!(lab.refused(1, "network inspect net")?.contains("net"));
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn n13_networks_go_when_nothing_is_attached_and_containers_come_back(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    detach(&planes)
}

/// A container that dies with its endpoint still attached.
fn vanish(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let (gone, stays) = (lab.container(1, "net")?, lab.container(1, "net")?);
        let far = lab.container(2, "net")?;
        let Container { netns, endpoint, .. } = gone;
        drop(netns);
        lab.ctl(1, &format!("endpoint detach {endpoint}"))?;
        ping(&far.netns, stays.address())?;
        let again = lab.container(1, "net")?;
        ping(&far.netns, again.address())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn d07_a_container_that_vanished_is_detached(#[case] planes: [Plane; 3]) -> Result<()> {
    vanish(&planes)
}

/// Of what stands alone; tasks report those of their service.
#[test]
fn s15_case_8_published_ports_are_reported_with_their_endpoint() -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let flags = ["--publish", "8080:80", "--publish", "5353:53/udp"];
        let published = Container::on_no_network()?.joined(lab, 2, "net", &flags)?;
        let silent = lab.container(1, "net")?;
        for (endpoint, ports) in [
            (&published.endpoint, ["*:8080->80/tcp", "*:5353->53/udp"].as_slice()),
            (&silent.endpoint, &[]),
        ] {
            let shown = lab.ctl(3, &format!("endpoint inspect {endpoint}"))?;
            let listed = lab.ctl(3, "endpoint ls --no-trunc")?;
            let line = listed.lines().find(|line| line.contains(endpoint.as_str()));
            let line = line.with_context(|| format!("{endpoint} in {listed}"))?;
            for port in ports {
                ensure!(shown.contains(port), "{port}: {shown}");
                ensure!(line.contains(port), "{port}: {line}");
            }
            ensure!(line.contains("->") != ports.is_empty(), "{line}");
        }
        let json = lab.json(3, &format!("endpoint inspect {}", published.endpoint))?;
        ensure!(json[0]["ports"].as_array().map(Vec::len) == Some(2), "{json}");
        Ok(())
    })
}
