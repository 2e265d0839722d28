//! Datagrams of clients to tasks, and back: which flow has which task; pure.

use core::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};
use std::{collections::HashMap, time::Instant};

use lru::LruCache;

use super::ways::{Goal, Ways};
use crate::{
    desired::MeshPort,
    wire::{
        ethernet::{self, EthernetRepr, ethertype},
        ip::IpRepr,
        ipv4, ipv6, protocol, udp,
    },
};

/// How long a flow is known without a datagram; that of Linux' connection tracking.
const IDLE: Duration = Duration::from_mins(2);
/// Most flows. The one that was silent for longest makes room.
const MOST: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
/// Ports that are tried where the client's own is taken.
const ATTEMPTS: usize = 1024;
/// First port that needs no privilege.
const FIRST_PORT: u16 = 1024;

/// A client's flow, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) port: MeshPort,
    pub(super) address: SocketAddr,
    /// The address of this node that it sends to, and has to hear from.
    pub(super) via: Option<IpAddr>,
}

/// Both ends as the task sees them: its own, and the client's.
pub(super) type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Flow {
    goal: Goal,
    seen_as: SocketAddr,
    last: Instant,
}

/// Why a datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// No task takes it.
    NoTask,
    /// It does not fit into a packet of the ingress network.
    TooLong,
    /// Nothing is left to tell this flow from others by.
    NoPort,
}

/// Flows of datagrams.
pub(super) struct Flows {
    by_client: LruCache<Client, Flow>,
    by_ends: HashMap<Ends, Client>,
}

impl Default for Flows {
    fn default() -> Self {
        Self { by_client: LruCache::new(MOST), by_ends: HashMap::new() }
    }
}

impl Flows {
    /// The frame that carries a client's datagram to its task.
    pub(super) fn handle_client(
        &mut self,
        client: Client,
        payload: &[u8],
        ways: &mut Ways,
        now: Instant,
    ) -> Result<Vec<u8>, Dropped> {
        if let Some(flow) = self.by_client.get_mut(&client) {
            if now < flow.last + IDLE {
                flow.last = now;
                return frame(ways, &flow.goal, flow.seen_as, payload);
            }
            self.remove(&client);
        }
        self.expire(now);
        let goal = ways.choose(&client.port, client.address.ip()).ok_or(Dropped::NoTask)?;
        let seen_as = ways.seen_as(client.address.ip(), goal.address.ip());
        let seen_as = seen_as.ok_or(Dropped::NoTask)?;
        let taken = |ends: &Ends| self.by_ends.contains_key(ends);
        let seen_as = free(goal.address, seen_as, client.address.port(), taken);
        let seen_as = seen_as.ok_or(Dropped::NoPort)?;
        let frame = frame(ways, &goal, seen_as, payload)?;
        self.by_ends.insert((goal.address, seen_as), client);
        if let Some((other, flow)) = self.by_client.push(client, Flow { goal, seen_as, last: now })
            && other != client
        {
            self.by_ends.remove(&(flow.goal.address, flow.seen_as));
        }
        Ok(frame)
    }

    /// Whom a task's datagram is for.
    pub(super) fn handle_task(&mut self, ends: Ends, now: Instant) -> Option<Client> {
        let client = *self.by_ends.get(&ends)?;
        self.by_client.get_mut(&client)?.last = now;
        Some(client)
    }

    /// Forgets flows that may not go on.
    pub(super) fn retain(&mut self, ways: &Ways) {
        let old =
            self.by_client.iter().filter(|(client, flow)| !ways.keeps(&client.port, &flow.goal));
        let old: Vec<Client> = old.map(|(client, _)| *client).collect();
        for client in old {
            self.remove(&client);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((client, flow)) = self.by_client.peek_lru()
            && now >= flow.last + IDLE
        {
            let client = *client;
            self.remove(&client);
        }
    }

    fn remove(&mut self, client: &Client) {
        if let Some(flow) = self.by_client.pop(client) {
            self.by_ends.remove(&(flow.goal.address, flow.seen_as));
        }
    }
}

/// The client as a task is to see it: from its own port, or from another if that one is `taken`.
pub(super) fn free(
    task: SocketAddr,
    address: IpAddr,
    port: u16,
    taken: impl Fn(&Ends) -> bool,
) -> Option<SocketAddr> {
    let others = (1..=u16::MAX).map(|n| port.wrapping_add(n)).filter(|p| *p >= FIRST_PORT);
    let ports = core::iter::once(port).chain(others.take(ATTEMPTS));
    ports.map(|port| SocketAddr::new(address, port)).find(|seen_as| !taken(&(task, *seen_as)))
}

fn frame(ways: &Ways, goal: &Goal, from: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, Dropped> {
    let header = if from.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let datagram = udp::HEADER_LEN + payload.len();
    if header + datagram > usize::from(ways.mtu) {
        return Err(Dropped::TooLong);
    }
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + header + datagram);
    let payload_len = datagram as u16;
    let ethertype = ethertype::of_ip(from.is_ipv4());
    EthernetRepr { destination: goal.mac, source: ways.mac, ethertype }.emit(&mut frame);
    let (source, destination) = (from.ip(), goal.address.ip());
    let header = IpRepr { source, destination, protocol: protocol::UDP, payload_len };
    header.emit(&mut frame).map_err(|_| Dropped::NoTask)?;
    udp::emit(from, goal.address, payload, &mut frame);
    Ok(frame)
}

#[cfg(test)]
mod tests;
