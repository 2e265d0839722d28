//! The roots that a node trusts: one, or several while a root rotation runs.

use overlay_types::{ClusterId, Root, RootId};
use rustls_pki_types::CertificateDer;

use super::{CaError, RootCertificate, RootDigest, identity, pem};

/// A root, and its key as the root before it certified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrustedRoot {
    pub(super) certificate: RootCertificate,
    pub(super) cross: Option<CertificateDer<'static>>,
}

/// The roots of a cluster, oldest first; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRoots(Vec<TrustedRoot>);

impl TrustedRoots {
    /// As the cluster publishes them.
    pub fn from_published(roots: &[Root]) -> Result<Self, CaError> {
        Self::of_all(roots.iter().map(|root| {
            let certificate = RootCertificate::from_der(&root.certificate)?;
            if certificate.id() != root.id {
                return Err(CaError::certificate(format!("root {} has another key", root.id)));
            }
            let cross = root.cross.as_deref().map(|der| check_cross(root.id, der)).transpose()?;
            Ok(TrustedRoot { certificate, cross })
        }))
    }

    fn of_all(roots: impl Iterator<Item = Result<TrustedRoot, CaError>>) -> Result<Self, CaError> {
        let roots: Vec<TrustedRoot> = roots.collect::<Result<_, _>>()?;
        let Some(first) = roots.first() else {
            return Err(CaError::certificate("there is no root"));
        };
        let expected = first.certificate.cluster();
        match roots.iter().map(|root| root.certificate.cluster()).find(|c| *c != expected) {
            Some(found) => Err(CaError::OtherCluster { expected, found }),
            None => Ok(Self(roots)),
        }
    }

    /// These roots, if one of them has the digest that a token names.
    pub fn holding(self, expected: RootDigest) -> Result<Self, CaError> {
        let held = self.0.iter().any(|root| root.certificate.digest() == expected);
        if held { Ok(self) } else { Err(CaError::OtherRoot { expected }) }
    }

    /// The keys of all, in short.
    pub fn ids(&self) -> impl Iterator<Item = RootId> {
        self.0.iter().map(|root| root.certificate.id())
    }

    /// The root that join tokens name.
    pub fn first(&self) -> &RootCertificate {
        &self.0[0].certificate
    }

    /// The cluster that they are of.
    pub fn cluster(&self) -> ClusterId {
        self.first().cluster()
    }

    /// Whether the cluster publishes just these.
    pub fn are(&self, published: &[Root]) -> bool {
        self.0.len() == published.len()
            && self.0.iter().zip(published).all(|(own, root)| {
                let cross = own.cross.as_ref().map(AsRef::as_ref);
                own.certificate.id() == root.id
                    && own.certificate.der().as_ref() == root.certificate
                    && cross == root.cross.as_deref()
            })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TrustedRoot> {
        self.0.iter()
    }

    pub(super) fn get(&self, id: RootId) -> Option<&TrustedRoot> {
        self.0.iter().find(|root| root.certificate.id() == id)
    }

    /// Certificates as [`from_certificates`](Self::from_certificates) reads them.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter().flat_map(|root| core::iter::once(root.certificate.der()).chain(&root.cross))
    }

    /// Reads each root, and after it its key as another certified it, if it is.
    pub(super) fn from_certificates(
        certificates: &[CertificateDer<'static>],
    ) -> Result<Self, CaError> {
        let mut roots: Vec<Root> = Vec::new();
        for der in certificates {
            let certificate = RootCertificate::from_der(der)?;
            match roots.last_mut().filter(|last| last.id == certificate.id()) {
                Some(last) if last.cross.is_none() => last.cross = Some(der.to_vec()),
                Some(_) => return Err(CaError::certificate("a root is there three times")),
                None => {
                    let (id, certificate) = (certificate.id(), der.to_vec());
                    roots.push(Root { id, certificate, cross: None });
                }
            }
        }
        Self::from_published(&roots)
    }

    /// The certificates as PEM, one after the other.
    pub(super) fn to_pem(&self) -> String {
        self.certificates().map(|der| pem::encode_certificate(der)).collect()
    }
}

impl From<RootCertificate> for TrustedRoots {
    fn from(certificate: RootCertificate) -> Self {
        Self(vec![TrustedRoot { certificate, cross: None }])
    }
}

/// What stands between a node's certificate and an older root must be of the newer one's key. Who
/// signed it, a chain check finds out.
fn check_cross(id: RootId, der: &[u8]) -> Result<CertificateDer<'static>, CaError> {
    let certificate = identity::parse_x509(der)?;
    if !certificate.is_ca() || identity::key_id(&certificate) != id {
        return Err(CaError::certificate(format!("root {id} is cross-certified with another key")));
    }
    Ok(CertificateDer::from(der.to_vec()))
}

#[cfg(test)]
mod tests;
