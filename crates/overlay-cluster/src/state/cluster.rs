//! The cluster: what it starts with, and what of it can be changed.

use core::time::Duration;

use overlay_ipam::Pools;
use overlay_types::{
    Change, Cluster, Encapsulation, Epoch, EpochState, GossipKeys, KeyEpoch, Name, NetworkDraft,
    NetworkSpec, Node, Object, Revision,
};

use super::{
    Applied, ClusterUpdate, InitCluster, Rejection, Response, State,
    apply::{Context, Outcome},
    kind::Kind,
    lock, place,
};

/// Name of the network that every cluster starts with.
const INGRESS: &str = "ingress";

/// UDP ports that the data path may use: beyond the well-known ones, below the usual range of
/// ephemeral ones.
const DATA_PORTS: core::ops::RangeInclusive<u16> = 1024..=49_151;

/// The shortest time from one key epoch to the next: a rotation waits for every node, and one
/// that starts before the last is through would never end.
const MIN_ROTATION: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn init_cluster(&mut self, context: Context, init: &InitCluster) -> Outcome {
        if let Some(cluster) = self.view.cluster() {
            return Err(Rejection::ClusterExists { cluster: cluster.id.to_string() });
        }
        let pools = match init.cluster.default_pools.as_slice() {
            [] => Pools::default(),
            pools => Pools::new(pools.iter().copied())?,
        };
        check_cluster(&init.cluster)?;
        check_root(init)?;
        let lock = lock::lock(context, init.unlock_key.as_ref())?;
        place::check(&init.node)?;
        let cluster = Cluster {
            meta: context.created(),
            autolock: init.unlock_key.is_some(),
            default_pools: pools.clone().into(),
            level: init.node.capabilities.level,
            ..init.cluster.clone()
        };
        let mut draft = NetworkDraft::new(INGRESS.parse()?);
        draft.ingress = true;
        let spec = NetworkSpec::try_from(draft)?;
        let planned =
            self.plan_network(context, &pools, (init.ingress, &spec), &init.host_routes)?;

        let deadline = context.at.after(cluster.rotation_period);
        let first = Epoch::new(1);
        let epoch =
            KeyEpoch { epoch: first, meta: context.created(), state: EpochState::Active, deadline };
        let gossip = GossipKeys {
            meta: context.created(),
            current: init.gossip_key.epoch,
            keys: vec![init.gossip_key.clone()],
            deadline,
        };
        let (meta, role_since) = (context.created(), context.revision);
        let node = Node { meta, role_since, ..init.node.clone() };
        let mut changes: Vec<Change> = [
            Object::Cluster(cluster.clone()),
            Object::GossipKeys(gossip),
            Object::Node(node),
            Object::KeyEpoch(epoch),
        ]
        .map(Change::Put)
        .into();
        changes.extend(self.adopt_network(planned).changes);
        self.pools = pools;
        self.trust = Some(init.trust.clone());
        self.lock = lock;
        Ok(Applied { response: Response::Cluster(cluster), changes })
    }
}

impl State {
    /// Changes what holds for the whole cluster. Who is locked keeps the unlock key there is.
    ///
    /// A shorter period brings what is due closer; with a longer one, what is due remains so.
    pub(super) fn update_cluster(&mut self, context: Context, update: &ClusterUpdate) -> Outcome {
        let old = self.view.cluster().ok_or(Rejection::NoCluster)?;
        let mut cluster = old.clone();
        if let Some(period) = update.rotation_period {
            check_period(period)?;
            cluster.rotation_period = period;
        }
        let turned = update.autolock.as_ref().filter(|key| key.is_some() != old.autolock);
        if let Some(key) = turned {
            cluster.autolock = key.is_some();
            let lock = lock::lock(context, key.as_ref())?;
            self.lock = lock;
        }
        if cluster == *old {
            return Ok(Applied::unchanged(Response::Cluster(cluster)));
        }
        cluster.meta = context.changed(old.meta);
        let mut changes = vec![Change::Put(Object::Cluster(cluster.clone()))];
        let latest = context.at.after(cluster.rotation_period);
        changes.extend(self.due_by(context, latest).into_iter().map(Change::Put));
        Ok(Applied { response: Response::Cluster(cluster), changes })
    }
}

/// Refuses an update that was made from an old object.
pub(super) fn check_fresh(
    kind: Kind,
    name: &Name,
    based_on: Revision,
    changed_at: Revision,
) -> Result<(), Rejection> {
    if based_on == changed_at {
        return Ok(());
    }
    Err(Rejection::Stale { kind, name: name.clone(), based_on, changed_at })
}

/// A cluster starts with one root, which its first node has its certificate from.
fn check_root(init: &InitCluster) -> Result<(), Rejection> {
    match init.cluster.roots.as_slice() {
        [root] if root.id == init.node.root && root.cross.is_none() => Ok(()),
        roots => {
            let count = format!("({} roots)", roots.len());
            Err(Rejection::invalid("roots", count, "a cluster starts with the root of its node"))
        }
    }
}

fn check_cluster(cluster: &Cluster) -> Result<(), Rejection> {
    let mut ports = vec![
        ("data-path-port", cluster.vxlan_port),
        ("encrypted-vxlan-port", cluster.encrypted_vxlan_port),
    ];
    if let Encapsulation::Udp(port) = cluster.esp {
        ports.push(("esp-port", port));
    }
    for (at, (field, port)) in ports.iter().copied().enumerate() {
        if !DATA_PORTS.contains(&port) {
            return Err(Rejection::invalid(field, port, "a data-path port is 1024-49151"));
        }
        if let Some((other, _)) = ports[..at].iter().find(|(_, p)| *p == port) {
            return Err(Rejection::invalid(field, port, format!("it is the {other}, too")));
        }
    }
    check_period(cluster.rotation_period)
}

fn check_period(period: Duration) -> Result<(), Rejection> {
    if period < MIN_ROTATION {
        let period = format!("{period:?}");
        return Err(Rejection::invalid("rotation-period", period, "at least one second"));
    }
    Ok(())
}
