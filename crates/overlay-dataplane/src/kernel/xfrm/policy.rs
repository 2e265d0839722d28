//! The policies: what goes to the encrypted port is ESP, or it is dropped.

use core::net::IpAddr;

use neli::consts::nl::NlmF;

use super::{
    super::netlink::{Attributes, Message},
    ESP, Kind, REQUEST_ID, TEMPLATE, TRANSPORT, read_u32,
    selector::{self, Selector},
    write_u16, write_u32,
};

/// `struct xfrm_userpolicy_info`: where its parts begin.
const LIFETIME: usize = 56;
const PRIORITY: usize = 152;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
const LEN: usize = 168;
/// Octets of `struct xfrm_userpolicy_id`.
const ID_LEN: usize = 64;
/// `struct xfrm_user_tmpl`.
const TEMPLATE_PROTOCOL: usize = 20;
const TEMPLATE_FAMILY: usize = 24;
const TEMPLATE_REQUEST: usize = 44;
const TEMPLATE_MODE: usize = 48;
const TEMPLATE_LEN: usize = 64;
/// `XFRM_POLICY_ALLOW`: what the template asks for, or nothing.
const ALLOW: u8 = 0;
/// In front of everybody else's.
const FIRST: u32 = 0;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) direction: Direction,
    selector: Selector,
}

impl Policy {
    /// The policies of a node.
    pub(super) const fn both(own: IpAddr, port: u16) -> [Self; 2] {
        let inward = Self { direction: Direction::In, selector: Selector::to(own, port) };
        let outward = Self { direction: Direction::Out, selector: Selector::from(own, port) };
        [inward, outward]
    }

    /// Has it, in the place of another one with the same selector.
    pub(super) fn put(&self) -> Message {
        Message::new(Kind::PutPolicy, NlmF::empty(), &self.header()).put(TEMPLATE, &self.template())
    }

    /// Has it no more.
    pub(super) fn remove(&self) -> Message {
        let mut id = [0; ID_LEN];
        self.selector.write(&mut id[..selector::LEN]);
        id[selector::LEN + 4] = self.direction.number();
        Message::new(Kind::RemovePolicy, NlmF::empty(), &id)
    }

    /// Whether a policy that was read is this one.
    pub(super) fn is(&self, payload: &[u8]) -> bool {
        let Some((header, rest)) = payload.split_first_chunk::<LEN>() else { return false };
        let template = Attributes::new(rest).get(TEMPLATE).unwrap_or_default();
        Selector::read(header) == Some(self.selector)
            && header[DIRECTION] == self.direction.number()
            && header[ACTION] == ALLOW
            && read_u32(header, PRIORITY) == Some(FIRST)
            // The kernel fills in what the request leaves open behind them.
            && template.len() == TEMPLATE_LEN
            && template[..TEMPLATE_MODE + 3] == self.template()[..TEMPLATE_MODE + 3]
    }

    fn header(&self) -> [u8; LEN] {
        let mut header = [0; LEN];
        self.selector.write(&mut header[..selector::LEN]);
        // No limit of octets or packets.
        header[LIFETIME..LIFETIME + 32].fill(0xff);
        write_u32(&mut header, PRIORITY, FIRST);
        header[DIRECTION] = self.direction.number();
        header[ACTION] = ALLOW;
        header
    }

    /// ESP in transport mode, with an association of ours, and required.
    fn template(&self) -> [u8; TEMPLATE_LEN] {
        let mut template = [0; TEMPLATE_LEN];
        template[TEMPLATE_PROTOCOL] = ESP;
        write_u16(&mut template, TEMPLATE_FAMILY, self.selector.family.into());
        write_u32(&mut template, TEMPLATE_REQUEST, REQUEST_ID);
        template[TEMPLATE_MODE] = TRANSPORT;
        // Any algorithm: associations say which.
        template[TEMPLATE_MODE + 4..].fill(0xff);
        template
    }
}

impl Direction {
    const fn number(self) -> u8 {
        match self {
            Self::In => 0,
            Self::Out => 1,
        }
    }
}

/// Lists the policies of a namespace, others' too.
pub(super) fn list() -> Message {
    Message::new(Kind::GetPolicy, NlmF::empty(), &[])
}

/// Removes a policy that was read, if it asks for associations of ours.
pub(super) fn remove_ours(payload: &[u8]) -> Option<Message> {
    let (header, rest) = payload.split_first_chunk::<LEN>()?;
    let template = Attributes::new(rest).get(TEMPLATE)?;
    if read_u32(template, TEMPLATE_REQUEST)? != REQUEST_ID {
        return None;
    }
    let mut id = [0; ID_LEN];
    id[..selector::LEN].copy_from_slice(&header[..selector::LEN]);
    id[selector::LEN + 4] = header[DIRECTION];
    Some(Message::new(Kind::RemovePolicy, NlmF::empty(), &id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        for own in ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let [inward, outward] = Policy::both(own, 4788);
            let message = inward.put();
            assert!(inward.is(message.payload()));
            assert!(!outward.is(message.payload()));
            assert!(!Policy::both(own, 4789)[0].is(message.payload()));
        }
    }
}
