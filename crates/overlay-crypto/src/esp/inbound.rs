//! Opening.

use core::{fmt, ops::Range};

use overlay_types::Spi;

use super::{
    SaKeys, Salt,
    codec::{
        HEADROOM, MIN_PACKET, NEXT_HEADER_NONE, NEXT_HEADER_UDP, associated_data, infer_sequence,
        read_trailer,
    },
};
use crate::{
    aead::{PacketAead, RingAead, TAG_LEN},
    replay::{Replay, ReplayWindow, WINDOW},
};

/// Why a datagram is not handed on. Each is a counter of [`SaTable`](super::SaTable).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpenError {
    /// NAT keepalive (RFC 3948 §2.3); not a fault.
    Keepalive,
    /// The non-ESP marker: IKE, which nobody here speaks.
    NonEsp,
    /// Too short, no multiple of four, or a reserved SPI.
    Malformed,
    /// No association has this SPI: an epoch that is erased, or a stranger.
    UnknownSpi,
    /// The packet number lies before the replay window.
    TooOld,
    /// The packet number was accepted before.
    Replayed,
    /// The tag is wrong: forged, damaged, or sealed with other keys.
    BadTag,
    /// Authentic, but its padding is not 1, 2, 3, …
    BadPadding,
    /// Authentic, but carries something else than UDP.
    NotUdp,
    /// Authentic dummy packet (RFC 4303 §2.6); not a fault.
    Dummy,
}

impl OpenError {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Keepalive,
        Self::NonEsp,
        Self::Malformed,
        Self::UnknownSpi,
        Self::TooOld,
        Self::Replayed,
        Self::BadTag,
        Self::BadPadding,
        Self::NotUdp,
        Self::Dummy,
    ];

    /// Name of the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keepalive => "keepalive",
            Self::NonEsp => "non_esp",
            Self::Malformed => "malformed",
            Self::UnknownSpi => "unknown_spi",
            Self::TooOld => "too_old",
            Self::Replayed => "replayed",
            Self::BadTag => "bad_tag",
            Self::BadPadding => "bad_padding",
            Self::NotUdp => "not_udp",
            Self::Dummy => "dummy",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One direction from one peer: opens packets and refuses replays.
pub struct InboundSa<A = RingAead> {
    spi: Spi,
    salt: Salt,
    aead: A,
    window: ReplayWindow,
    packets: u64,
    bytes: u64,
    replays: u64,
    bad_tags: u64,
}

impl InboundSa {
    /// An association that has received nothing, on the production AEAD.
    pub fn new(keys: &SaKeys) -> Self {
        Self::with_aead(keys)
    }
}

impl<A: PacketAead> InboundSa<A> {
    /// An association that has received nothing, on a given AEAD.
    pub fn with_aead(keys: &SaKeys) -> Self {
        Self::resumed_after(keys, 0)
    }

    /// An association that refuses all numbers up to and including `sequence`.
    pub fn resumed_after(keys: &SaKeys, sequence: u64) -> Self {
        Self {
            spi: keys.spi,
            salt: keys.salt.clone(),
            aead: A::new(&keys.key),
            window: ReplayWindow::starting_after(sequence),
            packets: 0,
            bytes: 0,
            replays: 0,
            bad_tags: 0,
        }
    }

    /// The number on the wire.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// The highest packet number that was accepted.
    pub const fn sequence(&self) -> u64 {
        self.window.top()
    }

    /// Authentic packets, dummies included.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes of authentic packets.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets that were refused for their number: accepted before, or before the window.
    pub const fn replays(&self) -> u64 {
        self.replays
    }

    /// Packets that were refused for their tag.
    pub const fn bad_tags(&self) -> u64 {
        self.bad_tags
    }

    /// Opens an ESP packet in place and returns where its payload lies: a UDP header and what
    /// follows. The packet number is checked before decryption and marked after the tag.
    ///
    /// After [`OpenError::BadTag`] the packet's text is destroyed; after the reasons that
    /// come before it in the enum the packet is as it was.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Range<usize>, OpenError> {
        let opened = self.check_and_open(packet);
        match &opened {
            Err(OpenError::TooOld | OpenError::Replayed) => self.replays += 1,
            Err(OpenError::BadTag) => self.bad_tags += 1,
            _ => {}
        }
        opened
    }

    #[inline]
    fn check_and_open(&mut self, packet: &mut [u8]) -> Result<Range<usize>, OpenError> {
        if packet.len() < MIN_PACKET || !packet.len().is_multiple_of(4) {
            return Err(OpenError::Malformed);
        }
        let (header, rest) = packet.split_at_mut(HEADROOM);
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        if word(0) != self.spi.get() {
            return Err(OpenError::UnknownSpi);
        }
        let sequence =
            infer_sequence(word(4), self.window.top(), WINDOW).ok_or(OpenError::TooOld)?;
        self.window.check(sequence).map_err(OpenError::from)?;

        let iv = [8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| header[at]);
        let (text, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        let tag: &[u8; TAG_LEN] = (&*tag).try_into().map_err(|_| OpenError::Malformed)?;
        let aad = associated_data(self.spi, sequence);
        self.aead.open(self.salt.nonce(iv), &aad, text, tag).map_err(|_| OpenError::BadTag)?;
        self.window.accept(sequence).map_err(OpenError::from)?;
        self.packets += 1;

        let (payload, next_header) = read_trailer(text).ok_or(OpenError::BadPadding)?;
        match next_header {
            NEXT_HEADER_UDP => {
                self.bytes += payload as u64;
                Ok(HEADROOM..HEADROOM + payload)
            }
            NEXT_HEADER_NONE => Err(OpenError::Dummy),
            _ => Err(OpenError::NotUdp),
        }
    }
}

impl From<Replay> for OpenError {
    fn from(replay: Replay) -> Self {
        match replay {
            Replay::TooOld => Self::TooOld,
            Replay::Seen => Self::Replayed,
        }
    }
}
