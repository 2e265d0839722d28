//! Merging consecutive TCP segments of one flow into a super-frame.
//!
//! The rules are those of the kernel's receive offload: same headers but for length,
//! identification, sequence, checksum and push; in order; only data; all segments but the last of
//! one size. Checksums are verified, because the merged frame's is vouched for.

use core::{num::NonZeroU16, ops::Range};

use super::{batch::Offload, segment};
use crate::wire::{
    checksum::Sum, dissection::Dissection, ethernet, ipv4, ipv6, protocol, read_u16, read_u32, tcp,
    write_u16,
};

/// Most octets of a super-frame's IP packet: its length field has 16 bits.
const MAX_PACKET: usize = 0xffff;

/// The end of a frame that more segments may be appended to.
#[derive(Debug)]
pub(super) struct Tail {
    seen: Dissection,
    /// Octets of all headers.
    headers: usize,
    next_sequence: u32,
    /// Payload of each segment.
    size: usize,
    open: bool,
}

impl Tail {
    /// The tail of `frame`, if it is a TCP segment that others can follow.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let segment = Candidate::new(frame)?;
        Some(Self {
            headers: segment.headers,
            next_sequence: segment.sequence.wrapping_add(segment.payload as u32),
            size: segment.payload,
            open: !segment.push,
            seen: segment.seen,
        })
    }

    /// Appends the payload of `frame` to the frame at `range`, the last in the arena, if it is the
    /// segment that follows. Says whether it was.
    pub(super) fn merge(
        &mut self,
        arena: &mut Vec<u8>,
        range: &mut Range<usize>,
        offload: &mut Offload,
        frame: &[u8],
    ) -> bool {
        if !self.open {
            return false;
        }
        let Some(next) = Candidate::new(frame) else { return false };
        let length = range.len() + next.payload;
        if next.sequence != self.next_sequence
            || next.payload > self.size
            || next.headers != self.headers
            || length > MAX_PACKET + ethernet::HEADER_LEN
            || !self.same_headers(&arena[range.clone()], frame)
        {
            return false;
        }
        let Some(size) = u16::try_from(self.size).ok().and_then(NonZeroU16::new) else {
            return false;
        };
        arena.extend_from_slice(&frame[self.headers..next.seen.end]);
        range.end = arena.len();
        *offload = Offload::Segment(size);
        self.next_sequence = next.sequence.wrapping_add(next.payload as u32);
        self.open = next.payload == self.size && !next.push;
        self.seen.end = length;
        self.fix(&mut arena[range.clone()], next.push);
        true
    }

    /// Everything but length, identification, sequence, checksums and push.
    fn same_headers(&self, a: &[u8], b: &[u8]) -> bool {
        let ip = ethernet::HEADER_LEN;
        let tcp = self.seen.transport;
        let same_ip = if self.seen.source.is_ipv4() {
            a[ip..ip + 2] == b[ip..ip + 2]
                && a[ip + 6..ip + 10] == b[ip + 6..ip + 10]
                && a[ip + 12..tcp] == b[ip + 12..tcp]
        } else {
            a[ip..ip + 4] == b[ip..ip + 4] && a[ip + 6..tcp] == b[ip + 6..tcp]
        };
        same_ip
            && a[..ip] == b[..ip]
            && a[tcp..tcp + 4] == b[tcp..tcp + 4]
            && a[tcp + 8..tcp + 13] == b[tcp + 8..tcp + 13]
            && a[tcp + 14..tcp + 16] == b[tcp + 14..tcp + 16]
            && a[tcp + 18..self.headers] == b[tcp + 18..self.headers]
    }

    fn fix(&self, frame: &mut [u8], push: bool) {
        if push {
            frame[self.seen.transport + tcp::FLAGS_AT] |= tcp::flag::PSH;
        }
        let packet = &mut frame[ethernet::HEADER_LEN..];
        let length = packet.len();
        if self.seen.source.is_ipv4() {
            write_u16(packet, 2, length as u16);
            ipv4::fill_checksum(packet);
        } else {
            write_u16(packet, 4, (length - ipv6::HEADER_LEN) as u16);
        }
        segment::fill_partial_checksum(frame, &self.seen);
    }
}

/// A TCP segment with data, good checksums and no flag but ACK and PSH.
struct Candidate {
    seen: Dissection,
    headers: usize,
    sequence: u32,
    payload: usize,
    push: bool,
}

impl Candidate {
    fn new(frame: &[u8]) -> Option<Self> {
        // Both cheap tests first: most frames that fail are pure acknowledgments.
        let seen = Dissection::of_frame(frame).ok()?;
        if seen.protocol != protocol::TCP || seen.fragment.is_some() {
            return None;
        }
        let bytes = &frame[seen.transport..seen.end];
        let tcp = tcp::TcpSegment::new(bytes).ok()?;
        let payload = tcp.payload().len();
        if payload == 0 || tcp.flags() & !tcp::flag::PSH != tcp::flag::ACK {
            return None;
        }
        let ip = &frame[ethernet::HEADER_LEN..seen.transport];
        if seen.source.is_ipv4() {
            // With options, or able to be fragmented: identification would matter.
            let plain = ip.len() == ipv4::HEADER_LEN && read_u16(ip, 6) == 0x4000;
            if !plain || Sum::of(ip).checksum() != 0 {
                return None;
            }
        } else if ip.len() != ipv6::HEADER_LEN {
            return None;
        }
        let length = bytes.len() as u32;
        let pseudo = Sum::pseudo_header(seen.source, seen.destination, protocol::TCP, length);
        if pseudo.and(Sum::of(bytes)).checksum() != 0 {
            return None;
        }
        Some(Self {
            headers: seen.transport + tcp.header_len(),
            sequence: read_u32(bytes, tcp::SEQUENCE_AT),
            payload,
            push: tcp.flags() & tcp::flag::PSH != 0,
            seen,
        })
    }
}
