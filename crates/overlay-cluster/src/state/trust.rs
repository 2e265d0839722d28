//! Secrets that managers hold for the cluster.

use core::fmt;

use overlay_types::{Cluster, Object, Role, RootId};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    Applied, Rejection, Response, State,
    apply::{Context, Outcome},
};

/// Bytes of a join secret.
const SECRET_LEN: usize = 16;

/// What signs node certificates and admits joiners. Replicated among managers, and never part of
/// a [`View`](overlay_types::View): no watch carries it. Opaque here; `ca` gives it meaning.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Trust {
    /// The root certificate, PEM.
    pub root_certificate: String,
    /// The key of the root certificate: PKCS#8, PEM.
    pub private_key: String,
    /// What a joining worker shows.
    pub worker_secret: Vec<u8>,
    /// What a joining manager shows.
    pub manager_secret: Vec<u8>,
    /// What signs while it replaces the root above; `None` while no root rotation runs.
    pub successor: Option<Successor>,
    /// Roots that were replaced, oldest first: nothing of theirs is accepted.
    #[zeroize(skip)]
    pub former_roots: Vec<RootId>,
}

/// A root on its way to be the cluster's only one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Successor {
    /// The root certificate, PEM.
    pub root_certificate: String,
    /// Its key: PKCS#8, PEM.
    pub private_key: String,
}

impl fmt::Debug for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successor").finish_non_exhaustive()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// A join secret on its way into [`Trust`]; no log line shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct OpaqueSecret(pub Vec<u8>);

impl fmt::Debug for OpaqueSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueSecret(redacted)")
    }
}

impl State {
    pub(super) fn rotate_join_secret(
        &mut self,
        context: Context,
        role: Role,
        secret: &OpaqueSecret,
    ) -> Outcome {
        let (Some(trust), Some(cluster)) = (&mut self.trust, self.view.cluster()) else {
            return Err(Rejection::NoCluster);
        };
        let (own, other) = match role {
            Role::Worker => (&mut trust.worker_secret, &trust.manager_secret),
            Role::Manager => (&mut trust.manager_secret, &trust.worker_secret),
        };
        if secret.0.len() != SECRET_LEN {
            let length = format!("({} bytes)", secret.0.len());
            return Err(Rejection::invalid("secret", length, "a join secret has 16 bytes"));
        }
        if secret.0 == *other {
            let reason = "a token has to say its role, and this is the other role's secret";
            return Err(Rejection::invalid("secret", "(16 bytes)", reason));
        }
        own.zeroize();
        own.extend_from_slice(&secret.0);
        // The secret is nobody's to see; that something changed, a revision tells.
        let cluster = Cluster { meta: context.changed(cluster.meta), ..cluster.clone() };
        Ok(Applied::put(Response::Cluster(cluster.clone()), Object::Cluster(cluster)))
    }
}
