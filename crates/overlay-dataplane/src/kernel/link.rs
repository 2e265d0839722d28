//! Network devices: requests about bridges, VXLAN devices and veth pairs, and what is read of them.

use core::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::{
    nl::NlmF,
    rtnl::{Iff, Ifla, IflaInfo, Rtm},
};
use overlay_types::{MacAddr, Vni};

use super::{
    netlink::{Attributes, Message, family, text},
    nft::gateway::PortMode,
};

/// `struct ifinfomsg`: family, type, index, flags, mask of flags.
const HEADER_LEN: usize = 16;
/// `RTEXT_FILTER_SKIP_STATS`: nobody reads the counters.
const SKIP_STATS: u32 = 1 << 3;
/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_PEER: u16 = 1;
/// `IFLA_TARGET_NETNSID`: the namespace to look in, by the number that the socket's has for it.
const TARGET_NETNSID: u16 = 46;
/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE`: no link-local address of its own.
const ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
/// `IFLA_INET_CONF`, and numbers of linux/ip.h in it.
const INET_CONF: u16 = 1;
const FORWARDING: u16 = 1;
const RP_FILTER: u16 = 8;
const ROUTE_LOCALNET: u16 = 26;
/// `IFLA_BR_MCAST_SNOOPING`.
const BRIDGE_SNOOPING: u16 = 23;

/// Attributes of linux/if_link.h's VXLAN devices.
mod vxlan {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const LOCAL: u16 = 4;
    pub(super) const LEARNING: u16 = 7;
    pub(super) const PROXY: u16 = 11;
    pub(super) const PORT: u16 = 15;
    pub(super) const GROUP6: u16 = 16;
    pub(super) const LOCAL6: u16 = 17;
    pub(super) const COLLECT_METADATA: u16 = 25;
}

/// Attributes of linux/if_link.h's bridge ports.
mod port {
    pub(super) const MODE: u16 = 4;
    pub(super) const LEARNING: u16 = 8;
    pub(super) const UNICAST_FLOOD: u16 = 9;
    pub(super) const MCAST_FLOOD: u16 = 27;
    pub(super) const BCAST_FLOOD: u16 = 30;
    pub(super) const NEIGH_SUPPRESS: u16 = 32;
    pub(super) const ISOLATED: u16 = 33;
    pub(super) const LOCKED: u16 = 39;
}

/// How a bridge port treats frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortFlags {
    /// Group frames go out of it.
    pub(super) floods: bool,
    /// Frames come in from Ethernet addresses only that it has an entry of.
    pub(super) locked: bool,
}

/// How a VXLAN device is made. None of it can be changed later, but by making it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vxlan {
    pub(super) vni: Vni,
    /// Source address of what it sends.
    pub(super) local: IpAddr,
    pub(super) port: u16,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    /// `None` when it differs from how this dataplane makes one.
    Vxlan(Option<Vxlan>),
    Veth,
    Other,
}

/// A device as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: Vec<u8>,
    pub(super) alias: Vec<u8>,
    pub(super) group: u32,
    pub(super) up: bool,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
    /// Bridge that it is a port of.
    pub(super) master: Option<u32>,
    /// Index of a veth's other end, and the number of that one's namespace.
    pub(super) peer: Option<u32>,
    pub(super) peer_netns: Option<u32>,
    pub(super) kind: Kind,
    /// `None` when it is no bridge port, or one that learns, floods or is isolated.
    pub(super) port: Option<PortFlags>,
    /// How it is kept apart from other ports, if it is a bridge port.
    pub(super) mode: Option<PortMode>,
    pub(super) snooping: bool,
    /// Packets for 127.0.0.0/8 may come in by it.
    pub(super) routes_loopback: bool,
}

impl Link {
    /// Reads `struct ifinfomsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let attributes = Attributes::new(rest);
        let info = attributes.nested(Ifla::Linkinfo);
        let data = info.nested(IflaInfo::Data);
        let kind = match info.get(IflaInfo::Kind).map(text) {
            Some(b"bridge") => Kind::Bridge,
            Some(b"vxlan") => Kind::Vxlan(parse_vxlan(data)),
            Some(b"veth") => Kind::Veth,
            _ => Kind::Other,
        };
        let slave = info.nested(IflaInfo::SlaveData);
        let v4 = attributes.nested(Ifla::AfSpec).nested(u16::from(family::V4));
        let bytes = |kind| attributes.get(kind).map(text).unwrap_or_default().to_vec();
        Some(Self {
            index: word(4),
            name: bytes(Ifla::Ifname),
            alias: bytes(Ifla::Ifalias),
            group: attributes.u32(Ifla::Group).unwrap_or_default(),
            up: word(8) & Iff::UP.bits() != 0,
            mac: attributes.mac(Ifla::Address).unwrap_or_default(),
            mtu: attributes.u32(Ifla::Mtu).unwrap_or_default(),
            master: attributes.u32(Ifla::Master),
            peer: attributes.u32(Ifla::Link),
            peer_netns: attributes.u32(Ifla::LinkNetnsid),
            snooping: kind == Kind::Bridge && data.u8(BRIDGE_SNOOPING) != Some(0),
            kind,
            port: parse_port(slave),
            mode: slave.u8(port::ISOLATED).map(|isolated| PortMode {
                isolated: isolated != 0,
                hairpin: slave.u8(port::MODE).is_some_and(|mode| mode != 0),
            }),
            routes_loopback: setting(v4, ROUTE_LOCALNET) == Some(1),
        })
    }
}

/// A device's setting of IPv4. The kernel lists them without their numbers, from 1 on.
fn setting(v4: Attributes<'_>, number: u16) -> Option<u32> {
    let value = v4.get(INET_CONF)?.chunks_exact(4).nth(usize::from(number) - 1)?;
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn parse_vxlan(data: Attributes<'_>) -> Option<Vxlan> {
    let on = |kind| data.u8(kind).is_some_and(|value| value != 0);
    let foreign = on(vxlan::LEARNING)
        || !on(vxlan::PROXY)
        || on(vxlan::COLLECT_METADATA)
        || data.get(vxlan::GROUP).or(data.get(vxlan::GROUP6)).is_some();
    if foreign {
        return None;
    }
    Some(Vxlan {
        vni: Vni::new(data.u32(vxlan::ID)?)?,
        local: data.ip(vxlan::LOCAL).or(data.ip(vxlan::LOCAL6))?,
        port: data.u16_be(vxlan::PORT)?,
    })
}

fn parse_port(data: Attributes<'_>) -> Option<PortFlags> {
    let on = |kind| data.u8(kind).is_some_and(|value| value != 0);
    let floods = on(port::MCAST_FLOOD);
    let foreign = [port::LEARNING, port::UNICAST_FLOOD, port::ISOLATED, port::NEIGH_SUPPRESS];
    if foreign.into_iter().any(on) || floods != on(port::BCAST_FLOOD) {
        return None;
    }
    Some(PortFlags { floods, locked: on(port::LOCKED) })
}

/// Lists the devices of the socket's namespace.
pub(super) fn list() -> Message {
    Message::new(Rtm::Getlink, NlmF::empty(), &header(0, Iff::empty()))
        .put_u32(Ifla::ExtMask, SKIP_STATS)
}

/// Asks for the device with a name.
pub(super) fn named(name: &[u8]) -> Message {
    Message::new(Rtm::Getlink, NlmF::empty(), &header(0, Iff::empty()))
        .put_text(Ifla::Ifname, name)
        .put_u32(Ifla::ExtMask, SKIP_STATS)
}

/// Asks for a device. The kernel brings what it says of the carrier up to date before it answers
/// (Linux 6.8 and later); else a bridge takes frames of a new port only once a worker has run.
pub(super) fn numbered(index: u32) -> Message {
    Message::new(Rtm::Getlink, NlmF::empty(), &header(index, Iff::empty()))
        .put_u32(Ifla::ExtMask, SKIP_STATS)
}

/// Asks for a device of another namespace.
pub(super) fn elsewhere(netns: u32, index: u32) -> Message {
    Message::new(Rtm::Getlink, NlmF::empty(), &header(index, Iff::empty()))
        .put_u32(TARGET_NETNSID, netns)
        .put_u32(Ifla::ExtMask, SKIP_STATS)
}

/// Makes a bridge that floods groups instead of tracking who listens to them.
pub(super) fn new_bridge(name: &[u8]) -> Message {
    create(name).nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::Kind, b"bridge")
            .nest(IflaInfo::Data, |data| data.put_u8(BRIDGE_SNOOPING, 0))
    })
}

/// Turns off what a bridge would learn about groups.
pub(super) fn set_bridge(index: u32) -> Message {
    set(index).nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::Kind, b"bridge")
            .nest(IflaInfo::Data, |data| data.put_u8(BRIDGE_SNOOPING, 0))
    })
}

/// Makes a VXLAN device in the namespace `netns`. Its underlay is that of the socket.
pub(super) fn new_vxlan(name: &[u8], mtu: u16, config: Vxlan, netns: BorrowedFd<'_>) -> Message {
    let local = if config.local.is_ipv4() { vxlan::LOCAL } else { vxlan::LOCAL6 };
    create(name)
        .put_u32(Ifla::Mtu, mtu.into())
        .put_u32(Ifla::NetNsFd, netns.as_raw_fd().cast_unsigned())
        .nest(Ifla::Linkinfo, |info| {
            info.put(IflaInfo::Kind, b"vxlan").nest(IflaInfo::Data, |data| {
                data.put_u32(vxlan::ID, config.vni.get())
                    .put_ip(local, config.local)
                    .put_u8(vxlan::LEARNING, 0)
                    .put_u8(vxlan::PROXY, 1)
                    .put(vxlan::PORT, &config.port.to_be_bytes())
            })
        })
}

/// One end of a veth pair that is to be made in another namespace.
pub(super) struct Peer<'a> {
    pub(super) name: &'a [u8],
    pub(super) mac: MacAddr,
    pub(super) netns: BorrowedFd<'a>,
}

/// Makes a veth pair, both ends with all they need to have from the start.
pub(super) fn new_veth(name: &[u8], group: u32, mtu: u16, peer: &Peer<'_>) -> Message {
    create(name).put_u32(Ifla::Mtu, mtu.into()).put_u32(Ifla::Group, group).nest(
        Ifla::Linkinfo,
        |info| {
            info.put(IflaInfo::Kind, b"veth").nest(IflaInfo::Data, |data| {
                data.nest(VETH_PEER, |end| {
                    end.append(&header(0, Iff::empty()))
                        .put_text(Ifla::Ifname, peer.name)
                        .put(Ifla::Address, &peer.mac.0)
                        .put_u32(Ifla::Mtu, mtu.into())
                        .put_u32(Ifla::NetNsFd, peer.netns.as_raw_fd().cast_unsigned())
                })
            })
        },
    )
}

/// Changes a device; what is put to it is what changes.
pub(super) fn set(index: u32) -> Message {
    Message::new(Rtm::Newlink, NlmF::empty(), &header(index, Iff::empty()))
}

/// Brings a device up; what is put to it changes too.
pub(super) fn set_up(index: u32) -> Message {
    Message::new(Rtm::Newlink, NlmF::empty(), &header(index, Iff::UP))
}

/// How a bridge port treats frames. It never learns, and never floods what it does not know.
pub(super) fn set_port(index: u32, flags: PortFlags) -> Message {
    set(index).nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::SlaveKind, b"bridge").nest(IflaInfo::SlaveData, |data| {
            data.put_u8(port::LEARNING, 0)
                .put_u8(port::UNICAST_FLOOD, 0)
                .put_u8(port::MCAST_FLOOD, flags.floods.into())
                .put_u8(port::BCAST_FLOOD, flags.floods.into())
                .put_u8(port::NEIGH_SUPPRESS, 0)
                .put_u8(port::ISOLATED, 0)
                .put_u8(port::LOCKED, flags.locked.into())
        })
    })
}

/// How a bridge port is kept apart from others.
pub(super) fn set_port_mode(index: u32, mode: PortMode) -> Message {
    set(index).nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::SlaveKind, b"bridge").nest(IflaInfo::SlaveData, |data| {
            data.put_u8(port::ISOLATED, mode.isolated.into())
                .put_u8(port::MODE, mode.hairpin.into())
        })
    })
}

/// Packets for 127.0.0.0/8 may come in by the device, and answers to them go out.
pub(super) fn route_loopback(message: Message) -> Message {
    message.nest(Ifla::AfSpec, |families| {
        families.nest(u16::from(family::V4), |v4| {
            v4.nest(INET_CONF, |conf| conf.put_u32(ROUTE_LOCALNET, 1))
        })
    })
}

/// Packets that reach the device's namespace go no further.
pub(super) fn unrouted(message: Message) -> Message {
    message.nest(Ifla::AfSpec, |families| {
        families.nest(u16::from(family::V4), |v4| {
            v4.nest(INET_CONF, |conf| conf.put_u32(FORWARDING, 0))
        })
    })
}

/// No IPv6 address of the device's own, so that it says nothing unasked. Refused where the device
/// has no IPv6.
pub(super) fn silence(index: u32) -> Message {
    set(index).nest(Ifla::AfSpec, |families| {
        families.nest(u16::from(family::V6), |v6| v6.put_u8(ADDR_GEN_MODE, ADDR_GEN_NONE))
    })
}

/// Takes packets whose answer leaves by another device: endpoints are on several networks.
pub(super) fn loose_source(message: Message) -> Message {
    message.nest(Ifla::AfSpec, |families| {
        families
            .nest(u16::from(family::V4), |v4| v4.nest(INET_CONF, |conf| conf.put_u32(RP_FILTER, 2)))
    })
}

/// Removes a device, and a veth's other end with it.
pub(super) fn remove(index: u32) -> Message {
    Message::new(Rtm::Dellink, NlmF::empty(), &header(index, Iff::empty()))
}

/// Removes the device with a name.
pub(super) fn remove_named(name: &[u8]) -> Message {
    remove(0).put_text(Ifla::Ifname, name)
}

/// Removes all devices of a group at once, which takes as long as removing one.
pub(super) fn remove_group(group: u32) -> Message {
    remove(0).put_u32(Ifla::Group, group)
}

fn create(name: &[u8]) -> Message {
    let flags = NlmF::CREATE | NlmF::EXCL;
    Message::new(Rtm::Newlink, flags, &header(0, Iff::empty())).put_text(Ifla::Ifname, name)
}

fn header(index: u32, flags: Iff) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    // The mask is of what is set: nothing is ever taken down.
    header[8..12].copy_from_slice(&flags.bits().to_ne_bytes());
    header[12..16].copy_from_slice(&flags.bits().to_ne_bytes());
    header
}
