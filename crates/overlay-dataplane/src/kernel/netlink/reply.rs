//! What the kernel answers: messages, and refusals with its own words.

use core::fmt;

use neli::consts::nl::{NlmF, Nlmsg};
use nix::errno::Errno;

use super::{
    attribute::{Attributes, text},
    message::HEADER_LEN,
};

/// `NLMSGERR_ATTR_MSG`: what was wrong, in words.
const EXTENDED_TEXT: u16 = 1;

/// Why the kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The error's number.
    pub errno: Errno,
    /// The kernel's own words (extended acknowledgement), where it has any.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.errno.desc())?;
        match &self.text {
            Some(text) => write!(f, ": {}", text.trim_end_matches('.')),
            None => Ok(()),
        }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self { errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)), text: None }
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Reply<'a> {
    pub(in crate::kernel) kind: u16,
    pub(in crate::kernel) flags: u16,
    pub(in crate::kernel) sequence: u32,
    pub(in crate::kernel) payload: &'a [u8],
}

impl Reply<'_> {
    /// Whether it ends a dump.
    pub(super) fn is_done(&self) -> bool {
        self.kind == u16::from(Nlmsg::Done)
    }

    /// Whether what was listed changed meanwhile.
    pub(super) const fn is_interrupted(&self) -> bool {
        self.flags & NlmF::DUMP_INTR.bits() != 0
    }

    /// What it says about the request, if that is all that it says.
    pub(super) fn verdict(&self) -> Option<Result<(), Refusal>> {
        let is_error = self.kind == u16::from(Nlmsg::Error);
        if !is_error && !self.is_done() {
            return None;
        }
        let (code, rest) = self.payload.split_first_chunk::<4>()?;
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Some(Ok(()));
        }
        let attributes = if self.flags & NlmF::ACK_TLVS.bits() == 0 {
            &[]
        } else if is_error {
            // The request comes back in front of them: whole, or its header alone.
            let length = rest.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
            let capped = self.flags & NlmF::CAPPED.bits() != 0;
            let skip = if capped { HEADER_LEN } else { (length as usize).next_multiple_of(4) };
            rest.get(skip..).unwrap_or_default()
        } else {
            rest
        };
        let words = Attributes::new(attributes).get(EXTENDED_TEXT);
        Some(Err(Refusal {
            errno: Errno::from_raw(-code),
            text: words.map(|words| String::from_utf8_lossy(text(words)).into_owned()),
        }))
    }
}

/// The messages in what a socket received, to the first that is not whole.
pub(in crate::kernel) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    core::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let length = word(0) as usize;
        let payload = bytes.get(HEADER_LEN..length)?;
        let reply = Reply { kind: half(4), flags: half(6), sequence: word(8), payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An error with the kernel's text behind the request's header, as NETLINK_CAP_ACK makes it.
    fn error(capped: bool) -> Vec<u8> {
        let request = if capped { 16_u32 } else { 20 };
        let words = b"VXLAN device exists\0";
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(-17_i32).to_ne_bytes());
        bytes.extend_from_slice(&request.to_ne_bytes());
        bytes.extend_from_slice(&vec![0; request as usize - 4]);
        bytes.extend_from_slice(&(4 + words.len() as u16).to_ne_bytes());
        bytes.extend_from_slice(&1_u16.to_ne_bytes());
        bytes.extend_from_slice(words);
        let flags: u16 = if capped { 0x300 } else { 0x200 };
        let mut message = (16 + bytes.len() as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&2_u16.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(&bytes);
        message
    }

    #[test]
    fn the_kernels_words_are_kept() {
        for capped in [true, false] {
            let bytes = error(capped);
            let all: Vec<_> = replies(&bytes).collect();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].sequence, 9);
            let refusal = all[0].verdict().unwrap().unwrap_err();
            assert_eq!(refusal.to_string(), "File exists: VXLAN device exists");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            for reply in replies(&bytes) {
                let _ = reply.verdict();
            }
        }
    }
}
