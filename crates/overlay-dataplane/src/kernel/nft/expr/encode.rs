//! Expressions as attributes. The numbers are those of `linux/netfilter/nf_tables.h`.

use super::{Base, Cmp, Ct, Expr, FibAddress, Meta, NatKind, Numbers, Reg, Verdict};
use crate::kernel::nft::attribute::Writer;

/// What a routing decision is asked for: whether IPsec follows.
pub(super) const NFT_RT_XFRM: u32 = 4;
/// The gateways of IPv4 and IPv6, and the largest segment.
pub(super) const NFT_RT_NEXTHOP: [u32; 2] = [1, 2];
pub(super) const NFT_RT_TCPMSS: u32 = 3;
/// `NFT_PAYLOAD_CSUM_INET`, `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`.
pub(super) const INET_CHECKSUM: u32 = 1;
pub(super) const PSEUDO_HEADER: u32 = 1;
/// `NFT_EXTHDR_OP_TCPOPT`, and the option that tells the largest segment (RFC 9293 §3.7.1).
pub(super) const TCP_OPTION: u32 = 1;
pub(super) const SEGMENT_SIZE: u8 = 2;
/// `NFT_DYNSET_OP_UPDATE`.
pub(super) const UPDATE: u32 = 1;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// `NFT_FIB_RESULT_OIFNAME`.
pub(super) const FIB_DEVICE_NAME: u32 = 2;

/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`.
pub(super) const REJECT_RESET: u32 = 1;
pub(super) const REJECT_ICMPX: u32 = 2;
/// `NFT_REJECT_ICMPX_NO_ROUTE`, `…_PORT_UNREACH`, `…_ADMIN_PROHIBITED`.
pub(super) const REJECT_NO_ROUTE: u8 = 0;
pub(super) const REJECT_PORT: u8 = 1;
pub(super) const REJECT_PROHIBITED: u8 = 3;

impl Meta {
    pub(super) const ALL: [Self; 7] = [
        Self::Mark,
        Self::InputIndex,
        Self::InputName,
        Self::OutputName,
        Self::Family,
        Self::Protocol,
        Self::SecPath,
    ];

    /// `NFT_META_*`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::InputIndex => 4,
            Self::InputName => 6,
            Self::OutputName => 7,
            Self::Family => 15,
            Self::Protocol => 16,
            Self::SecPath => 25,
        }
    }
}

impl Ct {
    pub(super) const ALL: [Self; 4] = [Self::State, Self::Status, Self::Mark, Self::FirstZone];

    /// `NFT_CT_*`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Status => 2,
            Self::Mark => 3,
            Self::FirstZone => 17,
        }
    }

    /// `IP_CT_DIR_ORIGINAL`, where the kernel is to be told a direction.
    pub(super) const fn direction(self) -> Option<u8> {
        match self {
            Self::FirstZone => Some(0),
            Self::State | Self::Status | Self::Mark => None,
        }
    }
}

impl Base {
    /// In the order of `NFT_PAYLOAD_*`.
    pub(super) const ALL: [Self; 3] = [Self::Link, Self::Network, Self::Transport];
}

impl Cmp {
    /// In the order of `NFT_CMP_*`.
    pub(super) const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Lt, Self::Le, Self::Gt, Self::Ge];
}

impl FibAddress {
    /// `NFTA_FIB_F_*`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Source => 1,
            Self::Destination => 2,
        }
    }
}

/// `NFPROTO_*` of a translation.
pub(super) const fn family(ipv6: bool) -> u32 {
    if ipv6 { 10 } else { 2 }
}

impl Verdict {
    pub(in crate::kernel::nft) fn encode(&self, w: &mut Writer) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Continue => (-1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        w.nest(VERDICT, |w| {
            w.u32(1, i32::cast_unsigned(code));
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        });
    }
}

impl Writer {
    fn reg(&mut self, kind: u16, reg: Reg) {
        self.u32(kind, reg.number());
    }

    fn direction(&mut self, key: Ct) {
        if let Some(direction) = key.direction() {
            self.u8(3, direction);
        }
    }

    /// An attribute that holds octets of a value.
    pub(in crate::kernel::nft) fn value(&mut self, kind: u16, octets: &[u8]) {
        self.nest(kind, |w| w.octets(VALUE, octets));
    }
}

impl Expr {
    /// The kernel's name of it.
    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } | Self::SetCt { .. } => "ct",
            Self::Payload { .. } | Self::SetPayload { .. } | Self::SetSource { .. } => "payload",
            Self::SetSegmentSize { .. } => "exthdr",
            Self::Update { .. } => "dynset",
            Self::AddressType { .. } | Self::DeviceTo { .. } => "fib",
            Self::RouteHasXfrm { .. } | Self::SegmentSize { .. } | Self::NextHop { .. } => "rt",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Bitwise { .. } | Self::ShiftRight { .. } => "bitwise",
            Self::ToHostOrder { .. } | Self::ToNetworkOrder { .. } => "byteorder",
            Self::Number { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } | Self::LookupVerdict { .. } => "lookup",
            Self::Counter => "counter",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Redirect { .. } => "redir",
            Self::Notrack => "notrack",
            Self::Reject | Self::NoRoute | Self::Unreachable | Self::Reset => "reject",
            Self::Foreign(name) => name,
        }
    }

    pub(in crate::kernel::nft) fn encode(&self, w: &mut Writer) {
        w.text(1, self.name());
        w.nest(2, |w| match self {
            Self::Counter | Self::Masquerade | Self::Notrack | Self::Foreign(_) => {}
            Self::Meta { .. }
            | Self::Ct { .. }
            | Self::Payload { .. }
            | Self::RouteHasXfrm { .. }
            | Self::SegmentSize { .. }
            | Self::NextHop { .. }
            | Self::AddressType { .. }
            | Self::DeviceTo { .. } => {
                self.encode_load(w);
            }
            Self::SetMeta { .. }
            | Self::SetCt { .. }
            | Self::SetPayload { .. }
            | Self::SetSource { .. }
            | Self::SetSegmentSize { .. }
            | Self::Update { .. } => {
                self.encode_store(w);
            }
            Self::Immediate { .. }
            | Self::Bitwise { .. }
            | Self::ShiftRight { .. }
            | Self::ToHostOrder { .. }
            | Self::ToNetworkOrder { .. }
            | Self::Number { .. }
            | Self::Hash { .. } => self.encode_calculation(w),
            _ => self.encode_decision(w),
        });
    }

    fn encode_load(&self, w: &mut Writer) {
        match self {
            Self::Meta { key, to } => {
                w.reg(1, *to);
                w.u32(2, key.number());
            }
            Self::Ct { key, to } => {
                w.reg(1, *to);
                w.u32(2, key.number());
                w.direction(*key);
            }
            Self::Payload { base, offset, len, to } => {
                w.reg(1, *to);
                w.u32(2, *base as u32);
                w.u32(3, *offset);
                w.u32(4, *len);
            }
            Self::RouteHasXfrm { to } => {
                w.reg(1, *to);
                w.u32(2, NFT_RT_XFRM);
            }
            Self::SegmentSize { to } => {
                w.reg(1, *to);
                w.u32(2, NFT_RT_TCPMSS);
            }
            Self::NextHop { ipv6, to } => {
                w.reg(1, *to);
                w.u32(2, NFT_RT_NEXTHOP[usize::from(*ipv6)]);
            }
            Self::AddressType { of, to } => {
                w.reg(1, *to);
                w.u32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
                w.u32(3, of.number());
            }
            Self::DeviceTo { to } => {
                w.reg(1, *to);
                w.u32(2, FIB_DEVICE_NAME);
                w.u32(3, FibAddress::Destination.number());
            }
            _ => {}
        }
    }

    fn encode_store(&self, w: &mut Writer) {
        match self {
            Self::SetMeta { key, from } => {
                w.u32(2, key.number());
                w.reg(3, *from);
            }
            Self::SetCt { key, from } => {
                w.u32(2, key.number());
                w.direction(*key);
                w.reg(4, *from);
            }
            Self::SetPayload { base, offset, len, from } => {
                w.u32(2, *base as u32);
                w.u32(3, *offset);
                w.u32(4, *len);
                w.reg(5, *from);
            }
            Self::SetSource { ipv6, from } => {
                let (offset, len) = if *ipv6 { (8, 16) } else { (12, 4) };
                w.u32(2, Base::Network as u32);
                w.u32(3, offset);
                w.u32(4, len);
                w.reg(5, *from);
                // IPv6 has no checksum of its own.
                if !ipv6 {
                    w.u32(6, INET_CHECKSUM);
                    w.u32(7, 10);
                }
                w.u32(8, PSEUDO_HEADER);
            }
            Self::SetSegmentSize { from } => {
                w.u8(2, SEGMENT_SIZE);
                w.u32(3, 2);
                w.u32(4, 2);
                w.u32(6, TCP_OPTION);
                w.reg(7, *from);
            }
            Self::Update { set, key, data, timeout_ms } => {
                w.text(1, set);
                w.u32(3, UPDATE);
                w.reg(4, *key);
                w.reg(5, *data);
                if let Some(timeout) = timeout_ms {
                    w.u64(6, *timeout);
                }
            }
            _ => {}
        }
    }

    fn encode_calculation(&self, w: &mut Writer) {
        match self {
            Self::Immediate { value, to } => {
                w.reg(1, *to);
                w.value(2, value);
            }
            Self::Bitwise { from, to, mask, xor } => {
                w.reg(1, *from);
                w.reg(2, *to);
                w.u32(3, mask.len() as u32);
                w.value(4, mask);
                w.value(5, xor);
            }
            Self::ShiftRight { from, to, bits } => {
                w.reg(1, *from);
                w.reg(2, *to);
                w.u32(3, 4);
                w.u32(6, 2); // NFT_BITWISE_RSHIFT
                w.value(7, &bits.to_ne_bytes());
            }
            Self::ToHostOrder { from, to } => {
                w.reg(1, *from);
                w.reg(2, *to);
                w.u32(3, 0); // NFT_BYTEORDER_NTOH
                w.u32(4, 4);
                w.u32(5, 4);
            }
            Self::ToNetworkOrder { from, to } => {
                w.reg(1, *from);
                w.reg(2, *to);
                w.u32(3, 1); // NFT_BYTEORDER_HTON
                w.u32(4, 2);
                w.u32(5, 2);
            }
            Self::Number { numbers, modulus, offset, to } => {
                w.reg(1, *to);
                w.u32(2, *modulus);
                w.u32(3, matches!(numbers, Numbers::Random).into());
                w.u32(4, *offset);
            }
            Self::Hash { from, len, seed, modulus, offset, to } => {
                w.reg(1, *from);
                w.reg(2, *to);
                w.u32(3, *len);
                w.u32(4, *modulus);
                w.u32(5, *seed);
                w.u32(6, *offset);
            }
            _ => {}
        }
    }

    fn encode_decision(&self, w: &mut Writer) {
        match self {
            Self::Cmp { from, op, value } => {
                w.reg(1, *from);
                w.u32(2, *op as u32);
                w.value(3, value);
            }
            Self::Lookup { set, from, to } => {
                w.text(1, set);
                w.reg(2, *from);
                if let Some(to) = to {
                    w.reg(3, *to);
                }
            }
            Self::LookupVerdict { set, from } => {
                w.text(1, set);
                w.reg(2, *from);
                w.u32(3, 0); // NFT_REG_VERDICT
            }
            Self::Verdict(verdict) => {
                w.u32(1, 0);
                w.nest(2, |w| verdict.encode(w));
            }
            Self::Nat { kind, ipv6, address, port } => {
                w.u32(1, matches!(kind, NatKind::Destination).into());
                w.u32(2, family(*ipv6));
                w.reg(3, *address);
                if let Some(port) = port {
                    w.reg(5, *port);
                }
            }
            Self::Redirect { port: Some(port) } => w.reg(1, *port),
            Self::Reject => {
                w.u32(1, REJECT_ICMPX);
                w.u8(2, REJECT_PROHIBITED);
            }
            Self::NoRoute => {
                w.u32(1, REJECT_ICMPX);
                w.u8(2, REJECT_NO_ROUTE);
            }
            Self::Unreachable => {
                w.u32(1, REJECT_ICMPX);
                w.u8(2, REJECT_PORT);
            }
            Self::Reset => w.u32(1, REJECT_RESET),
            _ => {}
        }
    }
}
