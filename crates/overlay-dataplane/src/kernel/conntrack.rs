//! Connections that the kernel tracks: the ones that are to end, ended.

use core::net::IpAddr;

use neli::consts::nl::NlmF;
use nix::{errno::Errno, sys::socket::AddressFamily};

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
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`, `CTA_FILTER`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// `CTA_FILTER_ORIG_FLAGS`, and the flag in it that has the destination compared.
const FILTER_ORIGINAL: u16 = 1;
const BY_DESTINATION: u32 = 1 << 1;
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

/// Most addresses that connections are asked for one by one: each time the kernel goes through all.
const SELECTIONS: usize = 8;

/// A connection, by what its first packet was sent to and what answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    pub(super) to: (IpAddr, u16),
    pub(super) from: (IpAddr, u16),
}

/// Ends the connections of a namespace that `is_over` says so of. Returns how many that were. `to` is where
/// these were sent to, if that is known: to list a connection costs far more than to go past it.
pub(super) fn end(
    socket: &RouteSocket,
    to: Option<&[IpAddr]>,
    is_over: impl Fn(&Flow) -> bool,
) -> Result<usize, Refusal> {
    // To list none the kernel goes through those of all namespaces, which takes milliseconds.
    if count(socket)? == Some(0) {
        return Ok(0);
    }
    let lists = match to {
        Some(to) if to.len() <= SELECTIONS => lists_to(to),
        _ => vec![list(AddressFamily::Unspec)],
    };
    let mut over = Vec::new();
    for list in lists {
        over.extend(socket.dump(list, |payload| removal(payload, &is_over))?);
    }
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

/// Lists connections of a version of IP, or all.
fn list(family: AddressFamily) -> Message {
    let mut generic = GENERIC;
    generic[0] = family as u8;
    Message::new(GET, NlmF::empty(), &generic)
}

/// Lists connections that were sent to these addresses, and all of IPv6 if one of them is: of those the kernel
/// lists, to this day, the ones that were not sent to the address that it is given. Before 5.8 it lists all.
fn lists_to(to: &[IpAddr]) -> Vec<Message> {
    let mut lists: Vec<_> = to.iter().filter(|a| a.is_ipv4()).map(|a| list_to(*a)).collect();
    lists.extend(to.iter().any(IpAddr::is_ipv6).then(|| list(AddressFamily::Inet6)));
    lists
}

fn list_to(address: IpAddr) -> Message {
    list(AddressFamily::Inet)
        .nest(ORIGINAL, |tuple| tuple.nest(IP, |ip| ip.put_ip(V4_DESTINATION, address)))
        .nest(FILTER, |filter| filter.put_u32(FILTER_ORIGINAL, BY_DESTINATION))
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
    // By its answers: as soon as it was listed, another one may have begun with the same questions, which goes
    // elsewhere. Numbers do not tell them apart where the kernel keeps the one where it kept the other.
    let reply = attributes.get(REPLY)?;
    let mut message =
        Message::new(DELETE, NlmF::empty(), generic).nest(REPLY, |tuple| tuple.append(reply));
    for kind in [ID, ZONE] {
        if let Some(value) = attributes.get(kind) {
            message = message.put(kind, value);
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use core::{cell::OnceCell, net::SocketAddr, time::Duration};
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use overlay_testkit::{
        lab::{self, Namespace},
        traffic::listen,
    };
    use socket2::{Domain, Socket, Type};

    use super::*;

    const PORT: u16 = 80;
    /// Longest wait for an octet.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// An address that leads to the first or the second server, all in one namespace.
    struct Ring {
        netns: Namespace,
        servers: [(IpAddr, TcpListener); 2],
        client: SocketAddr,
        target: SocketAddr,
    }

    impl Ring {
        fn new(ipv6: bool) -> Self {
            let netns = Namespace::new().unwrap();
            netns.ip("link set lo up").unwrap();
            let ip = |number: u16| -> IpAddr {
                if ipv6 {
                    [0xfd00, 0, 0, 0, 0, 0, 0, number].into()
                } else {
                    [127, 0, 1, number as u8].into()
                }
            };
            if ipv6 {
                for number in [1, 2, 3, 9] {
                    netns.ip(&format!("address add {}/128 dev lo nodad", ip(number))).unwrap();
                }
            }
            let servers =
                [2, 3].map(|number| (ip(number), listen(&netns, ip(number), PORT).unwrap()));
            let (client, target) = (ip(1), SocketAddr::new(ip(9), PORT));
            Self { netns, servers, client: SocketAddr::new(client, 40_000), target }
        }

        /// Has new connections go to a server.
        fn lead_to(&self, server: usize) {
            let ip = if self.target.is_ipv6() { "ip6" } else { "ip" };
            let rules = format!(
                "table {ip} lead {{}}; delete table {ip} lead; table {ip} lead {{ chain output {{ \
                 type nat hook output priority -100; {ip} daddr {} dnat to {}; }}; }}",
                self.target.ip(),
                self.servers[server].0,
            );
            self.netns.run(&["nft", &rules]).unwrap();
        }

        /// Both ends of a connection, always from the same port.
        fn connect(&self, server: usize) -> (TcpStream, TcpStream) {
            let near = self.netns.enter(|| {
                let kind = Domain::for_address(self.target);
                let near = Socket::new(kind, Type::STREAM, None).unwrap();
                near.set_reuse_address(true).unwrap();
                near.bind(&self.client.into()).unwrap();
                near.connect(&self.target.into()).unwrap();
                TcpStream::from(near)
            });
            (near, self.servers[server].1.accept().unwrap().0)
        }
    }

    #[test]
    fn s01_connections_to_an_address_are_listed_without_the_others() {
        if !lab::skip() {
            lab::isolated(|| [false, true].map(list_some));
        }
    }

    fn list_some(ipv6: bool) {
        let ring = Ring::new(ipv6);
        ring.lead_to(0);
        let _connected = ring.connect(0);
        let socket = ring.netns.enter(RouteSocket::open_netfilter).unwrap();
        let listed = |to: IpAddr| {
            let lists = lists_to(&[to]).into_iter();
            let dumps = lists.map(|list| socket.dump(list, |octets| Some(octets.len())).unwrap());
            dumps.flatten().count()
        };
        assert_eq!(listed(ring.target.ip()), 1);
        assert_eq!(listed(ring.servers[0].0), usize::from(ipv6));
        assert_eq!(listed(if ipv6 { [127, 0, 1, 9].into() } else { [0; 16].into() }), 0);
    }

    /// What has come since, from the same port to the same address, is another connection: and the kernel,
    /// which puts it where the one before was in its memory, gives it the same number.
    #[test]
    fn s01_a_connection_that_takes_the_place_of_one_that_is_over_lives() {
        if !lab::skip() {
            lab::isolated(|| [false, true].map(replace_one_that_is_over));
        }
    }

    fn replace_one_that_is_over(ipv6: bool) {
        let ring = Ring::new(ipv6);
        ring.lead_to(0);
        let (mut near, far) = ring.connect(0);
        drop(far);
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        drop(near);
        ring.lead_to(1);
        let socket = ring.netns.enter(RouteSocket::open_netfilter).unwrap();
        let next = OnceCell::new();
        let ended = end(&socket, None, |flow| {
            let is_over = flow.from == (ring.servers[0].0, PORT);
            if is_over {
                next.get_or_init(|| ring.connect(1));
            }
            is_over
        });
        assert_eq!(ended.unwrap(), 1);
        let (mut near, mut far) = next.into_inner().expect("the first one was listed");
        far.write_all(b"?").unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        near.read_exact(&mut [0]).expect("the next one goes on");
    }
}
