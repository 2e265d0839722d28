//! Neighbour and forwarding entries: who has an address, and which node an Ethernet address is on.

use core::net::{IpAddr, Ipv4Addr};

use neli::consts::{
    nl::NlmF,
    rtnl::{Nda, Ntf, Nud, Rtm},
};
use overlay_types::MacAddr;

use super::netlink::{Attributes, Message, family};

/// `struct ndmsg`: family, padding, index, state, flags, type.
const HEADER_LEN: usize = 12;
/// The address that frames without an entry go to: all members of a network that floods.
const EVERYONE: MacAddr = MacAddr([0; 6]);

/// An entry as the kernel shows it. Those that it makes for itself, or learned, are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Device that it is an entry of.
    pub(super) link: u32,
    pub(super) content: Content,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The address is at this Ethernet address.
    Neighbor(IpAddr, MacAddr),
    /// The bridge sends frames for the Ethernet address to the device.
    Bridge(MacAddr),
    /// The VXLAN device sends them to this node.
    Tunnel(MacAddr, IpAddr),
    /// The VXLAN device sends group frames to this node, too.
    Flood(IpAddr),
}

impl Entry {
    /// Reads `struct ndmsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let link = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let state = Nud::from_bits_retain(u16::from_ne_bytes([header[8], header[9]]));
        let flags = Ntf::from_bits_retain(header[10]);
        let attributes = Attributes::new(rest);
        let (address, mac) = (attributes.ip(Nda::Dst), attributes.mac(Nda::Lladdr));
        let content = if header[0] != family::BRIDGE {
            if !state.contains(Nud::PERMANENT) || flags.contains(Ntf::PROXY) {
                return None;
            }
            // Without an Ethernet address: one of the kernel's own for groups.
            Content::Neighbor(address?, mac?)
        } else if attributes.get(Nda::Master).is_some() {
            // A permanent one of a bridge is the kernel's own: for a port's address.
            if !state.contains(Nud::NOARP) || state.contains(Nud::PERMANENT) {
                return None;
            }
            Content::Bridge(mac?)
        } else {
            // To another port, VNI or device than the device's own: not what is written here.
            let foreign = [Nda::Port, Nda::Vni, Nda::Ifindex];
            let foreign = foreign.into_iter().any(|kind| attributes.get(kind).is_some());
            let node = if foreign { Ipv4Addr::UNSPECIFIED.into() } else { address? };
            match mac? {
                EVERYONE => Content::Flood(node),
                mac => Content::Tunnel(mac, node),
            }
        };
        Some(Self { link, content })
    }

    /// Has the entry, in the place of another one for the same address.
    pub(super) fn put(self) -> Message {
        let flags = match self.content {
            Content::Flood(_) => NlmF::CREATE | NlmF::APPEND,
            _ => NlmF::CREATE | NlmF::REPLACE,
        };
        self.message(Rtm::Newneigh, flags)
    }

    /// Has the entry no more.
    pub(super) fn remove(self) -> Message {
        self.message(Rtm::Delneigh, NlmF::empty())
    }

    fn message(self, kind: Rtm, flags: NlmF) -> Message {
        let (family, flag) = match self.content {
            Content::Neighbor(address, _) => (family::of(address), Ntf::empty()),
            Content::Bridge(_) => (family::BRIDGE, Ntf::MASTER),
            Content::Tunnel(..) | Content::Flood(_) => (family::BRIDGE, Ntf::SELF),
        };
        // A permanent entry of a bridge would mean the bridge itself.
        let state = match self.content {
            Content::Bridge(_) => Nud::NOARP,
            _ => Nud::PERMANENT,
        };
        let message = Message::new(kind, flags, &header(family, self.link, state, flag));
        match self.content {
            Content::Neighbor(address, mac) => {
                message.put_ip(Nda::Dst, address).put(Nda::Lladdr, &mac.0)
            }
            // Wherever it leads.
            Content::Tunnel(mac, node) if node.is_unspecified() => message.put(Nda::Lladdr, &mac.0),
            Content::Bridge(mac) => message.put(Nda::Lladdr, &mac.0),
            Content::Tunnel(mac, node) => message.put(Nda::Lladdr, &mac.0).put_ip(Nda::Dst, node),
            Content::Flood(node) => message.put(Nda::Lladdr, &EVERYONE.0).put_ip(Nda::Dst, node),
        }
    }
}

/// A neighbour that answered once: the device that it is behind, and its address.
pub(super) fn known(payload: &[u8]) -> Option<(u32, IpAddr)> {
    let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    let link = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let state = Nud::from_bits_retain(u16::from_ne_bytes([header[8], header[9]]));
    let attributes = Attributes::new(rest);
    let absent = state.intersects(Nud::FAILED | Nud::INCOMPLETE | Nud::NOARP);
    let (address, _) = (attributes.ip(Nda::Dst)?, attributes.mac(Nda::Lladdr)?);
    (!absent).then_some((link, address))
}

/// Lists the forwarding entries of the bridges and VXLAN devices of a namespace.
pub(super) fn list_forwarding() -> Message {
    list(family::BRIDGE)
}

/// Lists the neighbour entries of a namespace, of both families.
pub(super) fn list_neighbors() -> [Message; 2] {
    [list(family::V4), list(family::V6)]
}

fn list(family: u8) -> Message {
    let header = header(family, 0, Nud::empty(), Ntf::empty());
    Message::new(Rtm::Getneigh, NlmF::empty(), &header)
}

fn header(family: u8, link: u32, state: Nud, flags: Ntf) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&state.bits().to_ne_bytes());
    header[10] = flags.bits();
    header
}
