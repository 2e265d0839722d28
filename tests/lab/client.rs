//! Whom tasks take the clients of published ports for, and how their answers get there.

use core::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    hosts::{CABLE, address_v4, address_v6},
    lab::Namespace,
    traffic::{self, associate},
    until::until,
};
use rstest::rstest;

use crate::{
    plane::{KERNELS, MIXED, Plane, USERS},
    setup::{Cluster, Container, Lab, PATIENCE},
    stranger::{self, Stranger},
};

const PUBLISH: &str = "--publish 8080:80 --publish 5353:53/udp --publish 3868:3868/sctp";

/// A task, and what listens in it.
struct Task {
    container: Container,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Task {
    fn on(lab: &Lab, node: u8, network: &str) -> Result<Self> {
        let container = Container::on_no_network()?;
        let any = Ipv6Addr::UNSPECIFIED;
        let tcp = container.netns.enter(|| TcpListener::bind((any, 80)))?;
        let udp = container.netns.enter(|| UdpSocket::bind((any, 53)))?;
        let container = container.joined(lab, node, network, &["--service", "web"])?;
        container.until_plugged()?;
        Ok(Self { container, tcp, udp })
    }

    /// Whom it takes the client for, by each protocol that is asked through a node.
    /// Nodes in user space carry no SCTP.
    fn sees(&self, client: &Namespace, through: u8, plane: Plane) -> Result<Vec<IpAddr>> {
        let mut seen = Vec::new();
        for to in [IpAddr::from(address_v4(through)), address_v6(through).into()] {
            let at = |port| SocketAddr::new(to, port);
            let port = at(8080);
            until(&format!("{port} answers"), PATIENCE, || {
                ensure!(!traffic::is_refused(client, port));
                Ok(())
            })?;
            seen.push(traffic::connect(client, port, &self.tcp).context("TCP")?);
            let asked = traffic::ask(client, at(5353), &self.udp);
            seen.push(asked.with_context(|| format!("UDP by {to}"))?);
        }
        if plane == Plane::Kernel {
            let netns = &self.container.netns;
            let asked = associate(client, address_v4(through), 3868, netns, 3868);
            seen.push(asked.context("SCTP")?);
        }
        Ok(seen.into_iter().map(|address| address.to_canonical()).collect())
    }
}

/// Subnets of the network that the mesh gets.
const SUBNETS: &str = "--subnet 10.50.0.0/24 --subnet fd50::/64 --ipv6";

/// Has the ingress network have both versions of IP, and what else is asked of it.
fn remake_ingress(lab: &Lab, flags: &str) -> Result<()> {
    lab.ctl(1, "network rm --force ingress")?;
    lab.ctl(1, &format!("network create --ingress {SUBNETS} {flags} own"))?;
    lab.ctl(1, &format!("service create --name web {PUBLISH}")).map(drop)
}

#[rstest]
#[case::plain(KERNELS, "")]
#[case::encrypted(KERNELS, "--opt encrypted")]
#[case::user(USERS, "")]
#[case::mixed(MIXED, "")]
fn s11_the_client_has_its_own_address_through_every_node(
    #[case] planes: [Plane; 3],
    #[case] flags: &str,
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        remake_ingress(lab, flags)?;
        let client = Stranger::on_wire(lab)?;
        let (v4, v6) = (IpAddr::from(client.address), address_v6(stranger::NUMBER).into());
        // One node has the task, and others; then another one has it.
        for node in [1, 3] {
            let task = Task::on(lab, node, "own")?;
            for (through, plane) in (1..).zip(planes) {
                let seen = task.sees(&client.netns, through, plane);
                let seen = seen.with_context(|| format!("task on {node}, through {through}"))?;
                let expected = [v4, v4, v6, v6, v4];
                let expected = &expected[..if plane == Plane::Kernel { 5 } else { 4 }];
                ensure!(seen == expected, "task on {node}, through {through}: {seen:?}");
            }
            lab.ctl(node, &format!("endpoint detach {}", task.container.endpoint))?;
        }
        Ok(())
    })
}

/// As with Docker: each node's clients come under its own address on the network.
#[test]
fn s11_the_client_has_the_address_of_its_node_where_that_is_asked_for() -> Result<()> {
    Cluster { flags: "--ingress-mode snat", ..Cluster::of(&KERNELS) }.run(|lab| {
        remake_ingress(lab, "")?;
        let client = Stranger::on_wire(lab)?;
        let task = Task::on(lab, 2, "own")?;
        let mut gates = BTreeSet::new();
        for through in 1..=3 {
            let seen = task.sees(&client.netns, through, Plane::Kernel)?;
            let [tcp4, udp4, tcp6, udp6, sctp] = seen[..] else { unreachable!("five protocols") };
            ensure!((tcp4, tcp6) == (udp4, udp6) && sctp == tcp4, "through {through}: {seen:?}");
            ensure!(tcp4.is_ipv4() && tcp6.is_ipv6(), "through {through}: {seen:?}");
            gates.extend([tcp4, tcp6]);
        }
        let own = [IpAddr::from(client.address), address_v6(stranger::NUMBER).into()];
        ensure!(gates.len() == 6 && own.iter().all(|own| !gates.contains(own)), "{gates:?}");
        Ok(())
    })
}

/// Octets of an answer that fits the cable and not the way to the client.
const LONG: usize = 1400;
/// Until the next attempt.
const SOON: Duration = Duration::from_millis(500);
/// What that way carries: not much more than any link of IPv6 must.
const NARROW: u32 = 1300;

/// The node knows the way to the client, and its tasks learn of it. Pieces arrive, or smaller answers.
#[rstest]
#[case::kernel(KERNELS)]
#[case::user(USERS)]
fn s10_a_long_answer_in_udp_arrives_over_a_narrow_path(#[case] planes: [Plane; 3]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        remake_ingress(lab, "")?;
        let client = Stranger::on_wire(lab)?;
        lab.wire.ip(&format!("link set to{} mtu {NARROW}", stranger::NUMBER))?;
        let (v4, v6) = (client.address, address_v6(stranger::NUMBER));
        for route in [format!("{v4}/32"), format!("{v6}/128")] {
            let node = &lab.host(1).netns;
            node.ip(&format!("route add {route} dev {CABLE} mtu {NARROW}"))?;
        }
        let task = Task::on(lab, 2, "own")?;
        task.udp.set_read_timeout(Some(SOON))?;
        for to in [IpAddr::from(address_v4(1)), address_v6(1).into()] {
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let asker = client.netns.enter(|| UdpSocket::bind((any, 0)))?;
            asker.connect((to, 5353))?;
            asker.set_read_timeout(Some(SOON))?;
            // The first long answer may be what tells the task that the path is narrow.
            until(&format!("a long answer arrives from {to}"), PATIENCE, || {
                let mut answer = [0; LONG];
                asker.send(b"question")?;
                let (_, peer) = task.udp.recv_from(&mut answer).context("no question")?;
                task.udp.send_to(&[7; LONG], peer).context("answer")?;
                let length = asker.recv(&mut answer).context("no answer")?;
                ensure!(answer[..length] == [7; LONG], "{length} octets");
                Ok(())
            })?;
        }
        Ok(())
    })
}
