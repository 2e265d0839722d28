//! One more node of an existing cluster.

use core::{net::SocketAddr, time::Duration};
use std::sync::Arc;

use overlay_api::v1;
use overlay_cluster::{
    ca::{CaError, JoinToken, NodeTls, PendingJoin, TrustedRoots, join::ask},
    control::now,
};
use overlay_types::{Change, Encapsulation, NodeId, Object, Revision, Role, SpecError, View};

use super::{
    leave::{demote, remove},
    own_node,
};
use crate::{
    Config, NodeError,
    config::Addresses,
    control_plane::ControlPlane,
    dataplane::Choice,
    disk::Disk,
    managers::Managers,
    member::{Member, Start},
    vault::Lock,
};

/// How long a join waits for a new manager's vote. It takes a second, and long on a large state.
const VOTE_PATIENCE: Duration = Duration::from_secs(10);

/// Joins the cluster of `request`'s token. Leaves nothing behind when it fails.
pub(crate) async fn join(
    config: &Config,
    choice: &Choice,
    disk: &Disk,
    request: v1::JoinClusterRequest,
) -> Result<Member, NodeError> {
    let addresses = config.addresses()?;
    let token: JoinToken = request.token.trim().parse().map_err(CaError::from)?;
    if request.remotes.is_empty() {
        return Err(invalid_remote("", "name the address of at least one manager"));
    }
    let remotes = request.remotes.iter().map(|text| remote(text, config.control_port));
    let remotes: Vec<SocketAddr> = remotes.collect::<Result<_, _>>()?;
    disk.check_blank()?;
    // What would fail here after the cluster has taken the node in, fails now.
    config.mtu(addresses.data_path)?;
    // Id, role and root are the manager's to say, and how ESP travels: what that takes is announced later.
    let (of_nobody, esp) = ((NodeId::default(), Role::Worker), Encapsulation::default());
    let node = own_node(config, choice, addresses, of_nobody, esp)?;
    let pending = PendingJoin::new()?;
    let answer = ask(&token, &remotes, addresses.control.ip(), &pending, &node).await?;
    let certificate = answer.certificate.clone();
    let view = first_view(answer)?;
    let roots = view.cluster().map_or(&[][..], |cluster| &cluster.roots);
    let roots = TrustedRoots::from_published(roots)?.holding(token.digest())?;
    let credentials = pending.complete(&certificate, roots, now())?;
    let tls = Arc::new(NodeTls::new(&credentials)?);
    let start = async {
        disk.vault().make(Lock::default())?;
        disk.keep_view(|| view.clone())?;
        disk.keep_credentials(&credentials)?;
        let (disk, tls, control) = (disk.clone(), Arc::clone(&tls), None);
        let control_plane =
            ControlPlane::new(disk.clone(), Arc::clone(&tls), addresses, config.rotation());
        let view = view.clone();
        let start = Start {
            config,
            choice,
            addresses,
            disk,
            tls,
            view,
            control_plane,
            control,
            fresh: true,
        };
        Member::start(start).await
    };
    let member = match start.await {
        Ok(member) => member,
        Err(error) => {
            disk.forget();
            give_back(tls, &view, addresses).await;
            return Err(error);
        }
    };
    if let Some(control) = member.control()
        && !control.wait_for_vote(VOTE_PATIENCE).await
    {
        tracing::warn!("this manager has no vote yet; the leader gives it one when it has the log");
    }
    Ok(member)
}

/// Has the cluster forget a node that joined and could not start.
async fn give_back(tls: Arc<NodeTls>, view: &View, addresses: Addresses) {
    let identity = tls.identity();
    let told = async {
        let managers = Managers::new(identity.node, tls, addresses.control);
        managers.learn(view);
        if identity.role == Role::Manager {
            demote(&managers, identity.node).await?;
        }
        remove(&managers, identity.node).await
    };
    if let Err(error) = told.await {
        let node = identity.node;
        tracing::error!(%error, %node, "the cluster lists this node, which could not start; remove it");
    }
}

/// What a node knows of its cluster before its first watch.
fn first_view(answer: v1::JoinResponse) -> Result<View, NodeError> {
    let bad = |error: SpecError| NodeError::Join(error.to_string());
    let objects = (answer.node.into_iter().chain(answer.managers).map(v1::object::Object::Node))
        .chain(answer.cluster.map(v1::object::Object::Cluster))
        .chain(answer.gossip_keys.map(v1::object::Object::GossipKeys));
    let objects = objects.map(|object| Object::try_from(v1::Object { object: Some(object) }));
    let changes: Vec<Change> =
        objects.map(|o| o.map(Change::Put)).collect::<Result<_, _>>().map_err(bad)?;
    let mut view = View::default();
    view.apply(Revision::ZERO, changes);
    Ok(view)
}

/// `ADDRESS[:PORT]`, an IPv6 address with a port in brackets.
fn remote(text: &str, default_port: u16) -> Result<SocketAddr, NodeError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let with_port = || bare.parse().map(|ip| SocketAddr::new(ip, default_port));
    let reason = "a manager is named by ADDRESS[:PORT], like 192.0.2.1:2377";
    text.parse().or_else(|_| with_port()).map_err(|_| invalid_remote(text, reason))
}

fn invalid_remote(text: &str, reason: &str) -> NodeError {
    overlay_api::status::invalid(&SpecError::new("remotes", text, reason)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_managers_are_named_by_address_and_port() {
        let shown = |text| remote(text, 2377).map(|a| a.to_string()).map_err(|e| e.to_string());
        assert_eq!(shown("192.0.2.1"), Ok("192.0.2.1:2377".into()));
        assert_eq!(shown("192.0.2.1:99"), Ok("192.0.2.1:99".into()));
        assert_eq!(shown("2001:db8::1"), Ok("[2001:db8::1]:2377".into()));
        assert_eq!(shown("[2001:db8::1]"), Ok("[2001:db8::1]:2377".into()));
        assert_eq!(shown("[2001:db8::1]:99"), Ok("[2001:db8::1]:99".into()));
        assert!(shown("example").unwrap_err().contains("\"example\""));
    }
}
