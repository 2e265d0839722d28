//! Queries from bytes, and replies to bytes (RFC 1035 §4, RFC 6891). No I/O.

use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record as WireRecord, RecordType,
        rdata::{A, AAAA, PTR, SRV},
    },
};

use super::Transport;
use crate::{
    question::{Question, RecordKind},
    resolve::{Record, TTL_SECS},
};

/// Longest query that is read. A question is at most 271 octets; the rest is room for EDNS options.
pub const MAX_QUERY_LEN: usize = 4096;

/// Longest reply over UDP, however much a client takes: fits any path without fragments (DNS flag
/// day 2020). What does not fit is asked again over TCP.
pub const MAX_UDP_PAYLOAD: u16 = 1232;

/// Octets of a message's header.
pub(super) const HEADER_LEN: usize = 12;

/// The flag, in the third octet, of a reply by a server of the name's zone (AA).
pub(super) const AUTHORITATIVE: u8 = 0x04;

/// Octets of the shortest record: a pointer to its name, type, class, TTL, length, an IPv4 address.
const MIN_RECORD_LEN: usize = 16;

/// A message that is no query to be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// Too short, or a reply: answering it could start a loop.
    Silently,
    /// It cannot be read.
    Malformed(Vec<u8>),
    /// It asks for what is never answered.
    Unsupported(Vec<u8>),
}

/// A query with one question of class IN.
#[derive(Debug)]
pub struct Query {
    message: Message,
    name: String,
    kind: RecordKind,
    transport: Transport,
}

impl Query {
    pub(super) fn read(bytes: &[u8], transport: Transport) -> Result<Self, Rejected> {
        if bytes.len() < HEADER_LEN || is_reply(bytes) {
            return Err(Rejected::Silently);
        }
        let rejected = |code| bare_reply(bytes, code);
        let opcode = OpCode::from_u8(bytes[2] >> 3 & 0xf);
        if opcode != OpCode::Query {
            return Err(Rejected::Unsupported(rejected(ResponseCode::NotImp)));
        }
        let message = Message::from_vec(bytes)
            .map_err(|_| Rejected::Malformed(rejected(ResponseCode::FormErr)))?;
        let [question] = &message.queries[..] else {
            return Err(Rejected::Malformed(rejected(ResponseCode::FormErr)));
        };
        let kind = kind_of(question.query_type);
        let name = text_of(&question.name);
        let class = question.query_class;
        let query = Self { message, name, kind: kind.unwrap_or(RecordKind::Other), transport };
        if query.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Err(Rejected::Unsupported(query.reply(ResponseCode::BADVERS, Vec::new())));
        }
        if class != DNSClass::IN || kind.is_none() {
            return Err(Rejected::Unsupported(query.refusal()));
        }
        Ok(query)
    }

    /// What is asked.
    pub fn question(&self) -> Question<'_> {
        Question { name: &self.name, kind: self.kind }
    }

    /// The reply that the question is not answered here: REFUSED.
    pub fn refusal(&self) -> Vec<u8> {
        self.reply(ResponseCode::Refused, Vec::new())
    }

    /// The reply that nobody could be asked: SERVFAIL.
    pub fn failure(&self) -> Vec<u8> {
        self.reply(ResponseCode::ServFail, Vec::new())
    }

    /// The same question for an upstream, under an id that the client cannot know.
    pub(super) fn to_upstream(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::query();
        message.metadata = self.message.metadata;
        message.metadata.id = id;
        message.queries.clone_from(&self.message.queries);
        // Options are between a client and the server that it asks (RFC 6891 §6.2.6).
        message.edns = self.message.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_PAYLOAD).set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        message.to_vec().ok()
    }

    /// What an upstream replied, for the client.
    pub(super) fn relay(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.len() > self.limit() {
            let code = ResponseCode::from(0, bytes[3] & 0xf);
            return self.encode(&[], code, false, true);
        }
        bytes[..2].copy_from_slice(&self.message.metadata.id.to_be_bytes());
        bytes
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.transport == Transport::Tcp
    }

    /// A reply of ours, as long as the client takes: with fewer records and the mark that there
    /// are more (TC) if not all fit.
    pub(super) fn reply(&self, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
        let owner = self.message.queries.first().map(|q| q.name.clone()).unwrap_or_default();
        let count = records.len();
        let data = records.into_iter().take(self.limit() / MIN_RECORD_LEN).filter_map(wire_data);
        let mut answers: Vec<_> =
            data.map(|data| WireRecord::from_rdata(owner.clone(), TTL_SECS, data)).collect();
        let ours = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let mut bytes = self.encode(&answers, code, ours, answers.len() < count);
        while bytes.len() > self.limit() && !answers.is_empty() {
            // Records are about equally long, so this comes close at once and below soon.
            let fitting = answers.len() * self.limit() / bytes.len();
            answers.truncate(fitting.min(answers.len() - 1));
            bytes = self.encode(&answers, code, ours, true);
        }
        bytes
    }

    fn limit(&self) -> usize {
        match self.transport {
            Transport::Udp => self.message.max_payload().min(MAX_UDP_PAYLOAD).into(),
            Transport::Tcp => u16::MAX.into(),
        }
    }

    fn encode(
        &self,
        answers: &[WireRecord],
        code: ResponseCode,
        authoritative: bool,
        truncated: bool,
    ) -> Vec<u8> {
        let request = &self.message.metadata;
        let mut message = Message::response(request.id, request.op_code);
        message.metadata.response_code = code;
        message.metadata.authoritative = authoritative;
        message.metadata.truncation = truncated;
        message.metadata.recursion_desired = request.recursion_desired;
        message.metadata.recursion_available = true;
        message.queries.clone_from(&self.message.queries);
        message.answers = answers.to_vec();
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_PAYLOAD);
            message.edns = Some(edns);
        }
        // It cannot fail: what was read can be written, and the encoder cuts at 64 KiB.
        message.to_vec().unwrap_or_else(|_| header_of(request.id, ResponseCode::ServFail))
    }
}

/// Whether `reply` answers `query`: same id and same question, from a server.
pub(super) fn answers(reply: &[u8], query: &[u8]) -> bool {
    let Some(question) = question_of(query) else { return false };
    let Some(echoed) = reply.get(HEADER_LEN..HEADER_LEN + question.len()) else { return false };
    // Lengths of labels are below 64, and thus no letters.
    reply[..2] == query[..2]
        && is_reply(reply)
        && reply[4..6] == [0, 1]
        && echoed.eq_ignore_ascii_case(question)
}

/// Whether `reply` says that there is more over TCP.
pub(super) fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether `reply` says that its server could not or would not answer, but another might.
pub(super) fn is_failure(reply: &[u8]) -> bool {
    matches!(code_of(reply), Some(ResponseCode::ServFail | ResponseCode::Refused))
}

/// Whether `reply` says what there is, or that there is nothing.
pub(super) fn is_conclusive(reply: &[u8]) -> bool {
    matches!(code_of(reply), Some(ResponseCode::NoError | ResponseCode::NXDomain))
}

/// Whether `reply` says that there is no such name.
pub(super) fn is_no_such_name(reply: &[u8]) -> bool {
    code_of(reply) == Some(ResponseCode::NXDomain)
}

fn code_of(reply: &[u8]) -> Option<ResponseCode> {
    reply.get(3).map(|flags| ResponseCode::from(0, flags & 0xf))
}

fn is_reply(bytes: &[u8]) -> bool {
    bytes[2] & 0x80 != 0
}

/// The octets of the question of a query of ours, whose name is not compressed.
pub(super) fn question_of(query: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER_LEN;
    loop {
        let len = usize::from(*query.get(end)?);
        end += 1 + len;
        if len == 0 {
            return query.get(HEADER_LEN..end + 4);
        }
    }
}

/// A reply of a header alone, to a message of which nothing else is sure.
fn bare_reply(request: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = header_of(u16::from_be_bytes([request[0], request[1]]), code);
    // Opcode and "recursion desired" are the request's.
    reply[2] |= request[2] & 0x79;
    reply
}

fn header_of(id: u16, code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER_LEN];
    reply[..2].copy_from_slice(&id.to_be_bytes());
    reply[2] = 0x80;
    reply[3] = code.low();
    reply
}

/// `None` for transfers, which are never answered.
fn kind_of(kind: RecordType) -> Option<RecordKind> {
    match kind {
        RecordType::A => Some(RecordKind::A),
        RecordType::AAAA => Some(RecordKind::Aaaa),
        RecordType::PTR => Some(RecordKind::Ptr),
        RecordType::SRV => Some(RecordKind::Srv),
        RecordType::ANY => Some(RecordKind::Any),
        RecordType::AXFR | RecordType::IXFR => None,
        _ => Some(RecordKind::Other),
    }
}

/// Labels joined by dots; empty, which is no name of ours, if a label holds other characters than
/// those of names. A dot inside a label must not pass for one between labels.
fn text_of(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if !label.iter().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b)) {
            return String::new();
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(*b)));
    }
    text
}

fn wire_data(record: Record) -> Option<RData> {
    Some(match record {
        Record::A(address) => RData::A(A(address)),
        Record::Aaaa(address) => RData::AAAA(AAAA(address)),
        Record::Ptr(name) => RData::PTR(PTR(wire_name(&name)?)),
        Record::Srv { port, target } => RData::SRV(SRV::new(0, 0, port, wire_name(&target)?)),
    })
}

/// Names are of letters, digits, `_` and `-`, and short, so all can be written.
fn wire_name(name: &str) -> Option<Name> {
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests;
