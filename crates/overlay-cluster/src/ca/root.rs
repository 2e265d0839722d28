//! The root certificate, and the CA that signs node certificates with its key.

use core::{fmt, time::Duration};

use overlay_types::{ClusterId, NodeId, Revision, Role, Root, RootId, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::time::ASN1Time;

use super::{
    CaError, PeerIdentity, PrivateKey, base36,
    identity::{self, MAX_CERTIFICATE_LEN},
    join::SigningRequest,
    pem,
};

/// A root outlives the hardware; it is replaced by rotation, not by its date.
pub const ROOT_VALIDITY: Duration = Duration::from_hours(20 * 365 * 24);
/// Life of a node certificate (C04).
pub const NODE_VALIDITY: Duration = Duration::from_hours(90 * 24);
/// How far a certificate reaches into the past, for nodes whose clock is behind the manager's.
pub const BACKDATE: Duration = Duration::from_hours(1);

/// Characters of a digest's text: 36^50 > 2^256.
pub(super) const DIGEST_TEXT_LEN: usize = 50;
const ROOT_COMMON_NAME: &str = "overlay root";

/// SHA-256 of a root certificate's DER: the short form in which a token carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootDigest([u8; 32]);

impl RootDigest {
    /// Digest of a certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// A digest of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base36::encode(&self.0, DIGEST_TEXT_LEN))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootDigest({self})")
    }
}

/// The root certificate of a cluster, in the form that [`RootCa::generate`] gives: a CA whose
/// subject is `CN=overlay root, O=<cluster id>`.
///
/// Whether it is the right one is another question: its digest answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCertificate {
    der: CertificateDer<'static>,
    cluster: ClusterId,
    digest: RootDigest,
    id: RootId,
}

impl RootCertificate {
    /// Reads DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let certificate = identity::parse_x509(der)?;
        if !certificate.is_ca() {
            return Err(CaError::certificate("the root is not a CA"));
        }
        let [common_name, organization] =
            identity::subject(&certificate, &[identity::COMMON_NAME, identity::ORGANIZATION])?;
        if common_name != ROOT_COMMON_NAME {
            return Err(CaError::certificate(format!(
                "the root is named {common_name:?}, not {ROOT_COMMON_NAME:?}"
            )));
        }
        let cluster = organization
            .parse()
            .map_err(|error| CaError::certificate(format!("organization of the root: {error}")))?;
        let id = identity::key_id(&certificate);
        let der = CertificateDer::from(der.to_vec());
        Ok(Self { cluster, digest: RootDigest::of(&der), id, der })
    }

    /// Reads PEM.
    pub fn from_pem(text: &str) -> Result<Self, CaError> {
        Self::from_der(&pem::decode_certificate(text)?)
    }

    /// The certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode_certificate(&self.der)
    }

    /// The certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The cluster that it is the root of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its digest, as tokens carry it.
    pub fn digest(&self) -> RootDigest {
        self.digest
    }

    /// Its key, in short. A certificate that another root gave the same key has the same.
    pub fn id(&self) -> RootId {
        self.id
    }

    /// The root as the cluster publishes it; `cross` is its key as the root that it replaces
    /// certified it.
    pub fn published(&self, cross: Option<CertificateDer<'_>>) -> Root {
        let cross = cross.map(|der| der.to_vec());
        Root { id: self.id, certificate: self.der.to_vec(), cross }
    }
}

/// Whom a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The node.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
    /// A revision of the replicated state that gives it this role. Who has a later state, in which
    /// the role is another one, knows that the certificate is out of date.
    pub as_of: Revision,
}

impl Subject {
    /// A node as the first write of a cluster makes it.
    pub const fn at_first(node: NodeId, role: Role) -> Self {
        Self { node, role, as_of: Revision::ZERO.next() }
    }
}

/// The CA of a cluster: root certificate and key.
#[derive(Debug)]
pub struct RootCa {
    certificate: RootCertificate,
    key: PrivateKey,
}

impl RootCa {
    /// A new CA for `cluster`, with a new P-256 key.
    pub fn generate(cluster: ClusterId, now: UnixMillis) -> Result<Self, CaError> {
        let key = PrivateKey::generate()?;
        let params = ca_params(cluster, now)?;
        let certificate = params.self_signed(key.pair()).map_err(CaError::signing)?;
        Ok(Self { certificate: RootCertificate::from_der(certificate.der())?, key })
    }

    /// A CA of these parts, refused if the key is not the certificate's.
    pub fn new(certificate: RootCertificate, key: PrivateKey) -> Result<Self, CaError> {
        let parsed = identity::parse_x509(&certificate.der)?;
        if parsed.public_key().subject_public_key.data != key.public_point() {
            return Err(CaError::key("it does not belong to the root certificate"));
        }
        Ok(Self { certificate, key })
    }

    /// The root certificate.
    pub fn certificate(&self) -> &RootCertificate {
        &self.certificate
    }

    /// The root key: who has it is the cluster.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Certifies the key of `next`, which is to replace this root: between a certificate that `next`
    /// signed and this root it completes the chain. Same name, other key (RFC 4210 section 4.4).
    pub fn cross_certify(
        &self,
        next: &Self,
        now: UnixMillis,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = ca_params(self.certificate.cluster, now)?;
        // Without it, equal names would have it taken for self-signed.
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(next.key.pair(), &self.issuer()?).map_err(CaError::signing)?;
        Ok(certificate.der().clone())
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, CaError> {
        Issuer::from_ca_cert_der(&self.certificate.der, self.key.pair()).map_err(CaError::signing)
    }

    /// Signs a certificate for `subject`, valid from [`BACKDATE`] before `now` to
    /// [`NODE_VALIDITY`] after it. Only the public key is taken from the request.
    pub fn sign(
        &self,
        request: &SigningRequest,
        subject: Subject,
        now: UnixMillis,
    ) -> Result<CertificateDer<'static>, CaError> {
        let Subject { node, role, as_of } = subject;
        let subject = PeerIdentity { cluster: self.certificate.cluster, node, role };
        let serial = identity::serial(random()?, as_of);
        let mut params = params(now, NODE_VALIDITY, &serial)?;
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, node.to_string());
        name.push(DnType::OrganizationalUnitName, role.to_string());
        name.push(DnType::OrganizationName, subject.cluster.to_string());
        let dns = subject.server_name().as_str().try_into().map_err(CaError::signing)?;
        params.subject_alt_names = vec![SanType::DnsName(dns)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(request.public_key(), &self.issuer()?).map_err(CaError::signing)?;
        debug_assert!(certificate.der().len() <= MAX_CERTIFICATE_LEN);
        Ok(certificate.der().clone())
    }
}

/// Parameters of the certificate of a CA that signs for nodes, and for no other CA.
fn ca_params(cluster: ClusterId, now: UnixMillis) -> Result<CertificateParams, CaError> {
    let mut serial: [u8; 16] = random()?;
    identity::positive(&mut serial);
    let mut params = params(now, ROOT_VALIDITY, &serial)?;
    params.distinguished_name.push(DnType::CommonName, ROOT_COMMON_NAME);
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What makes a serial number one that was never used.
fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut random = [0; N];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| CaError::signing("the system has no entropy for a serial number"))?;
    Ok(random)
}

/// Parameters that every certificate of ours has.
fn params(
    now: UnixMillis,
    validity: Duration,
    serial: &[u8],
) -> Result<CertificateParams, CaError> {
    let date = |time: UnixMillis| {
        let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
        ASN1Time::from_timestamp(seconds)
            .map(|time| time.to_datetime())
            .map_err(|_| CaError::signing("the clock is beyond the year 9999"))
    };
    let backdate = u64::try_from(BACKDATE.as_millis()).unwrap_or(u64::MAX);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date(UnixMillis(now.0.saturating_sub(backdate)))?;
    params.not_after = date(now.after(validity))?;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    Ok(params)
}

#[cfg(test)]
mod tests;
