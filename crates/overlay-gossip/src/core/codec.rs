//! Bytes of identities, members and foca's headers. All numbers are big-endian.
//!
//! ```text
//! identity  node 16 | incarnation 8 | flags 1 (bit 0 leaving, bit 1 IPv6) | IP 4 or 16 | port 2
//! member    identity | refutations 2 | state 1
//! header    identity of the sender | its refutations 2 | identity of the receiver | tag 1 | …
//! ```
//!
//! "Refutations" is what foca calls incarnation: how often a member objected to a suspicion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use overlay_types::{Incarnation, NodeId};

use crate::identity::Identity;

const FLAG_LEAVING: u8 = 1;
const FLAG_IPV6: u8 = 2;

/// Longest identity in bytes: node, incarnation, flags, IPv6 address, port.
pub(crate) const MAX_IDENTITY: usize = 16 + 8 + 1 + 16 + 2;

/// Longest member in bytes.
pub(crate) const MAX_MEMBER: usize = MAX_IDENTITY + 2 + 1;

/// Longest header in bytes: three identities and the numbers between them.
const MAX_HEADER: usize = 3 * MAX_IDENTITY + 2 + 1 + 1;

/// Why bytes are not what they should be, or do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("ends too early")]
    Truncated,
    #[error("no room left")]
    NoRoom,
    #[error("unknown flags or tag {0}")]
    Unknown(u8),
    #[error("not an address that a member can have")]
    Address,
    #[error("a kind of message that this protocol does without")]
    Unused,
}

/// Whether a member can be reached at this address.
pub(crate) fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

pub(crate) fn put_identity(identity: &Identity, buf: &mut impl BufMut) {
    buf.put_slice(&identity.node.to_bytes());
    buf.put_u64(identity.incarnation.get());
    let flags = if identity.leaving { FLAG_LEAVING } else { 0 };
    match identity.address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            buf.put_u8(flags);
            buf.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            buf.put_u8(flags | FLAG_IPV6);
            buf.put_slice(&ip.octets());
        }
    }
    buf.put_u16(identity.address.port());
}

pub(crate) fn get_identity(buf: &mut impl Buf) -> Result<Identity, CodecError> {
    let node = NodeId::from_bytes(get_array(buf)?);
    let incarnation = Incarnation::new(get(buf, Buf::try_get_u64)?);
    let flags = get(buf, Buf::try_get_u8)?;
    if flags & !(FLAG_LEAVING | FLAG_IPV6) != 0 {
        return Err(CodecError::Unknown(flags));
    }
    let ip = if flags & FLAG_IPV6 == 0 {
        IpAddr::V4(Ipv4Addr::from(get_array::<4>(buf)?))
    } else {
        IpAddr::V6(Ipv6Addr::from(get_array::<16>(buf)?))
    };
    let address = SocketAddr::new(ip, get(buf, Buf::try_get_u16)?);
    // One address has one form, or two members could disagree about who a member is.
    if !is_usable(address) || ip.to_canonical() != ip {
        return Err(CodecError::Address);
    }
    Ok(Identity { node, incarnation, address, leaving: flags & FLAG_LEAVING != 0 })
}

pub(crate) fn put_member(member: &Member<Identity>, buf: &mut impl BufMut) {
    put_identity(member.id(), buf);
    buf.put_u16(member.incarnation());
    buf.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

pub(crate) fn get_member(buf: &mut impl Buf) -> Result<Member<Identity>, CodecError> {
    let identity = get_identity(buf)?;
    let refutations = get(buf, Buf::try_get_u16)?;
    let state = match get(buf, Buf::try_get_u8)? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        other => return Err(CodecError::Unknown(other)),
    };
    Ok(Member::new(identity, refutations, state))
}

fn put_header(header: &Header<Identity>, buf: &mut impl BufMut) -> Result<(), CodecError> {
    put_identity(&header.src, buf);
    buf.put_u16(header.src_incarnation);
    put_identity(&header.dst, buf);
    let (tag, probe, third) = match &header.message {
        Message::Ping(probe) => (0, Some(*probe), None),
        Message::Ack(probe) => (1, Some(*probe), None),
        Message::PingReq { target, probe_number } => (2, Some(*probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (3, Some(*probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (4, Some(*probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(*probe_number), Some(origin)),
        Message::Gossip => (6, None, None),
        Message::TurnUndead => (7, None, None),
        Message::Announce | Message::Feed | Message::Broadcast => return Err(CodecError::Unused),
    };
    buf.put_u8(tag);
    if let Some(probe) = probe {
        buf.put_u8(probe);
    }
    if let Some(third) = third {
        put_identity(third, buf);
    }
    Ok(())
}

pub(crate) fn get_header(buf: &mut impl Buf) -> Result<Header<Identity>, CodecError> {
    let src = get_identity(buf)?;
    let src_incarnation = get(buf, Buf::try_get_u16)?;
    let dst = get_identity(buf)?;
    let tag = get(buf, Buf::try_get_u8)?;
    if tag > 7 {
        return Err(CodecError::Unknown(tag));
    }
    let probe_number = if tag <= 5 { get(buf, Buf::try_get_u8)? } else { 0 };
    let message = match tag {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: get_identity(buf)?, probe_number },
        3 => Message::IndirectPing { origin: get_identity(buf)?, probe_number },
        4 => Message::IndirectAck { target: get_identity(buf)?, probe_number },
        5 => Message::ForwardedAck { origin: get_identity(buf)?, probe_number },
        6 => Message::Gossip,
        _ => Message::TurnUndead,
    };
    Ok(Header { src, src_incarnation, dst, message })
}

pub(crate) fn get<B: Buf, V, E>(
    buf: &mut B,
    read: impl FnOnce(&mut B) -> Result<V, E>,
) -> Result<V, CodecError> {
    read(buf).map_err(|_| CodecError::Truncated)
}

fn get_array<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], CodecError> {
    let mut bytes = [0; N];
    buf.try_copy_to_slice(&mut bytes).map_err(|_| CodecError::Truncated)?;
    Ok(bytes)
}

/// This format as foca's codec. foca's buffers panic when they are full, so everything is written
/// to a scratch buffer first and copied only if it fits.
#[derive(Debug, Default)]
pub(crate) struct FocaCodec {
    scratch: Vec<u8>,
}

impl FocaCodec {
    pub(crate) fn new() -> Self {
        Self { scratch: Vec::with_capacity(MAX_HEADER) }
    }

    fn copy_out(&self, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < self.scratch.len() {
            return Err(CodecError::NoRoom);
        }
        buf.put_slice(&self.scratch);
        Ok(())
    }
}

impl foca::Codec<Identity> for FocaCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        self.scratch.clear();
        put_header(header, &mut self.scratch)?;
        self.copy_out(buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        get_header(&mut buf)
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        self.scratch.clear();
        put_member(member, &mut self.scratch);
        self.copy_out(buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        get_member(&mut buf)
    }
}

#[cfg(test)]
mod tests {
    use foca::Codec;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn identities() -> impl Strategy<Value = Identity> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
        (any::<[u8; 16]>(), any::<u64>(), prop_oneof![v4, v6], any::<u16>(), any::<bool>())
            .prop_map(|(node, incarnation, ip, port, leaving)| Identity {
                node: NodeId::from_bytes(node),
                incarnation: Incarnation::new(incarnation),
                address: SocketAddr::new(ip, port),
                leaving,
            })
            .prop_filter("usable", |identity| {
                let ip = identity.address.ip();
                is_usable(identity.address) && ip.to_canonical() == ip
            })
    }

    fn messages() -> impl Strategy<Value = Message<Identity>> {
        (0_u8..8, any::<u8>(), identities()).prop_map(|(tag, probe_number, other)| match tag {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: other, probe_number },
            3 => Message::IndirectPing { origin: other, probe_number },
            4 => Message::IndirectAck { target: other, probe_number },
            5 => Message::ForwardedAck { origin: other, probe_number },
            6 => Message::Gossip,
            _ => Message::TurnUndead,
        })
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            src in identities(), src_incarnation: u16, dst in identities(), message in messages(),
        ) {
            let header = Header { src, src_incarnation, dst, message };
            let mut bytes = Vec::new();
            FocaCodec::new().encode_header(&header, &mut bytes).unwrap();
            prop_assert!(bytes.len() <= MAX_HEADER);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(get_header(&mut rest).unwrap(), header);
            prop_assert!(rest.is_empty());
            for end in 0..bytes.len() {
                prop_assert!(get_header(&mut &bytes[..end]).is_err());
            }
        }

        #[test]
        fn members_round_trip(id in identities(), refutations: u16, state in 0_usize..3) {
            let state = [State::Alive, State::Suspect, State::Down][state];
            let member = Member::new(id, refutations, state);
            let mut bytes = Vec::new();
            put_member(&member, &mut bytes);
            prop_assert!(bytes.len() <= MAX_MEMBER);
            prop_assert_eq!(get_member(&mut bytes.as_slice()).unwrap(), member);
        }

        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes: Vec<u8>) {
            let _ = get_header(&mut bytes.as_slice());
            let _ = get_member(&mut bytes.as_slice());
        }
    }

    #[test]
    fn what_does_not_fit_leaves_the_buffer_clean() {
        let identity =
            Identity::new(NodeId::default(), Incarnation::new(1), "10.0.0.1:7946".parse().unwrap());
        let mut room = [0_u8; 20];
        let mut buf = room.as_mut_slice();
        let result = FocaCodec::new().encode_member(&Member::alive(identity), &mut buf);
        assert_eq!((result, buf.len()), (Err(CodecError::NoRoom), 20));
    }
}
