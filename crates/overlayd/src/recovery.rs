//! From a state to a cluster of one manager: when the others are lost for good, and from a backup.
//!
//! ```text
//!   force_new_cluster:  stop ─► salvage the store ─► take over ─► seed a new store ─► start
//!   restore:            open the backup ────────────► take over ─► seed a store ────► start
//! ```

use overlay_api::status::{Reason, refused, with_reason};
use overlay_cluster::{
    backup,
    ca::{Authority, PeerIdentity, Subject},
    control::{ControlError, now, rejection_status},
    raft::{
        store::{self, Owner, Salvaged},
        types::Member as RaftMember,
    },
    state::{State, Takeover},
};
use overlay_types::{Node, NodeId, Role};
use tonic::Status;

use crate::{
    Config, NodeError,
    dataplane::Choice,
    disk::Disk,
    lifecycle::{self, certify, own_node},
    member::Member,
    state_file::once_closed,
    vault::Lock,
};

/// Refuses to go on alone when that is not what the node needs.
pub(crate) async fn check_lost(member: &Member) -> Result<(), NodeError> {
    let Some(control) = member.control() else {
        let message = "this node is a worker, which has no state to go on with";
        let refusal = refused(Reason::NotManager, "force_new_cluster", message);
        return Err(NodeError::from(refusal));
    };
    if control.linearize().await.is_ok() {
        let message = "the managers have a leader and a quorum; demote or remove single managers \
                       instead (overlayctl node demote, overlayctl node rm)";
        return Err(refused(Reason::Quorum, "force_new_cluster", message).into());
    }
    Ok(())
}

/// Puts a store of one manager in place of that of `identity`, who has stopped.
pub(crate) async fn go_on_alone(
    config: &Config,
    disk: &Disk,
    identity: PeerIdentity,
) -> Result<(), NodeError> {
    let owner = owner(disk, identity)?;
    let salvaged = once_closed(|| {
        let (path, owner) = (disk.path("state"), owner.clone());
        let salvage = move || store::salvage(&path, &owner).map_err(ControlError::from);
        async { Ok(aside(salvage).await??) }
    });
    let salvaged = salvaged.await?;
    let Salvaged { mut state, last_index, term } = salvaged;
    let keeper = state.view().nodes().get(&identity.node).cloned();
    let keeper = keeper.ok_or_else(|| {
        let message = "this manager's state does not know it; restore a backup instead";
        NodeError::from(with_reason(Reason::NodeRemoved, message))
    })?;
    take_over(config, &mut state, keeper.clone())?;
    let view = state.view().clone();
    let salvaged = Salvaged { state, last_index, term };
    seed(disk, owner, &keeper, salvaged).await?;
    disk.keep_view(|| view)?;
    tracing::warn!(node = %identity.node, "this manager goes on alone; the others were removed");
    Ok(())
}

/// The replicated state as of now, sealed.
pub(crate) async fn back_up(member: &Member, passphrase: String) -> Result<Vec<u8>, NodeError> {
    let Some(control) = member.control() else {
        let message = "this node is a worker; back the cluster up on a manager";
        return Err(with_reason(Reason::NotManager, message).into());
    };
    control.linearize().await?;
    let state = control.replica().read(State::clone);
    let sealed = aside(move || backup::seal(&state, &passphrase, now())).await?;
    Ok(sealed?)
}

/// Makes this node, which is in no cluster, the only manager of the cluster that was backed up. Leaves
/// nothing behind when it fails.
pub(crate) async fn restore(
    config: &Config,
    choice: &Choice,
    disk: &Disk,
    file: Vec<u8>,
    passphrase: String,
) -> Result<Member, NodeError> {
    let addresses = config.addresses()?;
    disk.check_blank()?;
    config.mtu(addresses.data_path)?;
    let mut state = aside(move || backup::open(&file, &passphrase)).await??;
    let authority = Authority::from_trust(state.trust().ok_or(NodeError::NoCluster)?)?;
    // Whom the workers ask at this address.
    let id = state.manager_at(addresses.control);
    let id = id.unwrap_or_else(|| NodeId::from_u128(rand::random()));
    let esp = state.view().cluster().map(|cluster| cluster.esp).unwrap_or_default();
    let mut node = own_node(config, choice, addresses, (id, Role::Manager), esp)?;
    let roots = state.view().cluster().map_or(&[][..], |cluster| &cluster.roots);
    let subject = Subject { node: id, role: Role::Manager, as_of: state.revision() };
    let credentials = certify(&authority, subject, roots)?;
    node.root = credentials.issuer();
    take_over(config, &mut state, node.clone())?;
    let view = state.view().clone();
    let lock = Lock::of(state.lock());
    let start = async {
        disk.vault().make(lock)?;
        let owner = owner(disk, credentials.identity())?;
        seed(disk, owner, &node, Salvaged { state, ..Salvaged::default() }).await?;
        disk.keep_view(|| view)?;
        disk.keep_credentials(&credentials)?;
        lifecycle::resume(config, choice, disk, &credentials).await
    };
    start.await.inspect_err(|_| disk.forget())
}

fn take_over(config: &Config, state: &mut State, keeper: Node) -> Result<(), NodeError> {
    let takeover =
        Takeover { keeper, at: now(), rotation: config.rotation(), gossip_key: rand::random() };
    let refused = |rejection| rejection_status(&rejection);
    state.take_over(takeover, rand::random).map_err(refused)?;
    Ok(())
}

fn owner(disk: &Disk, identity: PeerIdentity) -> Result<Owner, NodeError> {
    let (cluster, node) = (identity.cluster, identity.node);
    Ok(Owner { cluster, node, key: disk.vault().key()? })
}

async fn seed(
    disk: &Disk,
    owner: Owner,
    keeper: &Node,
    salvaged: Salvaged,
) -> Result<(), NodeError> {
    let member = RaftMember { name: Some(keeper.name.clone()), control: Some(keeper.control) };
    let path = disk.path("state");
    let seeded = aside(move || store::seed(&path, &owner, member, &salvaged)).await?;
    Ok(seeded.map_err(ControlError::from)?)
}

/// Work that takes longer than others may wait.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(format!("the work ended early: {error}")).into())
}
