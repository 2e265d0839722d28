//! Expressions: what rules are made of.
//!
//! ```text
//! packet ── Meta, Payload, Ct, Fib ──► registers ── Cmp, Lookup ──► goes on or not
//!                                        ▲    └──── Nat, Redirect, SetMeta, …
//!                                        └ Bitwise, Shift, ByteOrder, Immediate
//! ```

mod decode;
mod encode;

pub(super) use decode::{data, decode};

/// A register of 4 octets; longer values lie in several, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    /// How many there are.
    pub const COUNT: u8 = 16;

    /// The register with this number, 0-15.
    ///
    /// # Panics
    /// When there is none.
    pub const fn new(number: u8) -> Self {
        assert!(number < Self::COUNT, "there are 16 registers");
        Self(number)
    }

    /// As the kernel writes it: every fourth also has the name of a register of 16 octets.
    const fn number(self) -> u32 {
        let number = self.0 as u32;
        if number.is_multiple_of(4) { 1 + number / 4 } else { 8 + number }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            1..=4 => Some(Self((number as u8 - 1) * 4)),
            8..=23 => Some(Self(number as u8 - 8)),
            _ => None,
        }
    }
}

/// What a rule ends with, and what a map can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This chain's hook lets it pass.
    Accept,
    /// It is gone.
    Drop,
    /// Go on with the next rule.
    Continue,
    /// Go on behind the rule that jumped here.
    Return,
    /// Go on in another chain, and come back.
    Jump(String),
    /// Go on in another chain for good.
    Goto(String),
}

/// What the stack knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The packet's mark.
    Mark,
    /// Index of the device it came through.
    InputIndex,
    /// Name of the device it came through.
    InputName,
    /// Name of the device it leaves through.
    OutputName,
    /// `NFPROTO_*`, one octet.
    Family,
    /// Number of the transport protocol, one octet.
    Protocol,
    /// Whether it came out of IPsec, one octet.
    SecPath,
}

/// What connection tracking knows of a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ct {
    /// One bit of [`ct_state`].
    State,
    /// Bits of [`ct_status`].
    Status,
    /// The connection's mark.
    Mark,
    /// The zone in which its first direction is looked for, 16 bits; in front of connection tracking. Answers
    /// are looked for in the zone of everybody.
    FirstZone,
}

/// Bits of [`Ct::State`].
pub mod ct_state {
    /// Not understood.
    pub const INVALID: u32 = 1;
    /// Seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Of another connection, like an ICMP error.
    pub const RELATED: u32 = 4;
    /// First of its connection.
    pub const NEW: u32 = 8;
}

/// Bits of [`Ct::Status`].
pub mod ct_status {
    /// The source was translated.
    pub const SNAT: u32 = 0x10;
    /// The destination was translated.
    pub const DNAT: u32 = 0x20;
}

/// Where an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Ethernet.
    Link,
    /// IP.
    Network,
    /// TCP, UDP, SCTP, ICMP.
    Transport,
}

/// How values are compared: in memory order, so numbers have to be in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// Which address a routing look-up is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FibAddress {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// [`Expr::AddressType`] of an address of this namespace: `RTN_LOCAL`.
pub const LOCAL: u32 = 2;

/// How a number is chosen that no packet determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// One after the other.
    Incremental,
    /// At random.
    Random,
}

/// Which address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "`from`, `to`, `key`, `len` say what they are")]
pub enum Expr {
    /// Loads what the stack knows.
    Meta { key: Meta, to: Reg },
    /// Changes what the stack knows.
    SetMeta { key: Meta, from: Reg },
    /// Loads what connection tracking knows.
    Ct { key: Ct, to: Reg },
    /// Changes what connection tracking knows.
    SetCt { key: Ct, from: Reg },
    /// Loads octets of the packet. Does not hold when it ends before them.
    Payload { base: Base, offset: u32, len: u32, to: Reg },
    /// Changes octets of the packet; no checksum is corrected.
    SetPayload { base: Base, offset: u32, len: u32, from: Reg },
    /// Changes the source address, and the checksums that it is part of.
    SetSource { ipv6: bool, from: Reg },
    /// Changes the largest segment that a TCP SYN says its sender takes, unless that is smaller. In
    /// network byte order.
    SetSegmentSize { from: Reg },
    /// Loads the largest segment that fits the routes there and back, in the host's byte order.
    SegmentSize { to: Reg },
    /// Loads the address of the gateway that the packet goes to next.
    NextHop { ipv6: bool, to: Reg },
    /// Loads whether IPsec is still to come, one octet, where packets leave.
    RouteHasXfrm { to: Reg },
    /// Loads the type of an address, `RTN_*`, in the host's byte order.
    AddressType { of: FibAddress, to: Reg },
    /// Loads the name of the device that leads to the destination.
    DeviceTo { to: Reg },
    /// Loads a value.
    Immediate { value: Vec<u8>, to: Reg },
    /// `to = from & mask ^ xor`
    Bitwise { from: Reg, to: Reg, mask: Vec<u8>, xor: Vec<u8> },
    /// Shifts a number of 32 bits, in the host's byte order, to the right.
    ShiftRight { from: Reg, to: Reg, bits: u32 },
    /// Turns a number of 32 bits from network into host byte order.
    ToHostOrder { from: Reg, to: Reg },
    /// Turns a number of 16 bits from host into network byte order.
    ToNetworkOrder { from: Reg, to: Reg },
    /// Loads a number below `modulus`, plus `offset`.
    Number { numbers: Numbers, modulus: u32, offset: u32, to: Reg },
    /// Loads a hash of registers, below `modulus`, plus `offset`.
    Hash { from: Reg, len: u32, seed: u32, modulus: u32, offset: u32, to: Reg },
    /// Holds when a value compares so.
    Cmp { from: Reg, op: Cmp, value: Vec<u8> },
    /// Holds when the key is in the set; loads what a map leads to.
    Lookup { set: String, from: Reg, to: Option<Reg> },
    /// Has a key of a map that packets fill lead to a value, from now on for so many milliseconds, or for
    /// as long as the map says.
    Update { set: String, key: Reg, data: Reg, timeout_ms: Option<u64> },
    /// Does what a verdict map leads to.
    LookupVerdict { set: String, from: Reg },
    /// Counts packets.
    Counter,
    /// Ends the rule.
    Verdict(Verdict),
    /// Translates an address, and a port when there is one.
    Nat { kind: NatKind, ipv6: bool, address: Reg, port: Option<Reg> },
    /// Translates the source to the address of the device that it leaves through.
    Masquerade,
    /// Translates the destination to this namespace, and a port when there is one.
    Redirect { port: Option<Reg> },
    /// Keeps the packet from connection tracking.
    Notrack,
    /// Tells the sender that an administrator forbids it.
    Reject,
    /// Tells the sender that there is no route.
    NoRoute,
    /// Tells the sender that nobody listens on the port.
    Unreachable,
    /// Resets the sender's TCP connection.
    Reset,
    /// Something that is not known here, by the kernel's name: it is equal to nothing of ours, and
    /// the kernel refuses it from us.
    Foreign(String),
}

/// Shorthand for rules.
impl Expr {
    /// Holds when a register has this value.
    pub fn eq(from: Reg, value: &[u8]) -> Self {
        Self::Cmp { from, op: Cmp::Eq, value: value.to_vec() }
    }

    /// Holds when a register has another value.
    pub fn ne(from: Reg, value: &[u8]) -> Self {
        Self::Cmp { from, op: Cmp::Ne, value: value.to_vec() }
    }

    /// Goes on in another chain for good.
    pub fn goto(chain: &str) -> Self {
        Self::Verdict(Verdict::Goto(chain.to_owned()))
    }

    /// Goes on in another chain, and comes back.
    pub fn jump(chain: &str) -> Self {
        Self::Verdict(Verdict::Jump(chain.to_owned()))
    }
}

/// Drops.
pub const DROP: Expr = Expr::Verdict(Verdict::Drop);
/// Lets pass.
pub const ACCEPT: Expr = Expr::Verdict(Verdict::Accept);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_back() {
        for number in 0..Reg::COUNT {
            assert_eq!(Reg::from_number(Reg::new(number).number()), Some(Reg(number)));
        }
        assert_eq!((Reg::new(4).number(), Reg::new(5).number()), (2, 13));
        assert_eq!((Reg::from_number(0), Reg::from_number(24)), (None, None));
    }
}
