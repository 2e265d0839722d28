//! What arrives on UDP port 4500.

use overlay_crypto::{
    aead::{AeadKey, NONCE_LEN, PacketAead, RingAead},
    esp::{InboundSa, OpenError, OutboundSa, SaId, SaKeys, SaTable, Salt},
};
use overlay_types::{Epoch, NodeId, Spi};

const SPI: u32 = 0x1234_5678;
const KEY: [u8; 32] = [7; 32];
const SALT: [u8; 4] = [1, 2, 3, 4];

/// SPI, low half of the sequence number, IV.
const HEADER_LEN: usize = 16;

/// A datagram from a stranger.
pub fn esp(bytes: &[u8]) -> bool {
    open(&mut bytes.to_vec()).is_ok()
}

/// A text with its trailer, sealed by somebody who has the keys and may do as he likes.
pub fn esp_text(bytes: &[u8]) -> bool {
    let mut packet = sealed(bytes);
    let opened = open(&mut packet);
    // There is no other reason to refuse what is authentic and has the right length.
    let fits = bytes.len().is_multiple_of(4) && bytes.len() >= 4;
    match opened {
        Ok(()) => assert!(fits && bytes.ends_with(&[17]), "accepted without being UDP"),
        Err(OpenError::Malformed) => assert!(!fits),
        Err(OpenError::BadPadding | OpenError::NotUdp | OpenError::Dummy) => assert!(fits),
        Err(reason) => panic!("refused as {reason}"),
    }
    opened.is_ok()
}

/// The first packet of the association that [`esp`] opens.
pub fn seal(payload: &[u8]) -> Vec<u8> {
    let mut buffer = [&[0; HEADER_LEN], payload, &[0; 32]].concat();
    let range = HEADER_LEN..HEADER_LEN + payload.len();
    let packet = OutboundSa::new(&keys()).seal(&mut buffer, range).expect("there is room");
    buffer[packet].to_vec()
}

fn open(packet: &mut [u8]) -> Result<(), OpenError> {
    let mut table = SaTable::new();
    let id = SaId { peer: NodeId::from_u128(1), epoch: Epoch::new(1), spi: keys().spi };
    table.insert(id, InboundSa::new(&keys())).expect("the table is empty");
    let len = packet.len();
    let opened = table.open(packet)?;
    assert!(opened.id == id && opened.payload.end <= len);
    Ok(())
}

/// RFC 4106 by hand: text and trailer are as given, only header and tag are made here.
fn sealed(text: &[u8]) -> Vec<u8> {
    let sequence = 1_u64.to_be_bytes();
    let aad = [&SPI.to_be_bytes(), &sequence[..]].concat();
    let mut nonce = [0; NONCE_LEN];
    nonce[..SALT.len()].copy_from_slice(&SALT);
    nonce[SALT.len()..].copy_from_slice(&sequence);
    let mut text = text.to_vec();
    let tag = RingAead::new(&AeadKey::from_bytes(KEY)).seal(nonce, &aad, &mut text);
    [&SPI.to_be_bytes(), &sequence[4..], &sequence, &text, &tag].concat()
}

fn keys() -> SaKeys {
    let spi = Spi::new(SPI).expect("not reserved");
    SaKeys { spi, key: AeadKey::from_bytes(KEY), salt: Salt(SALT) }
}
