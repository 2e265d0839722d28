//! What goes wrong with certificates, tokens and control connections.

use core::{error::Error, net::SocketAddr};
use std::{io, sync::Arc};

use overlay_api::status::{Reason, invalid_field, reason, with_reason};
use overlay_types::{ClusterId, NodeId, Role, UnixMillis};
use rustls::{CertificateError, OtherError};
use rustls_pki_types::UnixTime;
use tonic::{Code, Status};

use super::{RootDigest, TokenError};

/// Something about an identity or a control connection was refused. Nothing was changed, and no
/// secret was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The join token cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The answer to a joiner whose secret matches none. It says no more, so that a guesser learns
    /// nothing.
    #[error("join refused")]
    JoinRefused,
    /// A token that can be read, of this cluster, whose secret a manager refused.
    #[error(
        "the manager refused the token: it was read without mistake and is of this cluster, so its \
         secret was rotated out; ask a manager for the present one (overlayctl join-token)"
    )]
    RotatedOut,
    /// A token whose root the cluster replaced.
    #[error(
        "the token's root was rotated out: the cluster has another since; ask a manager for the \
         present token (overlayctl join-token)"
    )]
    FormerRoot,
    /// No certificate in the chain has the digest that the token names.
    #[error(
        "no certificate that the manager presented has the token's root digest {expected}: the \
         token is of another cluster, or of a root that was rotated out (overlayctl join-token on a \
         manager prints the present one), or someone answers in the manager's place; the secret \
         was not sent"
    )]
    OtherRoot {
        /// Digest in the token.
        expected: RootDigest,
    },
    /// A certificate is not in the form that this CA gives.
    #[error("not a certificate of an overlay cluster: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The chain does not lead to the cluster's root.
    #[error("the certificate was not signed by the root of cluster {cluster}")]
    UnknownIssuer {
        /// The cluster whose root was expected.
        cluster: ClusterId,
    },
    /// The certificate names another cluster than its root does.
    #[error("the certificate is of cluster {found}, not {expected}")]
    OtherCluster {
        /// The cluster of the root.
        expected: ClusterId,
        /// The cluster in the certificate.
        found: ClusterId,
    },
    /// The certificate names another node than the one that was dialed or replaced.
    #[error("the certificate is of node {found}, not {expected}")]
    OtherNode {
        /// Who was expected.
        expected: NodeId,
        /// Who it is.
        found: NodeId,
    },
    /// The node may not do this in its role.
    #[error("node {node} is a {role}, and only a manager may answer here")]
    NotManager {
        /// The node.
        node: NodeId,
        /// The role in its certificate.
        role: Role,
    },
    /// The certificate's time is over.
    #[error(
        "the certificate expired {} s ago (compare the clocks of both nodes)",
        now.since(*not_after).as_secs()
    )]
    Expired {
        /// The clock that judged.
        now: UnixMillis,
        /// Its end.
        not_after: UnixMillis,
    },
    /// The certificate's time has not begun.
    #[error(
        "the certificate becomes valid in {} s: the clocks of two nodes differ",
        not_before.since(*now).as_secs()
    )]
    NotYetValid {
        /// The clock that judged.
        now: UnixMillis,
        /// Its begin.
        not_before: UnixMillis,
    },
    /// A signing request that is not accepted.
    #[error("certificate signing request refused: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// A private key that cannot be made or read, or belongs to another certificate.
    #[error("private key: {reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// The worker and the manager secret are the same.
    #[error("worker and manager join secret are equal, so a token would not say its role")]
    EqualSecrets,
    /// A join secret in the replicated state that cannot be one.
    #[error("the {role} join secret has {found} bytes instead of 16; rotate it")]
    SecretLength {
        /// What it should admit as.
        role: Role,
        /// How many there are.
        found: usize,
    },
    /// Certificates cannot be signed, for example because the clock is beyond what X.509 can write.
    #[error("cannot sign a certificate: {reason}")]
    Signing {
        /// What the library says.
        reason: String,
    },
    /// A TLS configuration that rustls does not accept.
    #[error("TLS configuration: {reason}")]
    Config {
        /// What rustls says.
        reason: String,
    },
    /// The connection failed before or in the handshake, or was refused by the other side.
    #[error("no control connection to {remote}: {reason}")]
    Connection {
        /// Who was dialed.
        remote: SocketAddr,
        /// What happened.
        reason: String,
    },
}

impl CaError {
    /// The reason in an error of a tonic channel or of tokio-rustls: `None` if it has none of ours.
    pub fn find_in(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let found = if let Some(error) = error.downcast_ref::<Self>() {
                Some(error.clone())
            } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
                Self::from_rustls(error)
            } else {
                // `io::Error::source` skips the error that it carries.
                error
                    .downcast_ref::<io::Error>()
                    .and_then(|error| error.get_ref())
                    .and_then(|error| Self::find_in(error))
            };
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }

    /// What the answer of the manager at `remote` means to a joiner whose token could be read and
    /// whose digest was right.
    pub fn of_join_answer(answer: &Status, remote: SocketAddr) -> Self {
        match answer.code() {
            Code::PermissionDenied => Self::RotatedOut,
            _ if reason(answer) == Some(Reason::FormerRoot) => Self::FormerRoot,
            _ => Self::Connection { remote, reason: answer.message().to_owned() },
        }
    }

    /// Reads back what [`rustls::Error::from`] wrote.
    fn from_rustls(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::InvalidCertificate(error) = error else { return None };
        match error {
            CertificateError::ExpiredContext { time, not_after } => {
                Some(Self::Expired { now: millis(*time), not_after: millis(*not_after) })
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Some(Self::NotYetValid { now: millis(*time), not_before: millis(*not_before) })
            }
            CertificateError::Other(OtherError(error)) => error.downcast_ref::<Self>().cloned(),
            _ => None,
        }
    }

    /// What `error` of a chain check means to a member of `cluster`.
    pub(super) fn of_chain(error: &rustls::Error, cluster: ClusterId) -> Self {
        if let Some(error) = Self::from_rustls(error) {
            return error;
        }
        match error {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownIssuer { cluster },
            other => Self::Certificate { reason: other.to_string() },
        }
    }

    pub(super) fn key(error: impl ToString) -> Self {
        Self::Key { reason: text(error) }
    }

    pub(super) fn signing(error: impl ToString) -> Self {
        Self::Signing { reason: text(error) }
    }

    pub(super) fn config(error: impl ToString) -> Self {
        Self::Config { reason: text(error) }
    }

    pub(super) fn certificate(reason: impl Into<String>) -> Self {
        Self::Certificate { reason: reason.into() }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "called through `map_err`")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

fn millis(time: UnixTime) -> UnixMillis {
    UnixMillis(time.as_secs().saturating_mul(1000))
}

/// The answer to who joins or asks a node to.
impl From<CaError> for Status {
    fn from(error: CaError) -> Self {
        let message = error.to_string();
        match error {
            CaError::JoinRefused => with_reason(Reason::JoinRefused, message),
            CaError::FormerRoot => with_reason(Reason::FormerRoot, message),
            CaError::Request { .. } => invalid_field("certificate_request", message),
            CaError::Token(_) => invalid_field("token", message),
            _ => Self::internal(message),
        }
    }
}

/// For verifiers: the alert tells the other side as much as it may know, the error tells us all.
impl From<CaError> for rustls::Error {
    fn from(error: CaError) -> Self {
        let unix = |millis: UnixMillis| {
            UnixTime::since_unix_epoch(core::time::Duration::from_millis(millis.0))
        };
        Self::InvalidCertificate(match error {
            CaError::Expired { now, not_after } => {
                CertificateError::ExpiredContext { time: unix(now), not_after: unix(not_after) }
            }
            CaError::NotYetValid { now, not_before } => CertificateError::NotValidYetContext {
                time: unix(now),
                not_before: unix(not_before),
            },
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}
