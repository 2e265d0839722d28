//! Networks.

use std::collections::{BTreeMap, BTreeSet};

use overlay_api::v1;
use overlay_types::mtu::disagreement;
use serde::Serialize;

use super::{Endpoint, Names, Reference, joined, lines, optional, pairs};
use crate::output::{Inspected, Listed};

/// A network.
#[derive(Serialize, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the document")]
pub(crate) struct Network {
    id: String,
    name: String,
    driver: &'static str,
    vni: u32,
    subnets: Vec<Subnet>,
    ipv4: bool,
    ipv6: bool,
    internal: bool,
    attachable: bool,
    ingress: bool,
    encrypted: bool,
    multicast: bool,
    /// `None`: derived from the data path.
    mtu: Option<u32>,
    labels: BTreeMap<String, String>,
    created_at: u64,
    changed_at: u64,
}

#[derive(Serialize, Debug)]
#[expect(clippy::struct_field_names, reason = "they are keys of the document")]
struct Subnet {
    subnet: String,
    gateway: String,
    ip_range: Option<String>,
    aux_addresses: BTreeMap<String, String>,
}

impl Network {
    /// Whether it is the network of the routing mesh.
    pub(crate) fn is_ingress(&self) -> bool {
        self.ingress
    }

    /// The switches that are on, for people.
    fn options(&self) -> String {
        let all = [
            (self.ingress, "ingress"),
            (self.attachable, "attachable"),
            (self.encrypted, "encrypted"),
            (self.internal, "internal"),
            (self.multicast, "multicast"),
        ];
        joined(all.iter().filter(|(on, _)| *on).map(|(_, name)| name), ",")
    }

    fn subnet_texts(&self, separator: &str) -> String {
        joined(self.subnets.iter().map(|s| &s.subnet), separator)
    }
}

impl From<v1::Network> for Network {
    fn from(message: v1::Network) -> Self {
        let meta = message.meta.unwrap_or_default();
        let spec = message.spec.unwrap_or_default();
        // What was asked for stands in the spec, what the cluster chose beside it.
        let subnet = |chosen: v1::NetworkSubnet| {
            let asked = spec.subnets.iter().find(|s| s.subnet == chosen.subnet);
            Subnet {
                ip_range: asked.and_then(|s| optional(&s.ip_range)),
                aux_addresses: asked.map(|s| s.aux_addresses.clone()).unwrap_or_default(),
                subnet: chosen.subnet,
                gateway: chosen.gateway,
            }
        };
        Self {
            id: message.id,
            driver: "overlay",
            vni: message.vni,
            subnets: message.subnets.into_iter().map(subnet).collect(),
            name: spec.name,
            ipv4: !spec.disable_ipv4,
            ipv6: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            encrypted: spec.encrypted,
            multicast: spec.multicast,
            mtu: (spec.mtu != 0).then_some(spec.mtu),
            labels: spec.labels,
            created_at: meta.created_at,
            changed_at: meta.changed_at,
        }
    }
}

impl Listed for Network {
    const COLUMNS: &'static [&'static str] =
        &["NETWORK ID", "NAME", "DRIVER", "VNI", "SUBNETS", "OPTIONS"];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.driver.into(),
            self.vni.to_string(),
            self.subnet_texts(","),
            self.options(),
        ]
    }
}

/// A network with what is on it.
#[derive(Serialize, Debug)]
pub(crate) struct NetworkDetail {
    #[serde(flatten)]
    network: Network,
    usage: Vec<Usage>,
    endpoints: Vec<Endpoint>,
    services: Vec<Reference>,
    /// Nodes with an endpoint on the network.
    peers: Vec<Peer>,
    /// How they differ in what fits, and what to do about it.
    mtu_mismatch: Option<String>,
}

/// Addresses of one subnet. Counts are text: a /64 has more than a JSON number can count.
#[derive(Serialize, Debug)]
struct Usage {
    subnet: String,
    used: String,
    free: String,
    reserved: String,
    quarantined: String,
}

#[derive(Serialize, Debug)]
struct Peer {
    id: String,
    name: String,
    data_path: String,
    /// The largest packets of the network that fit on its data path; `None`: it has not said.
    mtu: Option<u32>,
}

impl NetworkDetail {
    /// A network, and the endpoints, services and nodes on it.
    pub(crate) fn new(
        message: v1::GetNetworkResponse,
        endpoints: Vec<v1::Endpoint>,
        services: Vec<v1::Service>,
        peers: Vec<v1::Node>,
    ) -> Self {
        let network = message.network.unwrap_or_default();
        let names = Names::default()
            .with_networks(std::slice::from_ref(&network))
            .with_services(&services)
            .with_nodes(peers.iter());
        let mut services: Vec<_> = services.iter().map(|s| names.of(&s.id)).collect();
        services.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let encrypted = network.spec.as_ref().is_some_and(|spec| spec.encrypted);
        let peer = |n: v1::Node| Peer {
            mtu: n.host.map(|host| if encrypted { host.encrypted_mtu } else { host.plain_mtu }),
            id: n.id,
            name: n.name,
            data_path: n.data_path,
        };
        let mut peers: Vec<Peer> = peers.into_iter().map(peer).collect();
        peers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let usage = |u: v1::SubnetUsage| Usage {
            subnet: u.subnet,
            used: u.used,
            free: u.free,
            reserved: u.reserved,
            quarantined: u.quarantined,
        };
        let network = Network::from(network);
        let fits = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
        let sizes = peers.iter().filter_map(|p| Some((p.name.as_str(), fits(p.mtu?))));
        Self {
            mtu_mismatch: disagreement(network.mtu.map(fits), sizes),
            network,
            usage: message.usage.into_iter().map(usage).collect(),
            endpoints: Endpoint::sorted(endpoints, &names),
            services,
            peers,
        }
    }

    /// The MTU that the network asks for, or that its members derive, and whether that is trouble.
    fn mtu_lines(&self) -> String {
        let derived: BTreeSet<u32> = self.peers.iter().filter_map(|peer| peer.mtu).collect();
        let mtu = match (self.network.mtu, derived.first()) {
            (Some(mtu), _) => mtu.to_string(),
            (None, Some(mtu)) if derived.len() == 1 => format!("{mtu}, derived"),
            (None, _) => "derived".to_owned(),
        };
        lines(core::iter::once(&mtu).chain(&self.mtu_mismatch))
    }

    fn subnet_lines(&self) -> String {
        let line = |s: &Subnet| {
            let range = s.ip_range.iter().map(|r| format!(", range {r}"));
            let aux = s.aux_addresses.iter().map(|(name, a)| format!(", {name} {a}"));
            format!("{} gateway {}{}", s.subnet, s.gateway, range.chain(aux).collect::<String>())
        };
        lines(self.network.subnets.iter().map(line))
    }

    fn usage_lines(&self) -> String {
        let line = |u: &Usage| {
            format!(
                "{}: {} used, {} free, {} reserved, {} quarantined",
                u.subnet, u.used, u.free, u.reserved, u.quarantined
            )
        };
        lines(self.usage.iter().map(line))
    }
}

impl Inspected for NetworkDetail {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let network = &self.network;
        let peer = |p: &Peer| format!("{} {}", p.name, p.data_path);
        vec![
            ("ID", network.id.clone()),
            ("Name", network.name.clone()),
            ("Driver", network.driver.into()),
            ("VNI", network.vni.to_string()),
            ("Options", network.options()),
            ("MTU", self.mtu_lines()),
            ("Subnets", self.subnet_lines()),
            ("Addresses", self.usage_lines()),
            ("Labels", pairs(&network.labels)),
            ("Services", lines(&self.services)),
            ("Endpoints", lines(&self.endpoints)),
            ("Peers", lines(self.peers.iter().map(peer))),
        ]
    }
}
