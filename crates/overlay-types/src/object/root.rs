//! Root certificates: what nodes check the certificates of other nodes against.

use serde::{Deserialize, Serialize};

use crate::RootId;

/// A root of the cluster's CA. Public: its key is with the managers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Its key, in short.
    pub id: RootId,
    /// The certificate: X.509 (RFC 5280), DER.
    pub certificate: Vec<u8>,
    /// The same key, certified by the root that it replaces: with this in between, who knows that
    /// root only accepts what this one signed. DER; `None` once nothing is replaced.
    pub cross: Option<Vec<u8>>,
}
