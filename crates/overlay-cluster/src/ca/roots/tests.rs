use overlay_types::{NodeId, Role, UnixMillis};
use rustls_pki_types::UnixTime;

use super::*;
use crate::ca::{
    NodeCredentials, PendingJoin, RootCa, Subject,
    join::SigningRequest,
    trust::{Trust, unix_time},
};

const CLUSTER: ClusterId = ClusterId::from_u128(9);
const NODE: NodeId = NodeId::from_u128(7);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn ca() -> RootCa {
    RootCa::generate(CLUSTER, NOW).unwrap()
}

/// The roots that the cluster publishes while `others` replace the first.
fn published(first: &RootCa, others: &[&RootCa]) -> Vec<Root> {
    let cross = |next: &&RootCa| {
        next.certificate().published(Some(first.cross_certify(next, NOW).unwrap()))
    };
    [first.certificate().published(None)].into_iter().chain(others.iter().map(cross)).collect()
}

fn trusted(first: &RootCa, others: &[&RootCa]) -> TrustedRoots {
    TrustedRoots::from_published(&published(first, others)).unwrap()
}

fn credentials(signer: &RootCa, roots: TrustedRoots) -> Result<NodeCredentials, CaError> {
    let pending = PendingJoin::new().unwrap();
    let request = SigningRequest::from_der(pending.request()).unwrap();
    let certificate = signer.sign(&request, Subject::at_first(NODE, Role::Manager), NOW).unwrap();
    pending.complete(&certificate, roots, NOW)
}

fn now() -> UnixTime {
    unix_time(NOW)
}

#[test]
fn c04_credentials_with_several_roots_come_back_from_the_disk() {
    let [a, b, c] = [(); 3].map(|()| ca());
    for (signer, roots) in
        [(&a, trusted(&a, &[])), (&b, trusted(&a, &[&b])), (&b, trusted(&a, &[&b, &c]))]
    {
        let made = credentials(signer, roots).unwrap();
        let kept = NodeCredentials::from_pem(&made.to_pem(), NOW).unwrap();
        assert_eq!(kept.issuer(), signer.certificate().id());
        assert_eq!((kept.roots(), kept.issuer()), (made.roots(), made.issuer()));
        assert_eq!(kept.chain(), made.chain());
    }
    // What the root did not sign itself is not kept: the node would not know by which root it lives.
    let error = credentials(&b, trusted(&a, &[])).unwrap_err();
    assert_eq!(error, CaError::UnknownIssuer { cluster: CLUSTER });
}

#[test]
fn c04_roots_change_under_a_certificate_that_stays() {
    let [a, b] = [(); 2].map(|()| ca());
    let during = credentials(&b, trusted(&a, &[&b])).unwrap();
    let certificate = during.certificate().clone();
    let after = published(&b, &[]);
    assert!(!during.roots().are(&after));
    let ended = during.with_roots(&after, NOW).unwrap();
    assert!(ended.roots().are(&after));
    assert_eq!(ended.certificate(), &certificate);
    // A root that did not sign it would leave the node alone.
    assert!(ended.with_roots(&published(&a, &[]), NOW).is_err());
}

#[test]
fn c04_a_node_that_knows_only_the_old_root_accepts_the_new_ones_by_way_of_it() {
    let [a, b, c, stranger] = [(); 4].map(|()| ca());
    let id = |ca: &RootCa| ca.certificate().id();
    let old = Trust::new(trusted(&a, &[])).unwrap();
    let during = Trust::new(trusted(&a, &[&b, &c])).unwrap();
    for (signer, roots) in [(&b, trusted(&a, &[&b])), (&c, trusted(&a, &[&b, &c]))] {
        let chain = credentials(signer, roots).unwrap().chain();
        let (certificate, presented) = chain.split_first().unwrap();
        old.manager(certificate, presented, now()).unwrap();
        let peer = old.peer(certificate, presented, now()).unwrap();
        assert_eq!((peer.issuer, peer.anchor), (id(signer), id(&a)));
        let peer = during.peer(certificate, presented, now()).unwrap();
        assert_eq!((peer.issuer, peer.anchor), (id(signer), id(signer)));
        // Without what leads to the old root it is nobody's.
        assert!(old.manager(certificate, &[], now()).is_err());
        // And with what another root signed for the same key.
        let foreign = stranger.cross_certify(signer, NOW).unwrap();
        assert!(old.manager(certificate, &[foreign], now()).is_err());
    }
    let ended = Trust::new(trusted(&c, &[])).unwrap();
    for (signer, roots) in [(&a, trusted(&a, &[])), (&b, trusted(&a, &[&b]))] {
        let chain = credentials(signer, roots).unwrap().chain();
        let (certificate, presented) = chain.split_first().unwrap();
        let refused = ended.manager(certificate, presented, now()).unwrap_err();
        assert_eq!(refused, CaError::UnknownIssuer { cluster: CLUSTER });
        assert!(ended.peer(certificate, presented, now()).is_err());
    }
}

#[test]
fn c04_who_was_certified_certifies_no_other_root() {
    let [a, rogue, b, c] = [(); 4].map(|()| ca());
    let trust = Trust::new(trusted(&a, &[])).unwrap();
    // A root of its own that it presents is not trusted for that.
    let chain = credentials(&rogue, trusted(&rogue, &[])).unwrap().chain();
    let (certificate, presented) = chain.split_first().unwrap();
    assert!(trust.manager(certificate, presented, now()).is_err());
    // A key that was certified certifies no other: the path has one step.
    let presented = [b.cross_certify(&c, NOW).unwrap(), a.cross_certify(&b, NOW).unwrap()];
    let of_c = credentials(&c, trusted(&c, &[])).unwrap();
    assert!(trust.manager(of_c.certificate(), &presented, now()).is_err());
}

#[test]
fn roots_that_do_not_belong_together_are_refused() {
    let [a, b] = [(); 2].map(|()| ca());
    let refused = |roots: &[Root]| TrustedRoots::from_published(roots).unwrap_err().to_string();
    assert!(refused(&[]).contains("there is no root"));
    let mut other_key = published(&a, &[&b]);
    other_key[1].id = RootId::from_u128(3);
    assert!(refused(&other_key).contains("another key"));
    let mut other_cross = published(&a, &[&b]);
    other_cross[1].cross = Some(b.cross_certify(&a, NOW).unwrap().to_vec());
    assert!(refused(&other_cross).contains("cross-certified with another key"));
    let foreign = RootCa::generate(ClusterId::from_u128(10), NOW).unwrap();
    assert!(refused(&published(&a, &[&foreign])).contains("of cluster"));
    let mut cut = published(&a, &[]);
    cut[0].certificate.truncate(100);
    assert!(refused(&cut).contains("not X.509"));
    let error = trusted(&a, &[]).holding(b.certificate().digest()).unwrap_err();
    assert!(error.to_string().contains("rotated out"), "{error}");
}
