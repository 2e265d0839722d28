//! Endpoints that are drained: how many connections they still have, for whoever detaches them after the
//! last one.

#![expect(clippy::disallowed_methods, reason = "the shell that looks again and again for a while")]

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use std::{collections::BTreeSet, fs, io, path::PathBuf, time::Instant};

use overlay_api::v1::{self, endpoints_client::EndpointsClient};
use overlay_dataplane::kernel::NetNs;
use overlay_types::{Endpoint, SpecError};

use crate::{
    NodeError, NodeHandle,
    member::Member,
    ports::{Interface, Port},
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long there have to be no connections: other nodes hear of the drain within milliseconds, and what
/// they have sent by then has arrived.
const QUIET: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// Tables of TCP sockets of the namespace that the thread is in (`proc_pid_net(5)`).
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// States of a connection that somebody still uses: established, half open, half closed (`TCP_ESTABLISHED`
/// and others of linux/tcp_states.h).
const IN_USE: [u8; 6] = [0x01, 0x03, 0x04, 0x08, 0x09, 0x0b];
const LISTEN: u8 = 0x0a;

impl NodeHandle {
    /// Says whether an endpoint takes new flows. With a time to wait, one of this node that is drained:
    /// until nobody has a connection to it.
    pub async fn set_readiness(
        &self,
        mut request: v1::SetReadinessRequest,
    ) -> Result<v1::SetReadinessResponse, NodeError> {
        let member = self.member()?;
        let mut client = EndpointsClient::new(member.managers.channel().await?);
        let wait = core::mem::take(&mut request.wait_ms);
        if wait == 0 {
            return Ok(client.set_readiness(request).await?.into_inner());
        }
        let look = v1::GetEndpointRequest { endpoint: request.endpoint.clone(), consistency: None };
        let found = client.get_endpoint(look).await?.into_inner().endpoint.unwrap_or_default();
        request.endpoint.clone_from(&found.id);
        let sockets = Sockets::of(&member, wait, request.readiness(), found)?;
        let mut answer = client.set_readiness(request).await?.into_inner();
        answer.connections = sockets.end_within(Duration::from_millis(wait)).await?;
        Ok(answer)
    }
}

fn refuse(wait: u64, reason: &'static str) -> NodeError {
    overlay_api::status::invalid(&SpecError::new("wait", format!("{wait}ms"), reason)).into()
}

/// The sockets of an endpoint, as far as others connect to them.
struct Sockets {
    netns: PathBuf,
    addresses: Vec<IpAddr>,
    /// Ports that a program has listened on since the first look.
    ports: BTreeSet<u16>,
}

impl Sockets {
    fn of(
        member: &Member,
        wait: u64,
        to: v1::Readiness,
        endpoint: v1::Endpoint,
    ) -> Result<Self, NodeError> {
        if to != v1::Readiness::Draining {
            return Err(refuse(wait, "only who drains an endpoint waits"));
        }
        if wait > LONGEST_WAIT_MS {
            return Err(refuse(wait, "expected 1h at most"));
        }
        let endpoint =
            Endpoint::try_from(endpoint).map_err(|e| overlay_api::status::invalid(&e))?;
        let port = member.shared.ports.all().remove(&endpoint.id);
        let Some(Port::Interface(Interface { netns: Some(netns), .. })) =
            port.filter(|_| endpoint.node == member.identity().node)
        else {
            let reason = "the node of the endpoint sees its connections, if it has a network \
                          namespace of its own; ask that node";
            return Err(refuse(wait, reason));
        };
        let addresses = endpoint.addresses.iter().collect();
        Ok(Self { netns, addresses, ports: BTreeSet::new() })
    }

    /// Looks until there was none for a while. How many there are at the end.
    async fn end_within(mut self, patience: Duration) -> Result<u32, NodeError> {
        let start = Instant::now();
        let mut quiet_since = start;
        loop {
            let counted;
            (self, counted) = self.look().await.map_err(|source| {
                let path = TABLES[0].into();
                NodeError::File { path, source }
            })?;
            let now = Instant::now();
            if counted > 0 {
                quiet_since = now;
            }
            if now - quiet_since >= QUIET || now - start >= patience {
                return Ok(counted);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(mut self) -> io::Result<(Self, u32)> {
        let looked = tokio::task::spawn_blocking(move || {
            let netns = match NetNs::open(&self.netns) {
                Ok(netns) => netns,
                // With the namespace its sockets went.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((self, 0)),
                Err(error) => return Err(error),
            };
            let tables = netns.enter(|| {
                // A host without IPv6 has no table of it.
                let read = |path| {
                    fs::read_to_string(path).or_else(|error| match error.kind() {
                        io::ErrorKind::NotFound => Ok(String::new()),
                        _ => Err(error),
                    })
                };
                TABLES.iter().map(read).collect::<io::Result<String>>()
            })?;
            let counted = count(&tables, &self.addresses, &mut self.ports);
            Ok((self, counted))
        });
        looked.await.map_err(io::Error::other)?
    }
}

/// Connections in use to one of `addresses`, at a port that a program listens on, or did before.
fn count(tables: &str, addresses: &[IpAddr], ports: &mut BTreeSet<u16>) -> u32 {
    let sockets: Vec<(IpAddr, u16, u8)> = tables.lines().filter_map(socket).collect();
    ports.extend(sockets.iter().filter(|(.., state)| *state == LISTEN).map(|(_, port, _)| *port));
    let used = sockets.iter().filter(|(address, port, state)| {
        IN_USE.contains(state) && addresses.contains(address) && ports.contains(port)
    });
    u32::try_from(used.count()).unwrap_or(u32::MAX)
}

/// Local address and port, and the state, of a line. The header is none.
fn socket(line: &str) -> Option<(IpAddr, u16, u8)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((self::address(address)?, port, u8::from_str_radix(state, 16).ok()?))
}

/// Words of 32 bits as the host has them, of bytes in the order of the wire.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn read() -> String {
        TABLES.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// The kernel's own words: of this process's connections to itself.
    #[test]
    fn s13_connections_to_a_listener_are_counted_until_they_end() {
        for address in ["127.0.77.1", "::1"] {
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let at = listener.local_addr().unwrap();
            let mut ports = BTreeSet::new();
            let mut counted = || {
                let addresses = [at.ip()];
                let all = count(&read(), &addresses, &mut ports);
                assert!(ports.contains(&at.port()));
                // Others may use the address, too.
                let mine = read().lines().filter_map(socket).any(|(ip, port, state)| {
                    (ip, port) == (at.ip(), at.port()) && IN_USE.contains(&state)
                });
                (all > 0, mine)
            };
            assert!(!counted().1);
            let client = TcpStream::connect(at).unwrap();
            let (server, _) = listener.accept().unwrap();
            assert_eq!(counted(), (true, true));
            // The listener goes first, as in a program that ends in order.
            drop(listener);
            assert_eq!(count(&read(), &[at.ip()], &mut BTreeSet::from([at.port()])), 1);
            drop(client);
            drop(server);
        }
    }

    #[test]
    fn s13_what_the_endpoint_itself_connects_to_is_not_waited_for() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 0200000A:0050 {state} 00000000:00000000 00:00000000 0 0 0 1\n")
        };
        let own = u32::from_ne_bytes([10, 0, 0, 3]);
        let (served, asked) = (format!("{own:08X}:0050"), format!("{own:08X}:9C40"));
        let listens = line("00000000:0050", "0A");
        let mapped = format!(
            "{:08X}{:08X}{:08X}{own:08X}:0050",
            0,
            0,
            u32::from_ne_bytes([0, 0, 0xff, 0xff])
        );
        let addresses = [IpAddr::from([10, 0, 0, 3])];
        let counted = |lines: &[&str]| {
            let table =
                format!("  sl  local_address rem_address   st\n{listens}{}", lines.concat());
            count(&table, &addresses, &mut BTreeSet::new())
        };
        let ends = line(&served, "06");
        assert_eq!(counted(&[&ends, &line(&asked, "01")]), 0);
        assert_eq!(counted(&[&line(&served, "01"), &line(&mapped, "08")]), 2);
        let elsewhere = line("0400000A:0050", "01");
        assert_eq!(counted(&[&elsewhere]), 0);
    }
}
