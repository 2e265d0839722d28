//! Connections that the kernel tracks: the ones that are to end, ended.

use core::net::IpAddr;

use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::netlink::{Attributes, Message, Refusal, RouteSocket};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` and
/// `IPCTNL_MSG_CT_GET_STATS`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const COUNT: u16 = 1 << 8 | 5;
/// `CTA_STATS_GLOBAL_ENTRIES`.
const ENTRIES: u16 = 1;
/// `struct nfgenmsg`: family, version, resource. All families.
const GENERIC: [u8; 4] = [0; 4];
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP`, and addresses in it.
const IP: u16 = 1;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
/// `CTA_TUPLE_PROTO`, and what is in it.
const PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// A connection, by what its first packet was sent to and what answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    pub(super) to: (IpAddr, u16),
    pub(super) from: (IpAddr, u16),
}

/// Ends the connections of a namespace that `is_over` says so of. Returns how many that were.
pub(super) fn end(socket: &RouteSocket, is_over: impl Fn(&Flow) -> bool) -> Result<usize, Refusal> {
    // To list none the kernel goes through those of all namespaces, which takes milliseconds.
    if count(socket)? == Some(0) {
        return Ok(0);
    }
    let list = Message::new(GET, NlmF::empty(), &GENERIC);
    let over = socket.dump(list, |payload| removal(payload, &is_over))?;
    let count = over.len();
    for ended in socket.batch(over) {
        match ended {
            // It ended by itself.
            Err(Refusal { errno: Errno::ENOENT, .. }) => {}
            ended => ended?,
        }
    }
    Ok(count)
}

/// How many connections the namespace has, if the kernel says.
fn count(socket: &RouteSocket) -> Result<Option<u32>, Refusal> {
    let count = Message::new(COUNT, NlmF::empty(), &GENERIC);
    socket.get(count, |payload| {
        let entries = Attributes::new(payload.get(GENERIC.len()..)?).get(ENTRIES)?;
        Some(u32::from_be_bytes(entries.try_into().ok()?))
    })
}

/// The request that ends a connection that is over.
fn removal(payload: &[u8], is_over: impl Fn(&Flow) -> bool) -> Option<Message> {
    let (generic, rest) = payload.split_first_chunk::<{ GENERIC.len() }>()?;
    let attributes = Attributes::new(rest);
    let (asked, answered) = (attributes.nested(ORIGINAL), attributes.nested(REPLY));
    let (asked_ip, answered_ip) = (asked.nested(IP), answered.nested(IP));
    let to = asked_ip.ip(V4_DESTINATION).or_else(|| asked_ip.ip(V6_DESTINATION))?;
    let from = answered_ip.ip(V4_SOURCE).or_else(|| answered_ip.ip(V6_SOURCE))?;
    // Protocols without ports have none here.
    let port = |tuple: Attributes<'_>, kind| tuple.nested(PROTO).u16_be(kind).unwrap_or(0);
    let flow = Flow {
        protocol: asked.nested(PROTO).u8(PROTO_NUMBER).unwrap_or(0),
        to: (to, port(asked, DESTINATION_PORT)),
        from: (from, port(answered, SOURCE_PORT)),
    };
    if !is_over(&flow) {
        return None;
    }
    let original = attributes.get(ORIGINAL)?;
    let mut message =
        Message::new(DELETE, NlmF::empty(), generic).nest(ORIGINAL, |tuple| tuple.append(original));
    for kind in [ID, ZONE] {
        if let Some(value) = attributes.get(kind) {
            message = message.put(kind, value);
        }
    }
    Some(message)
}
