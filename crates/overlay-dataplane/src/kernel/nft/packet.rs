//! Where things are in a packet: the expressions that rules begin with.

use super::expr::{Base, Expr, Meta, Reg};

/// Number of UDP.
pub(super) const UDP: u8 = 17;
/// First register.
pub(super) const R0: Reg = Reg::new(0);

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

/// Loads the destination port of TCP, UDP and SCTP.
pub(super) const fn destination_port(to: Reg) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, len: 2, to }
}
