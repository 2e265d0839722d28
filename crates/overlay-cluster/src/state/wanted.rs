//! What a caller calls an object.

use core::fmt;

use overlay_types::{Name, NetworkId, ServiceId};
use serde::{Deserialize, Serialize};

use super::{Rejection, kind::Kind};

/// An object's id, its name, or a prefix that only its id has. Which object it means is decided
/// when the command is applied, so that a caller's name needs no look-up before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wanted(String);

impl Wanted {
    /// Nothing is called by a text that is longer than any name, so it does not get into the log.
    pub fn new(kind: Kind, text: String) -> Result<Self, Rejection> {
        if text.len() > Name::MAX_LEN {
            return Err(Rejection::not_found(kind, text));
        }
        Ok(Self(text))
    }

    /// The text as the caller gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<NetworkId> for Wanted {
    fn from(id: NetworkId) -> Self {
        Self(id.to_string())
    }
}

impl From<ServiceId> for Wanted {
    fn from(id: ServiceId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
