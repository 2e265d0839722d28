//! Which writes made and changed an object.

use serde::{Deserialize, Serialize};

use crate::Revision;

/// Which writes made and last changed an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Revision of the write that created it.
    pub created_at: Revision,
    /// Revision of the last write that changed it. An update names it and is refused when old.
    pub changed_at: Revision,
}

impl Meta {
    /// An object made at `revision`.
    pub const fn created(revision: Revision) -> Self {
        Self { created_at: revision, changed_at: revision }
    }
}
