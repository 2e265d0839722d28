//! The VXLAN header (RFC 7348 §5).

use overlay_types::Vni;

use super::Malformed;

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// The I flag: the VNI is valid.
const FLAG_VNI: u8 = 0x08;

/// The header of a frame on `vni`.
pub fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = vni.get().to_be_bytes();
    [FLAG_VNI, 0, 0, 0, a, b, c, 0]
}

/// VNI and frame of a VXLAN packet. Reserved fields are ignored, as the RFC demands of a receiver.
pub fn parse(bytes: &[u8]) -> Result<(Vni, &[u8]), Malformed> {
    if bytes.len() < HEADER_LEN {
        return Err(Malformed::Truncated);
    }
    if bytes[0] & FLAG_VNI == 0 {
        return Err(Malformed::Field);
    }
    let vni = Vni::new(u32::from_be_bytes([0, bytes[4], bytes[5], bytes[6]]));
    Ok((vni.ok_or(Malformed::Field)?, &bytes[HEADER_LEN..]))
}
