//! Two containers on two hosts, connected in several ways.

use core::net::IpAddr;
use std::{any::Any, process::Command};

use anyhow::{Context, Result, ensure};
use overlay_testkit::lab::Namespace;

pub(crate) const VNI: u32 = 5000;

/// Two ends that reach each other.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    /// Of the server.
    pub(crate) address: IpAddr,
    /// What has to stay for that.
    _rest: Box<dyn Any>,
}

impl Pair {
    /// Of containers: the server is at 10.0.1.2.
    pub(crate) fn of_containers(
        name: &'static str,
        [client, server]: [Namespace; 2],
        rest: impl Any,
    ) -> Self {
        Self { name, client, server, address: [10, 0, 1, 2].into(), _rest: Box::new(rest) }
    }
}

pub(crate) fn node(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

/// Two hosts on a cable.
pub(crate) fn hosts() -> Result<[Namespace; 2]> {
    let hosts = [Namespace::new()?, Namespace::new()?];
    hosts[0].connect("cable", &hosts[1], "cable")?;
    for (number, host) in (1..).zip(&hosts) {
        host.ip(&format!("address add {}/24 dev cable", node(number)))?;
    }
    Ok(hosts)
}

/// From host to host.
pub(crate) fn cable() -> Result<Pair> {
    let [client, server] = hosts()?;
    Ok(Pair { name: "cable", client, server, address: node(2), _rest: Box::new(()) })
}

/// Two containers, each with a device on its host that `make` makes, and an address on it.
fn by_hand(
    name: &'static str,
    make: impl Fn(&Namespace, &Namespace) -> Result<()>,
) -> Result<Pair> {
    let (hosts, containers) = (hosts()?, [Namespace::new()?, Namespace::new()?]);
    for (number, (host, container)) in (1..).zip(hosts.iter().zip(&containers)) {
        let (own, other) = (node(number), node(3 - number));
        host.ip(&format!(
            "link add vx type vxlan id {VNI} dstport 4789 local {own} remote {other}"
        ))?;
        make(host, container)?;
        container.ip("link set eth0 mtu 1450 up")?;
        container.ip(&format!("address add 10.0.1.{number}/24 dev eth0"))?;
    }
    Ok(Pair::of_containers(name, containers, hosts))
}

/// The VXLAN device is the container's interface.
pub(crate) fn bare(name: &'static str) -> Result<Pair> {
    by_hand(name, |host, container| {
        host.ip(&format!("link set vx netns {} name eth0", container.path().display())).map(drop)
    })
}

/// The VXLAN device and the container are on a bridge.
pub(crate) fn bridged() -> Result<Pair> {
    by_hand("bridged VXLAN", |host, container| {
        host.ip("link add bridge0 type bridge")?;
        host.connect("port", container, "eth0")?;
        for device in ["vx", "port"] {
            host.ip(&format!("link set {device} mtu 1450 master bridge0 up"))?;
        }
        host.ip("link set bridge0 up").map(drop)
    })
}

/// Ends the peer when the bench does.
struct Peer(String);

impl Drop for Peer {
    fn drop(&mut self) {
        // Whoever wrote the command hears of it by its output.
        let _ = Command::new(&self.0).arg("down").status();
    }
}

/// What the command in `OVERLAY_SPEED_PEER` connects. Called with `up`, it prints three words: the files
/// of the namespaces that the client and the server are in, and the server's address. Called with
/// `down`, it removes them.
pub(crate) fn peer() -> Result<Option<Pair>> {
    let Ok(command) = std::env::var("OVERLAY_SPEED_PEER") else { return Ok(None) };
    let rest = Peer(command.clone());
    let output = Command::new(&command).arg("up").output().context("start the peer")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{command} up ended with {}", output.status);
    let words: Vec<_> = text.split_whitespace().collect();
    let [.., client, server, address] = words[..] else {
        anyhow::bail!("{command} up printed {text:?}");
    };
    Ok(Some(Pair {
        name: "peer",
        client: Namespace::open(client.as_ref())?,
        server: Namespace::open(server.as_ref())?,
        address: address.parse()?,
        _rest: Box::new(rest),
    }))
}
