//! Whether this kernel can carry networks: by trying, in a namespace that is gone afterwards.

use core::net::{IpAddr, Ipv4Addr};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd,
};

use neli::consts::rtnl::Ifla;
use overlay_types::{MacAddr, Vni};

use super::{
    filter::NftFilter,
    gateway::setting,
    link::{self, Kind, Link, Peer, PortFlags, Vxlan},
    members::MemberFilter,
    netlink::{Refusal, RouteSocket},
    netns::{self, NetNs},
    nft::{
        Nft, NftError, Table, TableId, diff,
        fence::{self, Fence},
        gateway::{self, Gateway},
        publish::Ports,
    },
    shortcut, xfrm,
};
use crate::Error;

/// Something that the kernel dataplane needs and this host does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: &'static str,
    /// What the system said when it was tried.
    pub reason: String,
    /// How to get it.
    pub remedy: &'static str,
}

impl core::fmt::Display for Missing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.reason, self.remedy)
    }
}

const NAMESPACES: (&str, &str) = (
    "network namespaces",
    "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN, on a kernel with CONFIG_NET_NS",
);
const BRIDGE: (&str, &str) = ("bridges", "modprobe bridge (CONFIG_BRIDGE)");
const VXLAN: (&str, &str) = ("VXLAN devices", "modprobe vxlan (CONFIG_VXLAN)");
const VETH: (&str, &str) = ("veth pairs", "modprobe veth (CONFIG_VETH)");
const NFT: (&str, &str) = ("nf_tables", "modprobe nf_tables (CONFIG_NF_TABLES, _INET)");
const LOCKED: (&str, &str) = ("locked bridge ports", "run Linux 5.18 or later");

const ESP: (&str, &str) = (
    "ESP for encrypted networks",
    "modprobe esp4 esp6 (CONFIG_INET_ESP, CONFIG_INET6_ESP, CONFIG_CRYPTO_GCM); until then they are \
     carried in user space",
);
const FENCE: (&str, &str) =
    ("nf_tables at devices", "modprobe nf_tables (CONFIG_NF_TABLES_NETDEV, Linux 4.2 or later)");
const TRANSLATION: (&str, &str) = (
    "translation of addresses for containers' way out",
    "modprobe nft_masq nft_nat nft_fib_inet (CONFIG_NFT_MASQ, CONFIG_NFT_NAT, CONFIG_NFT_FIB_INET)",
);
const FORWARDING: (&str, &str) =
    ("leave to forward", "run where /proc/sys can be written (in a container: --privileged)");
const HOST: (&str, &str) = (
    "a say in the host's network namespace",
    "run as root, or in a network namespace of its own (unshare -Urnm)",
);
const SHORT_WAY: (&str, &str) = (
    "the short way past bridges, without which networks are slower",
    "run as root, not in a user namespace, and modprobe sch_ingress cls_bpf (CONFIG_BPF_SYSCALL, \
     CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)",
);

/// Index of the loopback device in each namespace.
const LOOPBACK: u32 = 1;

/// That of the device that is tried, which nothing else in its namespace can have.
const VNI: Vni = match Vni::new(Vni::MIN_OVERLAY) {
    Some(vni) => vni,
    None => unreachable!(),
};

/// Tries all that a network needs. Nothing is missing when there is nothing in the answer.
pub fn probe() -> Vec<Missing> {
    match netns::scratch(|netns| Ok(try_devices(netns, &RouteSocket::open()?))) {
        Ok(missing) => missing,
        Err(error) => vec![missing(NAMESPACES, &error)],
    }
}

/// Tries what encrypted networks need beside that. `None` when it is all there.
pub fn probe_esp() -> Option<Missing> {
    let tried = netns::scratch(|_| Ok(xfrm::try_both_families(&RouteSocket::open_xfrm()?)));
    match tried {
        Ok(outcome) => outcome.err().map(|refusal| missing(ESP, &refusal)),
        Err(error) => Some(missing(ESP, &error)),
    }
}

/// Tries what containers' way out needs, which is less than a network does.
pub fn probe_way_out() -> Vec<Missing> {
    let tried = netns::scratch(|netns| Ok(try_way_out(netns, &RouteSocket::open()?)));
    let mut found = tried.unwrap_or_else(|error| vec![missing(NAMESPACES, &error)]);
    // Who may make namespaces has no say yet in the one that it is in.
    if found.is_empty() {
        let may_look = Nft::open().and_then(|mut nft| nft.observe(&gateway::table_id()));
        found.extend(may_look.err().map(|error| missing(HOST, &error)));
    }
    found
}

/// What is missing for frames to go past bridges; networks go without.
pub fn short_way() -> Option<Missing> {
    let tried = netns::scratch(|_| Ok(shortcut::attempt(&RouteSocket::open()?, LOOPBACK)));
    let refused = match tried {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Some(missing(SHORT_WAY, &refused))
}

/// Makes a table in the calling thread's namespace.
fn try_table(id: &TableId, table: &Table) -> Result<(), NftError> {
    Nft::open()?.apply(&diff(id, Some(table), None))
}

fn missing((what, remedy): (&'static str, &'static str), reason: &impl ToString) -> Missing {
    Missing { what, reason: reason.to_string(), remedy }
}

fn try_devices(netns: &NetNs, socket: &RouteSocket) -> Vec<Missing> {
    let mut found = Vec::new();
    let mut attempt = |part, outcome: Result<(), Refusal>| {
        found.extend(outcome.err().map(|refusal| missing(part, &refusal)));
    };
    let config = Vxlan { vni: VNI, local: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 4789 };
    attempt(BRIDGE, socket.request(link::new_bridge(b"bridge")));
    attempt(VXLAN, socket.request(link::new_vxlan(b"vxlan", 1450, config, netns.as_fd())));
    attempt(VETH, new_port(netns, socket));
    let filtered = try_filter(config);
    if found.is_empty() {
        let outcome = try_port(socket, config);
        found.extend(outcome.err().map(|error| missing(LOCKED, &error)));
        found.extend(
            try_table(&fence::table_id(), &portless()).err().map(|error| missing(FENCE, &error)),
        );
    }
    found.extend(filtered.err().map(|error| missing(NFT, &error)));
    found
}

fn new_port(netns: &NetNs, socket: &RouteSocket) -> Result<(), Refusal> {
    let peer = Peer { name: b"peer", mac: MacAddr([2, 0, 0, 0, 0, 1]), netns: netns.as_fd() };
    socket.request(link::new_veth(b"port", 0, 1450, &peer))
}

fn try_way_out(netns: &NetNs, socket: &RouteSocket) -> Vec<Missing> {
    let subnets = "192.0.2.0/24".parse().into_iter().collect();
    let (bridge, ports) = ("bridge".to_owned(), Ports::default());
    let gateway = Gateway { bridge, subnets, masquerade: true, isolated: true, ports };
    let bridge = socket.request(link::new_bridge(b"bridge")).map_err(|e| missing(BRIDGE, &e));
    let port = new_port(netns, socket).map_err(|e| missing(VETH, &e));
    let table = try_table(&gateway::table_id(), &gateway.table());
    let table = table.map_err(|e| missing(TRANSLATION, &e));
    // What a container's host keeps from being written it keeps here, too.
    let forwards = setting::forward(netns, false).map_err(|e| missing(FORWARDING, &e));
    [bridge, port, table, forwards].into_iter().filter_map(Result::err).collect()
}

/// The fence of a network without ports, at the device that is tried.
fn portless() -> Table {
    let (ports, tunnel) = (BTreeMap::new(), ("vxlan".into(), 0));
    Fence { ports, tunnel }.table()
}

/// A table that lets one member in, read back.
fn try_filter(config: Vxlan) -> Result<(), Error> {
    let members = BTreeSet::from([config.local]);
    let mut filter = NftFilter::open(config.port)?;
    filter.set(config.vni, &members)?;
    match filter.observe()? {
        Some(_) => Ok(()),
        None => Err(Error::Unsupported("read its table back as it was made")),
    }
}

/// Older kernels take what they do not know of a port without a word: it is read back.
fn try_port(socket: &RouteSocket, config: Vxlan) -> io::Result<()> {
    let refused = |refusal: Refusal| io::Error::other(refusal.to_string());
    let find = |name: &[u8]| -> io::Result<Link> {
        let found = socket.get(link::named(name), Link::parse).map_err(refused)?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let (bridge, port) = (find(b"bridge")?, find(b"port")?);
    let flags = PortFlags { floods: false, locked: true };
    socket
        .request(link::set(port.index).put_u32(Ifla::Master, bridge.index))
        .and_then(|()| socket.request(link::set_port(port.index, flags)))
        .map_err(refused)?;
    let as_asked = find(b"port")?.port == Some(flags)
        && find(b"vxlan")?.kind == Kind::Vxlan(Some(config))
        && !bridge.snooping;
    if as_asked { Ok(()) } else { Err(io::Error::other("the kernel ignores it")) }
}

#[cfg(test)]
mod tests {
    use overlay_testkit::lab;

    use super::*;

    #[test]
    fn n19_a_kernel_that_carries_networks_lacks_nothing_and_is_left_as_it_was() {
        if lab::skip() {
            return;
        }
        let host = lab::Namespace::new().unwrap();
        let before = host.ip("-br link show").unwrap();
        assert_eq!(host.enter(probe), []);
        // Whether it has ESP is another question.
        let lacks_esp = host.enter(probe_esp).is_some();
        assert_eq!(lacks_esp, lab::has_esp(&host).is_err());
        assert_eq!(host.enter(probe_way_out), []);
        assert_eq!(host.enter(short_way), None);
        assert_eq!(host.ip("-br link show").unwrap(), before);
    }

    #[test]
    fn n19_what_is_missing_says_how_to_get_it() {
        let refusal = Refusal { errno: nix::errno::Errno::EOPNOTSUPP, text: None };
        let text = missing(VXLAN, &refusal).to_string();
        assert!(text.starts_with("VXLAN devices: ") && text.ends_with("(CONFIG_VXLAN)"), "{text}");
    }
}
