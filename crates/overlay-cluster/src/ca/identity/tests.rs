use overlay_types::UnixMillis;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, KeyPair, SanType,
};
use rstest::rstest;

use super::*;
use crate::ca::{PendingJoin, RootCa, Subject, join::SigningRequest};

const NODE: NodeId = NodeId::from_u128(7);
const CLUSTER: ClusterId = ClusterId::from_u128(9);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn signed(role: Role) -> Vec<u8> {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let request = SigningRequest::from_der(PendingJoin::new().unwrap().request()).unwrap();
    ca.sign(&request, Subject::at_first(NODE, role), NOW).unwrap().to_vec()
}

#[rstest]
#[case(Role::Manager)]
#[case(Role::Worker)]
fn c04_a_certificate_says_node_role_and_cluster(#[case] role: Role) {
    assert_eq!(
        PeerIdentity::from_certificate(&signed(role)),
        Ok(PeerIdentity { cluster: CLUSTER, node: NODE, role })
    );
}

/// Subject and alternative names of a certificate that is ours but for one thing.
struct Forged {
    subject: Vec<(DnType, String)>,
    names: Vec<String>,
    ca: IsCa,
}

impl Forged {
    fn ours() -> Self {
        Self {
            subject: vec![
                (DnType::CommonName, NODE.to_string()),
                (DnType::OrganizationalUnitName, "manager".to_owned()),
                (DnType::OrganizationName, CLUSTER.to_string()),
            ],
            names: vec![server_name(NODE)],
            ca: IsCa::ExplicitNoCa,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut forged = Self::ours();
        change(&mut forged);
        forged
    }

    fn sign(self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in self.subject {
            params.distinguished_name.push(kind, value);
        }
        params.subject_alt_names = self
            .names
            .into_iter()
            .map(|name| SanType::DnsName(name.as_str().try_into().unwrap()))
            .collect();
        params.is_ca = self.ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }
}

#[rstest]
#[case::no_unit(Forged::with(|f| { f.subject.remove(1); }), "2 attributes")]
#[case::unknown_role(Forged::with(|f| f.subject[1].1 = "root".into()), "\"root\" is not a role")]
#[case::role_in_capitals(Forged::with(|f| f.subject[1].1 = "Manager".into()), "not a role")]
#[case::no_node_id(Forged::with(|f| f.subject[0].1 = "me".into()), "common name")]
#[case::no_cluster_id(Forged::with(|f| f.subject[2].1 = "us".into()), "organization of")]
#[case::more(Forged::with(|f| f.subject.push((DnType::LocalityName, "x".into()))), "4 attributes")]
#[case::other_kind(Forged::with(|f| f.subject[2].0 = DnType::LocalityName), "no organization")]
#[case::no_name(Forged::with(|f| f.names.clear()), "alternative name")]
#[case::two_names(Forged::with(|f| f.names.push("x.example".into())), "alternative name")]
#[case::name_of_other(
    Forged::with(|f| f.names[0] = server_name(NodeId::from_u128(8))), "alternative name")]
#[case::ca(Forged::with(|f| f.ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)), "CA")]
fn c04_other_certificates_say_what_is_wrong(#[case] forged: Forged, #[case] reason: &str) {
    let error = PeerIdentity::from_certificate(&forged.sign()).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn the_forger_can_make_good_ones() {
    assert!(PeerIdentity::from_certificate(&Forged::ours().sign()).is_ok());
}

#[test]
fn truncated_extended_and_long_certificates_are_refused() {
    let der = signed(Role::Worker);
    for end in 0..der.len() {
        assert!(PeerIdentity::from_certificate(&der[..end]).is_err(), "{end} bytes");
    }
    let mut longer = der.clone();
    longer.push(0);
    assert!(PeerIdentity::from_certificate(&longer).is_err());

    let mut params = CertificateParams::default();
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![0; MAX_CERTIFICATE_LEN])];
    let huge = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let error = PeerIdentity::from_certificate(huge.der()).unwrap_err().to_string();
    assert!(error.contains("more than 2048"), "{error}");
}

proptest! {
    #[test]
    fn changed_certificates_do_not_panic(at in 0_usize..600, bit in 0_u8..8) {
        static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| signed(Role::Manager));
        let mut der = DER.clone();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        let _ = PeerIdentity::from_certificate(&der);
    }
}
