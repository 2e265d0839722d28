//! Rules of routing: which table decides.

use neli::consts::nl::NlmF;

use super::netlink::{Attributes, Message, family};

/// `RTM_NEWRULE`, `RTM_DELRULE`, `RTM_GETRULE`.
const NEW: u16 = 32;
const DELETE: u16 = 33;
const GET: u16 = 34;
/// `struct fib_rule_hdr`: family, lengths, TOS, table, reserved, action, flags.
const HEADER_LEN: usize = 12;
const ACTION: usize = 7;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;
/// `FRA_*` of linux/fib_rules.h.
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const TABLE: u16 = 15;
const MASK: u16 = 16;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PolicyRule {
    pub(super) ipv6: bool,
    /// Lower comes first. The kernel's own are 0, 32766 and 32767.
    pub(super) priority: u32,
    /// Bits of the packet's mark that have to be set; 0 for all packets.
    pub(super) mark: u32,
    /// Table that decides.
    pub(super) table: u32,
}

impl PolicyRule {
    /// Reads `struct fib_rule_hdr` and the attributes behind it. `None` when it asks for more than a mark.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
        let attributes = Attributes::new(rest);
        let mark = attributes.u32(MARK).unwrap_or(0);
        let is_plain = header[1] == 0 && header[2] == 0 && header[ACTION] == TO_TABLE;
        (is_plain && attributes.u32(MASK).unwrap_or(0) == mark).then_some(Self {
            ipv6: header[0] == family::V6,
            priority: attributes.u32(PRIORITY).unwrap_or(0),
            mark,
            table: attributes.u32(TABLE)?,
        })
    }

    /// Has the rule. Refused where it is.
    pub(super) fn add(self) -> Message {
        self.message(NEW, NlmF::CREATE | NlmF::EXCL)
    }

    /// Has the rule no more.
    pub(super) fn remove(self) -> Message {
        self.message(DELETE, NlmF::empty())
    }

    fn message(self, kind: u16, flags: NlmF) -> Message {
        let mut header = [0; HEADER_LEN];
        header[0] = if self.ipv6 { family::V6 } else { family::V4 };
        header[ACTION] = TO_TABLE;
        let message = Message::new(kind, flags, &header)
            .put_u32(PRIORITY, self.priority)
            .put_u32(TABLE, self.table);
        if self.mark == 0 {
            return message;
        }
        message.put_u32(MARK, self.mark).put_u32(MASK, self.mark)
    }
}

/// Lists the rules of the socket's namespace, of both families.
pub(super) fn list() -> [Message; 2] {
    [family::V4, family::V6].map(|family| {
        let mut header = [0; HEADER_LEN];
        header[0] = family;
        Message::new(GET, NlmF::empty(), &header)
    })
}
