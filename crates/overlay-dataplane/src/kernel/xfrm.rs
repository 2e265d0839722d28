//! IPsec of the kernel (xfrm): security associations, and the policies that leave no way around them.
//!
//! ```text
//!  VXLAN device ──► UDP to the encrypted port ──► policy out: ESP or nothing ──► association ──► wire
//!  VXLAN device ◄── UDP to the encrypted port ◄── policy in: ESP or nothing  ◄── association ◄── wire
//! ```
//!
//! Ours are told by their request id (`REQUEST_ID`); others' are neither read nor touched. An
//! association admits what its peer sends to the encrypted port, and nothing else that its key opens.
//!
//! - `association`: one of them as a message, and read back
//! - `encapsulation`: the socket that ESP in UDP comes in by
//! - [`holder`]: the process that has it open while the daemon is down
//! - `leftovers`: all of it that a process before has left
//! - `policy`: the two policies
//! - `protection`: all of it behind one value
//! - `traffic`: what was carried with each peer

mod association;
mod encapsulation;
pub mod holder;
mod leftovers;
mod policy;
mod protection;
mod selector;
mod traffic;

use core::net::IpAddr;

use nix::errno::Errno;
use overlay_crypto::{
    aead::AeadKey,
    esp::{SaKeys, Salt},
};
use overlay_types::{Encapsulation, Spi};

use self::association::Association;
use super::netlink::{Refusal, RouteSocket};

pub use leftovers::Leftovers;
pub use protection::{Esp, Protection};

/// Makes an association of each version of IP, in a namespace that is for trying.
pub(super) fn try_both_families(socket: &RouteSocket) -> Result<(), Refusal> {
    let spi = Spi::new(Spi::MIN).ok_or(Refusal { errno: Errno::EINVAL, text: None })?;
    let keys = SaKeys { spi, key: AeadKey::from_bytes([1; 32]), salt: Salt([1; 4]) };
    let pairs: [[IpAddr; 2]; 2] = [
        [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
        [[0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()],
    ];
    pairs.into_iter().try_for_each(|[source, destination]| {
        let encapsulation = Encapsulation::Udp(4500);
        let tried = Association {
            source,
            destination,
            port: 4788,
            encapsulation,
            keys: &keys,
            last: 0,
            received: 0,
        };
        socket.request(tried.put())
    })
}

/// Request id of what is ours: "ovly".
const REQUEST_ID: u32 = 0x6f76_6c79;
/// IP protocol number (RFC 4303 §2).
const ESP: u8 = 50;
/// `XFRM_MODE_TRANSPORT`.
const TRANSPORT: u8 = 0;

/// Types of messages (`XFRM_MSG_*` of linux/xfrm.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PutAssociation,
    RemoveAssociation,
    GetAssociation,
    RemovePolicy,
    GetPolicy,
    PutPolicy,
}

impl From<Kind> for u16 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::PutAssociation => 0x10,
            Kind::RemoveAssociation => 0x11,
            Kind::GetAssociation => 0x12,
            Kind::RemovePolicy => 0x14,
            Kind::GetPolicy => 0x15,
            Kind::PutPolicy => 0x19,
        }
    }
}

/// Types of attributes (`XFRMA_*`).
const ENCAPSULATION: u16 = 4;
const TEMPLATE: u16 = 5;
const AEAD: u16 = 18;
const REPLAY: u16 = 23;

/// Writes a number in the host's order.
fn write_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
}

fn write_u16(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
}

/// Reads a number in the host's order.
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests;
