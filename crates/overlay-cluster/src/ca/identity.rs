//! What a node certificate says about its node.
//!
//! ```text
//! subject  CN=<node id>, OU=manager | worker, O=<cluster id>
//! SAN      DNS:<node id>.node.overlay
//! serial   random (12 bytes) | revision of the state that gave the node its role (8 bytes)
//! ```

use core::{fmt, ops::Range};

use overlay_types::{ClusterId, NodeId, Revision, Role, RootId, UnixMillis};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry, prelude::FromDer,
    time::ASN1Time, x509::X509Version,
};

use super::CaError;

/// Certificates that this CA gives have about 600 bytes; longer ones are not looked at.
pub const MAX_CERTIFICATE_LEN: usize = 2048;

/// Attributes of a subject, by name and object identifier.
pub(super) type Attribute = (&'static str, oid_registry::Oid<'static>);
pub(super) const COMMON_NAME: Attribute = ("common name", oid_registry::OID_X509_COMMON_NAME);
pub(super) const ORGANIZATION: Attribute =
    ("organization", oid_registry::OID_X509_ORGANIZATION_NAME);
const UNIT: Attribute = ("organizational unit", oid_registry::OID_X509_ORGANIZATIONAL_UNIT);

/// Who a peer is, as its certificate says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
}

impl PeerIdentity {
    /// Reads a node certificate. Only the exact form that [`RootCa::sign`](super::RootCa::sign)
    /// gives is accepted. Does not check who signed it: TLS did.
    pub fn from_certificate(der: &[u8]) -> Result<Self, CaError> {
        let certificate = parse_x509(der)?;
        if certificate.is_ca() {
            return Err(CaError::certificate("a CA's certificate does not stand for a node"));
        }
        let [node, unit, organization] = subject(&certificate, &[COMMON_NAME, UNIT, ORGANIZATION])?;
        let id = |field: &str, error: &dyn fmt::Display| {
            CaError::certificate(format!("{field} of the subject: {error}"))
        };
        let identity = Self {
            node: node.parse().map_err(|error| id(COMMON_NAME.0, &error))?,
            cluster: organization.parse().map_err(|error| id(ORGANIZATION.0, &error))?,
            role: role(unit)?,
        };
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| CaError::certificate(error.to_string()))?;
        match names.as_ref().map(|names| names.value.general_names.as_slice()) {
            Some([GeneralName::DNSName(name)]) if *name == identity.server_name() => Ok(identity),
            _ => Err(CaError::certificate(format!(
                "its alternative name is not just DNS:{}",
                identity.server_name()
            ))),
        }
    }

    /// The name under which the node is a TLS server.
    pub fn server_name(&self) -> String {
        server_name(self.node)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of cluster {}", self.role, self.node, self.cluster)
    }
}

/// The other end of a connection: a node, until when its certificate says so, and who vouches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who it is.
    pub identity: PeerIdentity,
    /// The state that gave the node its role when the certificate was signed.
    pub as_of: Revision,
    /// The end of its certificate. A connection may outlive it.
    pub not_after: UnixMillis,
    /// The root that signed the certificate.
    pub issuer: RootId,
    /// The root that was trusted when the connection was made, by way of which: the same, or the
    /// one that certified the issuer's key. A connection may outlive that trust.
    pub anchor: RootId,
}

/// The server name that expects no particular node.
pub(super) const SERVER_NAME_OF_ANY: &str = "any.node.overlay";
const SERVER_NAME_SUFFIX: &str = ".node.overlay";

/// The name under which `node` is a TLS server.
pub(super) fn server_name(node: NodeId) -> String {
    format!("{node}{SERVER_NAME_SUFFIX}")
}

/// The node that `name` expects.
pub(super) fn node_of_server_name(name: &str) -> Option<NodeId> {
    name.strip_suffix(SERVER_NAME_SUFFIX)?.parse().ok()
}

/// Reads an X.509 v3 certificate, and nothing after it.
pub(super) fn parse_x509(der: &[u8]) -> Result<X509Certificate<'_>, CaError> {
    if der.len() > MAX_CERTIFICATE_LEN {
        return Err(CaError::certificate(format!(
            "it has {} bytes, more than {MAX_CERTIFICATE_LEN}",
            der.len()
        )));
    }
    let (rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CaError::certificate(format!("not X.509 in DER: {error}")))?;
    if !rest.is_empty() {
        return Err(CaError::certificate(format!("{} bytes follow it", rest.len())));
    }
    if certificate.version() != X509Version::V3 {
        return Err(CaError::certificate("not X.509 version 3"));
    }
    Ok(certificate)
}

/// A CA's key, in short.
pub(super) fn key_id(certificate: &X509Certificate<'_>) -> RootId {
    id_of_key(certificate.public_key().raw)
}

/// The same, of a SubjectPublicKeyInfo in DER.
pub(super) fn id_of_key(spki: &[u8]) -> RootId {
    let digest: [u8; 32] = Sha256::digest(spki).into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    RootId::from_bytes(id)
}

/// Bytes of a serial number before the revision, and of all of it: what RFC 5280 allows.
const SERIAL_RANDOM: usize = 12;
const SERIAL: usize = SERIAL_RANDOM + size_of::<u64>();

/// The serial number of a node's certificate; `random` makes it another one each time.
pub(super) fn serial(random: [u8; SERIAL_RANDOM], as_of: Revision) -> [u8; SERIAL] {
    let mut serial = [0; SERIAL];
    let (first, last) = serial.split_at_mut(SERIAL_RANDOM);
    first.copy_from_slice(&random);
    last.copy_from_slice(&as_of.get().to_be_bytes());
    positive(&mut serial);
    serial
}

/// Makes a number positive, not zero, and of just these bytes (RFC 5280 section 4.1.2.2).
pub(super) fn positive(serial: &mut [u8]) {
    serial[0] = serial[0] & 0x3f | 0x40;
}

/// Which state a node's certificate was signed by.
pub(super) fn as_of(certificate: &X509Certificate<'_>) -> Result<Revision, CaError> {
    let serial = certificate.raw_serial();
    let revision = serial.split_last_chunk().filter(|_| serial.len() == SERIAL);
    let (_, revision) = revision.ok_or_else(|| {
        CaError::certificate(format!("its serial number has {} bytes, not {SERIAL}", serial.len()))
    })?;
    Ok(Revision::new(u64::from_be_bytes(*revision)))
}

/// From when to when a certificate is valid.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> Range<UnixMillis> {
    let millis = |time: ASN1Time| {
        UnixMillis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
    };
    let validity = certificate.validity();
    millis(validity.not_before)..millis(validity.not_after)
}

/// The values of just these attributes of the subject, each of which must be there once.
pub(super) fn subject<'a, const N: usize>(
    certificate: &'a X509Certificate<'_>,
    attributes: &[Attribute; N],
) -> Result<[&'a str; N], CaError> {
    let count = certificate.subject().iter_attributes().count();
    if count != N {
        return Err(CaError::certificate(format!(
            "its subject has {count} attributes instead of {N}"
        )));
    }
    let mut values = [""; N];
    for (value, (name, oid)) in values.iter_mut().zip(attributes) {
        *value = certificate
            .subject()
            .iter_by_oid(oid)
            .next()
            .and_then(|attribute| attribute.as_str().ok())
            .ok_or_else(|| CaError::certificate(format!("its subject has no {name}")))?;
    }
    Ok(values)
}

fn role(unit: &str) -> Result<Role, CaError> {
    [Role::Manager, Role::Worker]
        .into_iter()
        .find(|role| role.to_string() == unit)
        .ok_or_else(|| CaError::certificate(format!("{unit:?} is not a role")))
}

#[cfg(test)]
mod tests;
