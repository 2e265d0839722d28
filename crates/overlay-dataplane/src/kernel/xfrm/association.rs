//! One security association: `struct xfrm_usersa_info` and what stands behind it.

use core::net::IpAddr;

use neli::consts::nl::NlmF;
use overlay_crypto::{esp::SaKeys, replay};
use overlay_types::{Encapsulation, Spi};
use zeroize::Zeroizing;

use super::{
    super::netlink::{Attributes, Message, family},
    AEAD, ENCAPSULATION, ESP, Kind, REPLAY, REQUEST_ID, TRANSPORT, read_u32, read_u64,
    selector::{self, Selector, read_address, write_address},
    write_u16, write_u32,
};

/// `struct xfrm_usersa_info`: where its parts begin.
const SPI: usize = 72;
const PROTOCOL: usize = 76;
const SOURCE: usize = 80;
const LIFETIME: usize = 96;
const USED: usize = 160;
/// `struct xfrm_stats`: numbers outside the window, numbers seen before, wrong tags.
const REFUSED: usize = 192;
const REQUEST: usize = 208;
const FAMILY: usize = 212;
const MODE: usize = 214;
const FLAGS: usize = 216;
const LEN: usize = 224;
/// Octets of `struct xfrm_usersa_id`.
const ID_LEN: usize = 24;
/// `XFRM_STATE_ESN`: 64-bit sequence numbers.
const EXTENDED: u8 = 128;
/// `UDP_ENCAP_ESPINUDP`.
const IN_UDP: u16 = 2;
/// Octets of a name in `struct xfrm_algo_aead`.
const NAME_LEN: usize = 64;
const ALGORITHM: &[u8] = b"rfc4106(gcm(aes))";
/// Bits of the tag (RFC 4106 §6).
const TAG_BITS: u32 = 128;
/// Octets of key and salt.
const KEY_LEN: usize = 36;
/// Words of the replay window's bitmap, and octets in front of it.
const WINDOW_WORDS: usize = replay::WINDOW as usize / 32;
const REPLAY_HEADER_LEN: usize = 24;
/// Octets of all attributes, with their headers.
const ATTRIBUTES: usize =
    3 * 4 + NAME_LEN + 8 + KEY_LEN + REPLAY_HEADER_LEN + WINDOW_WORDS * 4 + 24;

/// Where an association is found: the kernel looks packets up by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) destination: IpAddr,
    pub(super) spi: Spi,
}

/// An association to be made.
#[derive(Debug)]
pub(super) struct Association<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// UDP port of what is in the packets.
    pub(super) port: u16,
    pub(super) encapsulation: Encapsulation,
    pub(super) keys: &'a SaKeys,
    /// Number of the last packet that was sealed with these keys before.
    pub(super) last: u64,
    /// Number of the last packet that was opened with them before: it and all before it are refused.
    pub(super) received: u64,
}

/// An association as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) source: IpAddr,
    /// It is as [`Association::put`] leaves it.
    pub(super) whole: bool,
    /// Packets and octets that it carried.
    pub(super) packets: u64,
    pub(super) octets: u64,
    /// Packets that it refused for their number, and for their tag.
    pub(super) replays: u32,
    pub(super) bad_tags: u32,
    /// Number of the last packet that was sealed with it.
    pub(super) last: u64,
    /// The highest number that was opened with it.
    pub(super) received: u64,
}

impl Association<'_> {
    /// Makes it. One that is there under the same number makes the kernel refuse.
    pub(super) fn put(&self) -> Message {
        let mut header = [0; LEN];
        Selector::between(self.source, self.destination, self.port)
            .write(&mut header[..selector::LEN]);
        write_address(&mut header, selector::LEN, Some(self.destination));
        header[SPI..SPI + 4].copy_from_slice(&self.keys.spi.get().to_be_bytes());
        header[PROTOCOL] = ESP;
        write_address(&mut header, SOURCE, Some(self.source));
        // Soft and hard limits of octets and packets: none. Rotation counts, and is in time.
        header[LIFETIME..LIFETIME + 32].fill(0xff);
        write_u32(&mut header, REQUEST, REQUEST_ID);
        write_u16(&mut header, FAMILY, family::of(self.destination).into());
        header[MODE] = TRANSPORT;
        header[FLAGS] = EXTENDED;
        let flags = NlmF::CREATE | NlmF::EXCL;
        let message = Message::with_room(Kind::PutAssociation, flags, &header, ATTRIBUTES)
            .put(AEAD, &*self.algorithm())
            .put(REPLAY, &self.replay());
        match self.encapsulation {
            Encapsulation::Udp(port) => message.put(ENCAPSULATION, &in_udp(port)),
            Encapsulation::None => message,
        }
    }

    /// `struct xfrm_algo_aead`: name, bits of the key, bits of the tag, key.
    fn algorithm(&self) -> Zeroizing<[u8; NAME_LEN + 8 + KEY_LEN]> {
        let mut algorithm = Zeroizing::new([0; NAME_LEN + 8 + KEY_LEN]);
        algorithm[..ALGORITHM.len()].copy_from_slice(ALGORITHM);
        write_u32(&mut *algorithm, NAME_LEN, KEY_LEN as u32 * 8);
        write_u32(&mut *algorithm, NAME_LEN + 4, TAG_BITS);
        let (key, salt) = algorithm[NAME_LEN + 8..].split_at_mut(32);
        key.copy_from_slice(self.keys.key.as_bytes());
        salt.copy_from_slice(&self.keys.salt.0);
        algorithm
    }

    /// `struct xfrm_replay_state_esn`: words of the bitmap, low and high halves of the last number
    /// that was sent and received, window, bitmap.
    fn replay(&self) -> [u8; REPLAY_HEADER_LEN + WINDOW_WORDS * 4] {
        let mut state = [0; REPLAY_HEADER_LEN + WINDOW_WORDS * 4];
        write_u32(&mut state, 0, WINDOW_WORDS as u32);
        write_u32(&mut state, 4, self.last as u32);
        write_u32(&mut state, 8, self.received as u32);
        write_u32(&mut state, 12, (self.last >> 32) as u32);
        write_u32(&mut state, 16, (self.received >> 32) as u32);
        write_u32(&mut state, 20, replay::WINDOW as u32);
        if self.received > 0 {
            // Which of them have come is not known any more.
            state[REPLAY_HEADER_LEN..].fill(0xff);
        }
        state
    }
}

impl Found {
    /// One that was made just now.
    pub(super) const fn fresh(place: Place, source: IpAddr, last: u64, received: u64) -> Self {
        let (packets, octets, replays, bad_tags) = (0, 0, 0, 0);
        Self { place, source, whole: true, packets, octets, replays, bad_tags, last, received }
    }

    /// Reads one of ours.
    pub(super) fn parse(payload: &[u8], port: u16, encapsulation: Encapsulation) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<LEN>()?;
        let family = header[FAMILY];
        if read_u32(header, REQUEST)? != REQUEST_ID || header[PROTOCOL] != ESP {
            return None;
        }
        let destination = read_address(header, selector::LEN, family)?;
        let source = read_address(header, SOURCE, family)?;
        let number: [u8; 4] = header[SPI..SPI + 4].try_into().ok()?;
        let attributes = Attributes::new(rest);
        let replay = attributes.get(REPLAY).unwrap_or_default();
        let algorithm = attributes.get(AEAD).unwrap_or_default();
        let in_udp = match encapsulation {
            Encapsulation::Udp(port) => Some(&in_udp(port)[..]),
            Encapsulation::None => None,
        };
        let whole = Selector::read(header) == Some(Selector::between(source, destination, port))
            && header[MODE] == TRANSPORT
            && header[FLAGS] & EXTENDED != 0
            && algorithm.starts_with(ALGORITHM)
            && read_u32(algorithm, NAME_LEN) == Some(KEY_LEN as u32 * 8)
            && read_u32(algorithm, NAME_LEN + 4) == Some(TAG_BITS)
            && read_u32(replay, 20) == Some(replay::WINDOW as u32)
            && attributes.get(ENCAPSULATION) == in_udp;
        let half = |at| read_u32(replay, at).map_or(0, u64::from);
        Some(Self {
            place: Place { destination, spi: Spi::new(u32::from_be_bytes(number))? },
            source,
            whole,
            octets: read_u64(header, USED)?,
            packets: read_u64(header, USED + 8)?,
            replays: read_u32(header, REFUSED)?.saturating_add(read_u32(header, REFUSED + 4)?),
            bad_tags: read_u32(header, REFUSED + 8)?,
            last: half(4) | half(12) << 32,
            received: half(8) | half(16) << 32,
        })
    }
}

impl Place {
    pub(super) fn get(self) -> Message {
        self.message(Kind::GetAssociation)
    }

    pub(super) fn remove(self) -> Message {
        self.message(Kind::RemoveAssociation)
    }

    fn message(self, kind: Kind) -> Message {
        let mut id = [0; ID_LEN];
        write_address(&mut id, 0, Some(self.destination));
        id[16..20].copy_from_slice(&self.spi.get().to_be_bytes());
        write_u16(&mut id, 20, family::of(self.destination).into());
        id[22] = ESP;
        Message::new(kind, NlmF::empty(), &id)
    }
}

/// Lists the associations of a namespace, others' too.
pub(super) fn list() -> Message {
    Message::new(Kind::GetAssociation, NlmF::empty(), &[])
}

/// `struct xfrm_encap_tmpl`: type, ports, and an original address that transport mode has none of.
fn in_udp(port: u16) -> [u8; 24] {
    let mut template = [0; 24];
    write_u16(&mut template, 0, IN_UDP);
    template[2..4].copy_from_slice(&port.to_be_bytes());
    template[4..6].copy_from_slice(&port.to_be_bytes());
    template
}
