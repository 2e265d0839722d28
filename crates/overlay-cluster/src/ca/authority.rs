//! What a manager decides with: the CA and the join secrets.

use overlay_types::{ClusterId, Role, RootId, UnixMillis};
use rustls_pki_types::CertificateDer;

use super::{
    CaError, JoinSecret, JoinSecrets, JoinToken, PrivateKey, RootCa, RootCertificate, Subject,
    join::SigningRequest,
};
use crate::state::{Action, Successor, Trust};

/// The CA of a cluster, and the secrets that admit to it. Whoever has it is the cluster.
#[derive(Debug)]
pub struct Authority {
    /// The root that join tokens name.
    ca: RootCa,
    /// What signs while it replaces that root.
    successor: Option<RootCa>,
    secrets: JoinSecrets,
}

/// A joiner that is let in. Its certificate is signed once the state has it.
#[derive(Debug)]
pub struct Admission {
    /// What it is to be.
    pub role: Role,
    /// The root that signs its certificate.
    pub root: RootId,
    /// What it asks to have signed.
    pub request: SigningRequest,
}

impl Authority {
    /// A new root and new secrets for `cluster`.
    pub fn generate(cluster: ClusterId, now: UnixMillis) -> Result<Self, CaError> {
        let (ca, secrets) = (RootCa::generate(cluster, now)?, JoinSecrets::generate()?);
        Ok(Self { ca, successor: None, secrets })
    }

    /// As the replicated state keeps it.
    pub fn from_trust(trust: &Trust) -> Result<Self, CaError> {
        let ca = ca(&trust.root_certificate, &trust.private_key)?;
        let successor = trust.successor.as_ref();
        let successor = successor.map(|s| self::ca(&s.root_certificate, &s.private_key));
        let secret = |role: Role, bytes: &[u8]| {
            JoinSecret::from_slice(bytes).ok_or(CaError::SecretLength { role, found: bytes.len() })
        };
        let secrets = JoinSecrets::new(
            secret(Role::Worker, &trust.worker_secret)?,
            secret(Role::Manager, &trust.manager_secret)?,
        )?;
        Ok(Self { ca, successor: successor.transpose()?, secrets })
    }

    /// What a new cluster keeps in the replicated state.
    pub fn to_trust(&self) -> Trust {
        let secret = |role| self.secrets.get(role).expose().to_vec();
        Trust {
            root_certificate: self.root().to_pem(),
            private_key: self.ca.key().to_pem().to_string(),
            worker_secret: secret(Role::Worker),
            manager_secret: secret(Role::Manager),
            successor: None,
            former_roots: Vec::new(),
        }
    }

    /// The root certificate that join tokens name.
    pub fn root(&self) -> &RootCertificate {
        self.ca.certificate()
    }

    /// The root that signs certificates.
    pub fn signing_root(&self) -> &RootCertificate {
        self.signing().certificate()
    }

    fn signing(&self) -> &RootCa {
        self.successor.as_ref().unwrap_or(&self.ca)
    }

    /// The write that begins to replace the root that tokens name by a new one.
    pub fn rotate(&self, now: UnixMillis) -> Result<Action, CaError> {
        let next = RootCa::generate(self.root().cluster(), now)?;
        let cross = self.ca.cross_certify(&next, now)?;
        Ok(Action::RotateRoot {
            replaces: self.root().id(),
            root: next.certificate().published(Some(cross)),
            successor: Successor {
                root_certificate: next.certificate().to_pem(),
                private_key: next.key().to_pem().to_string(),
            },
        })
    }

    /// The token that lets its bearer join as `role`.
    pub fn token(&self, role: Role) -> JoinToken {
        JoinToken::new(self.root().digest(), self.secrets.get(role).clone())
    }

    /// Decides about a joiner: the secret says the role.
    ///
    /// A secret that matches none is [`CaError::JoinRefused`], whatever the request looks like.
    pub fn admit(&self, presented: &[u8], request: &[u8]) -> Result<Admission, CaError> {
        let role =
            JoinSecret::from_slice(presented).and_then(|secret| self.secrets.role_of(&secret));
        let role = role.ok_or(CaError::JoinRefused)?;
        let request = SigningRequest::from_der(request)?;
        Ok(Admission { role, root: self.signing_root().id(), request })
    }

    /// A certificate for a node that is known, in the role that the cluster gives it.
    pub fn sign(
        &self,
        request: &SigningRequest,
        subject: Subject,
        now: UnixMillis,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.signing().sign(request, subject, now)
    }
}

fn ca(certificate: &str, key: &str) -> Result<RootCa, CaError> {
    RootCa::new(RootCertificate::from_pem(certificate)?, PrivateKey::from_pem(key)?)
}

#[cfg(test)]
mod tests {
    use overlay_types::NodeId;
    use rstest::rstest;

    use super::*;
    use crate::ca::PendingJoin;

    const NODE: NodeId = NodeId::from_u128(7);
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn authority() -> Authority {
        Authority::generate(ClusterId::from_u128(9), NOW).unwrap()
    }

    #[test]
    fn c02_what_the_state_keeps_admits_and_signs_as_before() {
        let before = authority();
        let after = Authority::from_trust(&before.to_trust()).unwrap();
        let joiner = PendingJoin::new().unwrap();
        for role in [Role::Worker, Role::Manager] {
            let token = before.token(role);
            assert_eq!(after.token(role), token);
            let presented = token.secret().expose();
            let admission = after.admit(presented, joiner.request()).unwrap();
            assert_eq!(admission.role, role);
        }
        let request = SigningRequest::from_der(joiner.request()).unwrap();
        let renewed = after.sign(&request, Subject::at_first(NODE, Role::Worker), NOW).unwrap();
        let root = before.root();
        joiner.complete(&renewed, root.clone().into(), NOW).unwrap();
    }

    #[rstest]
    #[case::none(&[])]
    #[case::short(&[1; 15])]
    #[case::long(&[1; 17])]
    #[case::other(&[1; 16])]
    fn c02_what_is_no_secret_is_refused_like_a_wrong_one(#[case] presented: &[u8]) {
        let joiner = PendingJoin::new().unwrap();
        for request in [joiner.request(), b"no request"] {
            let refused = authority().admit(presented, request).unwrap_err();
            assert_eq!(refused, CaError::JoinRefused);
        }
    }

    #[rstest]
    #[case::key(|trust: &mut Trust, other: &Trust| trust.private_key.clone_from(&other.private_key), "private key: it does not belong to the root certificate")]
    #[case::certificate(|trust: &mut Trust, _: &Trust| trust.root_certificate.clear(), "no certificate in PEM")]
    #[case::secret(|trust: &mut Trust, _: &Trust| trust.manager_secret.truncate(3), "manager join secret has 3 bytes instead of 16")]
    #[case::equal(|trust: &mut Trust, _: &Trust| trust.manager_secret = trust.worker_secret.clone(), "join secret are equal")]
    fn parts_that_do_not_belong_together_say_which(
        #[case] damage: fn(&mut Trust, &Trust),
        #[case] reason: &str,
    ) {
        let mut trust = authority().to_trust();
        damage(&mut trust, &authority().to_trust());
        let error = Authority::from_trust(&trust).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
