//! What a release knows.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How much of the protocol and of the replicated state a release knows.
///
/// A release that adds what older ones would not understand, or would drop, adds a level: a command,
/// a field of one, a kind of object that every node needs, a value of an enum. Nodes tell their own
/// level; what is of a higher level than that of any node is refused. So nodes of two releases work
/// in one cluster, and what is new begins with the last node that is updated.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// Of a release that tells no level.
    pub const NONE: Self = Self(0);
    /// The first.
    pub const FIRST: Self = Self(1);
    /// Endpoints with a role and a readiness, counts of tasks, the spec before the last update; nodes say
    /// what their hosts have.
    pub const SECOND: Self = Self(2);
    /// Of this release.
    pub const OURS: Self = Self::SECOND;

    /// The level with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
