//! What is inside a sealed datagram or stream message.
//!
//! ```text
//! version 1 | kind 1 | body
//!
//! kind 0  swim      a packet of foca's
//! kind 1  greeting  identity of the sender, for whoever listens at the address it is sent to
//! kind 2  exchange  identity of the sender | of the receiver | answer wanted 1 | count 4 | members
//! ```

use bytes::{Buf, BufMut};
use foca::Member;

use super::codec::{self, CodecError, MAX_IDENTITY, MAX_MEMBER};
use crate::{
    config::{MAX_MEMBERS, MAX_STREAM_MESSAGE},
    counters::DropReason,
    identity::Identity,
};

/// Version of the messages in this module. Others are dropped and counted.
pub(crate) const VERSION: u8 = 1;

/// Bytes before the body.
pub(crate) const PREFIX: usize = 2;

const KIND_SWIM: u8 = 0;
const KIND_GREETING: u8 = 1;
const KIND_EXCHANGE: u8 = 2;

const _: () = assert!(
    PREFIX + 2 * MAX_IDENTITY + 1 + 4 + MAX_MEMBERS * MAX_MEMBER + 4096 < MAX_STREAM_MESSAGE,
    "an exchange of a full table fits a stream message"
);

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GossipMessage<'a> {
    Swim(&'a [u8]),
    Greeting(Identity),
    Exchange(Exchange),
}

/// Everything that the sender knows, also about the dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) from: Identity,
    pub(crate) to: Identity,
    /// The receiver shall send what it knows in return.
    pub(crate) answer: bool,
    pub(crate) members: Vec<Member<Identity>>,
}

impl<'a> GossipMessage<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Swim(packet) => {
                out.put_u8(KIND_SWIM);
                out.put_slice(packet);
            }
            Self::Greeting(identity) => {
                out.put_u8(KIND_GREETING);
                codec::put_identity(identity, &mut out);
            }
            Self::Exchange(exchange) => {
                out.put_u8(KIND_EXCHANGE);
                codec::put_identity(&exchange.from, &mut out);
                codec::put_identity(&exchange.to, &mut out);
                out.put_u8(u8::from(exchange.answer));
                out.put_u32(exchange.members.len() as u32);
                for member in &exchange.members {
                    codec::put_member(member, &mut out);
                }
            }
        }
        out
    }

    pub(crate) fn decode(mut bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (Ok(version), Ok(kind)) = (bytes.try_get_u8(), bytes.try_get_u8()) else {
            return Err(DropReason::Truncated);
        };
        if version != VERSION {
            return Err(DropReason::UnknownVersion);
        }
        let message = match kind {
            KIND_SWIM => return Ok(Self::Swim(bytes)),
            KIND_GREETING => codec::get_identity(&mut bytes).map(Self::Greeting),
            KIND_EXCHANGE => decode_exchange(&mut bytes).map(Self::Exchange),
            other => Err(CodecError::Unknown(other)),
        };
        match message {
            Ok(message) if bytes.is_empty() => Ok(message),
            _ => Err(DropReason::Malformed),
        }
    }
}

fn decode_exchange(bytes: &mut &[u8]) -> Result<Exchange, CodecError> {
    let from = codec::get_identity(bytes)?;
    let to = codec::get_identity(bytes)?;
    let answer = match codec::get(bytes, Buf::try_get_u8)? {
        0 => false,
        1 => true,
        other => return Err(CodecError::Unknown(other)),
    };
    let count = codec::get(bytes, Buf::try_get_u32)? as usize;
    if count > MAX_MEMBERS {
        return Err(CodecError::NoRoom);
    }
    // The vector grows with what is really there, not with what the count claims.
    let members = (0..count).map(|_| codec::get_member(bytes)).collect::<Result<_, _>>()?;
    Ok(Exchange { from, to, answer, members })
}

#[cfg(test)]
mod tests {
    use overlay_types::{Incarnation, NodeId};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn identity(number: u8) -> Identity {
        let address = std::net::SocketAddr::from(([10, 0, 0, number], 7946));
        Identity::new(NodeId::from_u128(number.into()), Incarnation::new(5), address)
    }

    fn exchange() -> GossipMessage<'static> {
        GossipMessage::Exchange(Exchange {
            from: identity(1),
            to: identity(2),
            answer: true,
            members: vec![Member::alive(identity(3)), Member::down(identity(4))],
        })
    }

    #[rstest]
    #[case(GossipMessage::Swim(b"packet"))]
    #[case(GossipMessage::Greeting(identity(1)))]
    #[case(exchange())]
    fn messages_round_trip(#[case] message: GossipMessage<'_>) {
        assert_eq!(GossipMessage::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn every_cut_and_every_addition_is_noticed() {
        let bytes = exchange().encode();
        for end in 0..bytes.len() {
            assert!(GossipMessage::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(GossipMessage::decode(&longer), Err(DropReason::Malformed));
    }

    #[rstest]
    #[case(&[], DropReason::Truncated)]
    #[case(&[1], DropReason::Truncated)]
    #[case(&[2, 0], DropReason::UnknownVersion)]
    #[case(&[1, 3], DropReason::Malformed)]
    fn others_are_dropped_for_a_reason(#[case] bytes: &[u8], #[case] reason: DropReason) {
        assert_eq!(GossipMessage::decode(bytes), Err(reason));
    }

    #[test]
    fn a_count_that_lies_costs_nothing() {
        let mut bytes = vec![VERSION, KIND_EXCHANGE];
        codec::put_identity(&identity(1), &mut bytes);
        codec::put_identity(&identity(2), &mut bytes);
        bytes.put_u8(0);
        bytes.put_u32(u32::MAX);
        assert_eq!(GossipMessage::decode(&bytes), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_not_a_panic(mut bytes: Vec<u8>, kind in 0_u8..4) {
            let _ = GossipMessage::decode(&bytes);
            bytes.splice(0..0, [VERSION, kind]);
            let _ = GossipMessage::decode(&bytes);
        }
    }
}
