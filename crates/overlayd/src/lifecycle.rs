//! Becoming a node, being it again, and ceasing to be one.
//!
//! - `init`: the first manager of a new cluster
//! - `join`: one more node of an existing one
//! - `leave`: a node that leaves
//! - `tokens`: what lets nodes join

mod init;
mod join;
mod leave;
mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use overlay_cluster::{
    ca::{
        Authority, NodeCredentials, NodeTls, PendingJoin, Subject, TrustedRoots,
        join::SigningRequest,
    },
    control::now,
};
use overlay_types::{
    Availability, Encapsulation, Meta, Node, NodeId, Revision, Role, Root, RootId,
};

pub(crate) use self::{
    init::init,
    join::join,
    leave::leave,
    tokens::{rotate_token, tokens},
};
use crate::{
    Config, NodeError,
    config::Addresses,
    control_plane::ControlPlane,
    dataplane::Choice,
    disk::Disk,
    member::{Member, Start},
};

/// Takes up where the node stopped. A manager whose kept view is lost makes it from its own state.
pub(crate) async fn resume(
    config: &Config,
    choice: &Choice,
    disk: &Disk,
    credentials: &NodeCredentials,
) -> Result<Member, NodeError> {
    let addresses = config.addresses()?;
    let tls = Arc::new(NodeTls::new(credentials)?);
    let identity = tls.identity();
    let control_plane =
        ControlPlane::new(disk.clone(), Arc::clone(&tls), addresses, config.rotation());
    let (view, control) = match disk.view() {
        Ok(Some(view)) => (view, None),
        lost if identity.role == Role::Manager => {
            if let Err(error) = lost {
                tracing::error!(%error, "the view is made anew from this manager's state");
            }
            let control = control_plane.open(false).await?;
            (control.replica().read(|state| state.view().clone()), Some(control))
        }
        Ok(None) => return Err(disk.no_view()),
        Err(error) => return Err(error),
    };
    let given = view.nodes().get(&identity.node).map(|node| node.role);
    if identity.role == Role::Worker && given == Some(Role::Worker) {
        // The run that was demoted may have ended before it did this.
        disk.erase_state()?;
        disk.vault().leave_unlocked()?;
    }
    let disk = disk.clone();
    let fresh = false;
    Member::start(Start {
        config,
        choice,
        addresses,
        disk,
        tls,
        view,
        control_plane,
        control,
        fresh,
    })
    .await
}

/// A certificate of `authority` for this node, and its key.
pub(crate) fn certify(
    authority: &Authority,
    node: Subject,
    roots: &[Root],
) -> Result<NodeCredentials, NodeError> {
    let pending = PendingJoin::new()?;
    let own = SigningRequest::from_der(pending.request())?;
    let certificate = authority.sign(&own, node, now())?;
    Ok(pending.complete(&certificate, TrustedRoots::from_published(roots)?, now())?)
}

/// This node as others see it, in a cluster whose ESP travels so.
pub(crate) fn own_node(
    config: &Config,
    choice: &Choice,
    addresses: Addresses,
    (id, role): (NodeId, Role),
    esp: Encapsulation,
) -> Result<Node, NodeError> {
    Ok(Node {
        id,
        meta: Meta::default(),
        name: config.node_name()?,
        role,
        role_since: Revision::ZERO,
        host: None,
        control: addresses.control,
        gossip: addresses.gossip,
        data_path: addresses.data_path,
        capabilities: choice.carriers.capabilities(esp),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        root: RootId::default(),
    })
}
