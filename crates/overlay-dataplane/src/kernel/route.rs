//! Routes, of a host and in an endpoint's namespace.

use core::net::IpAddr;

use ipnet::IpNet;
use neli::consts::{
    nl::NlmF,
    rtnl::{RtScope, RtTable, Rta, Rtm, Rtn, Rtprot},
};
use overlay_types::Subnet;

use super::netlink::{Attributes, Message, family};

/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type,
/// flags.
const HEADER_LEN: usize = 12;
/// The main table.
pub(super) const MAIN: u32 = 254;
/// `RTNH_F_ONLINK`.
const ON_LINK: u32 = 4;

/// Where packets for a subnet go: a unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) subnet: Subnet,
    /// Device that they leave by, if it is one.
    pub(super) link: Option<u32>,
}

impl Route {
    /// Reads `struct rtmsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let attributes = Attributes::new(rest);
        let is_main = header[4] == u8::from(RtTable::Main);
        if !is_main || header[7] != u8::from(Rtn::Unicast) {
            return None;
        }
        let any: IpAddr = match header[0] {
            family::V4 => [0; 4].into(),
            family::V6 => [0; 16].into(),
            _ => return None,
        };
        let net = IpNet::new(attributes.ip(Rta::Dst).unwrap_or(any), header[1]).ok()?;
        Some(Self { subnet: Subnet::containing(net), link: attributes.u32(Rta::Oif) })
    }

    /// Whether it is where everything goes that has no route of its own.
    pub(super) fn is_default(self) -> bool {
        self.subnet.prefix_len() == 0
    }
}

/// Lists the routes of the socket's namespace, of both families.
pub(super) fn list() -> [Message; 2] {
    [family::V4, family::V6].map(|family| {
        let mut header = [0; HEADER_LEN];
        header[0] = family;
        Message::new(Rtm::Getroute, NlmF::empty(), &header)
    })
}

/// Has what has no route of its own leave by a device, through a gateway there. Refused where such a
/// route is already.
pub(super) fn add_default(link: u32, gateway: IpAddr) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = family::of(gateway);
    header[4] = RtTable::Main.into();
    header[5] = Rtprot::Static.into();
    header[6] = RtScope::Universe.into();
    header[7] = Rtn::Unicast.into();
    Message::new(Rtm::Newroute, NlmF::CREATE | NlmF::EXCL, &header)
        .put_ip(Rta::Gateway, gateway)
        .put_u32(Rta::Oif, link)
}

/// Metric of a route that counts only where there is no other.
const LAST: u32 = u32::MAX - 1;

/// Has packets for `subnet` go nowhere, and their senders told so, where no other route leads there.
pub(super) fn put_barrier(subnet: Subnet) -> Message {
    barrier(Rtm::Newroute, NlmF::CREATE | NlmF::EXCL, subnet)
}

/// Has that no more.
pub(super) fn remove_barrier(subnet: Subnet) -> Message {
    barrier(Rtm::Delroute, NlmF::empty(), subnet)
}

fn barrier(kind: Rtm, flags: NlmF, subnet: Subnet) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = family::of(subnet.first());
    header[1] = subnet.prefix_len();
    header[4] = RtTable::Main.into();
    header[5] = Rtprot::Static.into();
    header[6] = RtScope::Universe.into();
    header[7] = Rtn::Unreachable.into();
    Message::new(kind, flags, &header).put_ip(Rta::Dst, subnet.first()).put_u32(Rta::Priority, LAST)
}

/// Reads what [`put_barrier`] made.
pub(super) fn read_barrier(payload: &[u8]) -> Option<Subnet> {
    let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    let attributes = Attributes::new(rest);
    let is_ours = header[4] == u8::from(RtTable::Main)
        && header[7] == u8::from(Rtn::Unreachable)
        && attributes.u32(Rta::Priority) == Some(LAST);
    let net = IpNet::new(attributes.ip(Rta::Dst).filter(|_| is_ours)?, header[1]).ok()?;
    Some(Subnet::containing(net))
}

/// Has packets for `subnet` leave by a device, from `source`, without a gateway between.
pub(super) fn put_direct(link: u32, subnet: Subnet, source: IpAddr) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = family::of(source);
    header[1] = subnet.prefix_len();
    header[4] = RtTable::Main.into();
    header[5] = Rtprot::Static.into();
    header[6] = RtScope::Link.into();
    header[7] = Rtn::Unicast.into();
    Message::new(Rtm::Newroute, NlmF::CREATE | NlmF::REPLACE, &header)
        .put_ip(Rta::Dst, subnet.first())
        .put_u32(Rta::Oif, link)
        .put_ip(Rta::Prefsrc, source)
}

/// A route to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewRoute {
    pub(super) subnet: Subnet,
    /// Number of the table that it is in.
    pub(super) table: u32,
    pub(super) link: u32,
    /// Where it leads next. It is on the link, whatever the addresses of this say.
    pub(super) gateway: Option<IpAddr>,
    /// Source address of what leaves by it and has none.
    pub(super) source: Option<IpAddr>,
}

impl NewRoute {
    /// Has the route, in the place of another one for the subnet.
    pub(super) fn put(self) -> Message {
        self.message(Rtm::Newroute, NlmF::CREATE | NlmF::REPLACE)
    }

    /// Has the route no more, whatever its source.
    pub(super) fn remove(self) -> Message {
        Self { source: None, ..self }.message(Rtm::Delroute, NlmF::empty())
    }

    fn message(self, kind: Rtm, flags: NlmF) -> Message {
        let mut header = [0; HEADER_LEN];
        header[0] = family::of(self.subnet.first());
        header[1] = self.subnet.prefix_len();
        header[4] = RtTable::Unspec.into();
        header[5] = Rtprot::Static.into();
        header[6] = if self.gateway.is_some() { RtScope::Universe } else { RtScope::Link }.into();
        header[7] = Rtn::Unicast.into();
        if self.gateway.is_some() {
            header[8..].copy_from_slice(&ON_LINK.to_ne_bytes());
        }
        let mut message = Message::new(kind, flags, &header)
            .put_u32(Rta::Table, self.table)
            .put_u32(Rta::Oif, self.link);
        if self.subnet.prefix_len() > 0 {
            message = message.put_ip(Rta::Dst, self.subnet.first());
        }
        for (kind, address) in [(Rta::Gateway, self.gateway), (Rta::Prefsrc, self.source)] {
            if let Some(address) = address {
                message = message.put_ip(kind, address);
            }
        }
        message
    }
}

/// The way that a packet takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) link: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
}

impl Way {
    /// Reads `struct rtmsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let attributes = Attributes::new(payload.get(HEADER_LEN..)?);
        Some(Self { link: attributes.u32(Rta::Oif), gateway: attributes.ip(Rta::Gateway) })
    }
}

/// Asks for the way that packets with this mark take to an address.
pub(super) fn toward(address: IpAddr, mark: u32) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = family::of(address);
    header[1] = if address.is_ipv4() { 32 } else { 128 };
    let message = Message::new(Rtm::Getroute, NlmF::empty(), &header).put_ip(Rta::Dst, address);
    if mark == 0 { message } else { message.put_u32(Rta::Mark, mark) }
}
