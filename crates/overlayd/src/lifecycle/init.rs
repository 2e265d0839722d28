//! The first manager of a new cluster.

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use overlay_api::v1;
use overlay_cluster::{
    ca::{Authority, NodeTls, Subject},
    control::{Control, now},
    raft::types::Member as RaftMember,
    state::{Action, InitCluster, ManagerLock},
};
use overlay_types::{
    Cluster, ClusterId, DefaultPool, Encapsulation, Epoch, FeatureLevel, GossipKey, Meta,
    NetworkId, NodeId, RequestId, Revision, Role, SpecError,
};

use super::{certify, own_node};
use crate::{
    Config, NodeError,
    control_plane::ControlPlane,
    dataplane::Choice,
    disk::Disk,
    lock,
    member::{Member, Start},
    routes,
    vault::Lock,
};

/// Time from one key epoch to the next, unless the cluster is made with another.
const ROTATION_PERIOD: Duration = Duration::from_hours(12);
/// UDP ports: VXLAN (RFC 7348 §5), VXLAN inside ESP.
const VXLAN_PORT: u16 = 4789;
const ENCRYPTED_VXLAN_PORT: u16 = 4788;

/// Makes this node the first manager of a new cluster. Leaves nothing behind when it fails.
pub(crate) async fn init(
    config: &Config,
    choice: &Choice,
    disk: &Disk,
    request: v1::InitClusterRequest,
) -> Result<Member, NodeError> {
    let addresses = config.addresses()?;
    let id = ClusterId::from_u128(rand::random());
    let mut cluster = cluster(id, request)?;
    let authority = Authority::generate(id, now())?;
    cluster.roots = vec![authority.root().published(None)];
    let own = (NodeId::from_u128(rand::random()), Role::Manager);
    let mut node = own_node(config, choice, addresses, own, cluster.esp)?;
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
        esp: if request.esp_over_ip { Encapsulation::None } else { Encapsulation::default() },
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

#[cfg(test)]
mod tests {
    use super::*;

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
