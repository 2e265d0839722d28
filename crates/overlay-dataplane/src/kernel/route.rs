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
