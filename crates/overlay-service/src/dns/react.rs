//! What a name server does about a message. No I/O: bytes in, bytes out.

use hickory_proto::op::ResponseCode;

use super::{
    Transport,
    counters::Outcome,
    message::{Query, Rejected},
};
use crate::{Answer, Directory, Scope, resolve};

/// What to do about a message.
#[derive(Debug)]
pub enum Reaction {
    /// Nothing: it is too short, or a reply, and an answer could start a loop.
    Ignore,
    /// Send these bytes back.
    Reply {
        /// The reply, as long as the client takes at most.
        bytes: Vec<u8>,
        /// How it counts.
        outcome: Outcome,
    },
    /// The name is none of ours, and a network of the scope has a way out: ask elsewhere, or
    /// [refuse](Query::refusal).
    Forward(Box<Query>),
}

/// Answers a message as it is seen from `scope`: what [`Server`](super::Server) does, for those who
/// have sockets of their own. Any bytes may come. `seed` orders the records, see [`resolve`](crate::resolve()).
pub fn react(
    directory: &Directory,
    scope: &Scope,
    message: &[u8],
    transport: Transport,
    seed: u64,
) -> Reaction {
    let reply = |outcome, bytes| Reaction::Reply { bytes, outcome };
    let query = match Query::read(message, transport) {
        Ok(query) => query,
        Err(Rejected::Silently) => return Reaction::Ignore,
        Err(Rejected::Malformed(bytes)) => return reply(Outcome::Malformed, bytes),
        Err(Rejected::Unsupported(bytes)) => return reply(Outcome::Refused, bytes),
    };
    match resolve(directory, scope, query.question(), seed) {
        Answer::Records(records) => {
            reply(Outcome::Answered, query.reply(ResponseCode::NoError, records))
        }
        Answer::NoSuchName => {
            reply(Outcome::Answered, query.reply(ResponseCode::NXDomain, Vec::new()))
        }
        Answer::Refuse => reply(Outcome::Refused, query.refusal()),
        Answer::Forward => Reaction::Forward(Box::new(query)),
    }
}
