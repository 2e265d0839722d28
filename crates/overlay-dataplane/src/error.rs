//! What can go wrong while a dataplane is set up or changed.

use core::net::{IpAddr, SocketAddr};
use std::{io, path::PathBuf};

use nix::errno::Errno;
use overlay_crypto::CryptoError;
use overlay_types::{EndpointId, NetworkId, PortSpec, Subnet, Vni};

use crate::kernel::{
    netlink::Refusal,
    nft::{NftError, reservation::PortTaken},
};

/// A dataplane could not do what it was told. What was tried is named; anything that had been
/// done for it is undone, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A UDP socket for data traffic could not be opened.
    #[error("cannot open udp socket {address} for data traffic: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has the port that ESP in UDP comes to.
    #[error(
        "udp port {address} of ESP is in use by another IPsec daemon, or by a process overlay-esp that was left by an overlayd with another --socket; find it with ss -unap and end it"
    )]
    EspPortInUse {
        /// Where.
        address: SocketAddr,
    },
    /// A socket for ESP as IP protocol 50 could not be opened.
    #[error(
        "cannot open a raw socket at {address} for ESP as IP protocol 50: {source}; give the process CAP_NET_RAW, or have ESP travel in UDP"
    )]
    RawSocket {
        /// Where.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A TAP device could not be made or set up.
    #[error("cannot {step} tap device {name:?}: {source}")]
    Tap {
        /// Name of the device.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A name that no network device can have.
    #[error("device name {0:?} is not 1-15 characters without '/', ':' and spaces")]
    DeviceName(String),
    /// A namespace could not be entered.
    #[error("cannot enter network namespace {path}: {source}")]
    Namespace {
        /// The file that stands for it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that stands for a namespace, or tells of associations, could not be made, found or removed.
    #[error("cannot {step} {path}: {source}")]
    NamespaceFile {
        /// What was tried.
        step: &'static str,
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path of a namespace does not fit in the alias of a port.
    #[error("network namespace path {path} is longer than {limit} octets")]
    LongNamespacePath {
        /// The path.
        path: PathBuf,
        /// Octets that it may have.
        limit: usize,
    },
    /// The kernel refused a request.
    #[error("cannot {step} {subject}: {source}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// On what.
        subject: String,
        /// The kernel's words.
        source: Refusal,
    },
    /// Frames cannot go past the bridge of a network.
    #[error("cannot {step}: {source}")]
    ShortWay {
        /// What was tried with the program that sends them there.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Rules of nf_tables could not be read or changed.
    #[error(transparent)]
    Filter(#[from] NftError),
    /// Virtual addresses of services could not be programmed for an endpoint.
    #[error("cannot translate virtual addresses for endpoint {endpoint}: {reason}")]
    Services {
        /// The endpoint.
        endpoint: EndpointId,
        /// What the kernel or the system said, and about what.
        reason: String,
    },
    /// An endpoint's interface cannot have its name.
    #[error("network namespace {path} has an interface {name:?} already")]
    InterfaceInUse {
        /// The name.
        name: String,
        /// The namespace.
        path: PathBuf,
    },
    /// A subnet of the gateway bridge is in use.
    #[error(
        "subnet {subnet} of the gateway bridge overlaps {other}, which is in use; choose another with gateway-subnet"
    )]
    GatewayOverlap {
        /// The subnet that the bridge has, or was to get.
        subnet: Subnet,
        /// What this host routes, or a network has.
        other: Subnet,
    },
    /// This host routes all that could be the gateway bridge's.
    #[error(
        "no subnet for the gateway bridge is free in 172.16.0.0/12 and 192.168.0.0/16; give one with gateway-subnet"
    )]
    NoGatewaySubnet,
    /// All addresses of the gateway bridge are in use.
    #[error("all addresses of subnet {0} of the gateway bridge are in use")]
    GatewayFull(Subnet),
    /// What has the gateway bridge's name cannot be one.
    #[error("device {name} cannot be the gateway bridge: {reason}")]
    GatewayDevice {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// What has the name of the routing mesh's cable is not ours.
    #[error(
        "device {0} is in the way of the routing mesh, whose cable has this name; rename or remove it"
    )]
    MeshDevice(String),
    /// This host routes all that could be the routing mesh's.
    #[error(
        "no subnet for virtual addresses of the routing mesh is free: this host routes 198.18.0.0/15 and 172.16.0.0/12"
    )]
    NoMeshSubnet,
    /// There are more services than virtual addresses.
    #[error("the routing mesh has virtual addresses for {0} services on a node, and no more")]
    MeshFull(usize),
    /// The node's gate is not plugged in.
    #[error(
        "the node's endpoint on the ingress network has no interface {interface} in {path} yet"
    )]
    NoGate {
        /// The name that it is to have.
        interface: &'static str,
        /// The namespace.
        path: PathBuf,
    },
    /// A task's answers cannot find back to the node that a client asked.
    #[error("endpoint {endpoint} cannot answer clients of the routing mesh: {reason}")]
    Answers {
        /// The endpoint.
        endpoint: EndpointId,
        /// What is in the way.
        reason: String,
    },
    /// A setting of the host could not be read or changed.
    #[error("cannot {step} setting {path}: {source}")]
    Setting {
        /// What was tried.
        step: &'static str,
        /// The file below `/proc/sys`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A port cannot be published, because somebody has it.
    #[error(transparent)]
    PortTaken(#[from] PortTaken),
    /// A port cannot be published as asked for.
    #[error("cannot publish port {port}: {reason}")]
    Publish {
        /// The port.
        port: PortSpec,
        /// Why not.
        reason: &'static str,
    },
    /// The switch's thread could not be started or woken.
    #[error("cannot run the switch: {0}")]
    Runtime(#[source] io::Error),
    /// The switch's thread has ended.
    #[error("the switch has stopped")]
    Stopped,
    /// An operation on a network that is not there.
    #[error("network {0} is not on this dataplane")]
    UnknownNetwork(NetworkId),
    /// Another network has the VNI.
    #[error("VNI {vni} of network {network} is in use by network {other}")]
    VniInUse {
        /// The VNI.
        vni: Vni,
        /// The network that was to get it.
        network: NetworkId,
        /// The network that has it.
        other: NetworkId,
    },
    /// A security association could not be added.
    #[error("cannot add a security association: {0}")]
    Association(#[from] CryptoError),
    /// An endpoint's port cannot be changed while it is plugged in.
    #[error("endpoint {0} is plugged in otherwise; remove it first")]
    PortInUse(EndpointId),
    /// This dataplane cannot carry that.
    #[error("this dataplane cannot {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// A netlink socket, or the namespace that it is to speak to, cannot be opened.
    pub(crate) fn unopened(source: io::Error) -> Self {
        Self::Kernel { step: "open", subject: "a netlink socket".into(), source: source.into() }
    }

    /// Whether nf_tables of this kernel lacks what was asked for: it is too old for it, or built without.
    pub fn is_lack_of_kernel(&self) -> bool {
        let Self::Filter(NftError::Refused { source, .. } | NftError::List { source, .. }) = self
        else {
            return false;
        };
        source.raw_os_error() == Some(Errno::EOPNOTSUPP as i32)
    }
}
