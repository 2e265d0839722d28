//! Secrets that managers hold for the cluster.

use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

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
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}
