//! Bytes as a big-endian number in base 36, of fixed width: the alphabet of ids.

use zeroize::Zeroizing;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a text is not the number it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// A character outside `0-9a-z`, counted from 0.
    Character { at: usize },
    /// The number needs more bytes than it may have.
    Range,
}

/// `bytes` in `width` characters. `36^width` must exceed `256^bytes.len()`.
pub(super) fn encode(bytes: &[u8], width: usize) -> Zeroizing<String> {
    let mut rest = Zeroizing::new(bytes.to_vec());
    let mut text = Zeroizing::new(vec![b'0'; width]);
    for place in text.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        *place = DIGITS[remainder as usize];
    }
    debug_assert!(rest.iter().all(|byte| *byte == 0), "{width} characters are too few");
    Zeroizing::new(text.iter().copied().map(char::from).collect())
}

/// Fills `bytes` with the number that `text` writes.
pub(super) fn decode(text: &str, bytes: &mut [u8]) -> Result<(), DecodeError> {
    bytes.fill(0);
    for (at, character) in text.chars().enumerate() {
        let mut carry = match character {
            '0'..='9' => character as u32 - '0' as u32,
            'a'..='z' => character as u32 - 'a' as u32 + 10,
            _ => return Err(DecodeError::Character { at }),
        };
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(DecodeError::Range);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use overlay_types::NodeId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn writes_numbers_as_ids_do(bytes: [u8; 16]) {
            prop_assert_eq!(encode(&bytes, 25).to_string(), NodeId::from_bytes(bytes).to_string());
        }

        #[test]
        fn round_trips_256_bits(bytes: [u8; 32]) {
            let mut back = [1; 32];
            prop_assert_eq!(decode(&encode(&bytes, 50), &mut back), Ok(()));
            prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut bytes = [0; 2];
        assert_eq!(decode("1ekf", &mut bytes), Ok(())); // 65535
        assert_eq!(bytes, [0xff, 0xff]);
        assert_eq!(decode("1ekg", &mut bytes), Err(DecodeError::Range));
        assert_eq!(decode("1éA", &mut bytes), Err(DecodeError::Character { at: 1 }));
    }
}
