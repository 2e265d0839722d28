//! Routes in an endpoint's namespace.

use core::net::IpAddr;

use neli::consts::{
    nl::NlmF,
    rtnl::{RtScope, RtTable, Rta, Rtm, Rtn, Rtprot},
};
use overlay_types::Subnet;

use super::netlink::{Message, family};

/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type,
/// flags.
const HEADER_LEN: usize = 12;

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
