//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and the pseudo-headers.

use core::net::IpAddr;

/// A one's-complement sum that is not folded yet: 16-bit big-endian words added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of no words.
    pub const ZERO: Self = Self(0);

    /// Sum of `bytes`; an odd last byte counts as the high half of a word.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // Native-endian 32-bit words into 64-bit lanes: the compiler makes this SIMD. The sum of
        // byte-swapped words is the byte-swapped sum (RFC 1071 §2 B), so one swap at the end.
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut sum = 0;
        if !blocks.is_empty() {
            let mut lanes = [0_u64; 8];
            for block in blocks {
                let (words, _) = block.as_chunks::<4>();
                for (lane, word) in lanes.iter_mut().zip(words) {
                    *lane += u64::from(u32::from_ne_bytes(*word));
                }
            }
            sum = lanes.iter().map(|lane| (lane & 0xffff_ffff) + (lane >> 32)).sum();
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        sum += match *rest {
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c] => {
                u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0]))
            }
            _ => 0,
        };
        Self(u64::from(u16::from_be(fold(sum))))
    }

    /// The pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1): addresses,
    /// protocol and length of the transport packet. Both addresses are of one family.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => Self::of(&s.octets()).and(Self::of(&d.octets())),
            _ => Self::of(&octets6(source)).and(Self::of(&octets6(destination))),
        };
        Self(
            addresses.0
                + u64::from(protocol)
                + u64::from(length & 0xffff)
                + u64::from(length >> 16),
        )
    }

    /// Both sums. The second must start at an even offset from the first.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// This sum and one more word.
    #[must_use]
    pub fn and_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The folded sum, as the partial checksum that offload hardware completes.
    pub fn partial(self) -> u16 {
        fold(self.0)
    }

    /// The checksum field: complement of the folded sum. Zero over data that carries its own
    /// correct checksum.
    pub fn checksum(self) -> u16 {
        !fold(self.0)
    }

    /// The checksum field of UDP, where zero would say "none" (RFC 768).
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// `checksum` after the covered words `old` became `new`: HC' = ~(~HC + ~m + m') (RFC 1624 eq. 3).
#[inline]
pub fn update(checksum: u16, old: Sum, new: Sum) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!fold(old.0)) + new.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        // RFC 1071 §3: the sum of these bytes is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).partial(), 0xddf2);
    }

    #[test]
    fn example_of_rfc_1624() {
        // RFC 1624 §4: 0x5555 becomes 0x3285 under the checksum 0xdd2f.
        let word = |w| Sum::ZERO.and_word(w);
        assert_eq!(update(0xdd2f, word(0x5555), word(0x3285)), 0x0000);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::of(&bytes).checksum(), naive(&bytes));
        }

        #[test]
        fn update_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..60),
            new: [u8; 4],
        ) {
            let before = Sum::of(&bytes).checksum();
            let old = Sum::of(&bytes[8..12]);
            bytes[8..12].copy_from_slice(&new);
            // One's complement has two zeros; data that is all zeros is the only way to the other.
            prop_assume!(bytes.iter().any(|b| *b != 0));
            prop_assert_eq!(update(before, old, Sum::of(&new)), Sum::of(&bytes).checksum());
        }
    }
}
