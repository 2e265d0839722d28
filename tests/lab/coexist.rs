//! Beside Docker, Kubernetes and firewalls: they do not disturb us, nor we them.
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::{net::IpAddr, time::Duration};
use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    hosts::{CABLE, Host, address_v4},
    lab::{DOCKER, Namespace},
    until::until,
};
use rstest::rstest;

use crate::{
    load::{self, Server},
    plane::{KERNELS, Plane, USERS},
    probe::ping,
    setup::{BACK_WITHIN, Cluster, Container, Lab, PATIENCE},
    stranger::Stranger,
};

/// A firewall that lets in what the README says and the other VXLAN device, and forwards nothing.
const FIREWALL: &str = "
table inet firewalld {
    chain input {
        type filter hook input priority 10; policy drop;
        ct state established,related accept
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 2377, 7946 } accept
        udp dport { 7946, 4789, 4500, 8472 } accept
    }
    chain forward {
        type filter hook forward priority 10; policy drop;
    }
}
";

/// Docker's and Kubernetes's: nothing is forwarded, and bridged packets see the same rules.
fn forward_nothing(host: &Host) -> Result<()> {
    let netns = &host.netns;
    for family in ["iptables", "ip6tables"] {
        netns.run(&[family, "-P", "FORWARD", "DROP"])?;
    }
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    netns.enter(|| {
        // A kernel without br_netfilter hands bridged packets to nobody.
        if fs::exists(bridged)? { fs::write(bridged, "1").context(bridged) } else { Ok(()) }
    })
}

/// A VXLAN device of somebody else, with the number of our first network.
fn other_vxlan(host: &Host, peer: u8) -> Result<()> {
    let (own, peer) = (address_v4(host.number), address_v4(peer));
    let netns = &host.netns;
    netns.ip(&format!(
        "link add flannel.1 type vxlan id 4097 dstport 8472 local {own} remote {peer} dev {CABLE}"
    ))?;
    netns.ip(&format!("address add 10.244.0.{}/24 dev flannel.1", host.number))?;
    netns.ip("link set flannel.1 up")?;
    Ok(())
}

fn nft(netns: &Namespace, script: &str) -> Result<()> {
    let path = format!("/run/nft-{}", script.len());
    fs::write(&path, script)?;
    netns.run(&["nft", "-f", &path]).map(drop)
}

/// Traffic both ways is back in time, and stays.
fn comes_back(containers: &[Container], what: &str) -> Result<()> {
    let begin = Instant::now();
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        ping(&containers[from].netns, containers[to].address()).context(what.to_owned())?;
    }
    let took = begin.elapsed();
    ensure!(took < BACK_WITHIN, "{what}: traffic came back after {took:?}");
    Ok(())
}

/// Everything that is somebody else's in the rules.
fn theirs(lab: &Lab, node: u8) -> Result<String> {
    lab.host(node).netns.run(&["nft", "list", "table", "inet", "firewalld"])
}

fn beside_others(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        other_vxlan(lab.host(1), 2)?;
        other_vxlan(lab.host(2), 1)?;
        let pods = |lab: &Lab| ping(&lab.host(1).netns, IpAddr::from([10, 244, 0, 2]));
        pods(lab)?;
        for host in &lab.hosts {
            forward_nothing(host)?;
        }
        lab.ctl(1, "network create --attachable net")?;
        let containers: Vec<_> =
            (1..=3).map(|node| lab.container(node, "net")).collect::<Result<_>>()?;
        comes_back(&containers, "FORWARD is DROP, and bridged packets are filtered")?;
        pods(lab)?;

        for host in &lab.hosts {
            nft(&host.netns, FIREWALL)?;
        }
        let before = theirs(lab, 1)?;
        comes_back(&containers, "a firewall is loaded")?;
        let reload = format!("table inet firewalld\ndelete table inet firewalld\n{FIREWALL}");
        for host in &lab.hosts {
            nft(&host.netns, &reload)?;
        }
        comes_back(&containers, "the firewall is loaded again")?;
        for host in &lab.hosts {
            host.netns.run(&["nft", "flush", "ruleset"])?;
            nft(&host.netns, FIREWALL)?;
        }
        comes_back(&containers, "the firewall flushed the ruleset")?;
        for host in &lab.hosts {
            host.netns.run(&["nft", "flush", "ruleset"])?;
        }
        comes_back(&containers, "somebody flushed the ruleset")?;
        for host in &lab.hosts {
            nft(&host.netns, FIREWALL)?;
        }
        ensure!(theirs(lab, 1)? == before, "their rules are others now");
        pods(lab)
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn d06_s08_firewalls_docker_and_other_vxlan_devices_do_not_disturb(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    beside_others(&planes)
}

/// Docker's rules, with one of an administrator's, as a reload of the firewall leaves them.
fn reload(host: &Host) -> Result<()> {
    for family in ["iptables", "ip6tables"] {
        let restore = format!("printf '{DOCKER}' | {family}-restore");
        host.netns.run(&["sh", "-c", &restore])?;
    }
    Ok(())
}

#[test]
fn s10_case_3_published_ports_are_back_after_a_reload_and_override_no_rule() -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        for host in &lab.hosts {
            reload(host)?;
        }
        // What the administrator refuses is at port 81.
        lab.ctl(1, "service create --name web --publish 8080:80 --publish 8081:81")?;
        let task = Container::on_no_network()?;
        let _servers = [80, 81].map(|port| Server::start(&task.netns, port, "web"));
        let _task = task.joined(lab, 2, "ingress", &["--service", "web"])?;
        let client = Stranger::on_wire(lab)?;
        let answers = |node, port| {
            let target = (address_v4(node), port).into();
            client.netns.enter(|| load::ask(target, Duration::from_millis(500)))
        };
        let check = |what: &str, patience| {
            for node in 1..=3 {
                let (_, seen) = until(what, patience, || answers(node, 8080))?;
                ensure!(seen == client.address, "{seen}");
                ensure!(answers(node, 8081).is_err(), "{what}: what is refused passes");
            }
            Ok(())
        };
        check("the port answers", PATIENCE)?;
        for host in &lab.hosts {
            reload(host)?;
        }
        check("the port answers after a reload", BACK_WITHIN)?;
        for host in &lab.hosts {
            host.netns.run(&["nft", "flush", "ruleset"])?;
            reload(host)?;
        }
        check("the port answers after a flush", BACK_WITHIN)
    })
}
