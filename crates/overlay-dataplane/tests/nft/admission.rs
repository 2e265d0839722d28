//! **no-entry** on plain networks, with frames on a wire and the kernel's own VXLAN devices.
//!
//! ```text
//!  peer: .2 member of 70000, .3 member of 70001, .4 nobody ═══ host .1 ── VXLAN devices, each
//!                                                                         moved to its own namespace
//! ```

use core::{net::IpAddr, time::Duration};
use std::{collections::BTreeSet, io::ErrorKind, net::UdpSocket};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use overlay_dataplane::kernel::nft::{
    Batch,
    admission::{self, Members},
};
use overlay_testkit::{
    lab::{self, Namespace},
    traffic::resumed,
};
use overlay_types::Vni;

use crate::host::Host;

const PORT: u16 = 4789;
/// Port of a UDP socket behind each VXLAN device.
const INNER_PORT: u16 = 9000;
const DEVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DEADLINE: Duration = Duration::from_secs(20);
/// The comment of the rule that refuses.
pub(crate) const REFUSED: &str = "from nobody on that network";

pub(crate) const NETWORK: u32 = 70_000;
const OTHER_NETWORK: u32 = 70_001;
/// There is a device for it, and nobody on it.
const EMPTY_NETWORK: u32 = 70_002;
/// Nothing knows it.
const UNKNOWN: u32 = 70_003;
/// Somebody's own tunnel.
const HAND_MADE: u32 = 42;

/// A host with devices, and a peer with several addresses.
pub(crate) struct Underlay {
    pub(crate) host: Host,
    peer: Namespace,
    ipv6: bool,
    networks: Vec<(u32, UdpSocket, Namespace)>,
}

pub(crate) fn vni(number: u32) -> Vni {
    Vni::new(number).expect("24 bits")
}

pub(crate) fn address(ipv6: bool, number: u8) -> IpAddr {
    if ipv6 { [0xfd99, 0, 0, 0, 0, 0, 0, number.into()].into() } else { [192, 0, 2, number].into() }
}

pub(crate) fn members(ipv6: bool) -> Members {
    Members::from([
        (vni(NETWORK), BTreeSet::from([address(ipv6, 2)])),
        (vni(OTHER_NETWORK), BTreeSet::from([address(ipv6, 3)])),
    ])
}

impl Underlay {
    pub(crate) fn new(ipv6: bool) -> Result<Self> {
        let (mut host, peer) = (Host::new()?, Namespace::new()?);
        host.namespace.connect("cable", &peer, "cable")?;
        let length = if ipv6 { "64 nodad" } else { "24" };
        let local = address(ipv6, 1);
        host.namespace.ip(&format!("address add {local}/{length} dev cable"))?;
        for number in 2..=4 {
            peer.ip(&format!("address add {}/{length} dev cable", address(ipv6, number)))?;
        }
        // Before any device is up.
        host.put(&admission::table_id(), Some(&admission::table(PORT, &members(ipv6))))?;
        let mut networks = Vec::new();
        for number in [NETWORK, OTHER_NETWORK, EMPTY_NETWORK, HAND_MADE] {
            let (socket, inside) = network(&host, local, number)?;
            networks.push((number, socket, inside));
        }
        Ok(Self { host, peer, ipv6, networks })
    }

    /// Sends a frame of one network from one of the peer's addresses.
    pub(crate) fn send(&self, from: u8, network: u32, content: &[u8]) -> Result<()> {
        let inner = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], DEVICE_MAC)
            .ipv4([10, 0, 1, 9], [10, 0, 1, 1], 64)
            .udp(INNER_PORT, INNER_PORT);
        let mut packet = vec![8, 0, 0, 0];
        packet.extend_from_slice(&(network << 8).to_be_bytes());
        inner.write(&mut packet, content)?;
        self.send_raw(from, &packet)
    }

    /// Sends octets to the VXLAN port.
    fn send_raw(&self, from: u8, octets: &[u8]) -> Result<()> {
        let socket = self.peer.enter(|| UdpSocket::bind((address(self.ipv6, from), 0)))?;
        socket.send_to(octets, (address(self.ipv6, 1), PORT))?;
        Ok(())
    }

    fn socket(&self, network: u32) -> Result<&UdpSocket> {
        let found = self.networks.iter().find(|(number, ..)| *number == network);
        Ok(&found.context("no such network")?.1)
    }

    /// The next content that arrives on a network.
    pub(crate) fn arrives(&self, network: u32) -> Result<Vec<u8>> {
        let socket = self.socket(network)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let mut buffer = vec![0; 4096];
        let length = resumed(|| socket.recv(&mut buffer)).context("nothing arrives")?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Nothing more has arrived anywhere.
    pub(crate) fn is_quiet(&self) -> Result<()> {
        for (number, socket, _) in &self.networks {
            socket.set_nonblocking(true)?;
            let received = socket.recv(&mut [0; 64]);
            socket.set_nonblocking(false)?;
            let nothing = received.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            ensure!(nothing, "something arrived on {number}");
        }
        Ok(())
    }
}

/// A VXLAN device, made in the host's namespace and moved to one of its own.
fn network(host: &Host, local: IpAddr, number: u32) -> Result<(UdpSocket, Namespace)> {
    let inside = Namespace::new()?;
    host.namespace.ip(&format!(
        "link add vx type vxlan id {number} dstport {PORT} local {local} nolearning"
    ))?;
    host.namespace.ip(&format!("link set vx netns {}", inside.path().display()))?;
    inside.ip("address add 10.0.1.1/24 dev vx")?;
    inside.ip("link set vx address 02:00:00:00:00:01 up")?;
    let socket = inside.enter(|| UdpSocket::bind(("10.0.1.1", INNER_PORT)))?;
    Ok((socket, inside))
}

fn check(ipv6: bool) -> Result<()> {
    let underlay = Underlay::new(ipv6)?;
    let long = vec![b'x'; 3000];
    let refused = [
        (4, NETWORK),       // nobody's address
        (3, NETWORK),       // a member, of another network
        (2, OTHER_NETWORK), // likewise: the right address with the wrong VNI
        (2, EMPTY_NETWORK),
        (4, EMPTY_NETWORK),
        (2, UNKNOWN),
        (2, 4096),
    ];
    for (from, network) in refused {
        underlay.send(from, network, b"refused")?;
    }
    underlay.send(4, NETWORK, &long)?; // in fragments
    underlay.send_raw(2, b"")?;
    underlay.send_raw(2, &[8, 0, 0, 0])?; // ends before the VNI
    for (from, network) in [(2, NETWORK), (3, OTHER_NETWORK), (4, HAND_MADE)] {
        underlay.send(from, network, b"admitted")?;
        assert_eq!(underlay.arrives(network)?, b"admitted", "{network}");
    }
    underlay.send(2, NETWORK, &long)?;
    assert_eq!(underlay.arrives(NETWORK)?, long);
    assert_eq!(underlay.host.counted(REFUSED)?, refused.len() as u64 + 3);
    underlay.is_quiet()
}

#[test]
fn n08_no_entry_for_who_is_no_member_over_ipv4() -> Result<()> {
    if lab::skip() { Ok(()) } else { check(false) }
}

#[test]
fn n08_n12_no_entry_for_who_is_no_member_over_ipv6() -> Result<()> {
    if lab::skip() { Ok(()) } else { check(true) }
}

/// A member that comes and goes, as one element of many.
#[test]
fn n08_members_come_and_go() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut underlay = Underlay::new(false)?;
    let before = members(false).remove(&vni(NETWORK)).context("members")?;
    let after = BTreeSet::from([address(false, 4)]);
    let mut batch = Batch::new();
    admission::change(&mut batch, vni(NETWORK), &before, &after);
    underlay.host.nft.apply(&batch)?;
    underlay.send(2, NETWORK, b"was a member")?;
    underlay.send(4, NETWORK, b"is a member")?;
    assert_eq!(underlay.arrives(NETWORK)?, b"is a member");
    assert_eq!(underlay.host.counted(REFUSED)?, 1);

    let observed = underlay.host.nft.observe(&admission::table_id())?.context("no table")?;
    let mut expected = members(false);
    expected.insert(vni(NETWORK), after);
    assert_eq!(admission::members(&observed), expected);

    // Twice is refused whole: what is there and what is not has to be known.
    let error = underlay.host.nft.apply(&batch).expect_err("an element that is gone");
    assert!(error.to_string().contains("members4"), "{error}");
    Ok(())
}

/// On another port nothing is ours.
#[test]
fn r09_tunnels_on_other_ports_are_not_touched_and_removal_leaves_nothing() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut underlay = Underlay::new(false)?;
    let id = admission::table_id();
    let table = admission::table(4790, &members(false));
    underlay.host.put(&id, Some(&table))?;
    underlay.send(4, NETWORK, b"from anybody")?;
    assert_eq!(underlay.arrives(NETWORK)?, b"from anybody");
    assert_eq!(underlay.host.counted(REFUSED)?, 0);
    underlay.host.put(&id, None)?;
    assert_eq!(underlay.host.list()?, "");
    Ok(())
}
