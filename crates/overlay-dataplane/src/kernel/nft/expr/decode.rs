//! Expressions from the attributes that the kernel gives. Whatever is not exactly one of ours is
//! [`Expr::Foreign`].

use super::{
    Base, Cmp, Ct, Expr, FibAddress, Meta, NatKind, Numbers, Reg, Verdict,
    encode::{
        FIB_DEVICE_NAME, INET_CHECKSUM, NFT_RT_NEXTHOP, NFT_RT_TCPMSS, NFT_RT_XFRM, PSEUDO_HEADER,
        REJECT_ICMPX, REJECT_NO_ROUTE, REJECT_PORT, REJECT_PROHIBITED, REJECT_RESET, SEGMENT_SIZE,
        TCP_OPTION, UPDATE, family,
    },
};
use crate::kernel::nft::{attribute::Attributes, set::Data};

/// Flags of a translation that say no more than which registers are used.
const IMPLIED_NAT_FLAGS: u32 = 3;

/// The expression with this name and content.
pub(in crate::kernel::nft) fn decode(name: &str, a: Attributes<'_>) -> Expr {
    let known = match name {
        "meta" => meta(a),
        "ct" => ct(a),
        "payload" => payload(a),
        "rt" => rt(a),
        "fib" => fib(a),
        "immediate" => immediate(a),
        "bitwise" => bitwise(a),
        "byteorder" => byte_order(a),
        "numgen" => number(a),
        "hash" => hash(a),
        "cmp" => cmp(a),
        "lookup" => lookup(a),
        "dynset" => update(a),
        "exthdr" => segment_size(a),
        "counter" => Some(Expr::Counter),
        "nat" => nat(a),
        "masq" => plain(a, 1).then_some(Expr::Masquerade),
        "redir" => redirect(a),
        "notrack" => Some(Expr::Notrack),
        "reject" => reject(a),
        _ => None,
    };
    known.unwrap_or_else(|| Expr::Foreign(name.to_owned()))
}

impl Attributes<'_> {
    fn reg(self, kind: u16) -> Option<Reg> {
        self.u32(kind).and_then(Reg::from_number)
    }

    fn value(self, kind: u16) -> Option<Vec<u8>> {
        Some(self.nest(kind)?.get(1)?.to_vec())
    }
}

/// What `NFTA_DATA_*` attributes hold.
pub(in crate::kernel::nft) fn data(a: Attributes<'_>) -> Option<Data> {
    if let Some(value) = a.get(1) {
        return Some(Data::Value(value.to_vec()));
    }
    let verdict = a.nest(2)?;
    let chain = || verdict.text(2);
    Some(Data::Verdict(match verdict.u32(1)?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    }))
}

fn meta(a: Attributes<'_>) -> Option<Expr> {
    let number = a.u32(2)?;
    let key = *Meta::ALL.iter().find(|key| key.number() == number)?;
    Some(match a.reg(1) {
        Some(to) => Expr::Meta { key, to },
        None => Expr::SetMeta { key, from: a.reg(3)? },
    })
}

fn ct(a: Attributes<'_>) -> Option<Expr> {
    let number = a.u32(2)?;
    let key = *Ct::ALL.iter().find(|key| key.number() == number)?;
    if a.u8(3) != key.direction() {
        return None;
    }
    Some(match a.reg(1) {
        Some(to) => Expr::Ct { key, to },
        None => Expr::SetCt { key, from: a.reg(4)? },
    })
}

fn payload(a: Attributes<'_>) -> Option<Expr> {
    let base = *Base::ALL.get(a.u32(2)? as usize)?;
    let (offset, len) = (a.u32(3)?, a.u32(4)?);
    Some(match a.reg(1) {
        Some(to) => Expr::Payload { base, offset, len, to },
        None if a.u32(6).unwrap_or(0) == 0 && a.u32(8).unwrap_or(0) == 0 => {
            Expr::SetPayload { base, offset, len, from: a.reg(5)? }
        }
        None => set_source(a)?,
    })
}

fn set_source(a: Attributes<'_>) -> Option<Expr> {
    let from = a.reg(5)?;
    let written = [2, 3, 4, 6, 7, 8].map(|kind| a.u32(kind).unwrap_or(0));
    let network = Base::Network as u32;
    let v4 = [network, 12, 4, INET_CHECKSUM, 10, PSEUDO_HEADER];
    let v6 = [network, 8, 16, 0, 0, PSEUDO_HEADER];
    [v4, v6].contains(&written).then_some(Expr::SetSource { ipv6: written == v6, from })
}

fn segment_size(a: Attributes<'_>) -> Option<Expr> {
    let is_ours = a.u8(2)? == SEGMENT_SIZE
        && (a.u32(3)?, a.u32(4)?, a.u32(6)?) == (2, 2, TCP_OPTION)
        && a.u32(5).unwrap_or(0) == 0;
    is_ours.then_some(Expr::SetSegmentSize { from: a.reg(7)? })
}

fn update(a: Attributes<'_>) -> Option<Expr> {
    // Without expressions and flags.
    let is_plain = [7, 10].iter().all(|kind| a.get(*kind).is_none()) && a.u32(9).unwrap_or(0) == 0;
    let (set, key, data) = (a.text(1)?, a.reg(4)?, a.reg(5)?);
    let timeout_ms = a.u64(6).filter(|timeout| *timeout != 0);
    let is_ours = is_plain && a.u32(3)? == UPDATE;
    is_ours.then_some(Expr::Update { set, key, data, timeout_ms })
}

fn rt(a: Attributes<'_>) -> Option<Expr> {
    let (key, to) = (a.u32(2)?, a.reg(1)?);
    match key {
        NFT_RT_XFRM => Some(Expr::RouteHasXfrm { to }),
        NFT_RT_TCPMSS => Some(Expr::SegmentSize { to }),
        _ => {
            let ipv6 = NFT_RT_NEXTHOP.iter().position(|known| *known == key)? == 1;
            Some(Expr::NextHop { ipv6, to })
        }
    }
}

fn fib(a: Attributes<'_>) -> Option<Expr> {
    let flags = a.u32(3)?;
    if a.u32(2)? == FIB_DEVICE_NAME {
        return (flags == FibAddress::Destination.number())
            .then_some(Expr::DeviceTo { to: a.reg(1)? });
    }
    let of = [FibAddress::Source, FibAddress::Destination].into_iter();
    let of = of.into_iter().find(|of| of.number() == flags)?;
    (a.u32(2)? == 3).then_some(Expr::AddressType { of, to: a.reg(1)? })
}

fn immediate(a: Attributes<'_>) -> Option<Expr> {
    Some(match data(a.nest(2)?)? {
        Data::Value(value) => Expr::Immediate { value, to: a.reg(1)? },
        Data::Verdict(verdict) => Expr::Verdict(verdict),
    })
}

fn bitwise(a: Attributes<'_>) -> Option<Expr> {
    let (from, to) = (a.reg(1)?, a.reg(2)?);
    match a.u32(6).unwrap_or(0) {
        0 => Some(Expr::Bitwise { from, to, mask: a.value(4)?, xor: a.value(5)? }),
        2 if a.u32(3)? == 4 => {
            let bits = u32::from_ne_bytes(a.value(7)?.try_into().ok()?);
            Some(Expr::ShiftRight { from, to, bits })
        }
        _ => None,
    }
}

fn byte_order(a: Attributes<'_>) -> Option<Expr> {
    let (from, to) = (a.reg(1)?, a.reg(2)?);
    match (a.u32(3)?, a.u32(4)?, a.u32(5)?) {
        (0, 4, 4) => Some(Expr::ToHostOrder { from, to }),
        (1, 2, 2) => Some(Expr::ToNetworkOrder { from, to }),
        _ => None,
    }
}

fn number(a: Attributes<'_>) -> Option<Expr> {
    let numbers = if a.u32(3)? == 1 { Numbers::Random } else { Numbers::Incremental };
    let offset = a.u32(4).unwrap_or(0);
    Some(Expr::Number { numbers, modulus: a.u32(2)?, offset, to: a.reg(1)? })
}

fn hash(a: Attributes<'_>) -> Option<Expr> {
    (a.u32(7).unwrap_or(0) == 0).then_some(Expr::Hash {
        from: a.reg(1)?,
        to: a.reg(2)?,
        len: a.u32(3)?,
        modulus: a.u32(4)?,
        seed: a.u32(5).unwrap_or(0),
        offset: a.u32(6).unwrap_or(0),
    })
}

fn cmp(a: Attributes<'_>) -> Option<Expr> {
    let op = *Cmp::ALL.get(a.u32(2)? as usize)?;
    Some(Expr::Cmp { from: a.reg(1)?, op, value: a.value(3)? })
}

fn lookup(a: Attributes<'_>) -> Option<Expr> {
    let (set, from) = (a.text(1)?, a.reg(2)?);
    Some(match (a.u32(5).unwrap_or(0), a.u32(3)) {
        (0, Some(0)) => Expr::LookupVerdict { set, from },
        (0, Some(_)) => Expr::Lookup { set, from, to: Some(a.reg(3)?) },
        (0, None) => Expr::Lookup { set, from, to: None },
        _ => return None,
    })
}

fn nat(a: Attributes<'_>) -> Option<Expr> {
    let kind = if a.u32(1)? == 1 { NatKind::Destination } else { NatKind::Source };
    let ipv6 = a.u32(2)? == family(true);
    let (address, port) = (a.reg(3)?, a.reg(5));
    // Ranges are not ours.
    let single = a.reg(4).is_none_or(|last| last == address) && a.reg(6).or(port) == port;
    (single && plain(a, 7)).then_some(Expr::Nat { kind, ipv6, address, port })
}

fn redirect(a: Attributes<'_>) -> Option<Expr> {
    let port = a.reg(1);
    (a.reg(2).or(port) == port && plain(a, 3)).then_some(Expr::Redirect { port })
}

/// No flags of a translation but those that go without saying.
fn plain(a: Attributes<'_>, flags: u16) -> bool {
    a.u32(flags).unwrap_or(0) & !IMPLIED_NAT_FLAGS == 0
}

fn reject(a: Attributes<'_>) -> Option<Expr> {
    match (a.u32(1)?, a.u8(2)) {
        (REJECT_RESET, _) => Some(Expr::Reset),
        (REJECT_ICMPX, Some(REJECT_NO_ROUTE)) => Some(Expr::NoRoute),
        (REJECT_ICMPX, Some(REJECT_PORT)) => Some(Expr::Unreachable),
        (REJECT_ICMPX, Some(REJECT_PROHIBITED)) => Some(Expr::Reject),
        _ => None,
    }
}
