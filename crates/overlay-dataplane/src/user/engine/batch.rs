//! Outputs of the engine as plain data: descriptors over one arena that is used again and again.
//!
//! ```text
//! arena    [vxlan|frame][vxlan|frame][vxlan|fra]  ..room..[frame]  ..room..[frame]
//! outputs   Datagrams { stride, 3 of them }        Frame            Frame
//! ```

use core::{net::IpAddr, num::NonZeroU16, ops::Range};

use super::{PortId, coalesce};

/// Room before each frame, for the header that a TAP device wants in front of it.
pub const FRAME_HEADROOM: usize = 10;

/// Most octets of one segmented send: a UDP length field of 16 bits, less the outer headers.
pub(super) const MAX_SEND_BYTES: usize = 65_000;

/// Most datagrams of one segmented send: `UDP_MAX_SEGMENTS` of Linux before 6.8.
pub(super) const MAX_SEND_SEGMENTS: usize = 64;

/// What is left to do on a frame that crosses a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// Nothing: it is a frame as it stands on a wire.
    #[default]
    None,
    /// It is a TCP or UDP super-frame, to be cut into segments with this much payload. Its
    /// transport checksum is not computed.
    Segment(NonZeroU16),
}

/// Which UDP ports a datagram goes from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Plain VXLAN, from this source port: 49152-65535, by the inner flow (RFC 7348 §5).
    Plain {
        /// The source port.
        source_port: u16,
    },
    /// ESP in UDP, from and to the ESP port (RFC 3948).
    Esp,
}

/// One thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// UDP datagrams of `stride` octets, the last one maybe shorter.
    Datagrams {
        /// Data-path address of the receiving node.
        to: IpAddr,
        /// Ports.
        channel: Channel,
        /// Where in the arena their payloads stand, without gaps.
        range: Range<usize>,
        /// Octets of each but the last.
        stride: usize,
    },
    /// A frame for a port.
    Frame {
        /// The port.
        port: PortId,
        /// Where in the arena it stands, after [`FRAME_HEADROOM`] octets of room.
        range: Range<usize>,
        /// What is left to do on it.
        offload: Offload,
    },
}

/// Outputs in the order in which they came about.
#[derive(Debug, Default)]
pub struct Batch {
    arena: Vec<u8>,
    outputs: Vec<Output>,
    tail: Option<coalesce::Tail>,
}

impl Batch {
    /// Forgets all outputs and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.outputs.clear();
        self.tail = None;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Octets in the arena.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The outputs.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The octets of an output.
    pub fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.arena[range]
    }

    /// Outputs and arena, for a sink that writes into the room before frames.
    pub fn parts_mut(&mut self) -> (&[Output], &mut [u8]) {
        (&self.outputs, &mut self.arena)
    }

    /// Each frame with its port.
    pub fn frames(&self) -> impl Iterator<Item = (PortId, &[u8], Offload)> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Frame { port, range, offload } => {
                Some((*port, &self.arena[range.clone()], *offload))
            }
            Output::Datagrams { .. } => None,
        })
    }

    /// Each single datagram with its receiver.
    pub fn datagrams(&self) -> impl Iterator<Item = (IpAddr, Channel, &[u8])> {
        let sends = self.outputs.iter().filter_map(|output| match output {
            Output::Datagrams { to, channel, range, stride } => {
                Some((*to, *channel, self.arena[range.clone()].chunks(*stride)))
            }
            Output::Frame { .. } => None,
        });
        sends.flat_map(|(to, channel, chunks)| chunks.map(move |bytes| (to, channel, bytes)))
    }

    /// Starts a datagram: the arena to append to, and where it starts.
    pub(super) fn begin_datagram(&mut self) -> (usize, &mut Vec<u8>) {
        (self.arena.len(), &mut self.arena)
    }

    /// Takes back what was appended since `start`.
    pub(super) fn abandon(&mut self, start: usize) {
        self.arena.truncate(start);
    }

    /// What was appended since `start` is a datagram; one send with those before it if it can be.
    pub(super) fn commit_datagram(&mut self, start: usize, to: IpAddr, channel: Channel) {
        let length = self.arena.len() - start;
        if let Some(Output::Datagrams { to: last_to, channel: last_channel, range, stride }) =
            self.outputs.last_mut()
            && *last_to == to
            && *last_channel == channel
            && range.end == start
            && length <= *stride
            && range.len() % *stride == 0
            && range.len() + length <= MAX_SEND_BYTES
            && range.len() / *stride < MAX_SEND_SEGMENTS
        {
            range.end = self.arena.len();
            return;
        }
        let range = start..self.arena.len();
        self.outputs.push(Output::Datagrams { to, channel, range, stride: length });
    }

    /// Starts a frame: the arena to append to, and where it starts.
    pub(super) fn begin_frame(&mut self) -> (usize, &mut Vec<u8>) {
        self.arena.extend_from_slice(&[0; FRAME_HEADROOM]);
        (self.arena.len(), &mut self.arena)
    }

    /// What was appended since `start` is a frame for `port`.
    pub(super) fn commit_frame(&mut self, start: usize, port: PortId, offload: Offload) {
        let range = start..self.arena.len();
        self.outputs.push(Output::Frame { port, range, offload });
    }

    /// Appends a frame for `port`, merged into the one before it when both are segments of one
    /// TCP flow in order.
    pub(super) fn push_mergeable(&mut self, port: PortId, frame: &[u8]) {
        if let (Some(tail), Some(Output::Frame { port: last, range, offload })) =
            (&mut self.tail, self.outputs.last_mut())
            && *last == port
            && range.end == self.arena.len()
            && tail.merge(&mut self.arena, range, offload, frame)
        {
            return;
        }
        let (start, arena) = self.begin_frame();
        arena.extend_from_slice(frame);
        self.tail = coalesce::Tail::of(frame);
        self.commit_frame(start, port, Offload::None);
    }
}
