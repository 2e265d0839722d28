use std::{fs, path::Path, process::Command};

use rstest::rstest;
use x509_parser::certificate::X509Certificate;

use super::*;
use crate::ca::PendingJoin;

const CLUSTER: ClusterId = ClusterId::from_u128(9);
const NODE: NodeId = NodeId::from_u128(7);
const NOW: UnixMillis = UnixMillis(1_800_000_000_123);

fn request() -> SigningRequest {
    SigningRequest::from_der(PendingJoin::new().unwrap().request()).unwrap()
}

fn seconds(validity: &x509_parser::certificate::Validity) -> (i64, i64) {
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

#[test]
fn c04_certificates_are_valid_from_an_hour_ago() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let der = ca.sign(&request(), Subject::at_first(NODE, Role::Worker), NOW).unwrap();
    let parse = |der| -> X509Certificate<'_> { identity::parse_x509(der).unwrap() };
    let now = 1_800_000_000;
    assert_eq!(seconds(parse(&der).validity()), (now - 3600, now + 90 * 86_400));
    let root = ca.certificate().der();
    assert_eq!(seconds(parse(root).validity()), (now - 3600, now + 20 * 365 * 86_400));
}

#[test]
fn no_serial_number_comes_twice() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let request = request();
    let serials: std::collections::BTreeSet<Vec<u8>> = (0..20)
        .map(|_| ca.sign(&request, Subject::at_first(NODE, Role::Worker), NOW).unwrap())
        .map(|der| identity::parse_x509(&der).unwrap().raw_serial().to_vec())
        .collect();
    assert_eq!(serials.len(), 20);
    // Positive, and as long as may be.
    assert!(serials.iter().all(|serial| serial.len() == 20 && serial[0] < 0x80));
}

#[rstest]
#[case(UnixMillis(0), true)]
#[case(UnixMillis(253_000_000_000_000), true)] // year 9987
#[case(UnixMillis(253_402_300_000_000), false)] // year 10000
#[case(UnixMillis(u64::MAX), false)]
fn a_clock_that_x509_cannot_write_is_an_error(#[case] now: UnixMillis, #[case] good: bool) {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    assert_eq!(ca.sign(&request(), Subject::at_first(NODE, Role::Worker), now).is_ok(), good);
}

#[test]
fn c04_a_ca_is_restored_from_its_parts() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let certificate = RootCertificate::from_pem(&ca.certificate().to_pem()).unwrap();
    assert_eq!(&certificate, ca.certificate());
    assert_eq!(certificate.cluster(), CLUSTER);
    let key = PrivateKey::from_pem(&ca.key().to_pem()).unwrap();
    let restored = RootCa::new(certificate.clone(), key).unwrap();
    let der = restored.sign(&request(), Subject::at_first(NODE, Role::Manager), NOW).unwrap();
    assert!(PeerIdentity::from_certificate(&der).is_ok());

    let other = PrivateKey::generate().unwrap();
    assert!(matches!(RootCa::new(certificate, other), Err(CaError::Key { .. })));
}

#[rstest]
#[case::nothing("")]
#[case::other_text("no PEM here")]
#[case::no_end("-----BEGIN CERTIFICATE-----\nMIIB\n")]
#[case::no_der("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")]
fn bad_pem_is_refused(#[case] text: &str) {
    assert!(matches!(RootCertificate::from_pem(text), Err(CaError::Certificate { .. })));
    assert!(matches!(PrivateKey::from_pem(text), Err(CaError::Key { .. })));
}

#[test]
fn a_node_certificate_is_no_root() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let der = ca.sign(&request(), Subject::at_first(NODE, Role::Manager), NOW).unwrap();
    assert!(matches!(RootCertificate::from_der(&der), Err(CaError::Certificate { .. })));
}

#[test]
fn debug_does_not_show_the_key() {
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let shown = format!("{ca:?}");
    assert!(shown.contains("redacted"), "{shown}");
}

fn openssl(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("Debian's openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn c04_openssl_verifies_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let ca = RootCa::generate(CLUSTER, NOW).unwrap();
    let node = ca.sign(&request(), Subject::at_first(NODE, Role::Manager), NOW).unwrap();
    let other = RootCa::generate(CLUSTER, NOW).unwrap();
    write("root.pem", &ca.certificate().to_pem());
    write("root.key", &ca.key().to_pem());
    write("other.pem", &other.certificate().to_pem());
    write("node.pem", &pem::encode_certificate(&node));

    let verify = |root: &str, purpose: &str, at: &str| {
        openssl(
            directory.path(),
            &[
                "verify",
                "-x509_strict",
                "-attime",
                at,
                "-purpose",
                purpose,
                "-CAfile",
                root,
                "node.pem",
            ],
        )
    };
    for purpose in ["sslserver", "sslclient"] {
        let (good, text) = verify("root.pem", purpose, "1800000000");
        assert!(good, "{text}");
    }
    let (good, text) = verify("other.pem", "sslserver", "1800000000");
    assert!(!good, "{text}");
    let (good, text) = verify("root.pem", "sslserver", "1807776001");
    assert!(!good && text.contains("expired"), "{text}");

    let (good, text) = openssl(
        directory.path(),
        &["x509", "-in", "node.pem", "-noout", "-text", "-nameopt", "RFC2253"],
    );
    assert!(good, "{text}");
    for expected in [
        &format!("O={CLUSTER},OU=manager,CN={NODE}"),
        &format!("DNS:{NODE}.node.overlay"),
        "prime256v1",
        "ecdsa-with-SHA256",
        "CA:FALSE",
        "TLS Web Server Authentication, TLS Web Client Authentication",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let (good, text) = openssl(directory.path(), &["pkey", "-in", "root.key", "-check", "-noout"]);
    assert!(good, "{text}");
}

#[test]
fn c04_openssl_verifies_a_chain_by_way_of_the_root_that_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let [old, new, other] = [(); 3].map(|()| RootCa::generate(CLUSTER, NOW).unwrap());
    let node = new.sign(&request(), Subject::at_first(NODE, Role::Manager), NOW).unwrap();
    let cross = old.cross_certify(&new, NOW).unwrap();
    let foreign = other.cross_certify(&new, NOW).unwrap();
    for (name, ca) in [("old.pem", &old), ("new.pem", &new)] {
        write(name, &ca.certificate().to_pem());
    }
    for (name, der) in [("node.pem", node), ("cross.pem", cross), ("foreign.pem", foreign)] {
        write(name, &pem::encode_certificate(&der));
    }
    let common = ["verify", "-x509_strict", "-attime", "1800000000", "-purpose", "sslserver"];
    let verify = |rest: &[&str]| openssl(directory.path(), &[&common, rest].concat());
    for (rest, expected) in [
        (&["-CAfile", "old.pem", "-untrusted", "cross.pem", "node.pem"][..], true),
        (&["-CAfile", "old.pem", "node.pem"], false),
        (&["-CAfile", "old.pem", "-untrusted", "foreign.pem", "node.pem"], false),
        (&["-CAfile", "new.pem", "node.pem"], true),
        // As a node presents it that has the new certificate, to one that has the old root.
        (
            &["-CAfile", "old.pem", "-untrusted", "cross.pem", "-untrusted", "new.pem", "node.pem"],
            true,
        ),
    ] {
        let (good, text) = verify(rest);
        assert_eq!(good, expected, "{rest:?}: {text}");
    }
    // The cross certificate is of the new key, and for nothing but nodes.
    let text = openssl(directory.path(), &["x509", "-in", "cross.pem", "-noout", "-text"]).1;
    assert!(text.contains("CA:TRUE, pathlen:0"), "{text}");
}

#[test]
fn c04_a_root_is_known_by_its_key_whoever_certified_it() {
    let [old, new] = [(); 2].map(|()| RootCa::generate(CLUSTER, NOW).unwrap());
    let cross = RootCertificate::from_der(&old.cross_certify(&new, NOW).unwrap()).unwrap();
    assert_eq!(cross.id(), new.certificate().id());
    assert_ne!(cross.digest(), new.certificate().digest());
    assert_ne!(old.certificate().id(), new.certificate().id());
}
