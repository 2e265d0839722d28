//! Addresses of network devices.

use core::net::IpAddr;

use ipnet::IpNet;
use neli::consts::{
    nl::NlmF,
    rtnl::{Ifa, IfaF, Rtm},
};

use super::netlink::{Attributes, Message, family};

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const HEADER_LEN: usize = 8;
/// `IFA_TARGET_NETNSID`.
const TARGET_NETNSID: u16 = 10;

/// An address of a device, with the length of its subnet's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) link: u32,
    pub(super) net: IpNet,
}

impl Assigned {
    /// Reads `struct ifaddrmsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let attributes = Attributes::new(rest);
        // IPv6 has the second only.
        let address = attributes.ip(Ifa::Local).or(attributes.ip(Ifa::Address))?;
        let link = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        Some(Self { link, net: IpNet::new(address, header[1]).ok()? })
    }

    /// Whether it is one that the kernel makes for itself.
    pub(super) fn is_link_local(self) -> bool {
        matches!(self.net.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
    }

    /// Has the address. No duplicate is looked for: it is allocated, and whoever answers for
    /// it in this network answers for its owner.
    pub(super) fn put(self) -> Message {
        let message = self.message(Rtm::Newaddr, NlmF::CREATE | NlmF::REPLACE, IfaF::NODAD);
        match self.net {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.put(Ifa::Broadcast, &net.broadcast().octets())
            }
            _ => message,
        }
    }

    /// Has the address no more.
    pub(super) fn remove(self) -> Message {
        self.message(Rtm::Deladdr, NlmF::empty(), IfaF::empty())
    }

    fn message(self, kind: Rtm, flags: NlmF, address_flags: IfaF) -> Message {
        let mut header = header(family::of(self.net.addr()), self.link);
        header[1] = self.net.prefix_len();
        header[2] = address_flags.bits();
        Message::new(kind, flags, &header)
            .put_ip(Ifa::Local, self.net.addr())
            .put_ip(Ifa::Address, self.net.addr())
    }
}

/// Lists the addresses of the socket's namespace.
pub(super) fn list() -> Message {
    Message::new(Rtm::Getaddr, NlmF::empty(), &header(family::UNSPECIFIED, 0))
}

/// Lists the addresses of a device of another namespace, of both families.
pub(super) fn elsewhere(netns: u32, link: u32) -> [Message; 2] {
    [family::V4, family::V6].map(|family| {
        Message::new(Rtm::Getaddr, NlmF::empty(), &header(family, link))
            .put_u32(TARGET_NETNSID, netns)
    })
}

fn header(family: u8, link: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header
}
