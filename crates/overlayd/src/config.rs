//! What a node is told: defaults, then a TOML file, then `OVERLAYD_…` in the environment, then
//! flags. The later wins.

use core::fmt;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use overlay_cluster::state::RotationPolicy;
use overlay_dataplane::kernel::{self, GatewayConfig, IngressMode, MeshConfig};
use overlay_types::Subnet;
use serde::{Deserialize, Serialize};

use crate::{
    NodeError,
    dataplane::{GatewayTrace, Traces},
    resolvers::{self, SearchDomain, Upstream},
};

/// The configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the node keeps its certificate, its view and, on a manager, the replicated state.
    pub data_dir: PathBuf,
    /// The unix socket for local callers; its folder must exist.
    pub socket: PathBuf,
    /// Name of the node; `None`: the host's name.
    pub name: Option<String>,
    /// Address to listen on for managers and gossip; `None`: the advertised one.
    pub listen_addr: Option<IpAddr>,
    /// Address that other nodes reach this one at, and that control traffic leaves from; `None`:
    /// the host's only one.
    pub advertise_addr: Option<IpAddr>,
    /// Address that data traffic leaves from and arrives at; `None`: the advertised one.
    pub data_path_addr: Option<IpAddr>,
    /// TCP port of the management API.
    pub control_port: u16,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// MTU of the data path; `None`: that of the interface with the data-path address.
    pub underlay_mtu: Option<u16>,
    /// Which dataplane carries networks; encrypted ones are carried in user space where the kernel has no
    /// ESP.
    pub dataplane: DataplaneSetting,
    /// Directory of the namespaces that the kernel dataplane makes for networks; `None`: `netns` beside
    /// the socket. Others must not write to it.
    pub netns_dir: Option<PathBuf>,
    /// Name of the bridge that containers go out by; empty: they have no way out, and publish no ports. One
    /// that is there is used as it is.
    pub gateway_bridge: String,
    /// Its subnets, at most one of each version of IP, if it has to be made; none: one of IPv4 that the
    /// host does not route.
    pub gateway_subnet: Vec<Subnet>,
    /// What tasks see of clients that come through this node's part of the routing mesh.
    pub ingress_mode: IngressSetting,
    /// Longest wait of a key rotation for nodes that count as alive, in whole seconds. A manager's.
    #[serde(with = "seconds")]
    pub rotation_grace: Duration,
    /// How long after a key rotation nodes still open what was sealed before it, in whole seconds.
    /// A manager's.
    #[serde(with = "seconds")]
    pub rotation_drain: Duration,
    /// Name servers that endpoints ask about names of others, from their own namespaces; none: those of
    /// the host that they can reach.
    pub dns_upstream: Vec<Upstream>,
    /// Domains that endpoints search names in, in the `resolv.conf` that an attachment gives; none: the
    /// host's; `.`: nowhere.
    pub dns_search: Vec<SearchDomain>,
    /// Address of the HTTP server for Prometheus, `GET /metrics`; `None`: there is none. Whoever
    /// reaches it reads names of networks and what the node does.
    pub metrics_addr: Option<SocketAddr>,
    /// What is logged: a `tracing` filter such as `info,overlay_gossip=debug`.
    pub log: String,
}

/// What tasks see of clients that come through a node's part of the routing mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngressSetting {
    /// Clients' own addresses.
    #[default]
    Transparent,
    /// The node's address on the ingress network, as with Docker.
    Snat,
}

/// Which dataplane a node is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataplaneSetting {
    /// The kernel's, if this host has all that it needs, else the one in user space.
    #[default]
    Auto,
    /// The kernel's: the node does not start where something is missing.
    Kernel,
    /// The one in user space.
    User,
}

impl fmt::Display for DataplaneSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::User => "user",
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        let RotationPolicy { grace, drain } = RotationPolicy::default();
        Self {
            data_dir: "/var/lib/overlayd".into(),
            socket: overlay_api::client::DEFAULT_SOCKET.into(),
            name: None,
            listen_addr: None,
            advertise_addr: None,
            data_path_addr: None,
            control_port: 2377,
            gossip_port: overlay_gossip::io::PORT,
            underlay_mtu: None,
            dataplane: DataplaneSetting::Auto,
            netns_dir: None,
            gateway_bridge: GatewayConfig::BRIDGE.to_owned(),
            gateway_subnet: Vec::new(),
            ingress_mode: IngressSetting::Transparent,
            rotation_grace: grace,
            rotation_drain: drain,
            dns_upstream: Vec::new(),
            dns_search: Vec::new(),
            metrics_addr: None,
            log: "info".to_owned(),
        }
    }
}

impl Config {
    /// Reads `file`, if there is one, and the environment, and takes `flags` over both.
    pub fn load(file: Option<&Path>, flags: &impl Serialize) -> Result<Self, NodeError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| NodeError::File { path: path.to_owned(), source })?;
            figment = figment.merge(Toml::string(&text));
        }
        figment
            // Where the file is, the command line says; it is no setting.
            .merge(Env::prefixed("OVERLAYD_").ignore(&["config"]))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| NodeError::Config(error.to_string()))
    }

    /// The addresses that the node uses, with those that were left open settled.
    pub(crate) fn addresses(&self) -> Result<Addresses, NodeError> {
        let advertise = match self.advertise_addr {
            Some(address) => address,
            None => only_address()?,
        };
        let data_path = self.data_path_addr.unwrap_or(advertise);
        for (field, address) in [("advertise-addr", advertise), ("data-path-addr", data_path)] {
            if address.is_unspecified() || address.is_multicast() {
                let message = format!("{field} {address}: it must be an address of this host");
                return Err(NodeError::Config(message));
            }
        }
        let listen = self.listen_addr.unwrap_or(advertise);
        Ok(Addresses {
            listen,
            control: SocketAddr::new(advertise, self.control_port),
            gossip: SocketAddr::new(advertise, self.gossip_port),
            data_path,
        })
    }

    /// MTU of the data path.
    pub(crate) fn mtu(&self, data_path: IpAddr) -> Result<u16, NodeError> {
        if let Some(mtu) = self.underlay_mtu {
            return Ok(mtu);
        }
        interface_mtu(data_path).ok_or_else(|| {
            NodeError::Config(format!("data-path-addr {data_path}: no interface here has it"))
        })
    }

    /// Directory of the namespaces of networks.
    pub(crate) fn netns_dir(&self) -> PathBuf {
        // Two daemons of one host have two sockets.
        let beside = || self.socket.parent().unwrap_or(Path::new(".")).join("netns");
        self.netns_dir.clone().unwrap_or_else(beside)
    }

    /// What tells that there is something of this node in the kernel.
    pub(crate) fn traces(&self) -> Traces {
        let beside = |suffix| self.beside_socket(suffix);
        Traces { netns_dir: self.netns_dir(), holder: beside(".esp"), ipsec: beside(".ipsec") }
    }

    /// What tells that there is something of this node's gateway on the host.
    pub(crate) fn gateway_trace(&self) -> GatewayTrace {
        GatewayTrace(self.beside_socket(".gateway"))
    }

    fn beside_socket(&self, suffix: &str) -> PathBuf {
        let mut path = self.socket.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// The gateway of containers, if there is to be one.
    pub(crate) fn gateway(&self) -> Result<Option<GatewayConfig>, NodeError> {
        if self.gateway_bridge.is_empty() {
            return Ok(None);
        }
        let config = GatewayConfig::new(&*self.gateway_bridge, self.gateway_subnet.clone());
        config.map(Some).map_err(|error| NodeError::Config(error.to_string()))
    }

    /// This node's part of the routing mesh.
    pub(crate) fn mesh(&self) -> MeshConfig {
        let mode = match self.ingress_mode {
            IngressSetting::Transparent => IngressMode::Transparent,
            IngressSetting::Snat => IngressMode::Snat,
        };
        MeshConfig { directory: self.netns_dir(), mode }
    }

    /// How long a key rotation waits.
    pub(crate) const fn rotation(&self) -> RotationPolicy {
        RotationPolicy { grace: self.rotation_grace, drain: self.rotation_drain }
    }

    /// How endpoints resolve names of others.
    pub(crate) fn names(&self) -> resolvers::Settings {
        let (upstreams, search) = (self.dns_upstream.clone(), self.dns_search.clone());
        resolvers::Settings { upstreams, search }
    }

    /// Name of the node.
    pub(crate) fn node_name(&self) -> Result<overlay_types::Name, NodeError> {
        let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let name = self.name.clone().or_else(host).unwrap_or_default();
        overlay_types::Name::parse("name", &name)
            .map_err(|error| NodeError::Config(error.to_string()))
    }
}

/// The addresses of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) listen: IpAddr,
    pub(crate) control: SocketAddr,
    pub(crate) gossip: SocketAddr,
    pub(crate) data_path: IpAddr,
}

/// Addresses of this host that another host could reach, with their interfaces.
fn host_addresses() -> Vec<(String, IpAddr)> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        Some((interface.interface_name, v4.or(v6)?))
    });
    addresses.collect()
}

fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

fn only_address() -> Result<IpAddr, NodeError> {
    let mut candidates: Vec<IpAddr> =
        host_addresses().into_iter().map(|(_, a)| a).filter(|a| is_reachable(*a)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    match candidates.as_slice() {
        [only] => Ok(*only),
        _ => Err(NodeError::NoAdvertiseAddress { candidates }),
    }
}

fn interface_mtu(address: IpAddr) -> Option<u16> {
    let named = host_addresses().into_iter().find(|(_, a)| *a == address).map(|(name, _)| name);
    // All of 127.0.0.0/8 is this host's, though only one address is listed.
    let name = named.or_else(|| address.is_loopback().then(|| "lo".to_owned()))?;
    let mtu = kernel::interface_mtu(&name).ok()??;
    // An address that cannot be bound is not this host's after all.
    UdpSocket::bind((address, 0)).ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Durations are whole seconds in files and in the environment.
mod seconds {
    use core::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        control_port: Option<u16>,
    }

    #[test]
    fn o01_flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overlayd.toml");
        std::fs::write(&file, "control_port = 1\ngossip_port = 2\n").unwrap();
        let config = Config::load(Some(&file), &Flags { control_port: Some(3) }).unwrap();
        assert_eq!((config.control_port, config.gossip_port), (3, 2));
        let config = Config::load(Some(&file), &Flags { control_port: None }).unwrap();
        assert_eq!((config.control_port, config.gossip_port), (1, 2));
    }

    #[test]
    fn o01_durations_are_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overlayd.toml");
        std::fs::write(&file, "rotation_drain = 5\n").unwrap();
        let config = Config::load(Some(&file), &Flags { control_port: None }).unwrap();
        let RotationPolicy { grace, .. } = RotationPolicy::default();
        assert_eq!(config.rotation(), RotationPolicy { grace, drain: Duration::from_secs(5) });
        std::fs::write(&file, "rotation_drain = -5\n").unwrap();
        let error = Config::load(Some(&file), &Flags { control_port: None }).unwrap_err();
        assert!(error.to_string().contains("rotation_drain"), "{error}");
    }

    #[test]
    fn o01_an_unknown_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overlayd.toml");
        std::fs::write(&file, "control_prot = 1\n").unwrap();
        let error = Config::load(Some(&file), &Flags { control_port: None }).unwrap_err();
        assert!(error.to_string().contains("control_prot"), "{error}");
    }

    #[test]
    fn c03_the_data_path_follows_the_advertised_address() {
        let advertise = IpAddr::from([127, 0, 0, 7]);
        let config = Config { advertise_addr: Some(advertise), ..Config::default() };
        let addresses = config.addresses().unwrap();
        assert_eq!((addresses.data_path, addresses.listen), (advertise, advertise));
        let data_path = IpAddr::from([127, 0, 0, 8]);
        let config = Config { data_path_addr: Some(data_path), ..config };
        assert_eq!(config.addresses().unwrap().data_path, data_path);
        let config = Config { data_path_addr: Some([0, 0, 0, 0].into()), ..config };
        assert!(config.addresses().is_err());
    }
}
