//! Who may call what on TCP 2377: one table, looked at before any service sees the call.
//!
//! ```text
//!  call ──► path in the table? ──► certificate, still valid? ──► root, node and role in the state? ──► service
//!             └ no: UNIMPLEMENTED     └ no: UNAUTHENTICATED        │  └ no: PERMISSION_DENIED
//!                                                                  └ unknown here: look again when this
//!                                                                    manager is not behind, or UNAVAILABLE
//! ```
//!
//! The replicated state decides as much as the certificate: a node that was removed or demoted has
//! a certificate that says otherwise for up to 90 days, and a root that was replaced signed some that
//! connections were made with. What a node may do about itself only is up
//! to the services, which ask the [`Caller`].
//!
//! - [`layer`]: the gate as a tower layer; an answer that goes on ends when its caller would not be let
//!   in any more

mod layer;

use core::time::Duration;

use overlay_api::status::{Reason, with_reason};
use overlay_types::{NodeId, Role, UnixMillis};
use tonic::{Request, Status};

pub(super) use layer::Gate;
pub(crate) use layer::Guard;

use crate::{ca::Peer, state::State};

/// Between two looks at the certificate behind an answer that goes on: clocks are set, and hosts
/// suspended.
const LONGEST_LOOK: Duration = Duration::from_mins(1);
/// A certificate's end has whole seconds.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);

/// Who may make a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// Anyone: a join secret decides.
    Anyone,
    /// Nodes of the cluster.
    Member,
    /// Managers.
    Manager,
    /// Managers by their certificate that were not removed, under a root that was not replaced. A
    /// replica that lags, and so does not know yet who was promoted or which root is new, learns of
    /// it by these very calls: it lets in whoever has a certificate that is newer than its state, see
    /// [`raft`]. This keeps out who has a former manager's certificate. A former manager itself had
    /// the key of the root too, and could sign another one: for that there is root rotation.
    Raft,
}

/// Every call that managers serve. What is not here is refused.
const TABLE: &[(&str, Access)] = &[
    ("/overlay.v1.Membership/Join", Access::Anyone),
    ("/overlay.v1.Membership/Renew", Access::Member),
    ("/overlay.v1.Membership/ReportCertificate", Access::Member),
    ("/overlay.v1.Nodes/ListNodes", Access::Member),
    ("/overlay.v1.Nodes/GetNode", Access::Member),
    ("/overlay.v1.Nodes/UpdateNode", Access::Manager),
    // About another node: managers only.
    ("/overlay.v1.Nodes/RemoveNode", Access::Member),
    ("/overlay.v1.Networks/CreateNetwork", Access::Member),
    ("/overlay.v1.Networks/UpdateNetwork", Access::Member),
    ("/overlay.v1.Networks/ListNetworks", Access::Member),
    ("/overlay.v1.Networks/GetNetwork", Access::Member),
    ("/overlay.v1.Networks/RemoveNetwork", Access::Member),
    ("/overlay.v1.Services/CreateService", Access::Member),
    ("/overlay.v1.Services/UpdateService", Access::Member),
    ("/overlay.v1.Services/ListServices", Access::Member),
    ("/overlay.v1.Services/GetService", Access::Member),
    ("/overlay.v1.Services/RemoveService", Access::Member),
    // About an endpoint of another node: managers only.
    ("/overlay.v1.Endpoints/AttachEndpoint", Access::Member),
    ("/overlay.v1.Endpoints/ListEndpoints", Access::Member),
    ("/overlay.v1.Endpoints/GetEndpoint", Access::Member),
    ("/overlay.v1.Endpoints/SetReadiness", Access::Member),
    ("/overlay.v1.Endpoints/DetachEndpoint", Access::Member),
    ("/overlay.v1.Keys/GetKeyStatus", Access::Member),
    // A worker asks for it when it has used a key up.
    ("/overlay.v1.Keys/RotateKeys", Access::Member),
    ("/overlay.v1.Ca/GetCa", Access::Member),
    ("/overlay.v1.Ca/RotateCa", Access::Manager),
    // The view of another node: managers only.
    ("/overlay.v1.Watcher/Watch", Access::Member),
    // Of networks and services only, which every member may write.
    ("/overlay.v1.Writes/Write", Access::Member),
    ("/overlay.v1.Reports/PublishKey", Access::Member),
    ("/overlay.v1.Reports/ReportReady", Access::Member),
    ("/overlay.v1.Reports/AnnounceLevel", Access::Member),
    ("/overlay.v1.Reports/ReportHealth", Access::Member),
    ("/overlay.v1.Reports/AnnounceCapabilities", Access::Member),
    // About the caller.
    ("/overlay.v1.Reports/ReportAddresses", Access::Member),
    ("/grpc.health.v1.Health/Check", Access::Member),
    ("/grpc.health.v1.Health/Watch", Access::Member),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Member),
    ("/overlay.internal.v1.Raft/Append", Access::Raft),
    ("/overlay.internal.v1.Raft/Appends", Access::Raft),
    ("/overlay.internal.v1.Raft/RequestVote", Access::Raft),
    ("/overlay.internal.v1.Raft/InstallSnapshot", Access::Raft),
    ("/overlay.internal.v1.Raft/Propose", Access::Manager),
    ("/overlay.internal.v1.Raft/ReadIndex", Access::Manager),
];

fn access(path: &str) -> Result<Access, Refusal> {
    let entry = TABLE.iter().find(|(known, _)| *known == path);
    entry.map(|(_, access)| *access).ok_or_else(|| Refusal::NoSuchCall(path.to_owned()))
}

/// A node that was let in, in the lower of the roles that its certificate and the state give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caller {
    node: NodeId,
    role: Role,
}

impl Caller {
    /// Who makes the call, as the gate found.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get().copied();
        caller.ok_or_else(|| Status::internal("the call did not come through the gate"))
    }

    /// Who it is.
    pub(super) const fn node(self) -> NodeId {
        self.node
    }

    /// Refuses a worker that speaks for another node.
    pub(super) fn speaks_for(self, node: NodeId) -> Result<(), Status> {
        if self.node == node || self.role == Role::Manager {
            return Ok(());
        }
        let message = format!("worker {} may not do this for node {node}", self.node);
        Err(with_reason(Reason::OtherNode, message))
    }
}

/// What the state of this manager says of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Member(Role),
    /// It was removed.
    Removed,
    /// It has not joined yet, as far as this manager knows.
    Absent,
}

impl Standing {
    fn of(node: NodeId, state: &State) -> Self {
        let removed = |state: &State| {
            state.view().cluster().is_some_and(|cluster| cluster.removed_nodes.contains_key(&node))
        };
        match state.view().nodes().get(&node) {
            Some(node) => Self::Member(node.role),
            None if removed(state) => Self::Removed,
            None => Self::Absent,
        }
    }
}

/// What the state of this manager says of the roots behind a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Footing {
    /// The cluster trusts the issuer.
    Trusted,
    /// The issuer was replaced, or what certified it.
    Former,
    /// It is new, as far as this manager knows.
    Unknown,
}

impl Footing {
    fn of(peer: Peer, state: &State) -> Self {
        let former = |root| state.trust().is_some_and(|trust| trust.former_roots.contains(&root));
        if state.roots().iter().any(|root| root.id == peer.issuer) {
            Self::Trusted
        } else if former(peer.issuer) || former(peer.anchor) {
            Self::Former
        } else {
            Self::Unknown
        }
    }
}

/// Whether the state includes every write that was acknowledged before the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Freshness {
    MayLag,
    Current,
}

/// Why a call is not let in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum Refusal {
    #[error("this manager serves no call {0}")]
    NoSuchCall(String),
    #[error("this call needs a node certificate")]
    NoCertificate,
    #[error(
        "the certificate of node {node} expired {} s ago; connect with a renewed one, or move the \
         data directory away and join again",
        now.since(*not_after).as_secs()
    )]
    Expired { node: NodeId, not_after: UnixMillis, now: UnixMillis },
    #[error(
        "the certificate of node {0} is of a root that was replaced; connect with a renewed one, or \
         move the data directory away and join again"
    )]
    FormerRoot(NodeId),
    #[error("node {0} was removed from the cluster; have it leave with --force and join again")]
    Removed(NodeId),
    #[error("node {0} is a worker, and this call is for managers")]
    NotManager(NodeId),
    /// The state says less than the certificate. It may lag.
    #[error("this manager does not know node {0} as its certificate does; ask again")]
    InDoubt(NodeId),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::NoSuchCall(_) => Reason::NoSuchCall,
            Refusal::NoCertificate => Reason::NoCertificate,
            Refusal::Expired { .. } => Reason::CertificateExpired,
            Refusal::FormerRoot(_) => Reason::FormerRoot,
            Refusal::Removed(_) => Reason::NodeRemoved,
            Refusal::NotManager(_) => Reason::NotManager,
            Refusal::InDoubt(_) => Reason::NodeUnknown,
        };
        with_reason(reason, refusal.to_string())
    }
}

/// How raft sees a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tie {
    /// The last membership of this manager's log has it, committed or not: as voter or learner.
    InGroup,
    /// Its certificate was signed by a later state than this manager has: that one decides.
    Newer,
    None,
}

/// What this manager knows of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    standing: Standing,
    footing: Footing,
    freshness: Freshness,
    tie: Tie,
}

/// Decides about one call at `now`.
fn check(
    access: Access,
    peer: Option<Peer>,
    known: Known,
    now: UnixMillis,
) -> Result<Option<Caller>, Refusal> {
    if access == Access::Anyone {
        return Ok(None);
    }
    let Known { standing, footing, freshness, tie } = known;
    let Peer { identity, not_after, .. } = peer.ok_or(Refusal::NoCertificate)?;
    let (node, certified) = (identity.node, identity.role);
    if now > not_after {
        return Err(Refusal::Expired { node, not_after, now });
    }
    if standing == Standing::Removed {
        return Err(Refusal::Removed(node));
    }
    if footing == Footing::Former {
        return Err(Refusal::FormerRoot(node));
    }
    if access == Access::Raft {
        return raft(node, (certified, standing), tie);
    }
    if footing == Footing::Unknown {
        return Err(match freshness {
            Freshness::MayLag => Refusal::InDoubt(node),
            Freshness::Current => Refusal::FormerRoot(node),
        });
    }
    let role = match (standing, certified) {
        (Standing::Member(given), _) if given == certified => given,
        // Promoted, and the certificate is not renewed yet.
        (Standing::Member(Role::Manager), _) => certified,
        (_, _) if freshness == Freshness::MayLag => return Err(Refusal::InDoubt(node)),
        (Standing::Member(Role::Worker), _) => Role::Worker,
        (Standing::Absent | Standing::Removed, _) => return Err(Refusal::Removed(node)),
    };
    if access == Access::Manager && role == Role::Worker {
        return Err(Refusal::NotManager(node));
    }
    Ok(Some(Caller { node, role }))
}

/// Decides about a call of raft, without a quorum to ask.
///
/// A certificate says by which state its node was a manager. A later state, in which it is none,
/// knows better; an earlier one does not, and its manager may need just this caller to catch up. A
/// leader that was demoted has to tell the others that it leaves: it is let in until a membership
/// without it is in the log. Whoever is promoted again gets a new certificate.
fn raft(
    node: NodeId,
    (certified, standing): (Role, Standing),
    tie: Tie,
) -> Result<Option<Caller>, Refusal> {
    match (certified, standing, tie) {
        (Role::Manager, Standing::Member(Role::Manager), _)
        | (Role::Manager, _, Tie::InGroup | Tie::Newer) => {
            Ok(Some(Caller { node, role: certified }))
        }
        (Role::Manager, Standing::Absent | Standing::Removed, Tie::None) => {
            Err(Refusal::Removed(node))
        }
        (Role::Worker, ..) | (_, Standing::Member(Role::Worker), Tie::None) => {
            Err(Refusal::NotManager(node))
        }
    }
}

#[cfg(test)]
mod tests;
