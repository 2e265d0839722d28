//! Datagrams from other nodes: who may send what here, and which port gets it.
//!
//! ```text
//! 4789 ─► VXLAN ─► plain network ────┐
//! 4500 ─► ESP ─► VXLAN on 4788 ──────┴─► sender a member? ─► source MAC on that node?
//!                 of encrypted network        ─► destination MAC here? ─► port
//! ```

use core::net::IpAddr;

use super::{
    batch::Offload,
    counters::DropReason,
    tables::Station,
    transit::{Packet, Transit},
    unfinished,
};
use crate::wire::{
    dissection::Dissection,
    ethernet::{EthernetFrame, ethertype},
    ndp, protocol,
};

impl Transit<'_> {
    /// Takes a frame of `self.network` that the node at `from` sent, sealed or not.
    pub(super) fn take_from_node(
        &mut self,
        from: IpAddr,
        frame: &mut [u8],
        sealed: bool,
    ) -> Result<(), DropReason> {
        let network = self.network;
        match (network.encrypted, sealed) {
            (true, false) => return Err(DropReason::ClearOnEncrypted),
            (false, true) => return Err(DropReason::SealedOnPlain),
            _ => {}
        }
        if !network.members.contains(&from) {
            return Err(DropReason::NotMember);
        }
        let ethernet = EthernetFrame::new(frame).map_err(|_| DropReason::Malformed)?;
        let (source, destination) = (ethernet.source(), ethernet.destination());
        // The IP source is the sending node's to check: packets of the routing mesh keep their
        // client's, and come from the MAC of the ingress endpoint.
        if network.fdb.get(&source) != Some(&Station::Remote(from)) {
            return Err(DropReason::ForeignMac);
        }
        match ethernet.ethertype() {
            ethertype::IPV4 | ethertype::IPV6 => {}
            // Answered by the node that the asker is on.
            ethertype::ARP => return Err(DropReason::Arp),
            _ if ethernet.is_tagged() => return Err(DropReason::VlanTagged),
            _ => return Err(DropReason::EtherType),
        }
        let seen = Dissection::of_frame(frame).map_err(|_| DropReason::Malformed)?;
        let mut packet = Packet { bytes: frame, seen, offload: Offload::None };
        if !sealed {
            unfinished::finish(&mut packet, network.mtu);
        }
        if seen.protocol == protocol::ICMPV6
            && packet.transport().first().is_some_and(|kind| ndp::TYPES.contains(kind))
        {
            return Err(DropReason::NeighborDiscovery);
        }
        if packet.offload == Offload::None && seen.packet_len() > network.mtu {
            return Err(DropReason::Oversized);
        }
        if destination.is_group() {
            if !network.multicast {
                return Err(DropReason::Group);
            }
            return network.locals.iter().try_for_each(|local| self.emit(local, &packet));
        }
        match network.fdb.get(&destination) {
            Some(Station::Local(index)) => self.deliver(&network.locals[*index as usize], packet),
            _ => Err(DropReason::NotLocal),
        }
    }
}
