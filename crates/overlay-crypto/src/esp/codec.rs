//! Lengths and parts of an ESP packet, and what arrives on UDP port 4500.

use overlay_types::Spi;

use crate::aead::TAG_LEN;

/// Bytes before the payload: SPI, sequence number, IV.
pub const HEADROOM: usize = 16;

/// Most bytes after the payload: 3 of padding, pad length, next header, tag.
pub const TAILROOM: usize = 3 + TRAILER + TAG_LEN;

/// Most bytes that sealing adds to a payload.
pub const MAX_OVERHEAD: usize = HEADROOM + TAILROOM;

/// Pad length and next header.
const TRAILER: usize = 2;

/// Shortest packet: a payload of nothing, padded.
pub const MIN_PACKET: usize = HEADROOM + 4 + TAG_LEN;

/// Next header of a payload: UDP.
pub const NEXT_HEADER_UDP: u8 = 17;

/// Next header of a dummy packet, dropped in silence after authentication (RFC 4303 §2.6).
pub const NEXT_HEADER_NONE: u8 = 59;

/// Bytes that sealing adds to a payload of `payload` bytes: it ends on a multiple of four.
pub const fn overhead(payload: usize) -> usize {
    HEADROOM + padding(payload) + TRAILER + TAG_LEN
}

/// The longest payload that fits in a packet of `packet` bytes: what an MTU is computed with.
pub const fn max_payload(packet: usize) -> usize {
    (packet.saturating_sub(HEADROOM + TAG_LEN) & !3).saturating_sub(TRAILER)
}

/// What a UDP payload on port 4500 is (RFC 3948 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// Keeps a NAT mapping: one byte 0xFF, no answer.
    Keepalive,
    /// Starts with the non-ESP marker, four zero bytes: IKE, which nobody here speaks.
    NonEsp,
    /// ESP under this SPI.
    Esp(Spi),
    /// Reserved SPI, or too short to be ESP.
    Malformed,
}

impl Datagram {
    /// Looks at the first bytes of a UDP payload.
    #[inline]
    pub fn classify(payload: &[u8]) -> Self {
        match payload {
            [0xFF] => Self::Keepalive,
            [0, 0, 0, 0, ..] => Self::NonEsp,
            [a, b, c, d, ..] if payload.len() >= MIN_PACKET => {
                Spi::new(u32::from_be_bytes([*a, *b, *c, *d])).map_or(Self::Malformed, Self::Esp)
            }
            _ => Self::Malformed,
        }
    }
}

pub(super) const fn padding(payload: usize) -> usize {
    (payload + TRAILER).wrapping_neg() % 4
}

/// Padding, pad length and next header behind `payload` bytes (RFC 4303 §2.4: 1, 2, 3).
#[inline]
pub(super) fn write_trailer(after: &mut [u8], padding: usize, next_header: u8) {
    for (place, number) in after[..padding].iter_mut().zip(1..) {
        *place = number;
    }
    after[padding] = padding as u8;
    after[padding + 1] = next_header;
}

/// Length of the payload and next header of a decrypted text, if its padding is 1, 2, 3, …
#[inline]
pub(super) fn read_trailer(text: &[u8]) -> Option<(usize, u8)> {
    let [body @ .., pad, next_header] = text else { return None };
    let payload = body.len().checked_sub(usize::from(*pad))?;
    let numbered = body[payload..].iter().zip(1..=u8::MAX).all(|(byte, number)| *byte == number);
    numbered.then_some((payload, *next_header))
}

/// What is authenticated besides the text: SPI and the whole sequence number (RFC 4106 §5).
#[inline]
pub(super) fn associated_data(spi: Spi, sequence: u64) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..4].copy_from_slice(&spi.get().to_be_bytes());
    aad[4..].copy_from_slice(&sequence.to_be_bytes());
    aad
}

/// The 64-bit sequence number whose low half is `low`, when `top` is the highest that was verified
/// (RFC 4303 appendix A2.2): the one of the two candidates nearest the window. `None` when that
/// would lie before zero.
#[inline]
pub(super) const fn infer_sequence(low: u32, top: u64, window: u64) -> Option<u64> {
    let (top_high, top_low) = (top >> 32, top as u32);
    let bottom = top_low.wrapping_sub(window as u32 - 1);
    let high = if top_low as u64 >= window - 1 {
        // The window lies in one subspace of 2^32: what is below it belongs to the next.
        top_high + (low < bottom) as u64
    } else if low >= bottom {
        // The window spans two subspaces, and this is in the earlier one.
        match top_high.checked_sub(1) {
            Some(high) => high,
            None => return None,
        }
    } else {
        top_high
    };
    if high >> 32 == 0 { Some(high << 32 | low as u64) } else { None }
}
