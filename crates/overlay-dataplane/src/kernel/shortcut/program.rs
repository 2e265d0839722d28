//! The program that takes frames the short way, and the table of stations that it looks into.
//!
//! It runs where a port or the VXLAN device has received a frame, before the fence. What it does not know
//! to be right it leaves alone: the fence and the bridge have that.
//!
//! ```text
//!           no VLAN tag, IPv4 or IPv6, to one station
//!           ├─ from the VXLAN device ──────────────────────────────┐
//!           └─ from a port: Ethernet and IP address its own,       │
//!              with IPv6 only TCP and UDP (no neighbour discovery) │
//!                    └─────────── to a station of this node? ◄─────┘
//!                                 ├─ an endpoint ──► its interface, in its namespace
//!                                 ├─ the gateway ──► (bridge)
//!                                 └─ none ─────────► the VXLAN device, if it is from a port and nothing floods
//! ```

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use overlay_types::{Addresses, MacAddr};

use super::assembler::{
    Assembler, Do, If,
    Reg::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10},
    Size::{Byte, Half, Word},
    Value::{Is, Of},
};
use crate::{
    kernel::{
        fence::Wanted,
        nft::fence::{Fence, Port},
    },
    user::engine::ROUTER_MAC,
    wire::{
        ethernet::ethertype::{IPV4, IPV6},
        protocol::{TCP, UDP},
    },
};

/// Octets of a key: an Ethernet address and two zeros.
pub(super) const KEY_LEN: usize = 8;
/// Octets of a value: index of the port, flags, IPv4 address, IPv6 address.
pub(super) const VALUE_LEN: usize = 28;
/// The station has an IPv4 address; an IPv6 address; it may send from any.
const HAS_V4: i32 = 1;
const HAS_V6: i32 = 2;
const FORWARDS: i32 = 4;

/// Fields of `struct __sk_buff` of linux/bpf.h.
mod field {
    pub(super) const PACKET_TYPE: i16 = 4;
    pub(super) const HAS_TAG: i16 = 20;
    pub(super) const INDEX: i16 = 40;
    pub(super) const DATA: i16 = 76;
    pub(super) const DATA_END: i16 = 80;
}

/// Functions of the kernel (linux/bpf.h).
mod function {
    pub(super) const LOOK_UP: i32 = 1;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const CHANGE_TYPE: i32 = 32;
    pub(super) const REDIRECT_TO_PEER: i32 = 155;
}

/// `PACKET_HOST`: to the device itself. `PACKET_OTHERHOST`: to one station, which it is not.
const OWN_STATION: i32 = 0;
const OTHER_STATION: i32 = 3;
/// `TC_ACT_UNSPEC`: on with what there is.
const GO_ON: i32 = -1;

/// Where the headers behind Ethernet end, and what stands in them.
const ETHERNET: i16 = 14;
const BEHIND_IPV4: i16 = ETHERNET + 20;
const BEHIND_IPV6: i16 = ETHERNET + 40;
const SOURCE_V4: i16 = ETHERNET + 12;
const SOURCE_V6: i16 = ETHERNET + 8;
const NEXT_HEADER: i16 = ETHERNET + 6;

/// Stations as the table has them.
pub(super) type Table = BTreeMap<[u8; KEY_LEN], [u8; VALUE_LEN]>;

/// The stations of a network on this node: the endpoints, and the gateway, which has no port.
pub(super) fn stations(fence: &Fence) -> Table {
    let ports = fence.ports.values().map(|port| (key(port.mac), value(port)));
    // An endpoint has never the gateway's address.
    ports.chain([(key(ROUTER_MAC), [0; VALUE_LEN])]).collect()
}

fn key(mac: MacAddr) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..mac.0.len()].copy_from_slice(&mac.0);
    key
}

fn value(port: &Port) -> [u8; VALUE_LEN] {
    let Addresses { v4, v6 } = port.addresses;
    let flags = [(v4.is_some(), HAS_V4), (v6.is_some(), HAS_V6), (port.forwards, FORWARDS)];
    let flags: i32 = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
    let v4 = v4.map_or([0; 4], |address| address.octets());
    let v6 = v6.map_or([0; 16], |address| address.octets());
    let parts = [&port.index.to_ne_bytes()[..], &flags.to_ne_bytes(), &v4, &v6].concat();
    parts.try_into().expect("28 octets")
}

/// What makes one network's program another than the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    /// Index of the VXLAN device.
    pub(super) tunnel: u32,
    /// The VXLAN device sends what it does not know to all members: the bridge has to sort that out.
    pub(super) floods: bool,
}

impl Program {
    pub(super) const fn of(wanted: &Wanted) -> Self {
        Self { tunnel: wanted.fence.tunnel.1, floods: wanted.floods }
    }

    /// A name that no program has that does something else. Built by another release of Rust, it may be
    /// another one for the same.
    pub(super) fn name(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.instructions(0).hash(&mut hasher);
        format!("overlay short way {:016x}", hasher.finish())
    }

    /// What it does, with the descriptor of the table.
    pub(super) fn instructions(self, table: i32) -> Vec<u8> {
        let tunnel = self.tunnel.cast_signed();
        let [ipv4, ipv6] = [IPV4, IPV6].map(|kind| Is(kind.to_be().into()));
        let mut to = Assembler::default();
        to.alu(Do::Move, R6, Of(R1))
            .load(Word, R2, (R6, field::HAS_TAG))
            .jump_if(R2, If::NotEqual, Is(0), "bridge")
            .load(Word, R7, (R6, field::DATA))
            .load(Word, R8, (R6, field::DATA_END));
        reaches(&mut to, ETHERNET);
        to.load(Byte, R2, (R7, 0))
            .alu(Do::And, R2, Is(1))
            .jump_if(R2, If::NotEqual, Is(0), "bridge")
            .load(Half, R9, (R7, 12))
            .load(Word, R2, (R6, field::INDEX))
            .jump_if(R2, If::NotEqual, Is(tunnel), "port")
            .jump_if(R9, If::Equal, ipv4, "known")
            .jump_if(R9, If::NotEqual, ipv6, "bridge")
            .label("known");
        deliver(&mut to, table, "bridge");

        to.label("port").load(Word, R2, (R6, field::PACKET_TYPE)).jump_if(
            R2,
            If::NotEqual,
            Is(OTHER_STATION),
            "bridge",
        );
        look_up(&mut to, table, 6);
        to.jump_if(R0, If::Equal, Is(0), "bridge")
            .load(Word, R2, (R0, 0))
            .load(Word, R3, (R6, field::INDEX))
            .jump_if(R2, If::NotEqual, Of(R3), "bridge")
            .load(Word, R4, (R0, 4))
            .jump_if(R9, If::Equal, ipv4, "IPv4")
            .jump_if(R9, If::NotEqual, ipv6, "bridge");
        reaches(&mut to, BEHIND_IPV6);
        to.load(Byte, R2, (R7, NEXT_HEADER))
            .jump_if(R2, If::Equal, Is(TCP.into()), "no discovery")
            .jump_if(R2, If::NotEqual, Is(UDP.into()), "bridge")
            .label("no discovery");
        own(&mut to, HAS_V6, (SOURCE_V6, 12), 4);
        to.jump("right").label("IPv4");
        reaches(&mut to, BEHIND_IPV4);
        own(&mut to, HAS_V4, (SOURCE_V4, 8), 1);
        to.label("right");
        deliver(&mut to, table, if self.floods { "bridge" } else { "elsewhere" });
        if !self.floods {
            to.label("elsewhere")
                .alu(Do::Move, R1, Is(tunnel))
                .alu(Do::Move, R2, Is(0))
                .call(function::REDIRECT)
                .exit();
        }
        to.label("bridge").alu(Do::Move, R0, Is(GO_ON)).exit().finish()
    }
}

/// The frame has so many octets, where the program can read them.
fn reaches(to: &mut Assembler, length: i16) {
    to.alu(Do::Move, R2, Of(R7)).alu(Do::Add, R2, Is(length.into())).jump_if(
        R2,
        If::Greater,
        Of(R8),
        "bridge",
    );
}

/// Looks for the station whose Ethernet address stands in the frame: in `R0` is its value, or zero.
fn look_up(to: &mut Assembler, table: i32, at: i16) {
    to.load(Word, R2, (R7, at))
        .store(Word, (R10, -8), Of(R2))
        .load(Half, R2, (R7, at + 4))
        .store(Half, (R10, -4), Of(R2))
        .store(Half, (R10, -2), Is(0))
        .load_map(R1, table)
        .alu(Do::Move, R2, Of(R10))
        .alu(Do::Add, R2, Is(-8))
        .call(function::LOOK_UP);
}

/// The source address, of so many words, is the station's, whose flags are in `R4`; or it may have any.
fn own(to: &mut Assembler, flag: i32, (source, own): (i16, i16), words: i16) {
    to.alu(Do::Move, R2, Of(R4))
        .alu(Do::And, R2, Is(FORWARDS))
        .jump_if(R2, If::NotEqual, Is(0), "right")
        .alu(Do::And, R4, Is(flag))
        .jump_if(R4, If::Equal, Is(0), "bridge");
    for word in 0..words {
        to.load(Word, R2, (R7, source + 4 * word)).load(Word, R3, (R0, own + 4 * word)).jump_if(
            R2,
            If::NotEqual,
            Of(R3),
            "bridge",
        );
    }
}

/// Sends it to the endpoint of this node that it is to, but not back to the one that it is from.
///
/// Who it is for was found out at a device that is not the endpoint's. Kernels that do not find it out again
/// (before "bpf: Scrub packet on bpf_redirect_peer" of 2025) would have the endpoint's drop it.
fn deliver(to: &mut Assembler, table: i32, no_station: &'static str) {
    look_up(to, table, 0);
    to.jump_if(R0, If::Equal, Is(0), no_station)
        .load(Word, R9, (R0, 0))
        .jump_if(R9, If::Equal, Is(0), "bridge")
        .load(Word, R2, (R6, field::INDEX))
        .jump_if(R9, If::Equal, Of(R2), "bridge")
        .alu(Do::Move, R1, Of(R6))
        .alu(Do::Move, R2, Is(OWN_STATION))
        .call(function::CHANGE_TYPE)
        .alu(Do::Move, R1, Of(R9))
        .alu(Do::Move, R2, Is(0))
        .call(function::REDIRECT_TO_PEER)
        .exit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_differ_have_names_that_differ() {
        let all = [(7, false), (7, true), (8, false)];
        let names = all.map(|(tunnel, floods)| Program { tunnel, floods }.name());
        assert!(names[0] != names[1] && names[0] != names[2], "{names:?}");
        assert_eq!(names[0], Program { tunnel: 7, floods: false }.name());
    }

    #[test]
    fn stations_are_the_ports_and_the_gateway() {
        let none = Fence { ports: BTreeMap::new(), tunnel: ("vxlan".into(), 2) };
        assert_eq!(stations(&none), [(key(ROUTER_MAC), [0; VALUE_LEN])].into());
        let addresses = Addresses { v4: Some([10, 0, 1, 2].into()), v6: None };
        let value = value(&Port { index: 3, mac: ROUTER_MAC, addresses, forwards: true });
        assert_eq!(value[..4], 3_u32.to_ne_bytes());
        assert_eq!(value[4..8], 5_u32.to_ne_bytes());
        assert_eq!(value[8..], [&[10, 0, 1, 2][..], &[0; 16]].concat());
    }
}
