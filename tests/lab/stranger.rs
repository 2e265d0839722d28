//! A host on the wire that is in no cluster.

use core::net::Ipv4Addr;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use overlay_testkit::{hosts, lab::Namespace};
use socket2::{Domain, Protocol, Socket, Type};

use crate::setup::Lab;

/// Its number on the wire.
pub(crate) const NUMBER: u8 = 99;
/// `IPPROTO_RAW`: whole packets, with any source.
const WHOLE: i32 = 255;

pub(crate) struct Stranger {
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: Namespace,
    raw: Socket,
}

impl Stranger {
    pub(crate) fn on_wire(lab: &Lab) -> Result<Self> {
        let (netns, address) = (Namespace::new()?, hosts::address_v4(NUMBER));
        hosts::plug(&netns, &lab.wire, NUMBER)?;
        let raw =
            netns.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WHOLE))))?;
        Ok(Self { address, netns, raw })
    }

    /// Sends an IPv4 packet as it is.
    pub(crate) fn send(&self, packet: &[u8]) -> Result<()> {
        let octets: [u8; 4] = packet[16..20].try_into()?;
        let to = SocketAddr::from((Ipv4Addr::from(octets), 0));
        self.raw.send_to(packet, &to.into()).context("send a packet with a header of our own")?;
        Ok(())
    }
}
