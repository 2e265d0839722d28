//! Sealing.

use core::ops::Range;

use overlay_types::Spi;

use super::{
    SaKeys, Salt,
    codec::{HEADROOM, NEXT_HEADER_UDP, associated_data, overhead, padding, write_trailer},
};
use crate::{
    aead::{PacketAead, RingAead, TAG_LEN},
    error::CryptoError,
};

/// A buffer and where in it the payload lies, then where the packet lies.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Payload with [`HEADROOM`] bytes before and [`TAILROOM`](super::TAILROOM) after it.
    pub buffer: &'a mut [u8],
    /// Before: the payload. After: the ESP packet, or empty when it could not be sealed.
    pub range: Range<usize>,
}

/// One direction to one peer: seals payloads and numbers them.
///
/// The IV is the sequence number, so under one key no nonce repeats. An `OutboundSa` is therefore
/// neither cloned nor made twice from the same [`SaKeys`].
pub struct OutboundSa<A = RingAead> {
    spi: Spi,
    salt: Salt,
    aead: A,
    sequence: u64,
    packets: u64,
    bytes: u64,
}

impl OutboundSa {
    /// An association that has sent nothing, on the production AEAD.
    pub fn new(keys: &SaKeys) -> Self {
        Self::with_aead(keys)
    }
}

impl<A: PacketAead> OutboundSa<A> {
    /// An association that has sent nothing, on a given AEAD.
    pub fn with_aead(keys: &SaKeys) -> Self {
        Self::resumed_after(keys, 0)
    }

    /// An association whose next packet has the number after `sequence`. Numbers that may have been
    /// used with these keys must never be used again.
    pub fn resumed_after(keys: &SaKeys, sequence: u64) -> Self {
        let salt = keys.salt.clone();
        Self { spi: keys.spi, salt, aead: A::new(&keys.key), sequence, packets: 0, bytes: 0 }
    }

    /// The number on the wire.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Number of the last packet; 0 before the first.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Packets sealed by this value.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes sealed by this value.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Seals the bytes `payload` of `buffer` in place and returns where the ESP packet lies.
    ///
    /// The payload is a UDP header and what follows. There must be [`HEADROOM`] bytes before and
    /// [`overhead`]` - HEADROOM` after it ([`TAILROOM`](super::TAILROOM) is always enough).
    ///
    /// # Errors
    /// [`CryptoError::NoRoom`], or [`CryptoError::CounterSpent`] after 2^64 - 1 packets. The buffer
    /// is as it was.
    #[inline]
    pub fn seal(
        &mut self,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Range<usize>, CryptoError> {
        let packet = packet_range(buffer.len(), &payload)?;
        let sequence = self.sequence.checked_add(1).ok_or(CryptoError::CounterSpent)?;
        let iv = sequence.to_be_bytes();
        let aad = associated_data(self.spi, sequence);

        let (header, rest) = buffer[packet.clone()].split_at_mut(HEADROOM);
        header[..4].copy_from_slice(&aad[..4]);
        header[4..8].copy_from_slice(&aad[8..]);
        header[8..].copy_from_slice(&iv);
        let (text, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        write_trailer(&mut text[payload.len()..], padding(payload.len()), NEXT_HEADER_UDP);
        tag.copy_from_slice(&self.aead.seal(self.salt.nonce(iv), &aad, text));

        self.sequence = sequence;
        self.packets += 1;
        self.bytes += payload.len() as u64;
        Ok(packet)
    }

    /// Seals many. A slot that cannot be sealed gets an empty range and does not stop the others.
    /// Returns how many were sealed.
    pub fn seal_batch(&mut self, slots: &mut [Slot<'_>]) -> usize {
        let mut sealed = 0;
        for slot in slots {
            let packet = self.seal(slot.buffer, slot.range.clone());
            sealed += usize::from(packet.is_ok());
            slot.range = packet.unwrap_or(0..0);
        }
        sealed
    }
}

#[inline]
fn packet_range(buffer: usize, payload: &Range<usize>) -> Result<Range<usize>, CryptoError> {
    let length = payload.end.saturating_sub(payload.start);
    let after = overhead(length) - HEADROOM;
    let fits = payload.start <= payload.end
        && payload.start >= HEADROOM
        && payload.end <= buffer
        && buffer - payload.end >= after;
    if fits {
        Ok(payload.start - HEADROOM..payload.end + after)
    } else {
        let (start, end) = (payload.start, payload.end);
        Err(CryptoError::NoRoom { start, end, buffer, before: HEADROOM, after })
    }
}
