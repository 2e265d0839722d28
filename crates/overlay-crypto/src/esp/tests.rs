use proptest::prelude::*;
use rstest::rstest;

use super::{
    codec::{MIN_PACKET, infer_sequence, max_payload, padding},
    outbound::Slot,
    *,
};
use crate::{
    aead::{KEY_LEN, PacketAead, PortableAead, RingAead, TAG_LEN},
    error::CryptoError,
    replay::WINDOW,
};

fn keys(spi: u32, key: u8) -> SaKeys {
    SaKeys {
        spi: Spi::new(spi).unwrap(),
        key: AeadKey::from_bytes([key; KEY_LEN]),
        salt: Salt([1, 2, 3, 4]),
    }
}

fn id(peer: u128, spi: u32) -> SaId {
    SaId { peer: NodeId::from_u128(peer), epoch: Epoch::new(1), spi: Spi::new(spi).unwrap() }
}

fn seal(sa: &mut OutboundSa, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; HEADROOM + payload.len() + TAILROOM];
    buffer[HEADROOM..HEADROOM + payload.len()].copy_from_slice(payload);
    let packet = sa.seal(&mut buffer, HEADROOM..HEADROOM + payload.len()).unwrap();
    buffer[packet].to_vec()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// AES-256 cases with extended sequence numbers from draft-mcgrew-gcm-test-01 section 4 ("Test Cases
/// for the use of GCM and GMAC in IPsec ESP", IETF Trust). They carry other protocols than UDP, so
/// they are authentic and decrypted, and then refused as what they are.
#[rstest]
#[case(
    "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
    "73616c74",
    0x156f_3126_dd0d_b99b,
    "17405e67 dd0db99b 616e640169766563 f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a30
     18d9a57ff4d3a31ce673119e451626c2415771e3b7eebca614c89b35",
    "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
    OpenError::NotUdp
)]
#[case(
    "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
    "73616c74",
    0x156f_3126_dd0d_b99b,
    "17405e67 dd0db99b 616e640169766563 d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508beb
     d2dceb18d0a6df10e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8c0ca
     c587f249e56b11e24f30e44ccc76",
    "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f676965730174
     68617477696c6c01646566696e65746f6d6f72726f7701020201",
    OpenError::NotUdp
)]
#[case(
    "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
    "7475726e",
    u64::MAX,
    "796b6963 ffffffff 333021696765746d f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39
     b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053",
    "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172
     737401020201",
    OpenError::NotUdp
)]
fn e01_packets_of_the_ietf_draft(
    #[case] key: &str,
    #[case] salt: &str,
    #[case] sequence: u64,
    #[case] packet: &str,
    #[case] plain: &str,
    #[case] reason: OpenError,
) {
    fn check<A: PacketAead>(
        keys: &SaKeys,
        sequence: u64,
        packet: &[u8],
        plain: &[u8],
    ) -> OpenError {
        let mut sa = InboundSa::<A>::resumed_after(keys, sequence - 1);
        let mut bytes = packet.to_vec();
        let reason = sa.open(&mut bytes).unwrap_err();
        assert_eq!(bytes[HEADROOM..bytes.len() - TAG_LEN], *plain);
        assert_eq!((sa.packets(), sa.sequence()), (1, sequence));
        assert_eq!(sa.open(&mut packet.to_vec()), Err(OpenError::Replayed));
        reason
    }
    let packet = hex(packet);
    let keys = SaKeys {
        spi: Spi::new(u32::from_be_bytes(packet[..4].try_into().unwrap())).unwrap(),
        key: AeadKey::from_bytes(hex(key).try_into().unwrap()),
        salt: Salt(hex(salt).try_into().unwrap()),
    };
    assert_eq!(check::<RingAead>(&keys, sequence, &packet, &hex(plain)), reason);
    assert_eq!(check::<PortableAead>(&keys, sequence, &packet, &hex(plain)), reason);
}

proptest! {
    #[test]
    fn e01_what_is_sealed_is_opened(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        before in HEADROOM..HEADROOM + 8,
    ) {
        let mut buffer = vec![0xEE; before + payload.len() + TAILROOM];
        buffer[before..before + payload.len()].copy_from_slice(&payload);
        let mut sa = OutboundSa::new(&keys(256, 1));
        let packet = sa.seal(&mut buffer, before..before + payload.len()).unwrap();
        prop_assert_eq!(packet.len(), payload.len() + overhead(payload.len()));
        prop_assert!(packet.len().is_multiple_of(4));
        prop_assert!(max_payload(packet.len()) >= payload.len());
        prop_assert!(max_payload(packet.len()) < payload.len() + 4);
        prop_assert!(buffer[..packet.start].iter().all(|byte| *byte == 0xEE));
        let mut other = buffer[packet.clone()].to_vec();
        let opened = InboundSa::new(&keys(256, 1)).open(&mut buffer[packet.clone()]).unwrap();
        prop_assert_eq!(&buffer[packet][opened.clone()], &payload[..]);
        let portable = InboundSa::<PortableAead>::with_aead(&keys(256, 1)).open(&mut other);
        prop_assert_eq!(portable, Ok(opened));
    }

    /// Each changed bit, each truncation and any garbage is dropped with a reason, and never moves
    /// the window.
    #[test]
    fn no_entry_for_damaged_packets(
        payload in prop::collection::vec(any::<u8>(), 0..64),
        bit: u16,
        cut in 0_usize..200,
        garbage in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let packet = seal(&mut OutboundSa::new(&keys(0x1234_5678, 1)), &payload);
        let mut table = SaTable::new();
        let id = id(2, 0x1234_5678);
        table.insert(id, InboundSa::new(&keys(0x1234_5678, 1))).unwrap();
        let mut damaged = packet.clone();
        let bit = usize::from(bit) % (packet.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(table.open(&mut damaged).is_err());
        prop_assert!(table.open(&mut packet[..cut.min(packet.len() - 1)].to_vec()).is_err());
        prop_assert!(table.open(&mut garbage.clone()).is_err());
        let dropped: u64 = OpenError::ALL.iter().map(|reason| table.dropped(*reason)).sum();
        prop_assert_eq!((table.opened(), dropped), (0, 3));
        prop_assert_eq!(table.open(&mut packet.clone()).map(|opened| opened.id), Ok(id));
    }

    /// Appendix A2.2 against its definition: of all numbers with this low half, the one that
    /// lies in [bottom of the window, bottom + 2^32).
    #[test]
    fn e01_high_half_is_inferred(
        top in prop_oneof![0..10_000_u64, (1_u64 << 32) - 9000..(1 << 32) + 9000, any::<u64>()],
        distance in prop_oneof![-6000_i64..6000, any::<i64>()],
    ) {
        let sent = top.saturating_add_signed(distance);
        let bottom = i128::from(top) - i128::from(WINDOW) + 1;
        let span = 1_i128 << 32;
        let expected = bottom + (i128::from(sent) - bottom).rem_euclid(span);
        prop_assert_eq!(
            infer_sequence(sent as u32, top, WINDOW),
            u64::try_from(expected).ok()
        );
    }
}

/// Packet numbers cross 2^32 while packets are reordered, duplicated and lost.
#[test]
fn e01_replay_across_2_to_the_32() {
    let start = (1_u64 << 32) - 5000;
    let mut outbound = OutboundSa::<RingAead>::resumed_after(&keys(256, 1), start);
    let mut inbound = InboundSa::<RingAead>::resumed_after(&keys(256, 1), start);
    let mut packets: Vec<Vec<u8>> =
        (0..10_000_u32).map(|n| seal(&mut outbound, &n.to_be_bytes())).collect();
    assert_eq!(outbound.sequence(), (1 << 32) + 5000);
    packets.chunks_mut(1000).for_each(<[_]>::reverse);
    for packet in &packets {
        assert_eq!(inbound.open(&mut packet.clone()), Ok(16..20));
        assert_eq!(inbound.open(&mut packet.clone()), Err(OpenError::Replayed));
    }
    assert_eq!(inbound.sequence(), (1 << 32) + 5000);
    // Numbers before the window are taken for numbers 2^32 later, and their tag denies it.
    assert_eq!(inbound.open(&mut packets[0].clone()), Err(OpenError::BadTag));
    assert_eq!(inbound.packets(), 10_000);
}

#[test]
fn e03_packet_counter_never_wraps() {
    let mut sa = OutboundSa::<RingAead>::resumed_after(&keys(256, 1), u64::MAX - 1);
    let mut buffer = [0; 64];
    assert!(sa.seal(&mut buffer, 16..24).is_ok());
    let before = buffer;
    assert_eq!(sa.seal(&mut buffer, 16..24), Err(CryptoError::CounterSpent));
    assert_eq!(buffer, before);
}

#[test]
fn e03_packets_and_bytes_are_counted() {
    let (mut outbound, mut inbound) =
        (OutboundSa::new(&keys(256, 1)), InboundSa::new(&keys(256, 1)));
    for length in [10, 20, 30] {
        inbound.open(&mut seal(&mut outbound, &vec![7; length])).unwrap();
    }
    assert_eq!((outbound.packets(), outbound.bytes()), (3, 60));
    assert_eq!((inbound.packets(), inbound.bytes()), (3, 60));
}

/// What is on the wire, byte by byte, with the IV that is the packet number.
#[test]
fn e01_header_and_padding() {
    let keys = keys(0x0A0B_0C0D, 1);
    let mut sa = OutboundSa::<RingAead>::resumed_after(&keys, (7 << 32) + 8);
    let packet = seal(&mut sa, b"abcde");
    assert_eq!(packet[..16], [10, 11, 12, 13, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 9]);
    let mut text = packet[16..packet.len() - 16].to_vec();
    let tag = packet.last_chunk().unwrap();
    let nonce = [1, 2, 3, 4, 0, 0, 0, 7, 0, 0, 0, 9];
    let aad = [10, 11, 12, 13, 0, 0, 0, 7, 0, 0, 0, 9];
    PortableAead::new(&keys.key).open(nonce, &aad, &mut text, tag).unwrap();
    assert_eq!(text, b"abcde\x01\x01\x11");
}

#[rstest]
#[case(15..20, 64)]
#[case(16..47, 64)]
#[case(16..70, 64)]
#[case(60..64, 64)]
#[case(16..16, 16)]
#[case(usize::MAX..usize::MAX, 64)]
fn a_payload_without_room_is_refused(#[case] payload: core::ops::Range<usize>, #[case] len: usize) {
    let mut sa = OutboundSa::new(&keys(256, 1));
    let error = sa.seal(&mut vec![0; len], payload).unwrap_err();
    assert!(matches!(error, CryptoError::NoRoom { .. }), "{error}");
    assert_eq!(sa.sequence(), 0);
}

#[rstest]
#[case(&[0xFF], OpenError::Keepalive)]
#[case(&[0; 60], OpenError::NonEsp)]
#[case(&[0; 4], OpenError::NonEsp)]
#[case(&[], OpenError::Malformed)]
#[case(&[0xFF; 2], OpenError::Malformed)]
#[case(&[0, 0, 0, 255, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    OpenError::Malformed)]
#[case(&[9; MIN_PACKET - 1], OpenError::Malformed)]
#[case(&[9; MIN_PACKET], OpenError::UnknownSpi)]
fn e05_what_arrives_on_port_4500(#[case] datagram: &[u8], #[case] reason: OpenError) {
    let mut table = SaTable::new();
    assert_eq!(table.open(&mut datagram.to_vec()), Err(reason));
    assert_eq!(table.dropped(reason), 1);
}

/// The first packet of an association, with any payload and trailer.
fn sealed(text: &[u8]) -> Vec<u8> {
    let keys = keys(256, 1);
    let mut packet = [&256_u32.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 7], &[1], text].concat();
    let nonce = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 1];
    let aad = codec::associated_data(keys.spi, 1);
    let tag = RingAead::new(&keys.key).seal(nonce, &aad, &mut packet[16..]);
    packet.extend_from_slice(&tag);
    packet
}

#[test]
fn odd_trailers_are_refused_after_authentication() {
    let open = |text: &[u8]| InboundSa::new(&keys(256, 1)).open(&mut sealed(text));
    assert_eq!(open(&[9, 9, 9, 9, 1, 2, 2, 17]), Ok(16..20));
    assert_eq!(open(&[1, 2, 3, 4, 5, 6, 6, 17]), Ok(16..16));
    assert_eq!(open(&[1, 2, 3, 4, 5, 6, 7, 17]), Err(OpenError::BadPadding));
    assert_eq!(open(&[0, 0, 255, 17]), Err(OpenError::BadPadding));
    assert_eq!(open(&[9, 9, 9, 9, 2, 1, 2, 17]), Err(OpenError::BadPadding));
    assert_eq!(open(&[9, 9, 9, 9, 1, 2, 2, 4]), Err(OpenError::NotUdp));
    assert_eq!(open(&[1, 2, 2, 59]), Err(OpenError::Dummy));
}

#[test]
fn two_peers_with_one_spi() {
    let mut table = SaTable::new();
    let mut senders: Vec<_> = (1..=3).map(|n| OutboundSa::new(&keys(256, n))).collect();
    for n in 1..=3 {
        table.insert(id(n.into(), 256), InboundSa::new(&keys(256, n))).unwrap();
    }
    for _ in 0..2 {
        for (sender, n) in senders.iter_mut().zip(1..) {
            let opened = table.open(&mut seal(sender, b"hello")).unwrap();
            assert_eq!(opened, Opened { id: id(n, 256), payload: 16..21 });
        }
    }
    assert!(table.remove(id(1, 256)));
    assert!(!table.remove(id(1, 256)));
    assert_eq!(table.open(&mut seal(&mut senders[0], b"x")), Err(OpenError::BadTag));
    assert_eq!(table.open(&mut seal(&mut senders[2], b"x")).unwrap().id, id(3, 256));
    assert!(table.remove(id(3, 256)) && table.remove(id(2, 256)));
    assert!(table.is_empty());
}

#[test]
fn dummies_prove_the_keys_once() {
    let mut table = SaTable::new();
    table.insert(id(1, 256), InboundSa::new(&keys(256, 1))).unwrap();
    assert_eq!(table.newly_heard(), []);
    assert_eq!(table.open(&mut sealed(&[1, 2, 2, 59])), Err(OpenError::Dummy));
    assert_eq!(table.newly_heard(), [id(1, 256)]);
    assert_eq!(table.newly_heard(), []);
}

#[test]
fn a_second_insert_keeps_the_replay_window() {
    let mut table = SaTable::new();
    let packet = seal(&mut OutboundSa::new(&keys(256, 1)), b"hello");
    for expected in [Ok(16..21), Err(OpenError::Replayed)] {
        table.insert(id(1, 256), InboundSa::new(&keys(256, 1))).unwrap();
        assert_eq!(table.open(&mut packet.clone()).map(|opened| opened.payload), expected);
    }
}

#[test]
fn the_table_is_bounded() {
    let mut table = SaTable::<Nothing>::default();
    for n in 0..table::MAX_ASSOCIATIONS as u32 {
        table.insert(id(1, 256 + n), InboundSa::with_aead(&keys(256 + n, 1))).unwrap();
    }
    let error = table.insert(id(1, 255_255), InboundSa::with_aead(&keys(255_255, 1))).unwrap_err();
    assert!(matches!(error, CryptoError::TableFull { .. }), "{error}");
}

/// Has no key schedule, so that a full table is quick to make.
struct Nothing;

impl PacketAead for Nothing {
    fn new(_: &AeadKey) -> Self {
        Self
    }

    fn seal(&self, _: [u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> [u8; TAG_LEN] {
        [0; TAG_LEN]
    }

    fn open(
        &self,
        _: [u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
        _: &[u8; TAG_LEN],
    ) -> Result<(), crate::aead::BadTag> {
        Err(crate::aead::BadTag)
    }
}

#[test]
fn batches_go_on_after_a_bad_packet() {
    let mut outbound = OutboundSa::new(&keys(256, 1));
    let mut buffers = vec![vec![5; 100]; 3];
    buffers[1].truncate(50);
    let mut slots: Vec<_> =
        buffers.iter_mut().map(|buffer| Slot { buffer, range: 16..46 }).collect();
    assert_eq!(outbound.seal_batch(&mut slots), 2);
    let ranges: Vec<_> = slots.iter().map(|slot| slot.range.clone()).collect();
    assert_eq!(ranges, [0..64, 0..0, 0..64]);

    let mut table = SaTable::new();
    table.insert(id(1, 256), InboundSa::new(&keys(256, 1))).unwrap();
    let packets = buffers.iter_mut().zip(ranges).map(|(buffer, range)| &mut buffer[range]);
    let mut payloads = 0;
    table.open_batch(packets, |opened, bytes| {
        assert_eq!(bytes[opened.payload], [5; 30]);
        payloads += 1;
    });
    assert_eq!((payloads, table.opened(), table.dropped(OpenError::Malformed)), (2, 2, 1));
}

#[test]
fn room_is_enough_for_each_length() {
    for payload in 0..2000 {
        assert!(padding(payload) < 4);
        assert!(overhead(payload) <= MAX_OVERHEAD);
        assert_eq!((payload + overhead(payload)) % 4, 0);
    }
    assert_eq!(max_payload(0), 0);
    assert_eq!(max_payload(1472), 1438);
}
