//! The unlock key: what managers seal their data keys with.

use core::fmt;

use overlay_types::{Cluster, Object, Revision};

use super::{
    Applied, OpaqueSecret, Rejection, Response, State,
    apply::{Context, Outcome},
};

/// Bytes of an unlock key.
const UNLOCK_KEY_LEN: usize = 32;

/// How managers keep their data keys. Replicated among managers, and never part of a
/// [`View`](overlay_types::View): no watch carries it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ManagerLock {
    /// The unlock key, 32 bytes; `None`: managers start without one.
    pub unlock_key: Option<OpaqueSecret>,
    /// The write that made it so.
    pub revision: Revision,
}

impl fmt::Debug for ManagerLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerLock").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl State {
    /// How managers keep their data keys.
    pub const fn lock(&self) -> &ManagerLock {
        &self.lock
    }

    /// Replaces the unlock key; the one before opens managers until they have heard of it.
    pub(super) fn rotate_unlock_key(&mut self, context: Context, key: &OpaqueSecret) -> Outcome {
        let cluster = self.view.cluster().ok_or(Rejection::NoCluster)?;
        if !cluster.autolock {
            return Err(Rejection::NotLocked);
        }
        self.lock = lock(context, Some(key))?;
        let cluster = Cluster { meta: context.changed(cluster.meta), ..cluster.clone() };
        Ok(Applied::put(Response::Cluster(cluster.clone()), Object::Cluster(cluster)))
    }
}

/// The lock that a write leaves.
pub(super) fn lock(context: Context, key: Option<&OpaqueSecret>) -> Result<ManagerLock, Rejection> {
    if let Some(OpaqueSecret(bytes)) = key
        && bytes.len() != UNLOCK_KEY_LEN
    {
        let length = format!("({} bytes)", bytes.len());
        return Err(Rejection::invalid("unlock_key", length, "an unlock key has 32 bytes"));
    }
    Ok(ManagerLock { unlock_key: key.cloned(), revision: context.revision })
}
