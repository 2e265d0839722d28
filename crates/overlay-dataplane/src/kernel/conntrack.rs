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

/// Ends the connections of a namespace that `is_over` says so of: by the address that the first
/// packet was sent to, and the one that answers. Returns how many that were.
pub(super) fn end(
    socket: &RouteSocket,
    is_over: impl Fn(IpAddr, IpAddr) -> bool,
) -> Result<usize, Refusal> {
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
fn removal(payload: &[u8], is_over: impl Fn(IpAddr, IpAddr) -> bool) -> Option<Message> {
    let (generic, rest) = payload.split_first_chunk::<{ GENERIC.len() }>()?;
    let attributes = Attributes::new(rest);
    let asked = attributes.nested(ORIGINAL).nested(IP);
    let answered = attributes.nested(REPLY).nested(IP);
    let to = asked.ip(V4_DESTINATION).or_else(|| asked.ip(V6_DESTINATION))?;
    let from = answered.ip(V4_SOURCE).or_else(|| answered.ip(V6_SOURCE))?;
    if !is_over(to, from) {
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
