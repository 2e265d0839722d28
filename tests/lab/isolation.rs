//! Nothing crosses. Each test first has the very thing arrive that it then lets lie in one point, and
//! ends with a word that is heard: what was said before it had its chance.

use core::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, MsgFlags, sendto},
};
use overlay_testkit::hosts::address_v4;
use rstest::rstest;
use socket2::{Domain, Socket, Type};

use crate::{
    ear::Ear,
    forge::{Forged, fragments},
    plane::{KERNELS, Plane, USERS},
    probe::ping,
    setup::{Cluster, Container, Lab},
    stranger::Stranger,
};

fn v4(container: &Container) -> Result<Ipv4Addr> {
    match container.address() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}

fn mac(container: &Container) -> Result<[u8; 6]> {
    let octets: Vec<u8> = container
        .mac
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()?;
    octets.try_into().ok().context("six octets")
}

fn vni(lab: &Lab, network: &str) -> Result<u32> {
    let shown = lab.json(1, &format!("network inspect {network}"))?;
    Ok(shown[0]["vni"].as_u64().context("a VNI")? as u32)
}

/// On either dataplane, what it dropped is counted by the same names.
fn ensure_counted(lab: &Lab, node: u8, reasons: &[&str]) -> Result<()> {
    let status = lab.json(node, "status")?;
    for reason in reasons {
        let count = &status["counters"][format!("dataplane.dropped.{reason}")];
        ensure!(count.as_u64() > Some(0), "o04: {reason}: {count}");
    }
    Ok(())
}

/// A frame from one container to another as its node would send it.
pub(crate) fn honest(lab: &Lab, from: &Container, to: &Container, network: &str) -> Result<Forged> {
    Ok(Forged {
        node: address_v4(2),
        to_node: address_v4(1),
        vxlan_port: 4789,
        vni: vni(lab, network)?,
        mac: mac(from)?,
        to_mac: mac(to)?,
        ip: v4(from)?,
        to_ip: v4(to)?,
        tags: 0,
        padding: 100,
    })
}

/// Datagrams from the wire: red is on nodes 1 and 2, blue on 1 and 3.
fn from_the_wire(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable red")?;
        lab.ctl(1, "network create --attachable blue")?;
        let (red, red_far) = (lab.container(1, "red")?, lab.container(2, "red")?);
        let (blue, _blue_far) = (lab.container(1, "blue")?, lab.container(3, "blue")?);
        let stranger = Stranger::on_wire(lab)?;
        let honest = honest(lab, &red_far, &red, "red")?;
        let mut ears = [Ear::in_namespace(&red.netns)?, Ear::in_namespace(&blue.netns)?];

        // What lies in no point arrives, whole and in fragments.
        ears[0].until_heard(b"whole", || stranger.send(&honest.packet(b"whole")?))?;
        let mut id = 0;
        ears[0].until_heard(b"in pieces", || {
            id += 1;
            let packet = honest.packet(b"in pieces")?;
            fragments(&packet, id).iter().try_for_each(|piece| stranger.send(piece))
        })?;

        let lies = [
            ("node 3, which is not on it", Forged { node: address_v4(3), ..honest.clone() }),
            ("a host of no cluster", Forged { node: stranger.address, ..honest.clone() }),
            ("an outside host", Forged { node: [203, 0, 113, 7].into(), ..honest.clone() }),
            ("a VNI of no network", Forged { vni: 9_999_999, ..honest.clone() }),
            ("the other network's VNI", Forged { vni: vni(lab, "blue")?, ..honest.clone() }),
            (
                "the other network's VNI and station",
                Forged {
                    vni: vni(lab, "blue")?,
                    to_mac: mac(&blue)?,
                    to_ip: v4(&blue)?,
                    ..honest.clone()
                },
            ),
            (
                "the network's VNI, the other's station",
                Forged { to_mac: mac(&blue)?, to_ip: v4(&blue)?, ..honest.clone() },
            ),
        ];
        for (number, (_, lie)) in lies.iter().enumerate() {
            let packet = lie.packet(format!("lie {number}").as_bytes())?;
            stranger.send(&packet)?;
            let packet = lie.packet(format!("torn lie {number}").as_bytes())?;
            let pieces = fragments(&packet, 1000 + number as u16);
            pieces.iter().try_for_each(|piece| stranger.send(piece))?;
        }
        ears[0].until_heard(b"truth", || stranger.send(&honest.packet(b"truth")?))?;
        for (number, (what, _)) in lies.iter().enumerate() {
            for ear in &mut ears {
                let lie = format!("lie {number}");
                ensure!(!ear.has_heard(lie.as_bytes())?, "{what} is let in");
            }
        }
        ensure_counted(lab, 1, &["not_member"])
    })
}

/// GHSA-vwm3-crmr-xfxw: whoever reached the port could send into a plain network of Docker's.
#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn n08_e07_ghsa_vwm3_crmr_xfxw_only_members_datagrams_enter_a_network(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    from_the_wire(&planes)
}

/// What sends frames of any kind from a container, whose owner is root in there.
struct Forger {
    socket: Socket,
    device: LinkAddr,
}

impl Forger {
    fn inside(container: &Container) -> Result<Self> {
        container.netns.enter(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            let device = getifaddrs()?
                .filter(|device| device.interface_name == "eth0")
                .find_map(|device| device.address?.as_link_addr().copied());
            Ok(Self { socket, device: device.context("eth0")? })
        })
    }

    fn send(&self, frame: &[u8]) {
        // The device may refuse it, which is as good as if it got lost.
        let _ = sendto(self.socket.as_raw_fd(), frame, &self.device, MsgFlags::empty());
    }
}

/// What a container must not say, as it says it to one station.
fn lies(honest: &Forged, others: &[&Container]) -> Result<Vec<(String, Forged)>> {
    let lie = |what: &str, forged: Forged| (what.to_owned(), forged);
    let mut lies = vec![
        lie("an Ethernet address of nobody", Forged { mac: [2, 0, 0, 0, 0, 7], ..honest.clone() }),
        lie("a group as its source", Forged { mac: [0xff; 6], ..honest.clone() }),
        lie("an address of nobody", Forged { ip: [10, 0, 1, 200].into(), ..honest.clone() }),
        lie("an outside address", Forged { ip: [203, 0, 113, 7].into(), ..honest.clone() }),
        lie("a tag", Forged { tags: 1, ..honest.clone() }),
        lie("two tags", Forged { tags: 2, ..honest.clone() }),
        lie("an oversized frame", Forged { padding: 5_000, ..honest.clone() }),
        lie("a frame to everybody", Forged { to_mac: [0xff; 6], ..honest.clone() }),
    ];
    for other in others {
        let (mac, ip) = (mac(other)?, v4(other)?);
        lies.push(lie(&format!("the Ethernet address of {ip}"), Forged { mac, ..honest.clone() }));
        lies.push(lie(&format!("the address {ip}"), Forged { ip, ..honest.clone() }));
        lies.push(lie(&format!("both addresses of {ip}"), Forged { mac, ip, ..honest.clone() }));
    }
    Ok(lies)
}

/// Frames from a container on red, to others on red and to some on blue.
fn from_a_container(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable red")?;
        lab.ctl(1, "network create --attachable blue")?;
        let container = lab.container(1, "red")?;
        let red = [lab.container(1, "red")?, lab.container(2, "red")?];
        let blue = [lab.container(1, "blue")?, lab.container(2, "blue")?];
        let stations: Vec<&Container> = red.iter().chain(&blue).collect();
        let mut ears = Vec::new();
        for station in &stations {
            ears.push(Ear::in_namespace(&station.netns)?);
        }
        // So that it gets its large frames as far as the dataplane.
        container.netns.ip("link set dev eth0 mtu 9000")?;
        let forger = Forger::inside(&container)?;
        let say = |frame: Vec<u8>| {
            forger.send(&frame);
            Ok(())
        };
        for (station, ear) in red.iter().zip(&mut ears) {
            let honest = honest(lab, &container, station, "red")?;
            ear.until_heard(b"honest", || say(honest.frame(b"honest")?))?;
        }
        let mut told = Vec::new();
        for (number, station) in stations.iter().enumerate() {
            let honest = honest(lab, &container, station, "red")?;
            let mut lies = lies(&honest, &stations)?;
            if number >= red.len() {
                lies.push(("nothing, but to the other network".to_owned(), honest));
            }
            for (what, lie) in lies {
                let word = format!("lie {} to {number};", told.len());
                say(lie.frame(word.as_bytes())?)?;
                told.push((word, what));
            }
        }
        for (station, ear) in red.iter().zip(&mut ears) {
            let honest = honest(lab, &container, station, "red")?;
            ear.until_heard(b"truth", || say(honest.frame(b"truth")?))?;
        }
        let mut heard = Vec::new();
        for (number, ear) in ears.iter_mut().enumerate() {
            for (word, what) in &told {
                if ear.has_heard(word.as_bytes())? {
                    heard.push(format!("{what} ({word}) by station {number}"));
                }
            }
        }
        ensure!(heard.is_empty(), "heard: {heard:#?}");
        ensure_counted(lab, 1, &["spoofed_mac", "spoofed_ip", "vlan_tagged"])
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn n08_a_container_that_forges_reaches_nobody(#[case] planes: [Plane; 3]) -> Result<()> {
    from_a_container(&planes)
}

/// Two clusters on one wire have networks with the same subnet, VNI and addresses.
fn two_clusters(planes: &[Plane]) -> Result<()> {
    let planes = [planes[0], planes[1], planes[1], planes[2]];
    Cluster { halves: true, ..Cluster::of(&planes) }.run(|lab| {
        let mut containers = Vec::new();
        for (first, second) in [(1, 2), (3, 4)] {
            lab.ctl(first, "network create --attachable net")?;
            containers.push([lab.container(first, "net")?, lab.container(second, "net")?]);
        }
        let [ours, theirs] = [&containers[0], &containers[1]];
        for (our, their) in ours.iter().zip(theirs) {
            ensure!(our.addresses == their.addresses && our.mac == their.mac, "not the same");
        }
        let mut ears = Vec::new();
        for container in [&ours[1], &theirs[1]] {
            ears.push(Ear::in_namespace(&container.netns)?);
        }
        let honest = Forged { node: address_v4(3), ..honest(lab, &theirs[0], &ours[1], "net")? };
        let stranger = Stranger::on_wire(lab)?;
        let send = |node: u8, to: u8, word: &[u8]| {
            let forged =
                Forged { node: address_v4(node), to_node: address_v4(to), ..honest.clone() };
            stranger.send(&forged.packet(word)?)
        };
        // The same frame: from the own cluster's node it is let in, from the other's it is not.
        ears[0].until_heard(b"from 1 to 2", || send(1, 2, b"from 1 to 2"))?;
        ears[1].until_heard(b"from 3 to 4", || send(3, 4, b"from 3 to 4"))?;
        send(3, 2, b"from 3 to 2")?;
        send(1, 4, b"from 1 to 4")?;
        ears[0].until_heard(b"at last 2", || send(1, 2, b"at last 2"))?;
        ears[1].until_heard(b"at last 4", || send(3, 4, b"at last 4"))?;
        ensure!(!ears[0].has_heard(b"from 3 to 2")?, "the other cluster's frame is let in");
        ensure!(!ears[1].has_heard(b"from 1 to 4")?, "the first cluster's frame is let in");
        ping(&ours[0].netns, ours[1].address())?;
        ping(&theirs[0].netns, theirs[1].address())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn n08_networks_with_one_subnet_of_two_clusters_do_not_meet(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    two_clusters(&planes)
}
