//! The replicated state, and what commands make of it. Pure: no clock, no randomness, no I/O, no
//! hash maps.
//!
//! Every manager holds one [`State`] and applies the same commands in the same order, so all of
//! them arrive at the same bytes. Whatever could differ (ids, times, secrets) travels inside the
//! [`Command`].
//!
//! ```text
//!                    ┌──────────────── State ────────────────┐
//!  Command ──apply──►│ requests  answered before? say it again│──► Response or Rejection
//!                    │ checks    all of them, then            │
//!                    │ ipam      allocate, release            │
//!                    │ view      objects ─────────────────────│──► Change… at Revision
//!                    │ trust     CA, join secrets (no Change) │
//!                    │ lock      the unlock key (no Change)   │
//!                    └───────────────────────────────────────┘
//! ```
//!
//! **Invariant:** a rejected command leaves the state as it was, down to the encoded bytes: every
//! check comes before the first change, and what can still fail after that (allocation) is atomic.
//!
//! - [`Command`], [`Response`], [`Rejection`]: what goes in, what comes out
//! - [`State`]: [`apply`](State::apply), and look-ups by name, id or prefix
//! - [`RotationPolicy`]: the next step of a key rotation, for the leader
//! - [`RootRotation`]: a root rotation that runs, and whom it waits for
//! - [`wire`]: commands and whole states as protobuf
//!
//! Inside: one file per kind of object with the rules of its commands, `place` for nodes that move,
//! `readiness` for what endpoints may take, `port` for published ports, `requests` for exactly-once, `level` for releases that differ, `index`
//! for look-ups.

mod apply;
mod cluster;
mod command;
mod endpoint;
mod index;
mod key;
mod kind;
mod level;
mod lock;
mod network;
mod node;
mod place;
mod port;
mod query;
mod readiness;
mod rejection;
mod requests;
mod response;
mod root;
mod rotation;
mod service;
mod takeover;
mod trust;
mod wanted;
pub mod wire;

use std::collections::BTreeMap;

use overlay_ipam::{NetworkIpam, Pools};
use overlay_types::{NetworkId, Revision, View, Vni};

pub use command::{
    Action, ClusterUpdate, Command, HealthReport, InitCluster, MAX_HOST_ROUTES, MoveNode,
};
pub use kind::Kind;
pub use level::check_level;
pub use lock::ManagerLock;
pub(crate) use query::{Id, id_range};
pub use rejection::{Class, EpochTarget, Rejection};
pub use response::{Applied, Response};
pub use root::{MAX_PENDING_ROOTS, RootRotation};
pub use rotation::RotationPolicy;
pub use takeover::Takeover;
pub use trust::{OpaqueSecret, Successor, Trust};
pub use wanted::Wanted;

use self::{index::Index, requests::Requests};

/// The replicated state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    view: View,
    /// Of every network of the view, and of no other.
    ipam: BTreeMap<NetworkId, NetworkIpam>,
    trust: Option<Trust>,
    lock: ManagerLock,
    requests: Requests,
    /// Where the next search for a VNI starts, so that a freed one rests.
    vni_cursor: u32,
    /// Where the next search for a published port starts.
    port_cursor: u16,
    /// Follow from the view.
    pools: Pools,
    index: Index,
}

impl State {
    /// All objects.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Number of commands that changed the state.
    pub const fn revision(&self) -> Revision {
        self.view.revision()
    }

    /// The cluster's secrets; `None` before the cluster was made.
    pub const fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            view: View::default(),
            ipam: BTreeMap::new(),
            trust: None,
            lock: ManagerLock::default(),
            requests: Requests::default(),
            vni_cursor: Vni::MIN_OVERLAY + 1,
            port_cursor: port::FIRST,
            pools: Pools::default(),
            index: Index::default(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
