use std::{fs, process::Command};

use overlay_types::{ClusterId, NodeId, Revision, Role};
use proptest::prelude::*;
use rcgen::{DnType, KeyPair, PKCS_ECDSA_P384_SHA384};
use rstest::rstest;
use tonic::{Code, Status};

use super::*;
use crate::ca::{Authority, JoinSecret, PeerIdentity, RootCa, Subject, root::NODE_VALIDITY};

const CLUSTER: ClusterId = ClusterId::from_u128(9);
const NODE: NodeId = NodeId::from_u128(7);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn authority() -> Authority {
    Authority::generate(CLUSTER, NOW).unwrap()
}

/// Has `request` signed for who bears the token of `role`.
fn admit(authority: &Authority, role: Role, request: &[u8]) -> CertificateDer<'static> {
    let admitted = authority.admit(authority.token(role).secret().expose(), request).unwrap();
    let subject = Subject::at_first(NODE, admitted.role);
    authority.sign(&admitted.request, subject, NOW).unwrap()
}

#[rstest]
#[case(Role::Worker)]
#[case(Role::Manager)]
fn c02_the_secret_says_the_role(#[case] role: Role) {
    let authority = authority();
    let joiner = PendingJoin::new().unwrap();
    let certificate = admit(&authority, role, joiner.request());
    let identity = PeerIdentity { cluster: CLUSTER, node: NODE, role };
    let root = authority.root();
    let credentials = joiner.complete(&certificate, root.clone().into(), NOW).unwrap();
    assert_eq!(credentials.identity(), identity);
    assert_eq!(credentials.peer().as_of, Revision::new(1));

    let text = credentials.to_pem();
    let restored = NodeCredentials::from_pem(&text, NOW).unwrap();
    assert_eq!(restored.peer(), credentials.peer());
    assert_eq!(restored.validity(), credentials.validity());
    assert!(restored.validity().contains(&NOW));
    // Half of it is nobody's.
    for cut in [text.len() / 3, text.len() / 2, text.len() - 40] {
        assert!(NodeCredentials::from_pem(&text[..cut], NOW).is_err());
    }
}

#[test]
fn c02_a_rotated_out_secret_is_refused_like_any_other() {
    let before = authority();
    let mut trust = before.to_trust();
    trust.worker_secret = JoinSecret::generate().unwrap().expose().to_vec();
    let authority = Authority::from_trust(&trust).unwrap();
    let joiner = PendingJoin::new().unwrap();
    let old = before.token(Role::Worker);
    let old: &[u8] = old.secret().expose();
    for (secret, request) in [(old, joiner.request()), (&[1; 16], joiner.request()), (old, &[])] {
        let error = authority.admit(secret, request).unwrap_err();
        assert_eq!(error, CaError::JoinRefused);
        // The answer says no more to a guesser; a joiner knows what it means.
        let answer = Status::from(error);
        assert_eq!((answer.code(), answer.message()), (Code::PermissionDenied, "join refused"));
        let remote = "192.0.2.1:2377".parse().unwrap();
        let meaning = CaError::of_join_answer(&answer, remote);
        assert_eq!(meaning, CaError::RotatedOut);
        assert!(meaning.to_string().contains("rotated out"));
    }
}

#[test]
fn c02_the_joiner_checks_what_it_got() {
    let authority = authority();
    let root = authority.root().clone();
    let other = Authority::generate(CLUSTER, NOW).unwrap();
    let complete = |certificate: &[u8], joiner: PendingJoin, digest, now| {
        let roots = TrustedRoots::from(root.clone()).holding(digest)?;
        joiner.complete(certificate, roots, now).map(|_| ())
    };
    let join = || {
        let joiner = PendingJoin::new().unwrap();
        (admit(&authority, Role::Worker, joiner.request()), joiner)
    };

    let (good, joiner) = join();
    assert_eq!(
        complete(&good, joiner, other.root().digest(), NOW),
        Err(CaError::OtherRoot { expected: other.root().digest() })
    );
    let (_, joiner) = join();
    let foreign = admit(&other, Role::Worker, joiner.request());
    assert_eq!(
        complete(&foreign, joiner, root.digest(), NOW),
        Err(CaError::UnknownIssuer { cluster: CLUSTER })
    );
    let (of_another, _) = join();
    let (_, joiner) = join();
    assert!(matches!(complete(&of_another, joiner, root.digest(), NOW), Err(CaError::Key { .. })));
    let (good, joiner) = join();
    let late = UnixMillis(NOW.0 + 1000).after(NODE_VALIDITY);
    assert_eq!(
        complete(&good, joiner, root.digest(), late),
        Err(CaError::Expired { now: late, not_after: NOW.after(NODE_VALIDITY) })
    );
    let (good, joiner) = join();
    let early = UnixMillis(NOW.0 - 2 * 3_600_000);
    assert_eq!(
        complete(&good, joiner, root.digest(), early),
        Err(CaError::NotYetValid { now: early, not_before: UnixMillis(NOW.0 - 3_600_000) })
    );
}

#[test]
fn c04_a_certificate_must_name_the_cluster_of_its_root() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let found = ClusterId::from_u128(10);
    let key = PrivateKey::generate().unwrap();
    let mut params = CertificateParams::new(vec![format!("{NODE}.node.overlay")]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CommonName, NODE.to_string()),
        (DnType::OrganizationalUnitName, Role::Manager.to_string()),
        (DnType::OrganizationName, found.to_string()),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let issuer = rcgen::Issuer::from_ca_cert_der(ca.certificate().der(), ca.key().pair()).unwrap();
    let certificate = params.signed_by(key.pair(), &issuer).unwrap().der().clone();
    assert_eq!(
        NodeCredentials::new(certificate, key, ca.certificate().clone().into(), NOW).map(|_| ()),
        Err(CaError::OtherCluster { expected: CLUSTER, found })
    );
}

fn refused(der: &[u8]) -> String {
    SigningRequest::from_der(der).unwrap_err().to_string()
}

#[test]
fn bad_requests_are_refused() {
    let good = PendingJoin::new().unwrap().request().to_vec();
    for end in 0..good.len() {
        refused(&good[..end]);
    }
    assert!(refused(&[good.clone(), vec![0]].concat()).contains("1 bytes follow"));
    assert!(refused(&vec![0x30; MAX_REQUEST_LEN + 1]).contains("more than 1024"));

    // The last byte is of the signature.
    let mut unsigned = good.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    assert!(refused(&unsigned).contains("signature"));

    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default().serialize_request(&p384).unwrap();
    assert!(refused(request.der()).contains("P-256"));
}

#[test]
fn what_a_request_asks_for_is_ignored() {
    let authority = authority();
    let mut params = CertificateParams::new(vec!["any.node.overlay".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "manager");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let certificate = admit(&authority, Role::Worker, request.der());
    assert_eq!(PeerIdentity::from_certificate(&certificate).unwrap().role, Role::Worker);
}

/// A request made by openssl, and one of ours read by it.
#[test]
fn c04_requests_are_understood_by_openssl_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .expect("Debian's openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for (curve, good) in [("P-256", true), ("P-384", false)] {
        let curve = format!("ec_paramgen_curve:{curve}");
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            &curve,
            "-nodes",
            "-keyout",
            "key.pem",
            "-sha256",
            "-subj",
            "/O=other/OU=manager/CN=root",
            "-outform",
            "DER",
            "-out",
            "req.der",
        ]);
        let request = fs::read(directory.path().join("req.der")).unwrap();
        assert_eq!(SigningRequest::from_der(&request).is_ok(), good, "{curve}");
    }
    fs::write(directory.path().join("ours.der"), PendingJoin::new().unwrap().request()).unwrap();
    openssl(&["req", "-in", "ours.der", "-inform", "DER", "-verify", "-noout"]);
}

proptest! {
    /// What is signed cannot change. The algorithm and signature after it could be written in
    /// several ways.
    #[test]
    fn changed_requests_are_refused(at: prop::sample::Index, bit in 0_u8..8) {
        let mut der = PendingJoin::new().unwrap().request().to_vec();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        let signed = request.certification_request_info.raw;
        let start = signed.as_ptr() as usize - der.as_ptr() as usize;
        let at = start + at.index(signed.len());
        der[at] ^= 1 << bit;
        prop_assert!(SigningRequest::from_der(&der).is_err());
    }
}
