//! Becoming a node: the first manager of a new cluster, or one more of an existing one, or again
//! the one it was.

use core::{net::SocketAddr, time::Duration};
use std::{collections::BTreeMap, sync::Arc};

use overlay_api::{
    status::{Reason, reason, refused, with_reason},
    v1::{self, nodes_client::NodesClient},
};
use overlay_cluster::{
    ca::{
        Authority, CaError, JoinSecret, JoinToken, NodeCredentials, NodeTls, PendingJoin, Subject,
        TrustedRoots,
        join::{SigningRequest, ask},
    },
    control::{Control, now},
    raft::types::Member as RaftMember,
    server::request_id,
    state::{Action, InitCluster, ManagerLock, OpaqueSecret},
};
use overlay_types::{
    Availability, Capabilities, Change, Cluster, ClusterId, DataplaneKind, DefaultPool, Epoch,
    FeatureLevel, GossipKey, Meta, NetworkId, Node, NodeId, Object, RequestId, Revision, Role,
    Root, RootId, SpecError, View,
};
use tonic::Code;

use crate::{
    Config, NodeError,
    config::Addresses,
    control_plane::ControlPlane,
    disk::Disk,
    lock,
    managers::Managers,
    member::{Member, Start},
    routes,
    vault::Lock,
};

/// Time from one key epoch to the next, unless the cluster is made with another.
const ROTATION_PERIOD: Duration = Duration::from_hours(12);
/// How long a join waits for a new manager's vote. It takes a second, and long on a large state.
const VOTE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a leave waits for the managers to go on without this one. It takes a second.
const RELIEF_PATIENCE: Duration = Duration::from_secs(10);
/// UDP ports: VXLAN (RFC 7348 §5), VXLAN inside ESP, ESP in UDP (RFC 3948 §2).
const VXLAN_PORT: u16 = 4789;
const ENCRYPTED_VXLAN_PORT: u16 = 4788;
const ESP_PORT: u16 = 4500;

/// Makes this node the first manager of a new cluster. Leaves nothing behind when it fails.
pub(crate) async fn init(
    config: &Config,
    disk: &Disk,
    request: v1::InitClusterRequest,
) -> Result<Member, NodeError> {
    let addresses = config.addresses()?;
    let id = ClusterId::from_u128(rand::random());
    let mut cluster = cluster(id, request)?;
    let authority = Authority::generate(id, now())?;
    cluster.roots = vec![authority.root().published(None)];
    let mut node = own_node(config, addresses, NodeId::from_u128(rand::random()), Role::Manager)?;
    let credentials = certify(&authority, Subject::at_first(node.id, node.role), &cluster.roots)?;
    node.root = credentials.issuer();
    let unlock_key = cluster.autolock.then(lock::fresh).transpose()?;
    let founding = InitCluster {
        cluster,
        trust: authority.to_trust(),
        unlock_key,
        node,
        gossip_key: GossipKey { epoch: Epoch::new(1), key: rand::random() },
        ingress: NetworkId::from_u128(rand::random()),
        host_routes: routes::of_this_host(),
    };
    let tls = Arc::new(NodeTls::new(&credentials)?);
    disk.check_blank()?;
    let start = async {
        // Nothing of a locked cluster is ever in clear on the disk.
        let unlock_key = founding.unlock_key.clone();
        disk.vault().make(Lock::of(&ManagerLock { unlock_key, revision: Revision::ZERO }))?;
        let control_plane =
            ControlPlane::new(disk.clone(), Arc::clone(&tls), addresses, config.rotation());
        let control = form(&control_plane, founding).await?;
        disk.keep_credentials(&credentials)?;
        let view = control.replica().read(|state| state.view().clone());
        disk.keep_view(|| view.clone())?;
        let (disk, control) = (disk.clone(), Some(control));
        let start =
            Start { config, addresses, disk, tls, view, control_plane, control, fresh: true };
        Member::start(start).await
    };
    start.await.inspect_err(|_| disk.forget())
}

async fn form(control_plane: &ControlPlane, founding: InitCluster) -> Result<Control, NodeError> {
    let control = control_plane.open(true).await?;
    let node = &founding.node;
    let member = RaftMember { name: Some(node.name.clone()), control: Some(node.control) };
    control.form(member).await?;
    let action = Action::InitCluster(Box::new(founding));
    match control.write(RequestId::from_u128(rand::random()), action).await {
        Ok(_) => Ok(control),
        Err(status) => {
            control.stop().await;
            Err(status.into())
        }
    }
}

fn cluster(id: ClusterId, request: v1::InitClusterRequest) -> Result<Cluster, NodeError> {
    let invalid = |error: SpecError| NodeError::from(overlay_api::status::invalid(&error));
    let pools = request.default_pools.into_iter().map(DefaultPool::try_from);
    let vxlan_port = match request.vxlan_port {
        0 => VXLAN_PORT,
        port => {
            u16::try_from(port).ok().filter(|p| (1024..=49151).contains(p)).ok_or_else(|| {
                let reason = "the data-path port is 1024-49151";
                invalid(SpecError::new("data-path-port", port, reason))
            })?
        }
    };
    Ok(Cluster {
        id,
        meta: Meta::default(),
        vxlan_port,
        encrypted_vxlan_port: if vxlan_port == ENCRYPTED_VXLAN_PORT {
            VXLAN_PORT
        } else {
            ENCRYPTED_VXLAN_PORT
        },
        esp_port: ESP_PORT,
        default_pools: pools.collect::<Result<_, _>>().map_err(invalid)?,
        rotation_period: match request.rotation_period_ms {
            0 => ROTATION_PERIOD,
            millis => Duration::from_millis(millis),
        },
        autolock: request.autolock,
        removed_nodes: BTreeMap::new(),
        level: FeatureLevel::OURS,
        roots: Vec::new(),
    })
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

/// This node as others see it.
pub(crate) fn own_node(
    config: &Config,
    addresses: Addresses,
    id: NodeId,
    role: Role,
) -> Result<Node, NodeError> {
    let capabilities = Capabilities {
        dataplane: DataplaneKind::User,
        encryption: true,
        ipv6: true,
        level: FeatureLevel::OURS,
    };
    Ok(Node {
        id,
        meta: Meta::default(),
        name: config.node_name()?,
        role,
        role_since: Revision::ZERO,
        control: addresses.control,
        gossip: addresses.gossip,
        data_path: addresses.data_path,
        capabilities,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        root: RootId::default(),
    })
}

/// Joins the cluster of `request`'s token. Leaves nothing behind when it fails.
pub(crate) async fn join(
    config: &Config,
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
    // Id, role and root are the manager's to say.
    let node = own_node(config, addresses, NodeId::default(), Role::Worker)?;
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
        let start =
            Start { config, addresses, disk, tls, view, control_plane, control, fresh: true };
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

/// Takes up where the node stopped. A manager whose kept view is lost makes it from its own state.
pub(crate) async fn resume(
    config: &Config,
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
    Member::start(Start { config, addresses, disk, tls, view, control_plane, control, fresh }).await
}

/// Has the cluster remove this node. Says why the cluster still lists it, if it does.
pub(crate) async fn leave(member: &Member, force: bool) -> Result<String, NodeError> {
    let identity = member.identity();
    if identity.role == Role::Manager && !force {
        let name = member.viewer.read(|view| {
            view.nodes().get(&identity.node).map_or(String::new(), |node| node.name.to_string())
        });
        return Err(refused(
            Reason::NodeIsManager,
            "force",
            format!(
                "this node is a manager; demote it first (overlayctl node demote {name}), or leave \
                 with --force"
            ),
        )
        .into());
    }
    match remove_self(member).await {
        Ok(()) => Ok(String::new()),
        Err(error) if force => Ok(error.to_string()),
        Err(NodeError::Refused(status)) if status.code() == Code::Unavailable => {
            let message = format!(
                "{}; leave --force erases what this node keeps, and leaves it to a manager to \
                 remove it from the cluster",
                status.message()
            );
            Err(with_reason(reason(&status).unwrap_or(Reason::NoManager), message).into())
        }
        Err(error) => Err(error),
    }
}

/// A manager is demoted first, and waits until the raft group is without it.
async fn remove_self(member: &Member) -> Result<(), NodeError> {
    let identity = member.identity();
    if identity.role == Role::Manager {
        demote(&member.managers, identity.node).await?;
        if !member.relieved(RELIEF_PATIENCE).await {
            let message = "the other managers have not taken this node out of their group yet";
            return Err(with_reason(Reason::NotYet, message).into());
        }
    }
    remove(&member.managers, identity.node).await
}

async fn demote(managers: &Managers, node: NodeId) -> Result<(), NodeError> {
    let mut nodes = NodesClient::new(managers.channel().await?);
    let request = v1::GetNodeRequest { node: node.to_string(), consistency: None };
    let status = nodes.get_node(request).await?.into_inner().node.unwrap_or_default();
    let known = status.node.unwrap_or_default();
    let request = v1::UpdateNodeRequest {
        node: node.to_string(),
        role: v1::Role::Worker.into(),
        availability: known.availability,
        labels: known.labels,
        changed_at: known.meta.unwrap_or_default().changed_at,
        request_id: String::new(),
    };
    nodes.update_node(request).await?;
    Ok(())
}

async fn remove(managers: &Managers, node: NodeId) -> Result<(), NodeError> {
    let mut nodes = NodesClient::new(managers.channel().await?);
    let request =
        v1::RemoveNodeRequest { node: node.to_string(), force: false, request_id: String::new() };
    nodes.remove_node(request).await?;
    Ok(())
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

/// Both join tokens, as the replicated state has them.
pub(crate) fn tokens(control: &Control) -> Result<v1::GetJoinTokensResponse, NodeError> {
    let trust = control.replica().read(|state| state.trust().cloned());
    let trust = trust.ok_or(NodeError::NoCluster)?;
    let authority = Authority::from_trust(&trust)?;
    let token = |role| authority.token(role).to_text().to_string();
    Ok(v1::GetJoinTokensResponse { worker: token(Role::Worker), manager: token(Role::Manager) })
}

/// Replaces a join token. Returns the new one.
pub(crate) async fn rotate_token(
    control: &Control,
    request: &v1::RotateJoinTokenRequest,
) -> Result<String, NodeError> {
    let invalid = |error: SpecError| NodeError::from(overlay_api::status::invalid(&error));
    let role = Role::try_from(request.role()).map_err(invalid)?;
    let write = request_id(&request.request_id)?;
    let secret = OpaqueSecret(JoinSecret::generate()?.expose().to_vec());
    control.write(write, Action::RotateJoinSecret { role, secret }).await?;
    control.linearize().await?;
    let tokens = tokens(control)?;
    Ok(match role {
        Role::Worker => tokens.worker,
        Role::Manager => tokens.manager,
    })
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

    #[test]
    fn c03_the_data_path_port_has_bounds() {
        let with = |vxlan_port| {
            let request = v1::InitClusterRequest { vxlan_port, ..Default::default() };
            cluster(ClusterId::from_u128(1), request).map(|c| c.vxlan_port).ok()
        };
        assert_eq!(with(0), Some(4789));
        assert_eq!(with(1024), Some(1024));
        assert_eq!(with(49151), Some(49151));
        assert_eq!(with(1023), None);
        assert_eq!(with(49152), None);
    }
}
