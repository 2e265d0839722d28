//! The dataplane in the Linux kernel: a namespace per overlay network, programmed over netlink.
//!
//! ```text
//!  host's namespace                overlay network's namespace           endpoint's namespace
//!
//!  UDP socket 4789 ◄────────────── vxlan0 ── br0 ── ep… ═══ veth ═══════ eth0
//!  (data-path address)             permanent FDB and      static FDB     addresses, routes
//!                                  neighbour entries      entry per port
//! ```
//!
//! Nothing is learned and nothing is flooded: who has an address, which Ethernet address it is at and
//! which node that is on are entries that this module writes. The VXLAN device answers ARP requests
//! and neighbour solicitations itself (`proxy`).
//!
//! The kernel holds the state. A namespace's file carries the id and VNI of its network, a port's
//! alias the id of its endpoint; [`KernelDataplane`] reads all of it back and remembers nothing that
//! it would need after a restart.
//!
//! - [`netlink`]: messages, attributes, the socket; `link`, `neighbor`, `address`, `route`, `policy`: what is
//!   said about each
//! - `netns`: namespaces as files; `inside`: sockets in one
//! - `stations`: who is where, as a table and as changes to it; pure
//! - `announce`: tells endpoints who has come
//! - `scaffold`, `port`: the devices of a network and of an endpoint
//! - [`capability`]: what a host lacks for all of this
//! - [`members`]: where it is enforced who may send into a network; [`filter`]: by nf_tables
//! - `fence`: what endpoints may send; pure in [`nft::fence`]
//! - `shortcut`: the short way of that past the bridge, a program of BPF; its `assembler` and `program` are
//!   pure
//! - [`nft`]: nf_tables, and transactions between tables
//! - `services`: virtual addresses, in the endpoints' namespaces; `conntrack` ends their flows
//! - [`xfrm`]: security associations, and policies that leave no way around them
//! - [`gateway`]: the way out of containers, and their published ports; beside the dataplane
//! - `tally`: what the rules have dropped
//! - `workshop`: where TAP devices of the switch in user space are made
//! - [`mesh`]: published ports of services, on every node; beside the dataplane
//! - `dataplane`, `observation`: operations, and reading back; `programmed`: what is there of a network
//! - `config`: what it is started with

mod address;
mod announce;
pub mod capability;
mod config;
mod conntrack;
mod dataplane;
mod directory;
mod fence;
pub mod filter;
pub mod gateway;
mod inside;
mod link;
pub mod members;
pub mod mesh;
mod neighbor;
pub mod netlink;
mod netns;
pub mod nft;
mod observation;
mod policy;
mod port;
mod programmed;
mod route;
mod scaffold;
mod services;
mod shortcut;
mod stations;
mod tally;
pub(crate) mod workshop;
pub mod xfrm;

#[cfg(test)]
mod tests;

use core::net::IpAddr;

use overlay_types::Subnet;

pub use config::KernelConfig;
pub use dataplane::KernelDataplane;
pub use gateway::{GatewayConfig, KernelGateway};
pub use mesh::{IngressMode, KernelMesh, MeshConfig};
pub use netns::{NetNs, NetNsId, of_process, set_loopback_up};
pub use tally::Tally;

/// MTU of an interface of the calling thread's namespace, which `/sys` may be of another one than.
/// `None` when there is none of this name.
pub fn interface_mtu(name: &str) -> std::io::Result<Option<u32>> {
    let socket = netlink::RouteSocket::open()?;
    let found = socket.get(link::named(name.as_bytes()), link::Link::parse);
    let found = found.map_err(|refusal| std::io::Error::other(refusal.to_string()))?;
    Ok(found.map(|link| link.mtu))
}

/// Has packets for these subnets leave by an interface of the calling thread's namespace, each from the address
/// beside it, without a gateway between.
pub(crate) fn put_routes(interface: &str, routes: &[(Subnet, IpAddr)]) -> std::io::Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = netlink::RouteSocket::open()?;
    routes.iter().try_for_each(|(subnet, source)| {
        let put = socket.request(route::put_direct(index, *subnet, *source));
        put.map_err(|refusal| std::io::Error::other(refusal.to_string()))
    })
}

/// Counts a call to the kernel, in tests that let the process crash before one.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "it fails in tests only"))]
fn call() -> std::io::Result<()> {
    #[cfg(test)]
    netlink::fuse::burn()?;
    Ok(())
}
