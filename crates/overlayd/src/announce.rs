//! What the cluster is told of this node's release and host, until it knows it.
//!
//! ```text
//!   level of this release ≠ the view's ─────────────► AnnounceLevel
//!   all nodes read it, and host ≠ the view's ───────► AnnounceCapabilities
//!   MTU of the data path ≠ the dataplane's ─────────► a turn of the loop
//!   members of a network differ in MTU ─────────────► log, once
//! ```

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use overlay_api::v1::{self, reports_client::ReportsClient};
use overlay_dataplane::mtu;
use overlay_types::{
    Capabilities, Encapsulation, FeatureLevel, HostReport, NetworkId, NodeId, Revision, View,
    mtu::disagreement,
};
use tokio::sync::watch;
use tonic::Status;

use crate::{
    Config,
    agent::Viewer,
    dataplane::{Carriers, Choice},
    managers::Managers,
    reconcile::{Reconciler, Shared},
};

/// Time between two looks at the host, and wait after a refusal: a release that knows less than the
/// cluster is refused each time.
const LOOK: Duration = Duration::from_secs(10);

/// This node's host, to be looked at again and again.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    config: Config,
    data_path: IpAddr,
    carriers: Carriers,
    kernel: String,
    missing: Vec<String>,
}

impl Host {
    pub(crate) fn new(config: &Config, choice: &Choice, data_path: IpAddr) -> Self {
        // Where the system does not tell, nobody is told.
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            config: config.clone(),
            data_path,
            carriers: choice.carriers,
            kernel: HostReport::cut(release.trim()).to_owned(),
            missing: choice.missing.clone(),
        }
    }

    /// What the node can do, and what there is, as of now. An interface without the data path's address
    /// keeps the MTU that the dataplane has.
    fn look(&self, esp: Encapsulation, mtu_in_use: u16) -> (Capabilities, HostReport) {
        let data_path_mtu = self.config.mtu(self.data_path).unwrap_or(mtu_in_use);
        let derived = |esp| mtu::overlay(data_path_mtu, self.data_path.is_ipv6(), esp);
        let report = HostReport {
            kernel: self.kernel.clone(),
            missing: self.missing.clone(),
            data_path_mtu,
            plain_mtu: derived(None),
            encrypted_mtu: derived(Some(esp)),
        };
        (self.carriers.capabilities(esp), report)
    }
}

/// Tells the managers, and the log.
pub(crate) struct Announcer {
    pub(crate) node: NodeId,
    pub(crate) managers: Managers,
    pub(crate) viewer: Viewer,
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reconciler: Arc<Reconciler>,
}

/// What the cluster should be told.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Level(FeatureLevel),
    Capabilities,
    /// No manager was heard, or none knows this node.
    Unknown,
}

fn due(view: &View, node: NodeId, ours: &(Capabilities, HostReport)) -> Due {
    let Some(known) = view.nodes().get(&node) else { return Due::Unknown };
    let (capabilities, host) = ours;
    if known.capabilities.level != capabilities.level {
        return Due::Level(known.capabilities.level);
    }
    let readable = view.cluster().is_some_and(|cluster| cluster.level >= FeatureLevel::SECOND);
    let known = (known.capabilities, known.host.as_deref());
    if readable && known != (*capabilities, Some(host)) { Due::Capabilities } else { Due::Nothing }
}

impl Announcer {
    /// Runs until the task is ended.
    pub(crate) async fn run(self) {
        let mut revision = self.viewer.revision();
        let mut warned = BTreeMap::new();
        loop {
            let esp = |view: &View| view.cluster().map(|cluster| cluster.esp);
            let esp = self.viewer.read(esp).unwrap_or_default();
            let ours = self.host.look(esp, self.shared.underlay_mtu());
            if self.shared.set_underlay_mtu(ours.1.data_path_mtu) {
                tracing::info!(mtu = ours.1.data_path_mtu, "the data path has another MTU");
                self.reconciler.wake();
            }
            let due = self.viewer.read_heard(|view| due(view, self.node, &ours));
            let told = match due.unwrap_or(Due::Unknown) {
                Due::Unknown => Ok(()),
                Due::Nothing => {
                    self.warn(&mut warned);
                    pause().await;
                    continue;
                }
                Due::Level(known) => self.announce_level(known).await,
                Due::Capabilities => match self.announce_capabilities(ours).await {
                    // Neither a host that changes all the time nor a view that is late has more
                    // than one report written for each look.
                    Ok(()) => {
                        pause().await;
                        continue;
                    }
                    refused => refused,
                },
            };
            if let Err(status) = told {
                let reason = status.message();
                tracing::warn!(reason, "the managers do not know yet what this node can do");
                pause().await;
            } else if news(&mut revision).await.is_err() {
                return;
            }
        }
    }

    async fn announce_level(&self, known: FeatureLevel) -> Result<(), Status> {
        let mut client = ReportsClient::new(self.managers.channel().await?);
        let (node, level) = (self.node.to_string(), FeatureLevel::OURS.get());
        client.announce_level(v1::AnnounceLevelRequest { node, level }).await?;
        tracing::info!(level = %known, ours = %FeatureLevel::OURS, "level announced");
        Ok(())
    }

    async fn announce_capabilities(
        &self,
        (capabilities, host): (Capabilities, HostReport),
    ) -> Result<(), Status> {
        let mut client = ReportsClient::new(self.managers.channel().await?);
        let request = v1::AnnounceCapabilitiesRequest {
            node: self.node.to_string(),
            capabilities: Some(capabilities.into()),
            host: Some((&host).into()),
        };
        client.announce_capabilities(request).await?;
        tracing::info!(dataplane = %capabilities.dataplane, ipv6 = capabilities.ipv6,
            data_path_mtu = host.data_path_mtu, "capabilities announced");
        Ok(())
    }

    fn warn(&self, warned: &mut BTreeMap<NetworkId, String>) {
        let differ = self.viewer.read(|view| mismatches(view, self.node));
        for (network, warning) in &differ {
            if warned.get(network) != Some(warning) {
                tracing::warn!(%network, "{warning}");
            }
        }
        *warned = differ;
    }
}

/// Networks on a node whose members do not agree on their MTU, with what to do about each.
pub(crate) fn mismatches(view: &View, node: NodeId) -> BTreeMap<NetworkId, String> {
    let here: BTreeSet<NetworkId> = view.endpoints_at(node).map(|e| e.network).collect();
    let networks = here.iter().filter_map(|id| view.networks().get(id));
    let warning = |network: &overlay_types::Network| {
        let members: BTreeSet<NodeId> = view.endpoints_on(network.id).map(|e| e.node).collect();
        let members = members.iter().filter_map(|id| view.nodes().get(id));
        let sizes = members.filter_map(|node| {
            let host = node.host.as_deref()?;
            Some((node.name.as_str(), host.derived_mtu(network.spec.encrypted)))
        });
        let text = disagreement(network.spec.mtu, sizes)?;
        Some((network.id, format!("network {}: {text}", network.spec.name)))
    };
    networks.filter_map(warning).collect()
}

async fn news(revision: &mut watch::Receiver<Revision>) -> Result<(), watch::error::RecvError> {
    tokio::time::timeout(LOOK, revision.changed()).await.unwrap_or(Ok(()))
}

#[expect(clippy::disallowed_methods, reason = "the shell that paces looks at the host")]
async fn pause() {
    tokio::time::sleep(LOOK).await;
}

#[cfg(test)]
mod tests {
    use overlay_testkit::objects;
    use overlay_types::{
        Addresses, Change, Cluster, Endpoint, EndpointId, EndpointRole, MacAddr, Meta, Network,
        NetworkDraft, Node, Object, Readiness, Vni,
    };

    use super::*;

    fn own() -> Node {
        Node { host: Some(Box::new(objects::host())), ..objects::node(1) }
    }

    fn view(cluster: Cluster, nodes: impl IntoIterator<Item = Node>) -> View {
        let nodes = nodes.into_iter().map(Object::Node);
        View::from_snapshot(Revision::new(1), nodes.chain([Object::Cluster(cluster)]))
    }

    #[test]
    fn n19_what_the_cluster_knows_is_not_told_again() {
        let (own, cluster) = (own(), objects::cluster());
        let ours = (own.capabilities, objects::host());
        let due =
            |cluster: &Cluster, node: Node| due(&view(cluster.clone(), [node]), own.id, &ours);
        assert_eq!(due(&cluster, own.clone()), Due::Nothing);
        assert_eq!(due(&cluster, objects::node(2)), Due::Unknown);
        let silent = objects::node(1);
        assert_eq!(due(&cluster, silent.clone()), Due::Capabilities);
        // A node of a release before could not read it.
        let old = Cluster { level: FeatureLevel::FIRST, ..cluster.clone() };
        assert_eq!(due(&old, silent), Due::Nothing);
        let mut updated = own.clone();
        updated.capabilities.level = FeatureLevel::FIRST;
        assert_eq!(due(&old, updated), Due::Level(FeatureLevel::FIRST));
    }

    #[test]
    fn n09_only_members_of_a_network_are_compared() {
        let mut narrow = objects::node(2);
        narrow.host = Some(Box::new(HostReport { plain_mtu: 1350, ..objects::host() }));
        let mut view = view(objects::cluster(), [own(), narrow, objects::node(3)]);
        let network = Network {
            id: NetworkId::from_u128(1),
            meta: Meta::default(),
            spec: NetworkDraft::new("net".parse().unwrap()).try_into().unwrap(),
            vni: Vni::for_overlay(4096).unwrap(),
            subnets: Vec::new(),
        };
        let endpoint = |number: u128| {
            Change::Put(Object::Endpoint(Endpoint {
                id: EndpointId::from_u128(number),
                meta: Meta::default(),
                network: network.id,
                node: NodeId::from_u128(number),
                service: None,
                name: None,
                addresses: Addresses::default(),
                mac: MacAddr::default(),
                role: EndpointRole::Workload,
                readiness: Readiness::Ready,
                extras: None,
            }))
        };
        let network_change = Change::Put(Object::Network(network.clone()));
        // The third has not said what fits there.
        view.apply(Revision::new(2), [network_change, endpoint(1), endpoint(3)]);
        let own = NodeId::from_u128(1);
        assert_eq!(mismatches(&view, own), BTreeMap::new());
        view.apply(Revision::new(3), [endpoint(2)]);
        let text = &mismatches(&view, own)[&network.id];
        assert!(text.starts_with("network net: ") && text.contains("1350 on node2"), "{text}");
    }
}
