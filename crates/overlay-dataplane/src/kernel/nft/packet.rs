//! Where things are in a packet: the expressions that rules begin with.

use overlay_types::Protocol;

use super::{
    expr::{Base, Cmp, Ct, Expr, Meta, Reg, ct_state},
    set,
};

/// Number of UDP.
pub(super) const UDP: u8 = 17;
/// First register.
pub(super) const R0: Reg = Reg::new(0);

/// Number of a transport protocol.
pub(in crate::kernel) const fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

/// Holds for packets of this version of IP.
pub(super) fn version(ipv6: bool) -> [Expr; 2] {
    let number = if ipv6 { 10 } else { 2 };
    [Expr::Meta { key: Meta::Family, to: R0 }, Expr::eq(R0, &[number])]
}

/// Loads the source address.
pub(super) const fn source(ipv6: bool, to: Reg) -> Expr {
    let (offset, len) = if ipv6 { (8, 16) } else { (12, 4) };
    Expr::Payload { base: Base::Network, offset, len, to }
}

/// Loads the destination address.
pub(super) const fn destination(ipv6: bool, to: Reg) -> Expr {
    let (offset, len) = if ipv6 { (24, 16) } else { (16, 4) };
    Expr::Payload { base: Base::Network, offset, len, to }
}

/// Loads the destination port of TCP, UDP and SCTP.
pub(super) const fn destination_port(to: Reg) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, len: 2, to }
}

/// Holds when the packet came through a device (or not).
pub(super) fn came_through(device: &str, op: Cmp) -> [Expr; 2] {
    named(Meta::InputName, device, op)
}

/// Holds when the packet leaves through a device (or not).
pub(super) fn leaves_through(device: &str, op: Cmp) -> [Expr; 2] {
    named(Meta::OutputName, device, op)
}

fn named(key: Meta, device: &str, op: Cmp) -> [Expr; 2] {
    let value = set::device(device).to_vec();
    [Expr::Meta { key, to: R0 }, Expr::Cmp { from: R0, op, value }]
}

/// Holds for packets that belong to no connection, neither one that is there nor a new one: a TCP segment
/// out of place, an ICMP error about nothing. They have no [`Ct::Status`], and a rule that asks for it does
/// not hold.
pub(super) fn of_no_connection() -> Vec<Expr> {
    let known = ct_state::NEW | ct_state::ESTABLISHED | ct_state::RELATED;
    [&[Expr::Ct { key: Ct::State, to: R0 }][..], &bits(known, Cmp::Eq)].concat()
}

/// Holds when none of the `bits` of a number in the first register is set (`Eq`), or any (`Ne`).
pub(super) fn bits(bits: u32, op: Cmp) -> [Expr; 2] {
    let mask = bits.to_ne_bytes().to_vec();
    let none = vec![0; 4];
    [
        Expr::Bitwise { from: R0, to: R0, mask, xor: none.clone() },
        Expr::Cmp { from: R0, op, value: none },
    ]
}
