//! Two containers on two hosts, connected in several ways.

use core::net::IpAddr;
use std::{any::Any, process::Command, rc::Rc};

use anyhow::{Context, Result, bail, ensure};
use overlay_testkit::lab::Namespace;

pub(crate) const VNI: u32 = 5000;

/// Two ends that reach each other.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    /// Where clients find the server.
    pub(crate) address: IpAddr,
    /// The port that they ask for, and the one that is the server's then; without any, what the server has.
    pub(crate) ports: Option<(u16, u16)>,
    /// What has to stay for that.
    _rest: Rc<dyn Any>,
}

impl Pair {
    pub(crate) fn new(
        name: &str,
        [client, server]: [Namespace; 2],
        (address, ports): (IpAddr, Option<(u16, u16)>),
        rest: Rc<dyn Any>,
    ) -> Self {
        Self { name: name.to_owned(), client, server, address, ports, _rest: rest }
    }

    /// Of containers: the server is at 10.0.1.2.
    pub(crate) fn of_containers(name: &str, ends: [Namespace; 2], rest: impl Any) -> Self {
        Self::new(name, ends, ([10, 0, 1, 2].into(), None), Rc::new(rest))
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
pub(crate) fn cable(name: &str) -> Result<Pair> {
    Ok(Pair::new(name, hosts()?, (node(2), None), Rc::new(())))
}

/// Two containers, each with a device on its host that `make` makes, and an address on it.
fn by_hand(name: &str, make: impl Fn(&Namespace, &Namespace) -> Result<()>) -> Result<Pair> {
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
pub(crate) fn bare(name: &str) -> Result<Pair> {
    by_hand(name, |host, container| {
        host.ip(&format!("link set vx netns {} name eth0", container.path().display())).map(drop)
    })
}

/// The VXLAN device and the container are on a bridge.
pub(crate) fn bridged(name: &str) -> Result<Pair> {
    by_hand(name, |host, container| {
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

/// What the command in `OVERLAY_SPEED_PEER` connects.
///
/// Called with `up containers`, it prints a line for `peer`, and with `up services` one each for `peer_task`,
/// `peer_virtual_address` and `peer_mesh`: its name, the files of the namespaces that the client and the server
/// are in, and where the client finds the server, which is an address, or an address, a port, and the port that
/// the server has, as `192.0.2.1:8080:80`. Called with `down`, it removes all of it.
pub(crate) fn peer(layouts: &str) -> Result<Vec<Pair>> {
    let Ok(command) = std::env::var("OVERLAY_SPEED_PEER") else { return Ok(Vec::new()) };
    let rest = Rc::new(Peer(command.clone()));
    let output = Command::new(&command).args(["up", layouts]).output().context("start the peer")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{command} up ended with {}", output.status);
    let line = |line: &str| -> Result<Pair> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, client, server, place] = words[..] else { bail!("{command} printed {line:?}") };
        let parts: Vec<_> = place.rsplitn(3, ':').collect();
        let (address, ports) = match parts[..] {
            _ if place.parse::<IpAddr>().is_ok() => (place, None),
            [own, asked, address] => (address, Some((asked.parse()?, own.parse()?))),
            _ => bail!("{command} printed {place:?} for a place"),
        };
        let ends = [Namespace::open(client.as_ref())?, Namespace::open(server.as_ref())?];
        let name = name.replace('_', " ");
        Ok(Pair::new(&name, ends, (address.parse()?, ports), Rc::<Peer>::clone(&rest)))
    };
    text.lines().map(line).collect()
}
