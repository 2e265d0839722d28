//! The way out of endpoints, and between them.
//!
//! ```text
//!  a .2 ─┐
//!        ├─ overlay_gwbr 172.20.0.1 │ host │ 192.0.2.1 ═══ 192.0.2.9 outside
//!  b .3 ─┘
//! ```

use core::net::IpAddr;

use anyhow::{Context, Result};
use overlay_dataplane::kernel::nft::{
    gateway::{self, Gateway, PortMode},
    publish::{HostPort, Target},
};
use overlay_testkit::{
    lab::{self, Namespace},
    traffic::{connect, is_refused, listen},
};
use overlay_types::{Addresses, Protocol, Subnet};

use crate::host::Host;

pub(crate) const BRIDGE: &str = "overlay_gwbr";

/// A host with two endpoints on its gateway bridge, and somebody outside.
pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) gateway: Gateway,
}

/// Changes a setting below `net`.
pub(crate) fn set(namespace: &Namespace, setting: &str, value: u8) -> Result<()> {
    let path = format!("/proc/sys/net/{setting}");
    namespace.enter(|| std::fs::write(&path, value.to_string())).context(path)
}

/// An address on the bridge.
pub(crate) fn inside(ipv6: bool, number: u8) -> IpAddr {
    if ipv6 {
        [0xfd20, 0, 0, 0, 0, 0, 0, number.into()].into()
    } else {
        [172, 20, 0, number].into()
    }
}

/// An address on the cable.
pub(crate) fn outer(ipv6: bool, number: u8) -> IpAddr {
    if ipv6 { [0xfd99, 0, 0, 0, 0, 0, 0, number.into()].into() } else { [192, 0, 2, number].into() }
}

impl Site {
    /// `filtered`: the host filters packets in bridges, as for Docker or Kubernetes.
    pub(crate) fn new(filtered: bool) -> Result<Self> {
        let (host, a, b, outside) =
            (Host::new()?, Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let on_host = &host.namespace;
        on_host.ip(&format!("link add {BRIDGE} type bridge"))?;
        on_host.ip(&format!("link set {BRIDGE} up"))?;
        for (setting, value) in [
            ("ipv4/ip_forward", 1),
            ("ipv6/conf/all/forwarding", 1),
            ("ipv4/conf/overlay_gwbr/route_localnet", 1),
            ("bridge/bridge-nf-call-iptables", filtered.into()),
            ("bridge/bridge-nf-call-ip6tables", filtered.into()),
        ] {
            set(on_host, setting, value)?;
        }
        on_host.connect("cable", &outside, "cable")?;
        for (namespace, port) in [(&a, "porta"), (&b, "portb")] {
            on_host.connect(port, namespace, "eth0")?;
            on_host.ip(&format!("link set {port} master {BRIDGE}"))?;
            let PortMode { isolated, hairpin } = PortMode::new(filtered, filtered);
            let [isolated, hairpin] = [isolated, hairpin].map(|on| if on { "on" } else { "off" });
            let mode = format!("isolated {isolated} hairpin {hairpin}");
            on_host.ip(&format!("link set {port} type bridge_slave {mode}"))?;
        }
        for ipv6 in [false, true] {
            let (wide, narrow) = if ipv6 { ("64 nodad", "64 nodad") } else { ("16", "24") };
            on_host.ip(&format!("address add {}/{wide} dev {BRIDGE}", inside(ipv6, 1)))?;
            for number in [1, 7] {
                on_host.ip(&format!("address add {}/{narrow} dev cable", outer(ipv6, number)))?;
            }
            outside.ip(&format!("address add {}/{narrow} dev cable", outer(ipv6, 9)))?;
            for (namespace, number) in [(&a, 2), (&b, 3)] {
                let address = inside(ipv6, number);
                namespace.ip(&format!("address add {address}/{wide} dev eth0"))?;
                namespace.ip(&format!("route add default via {}", inside(ipv6, 1)))?;
            }
        }
        let subnets = ["172.20.0.0/16", "fd20::/64"]
            .map(|text| Subnet::parse("subnet", text))
            .into_iter()
            .collect::<Result<_, _>>()?;
        let gateway = Gateway {
            bridge: BRIDGE.into(),
            subnets,
            masquerade: true,
            isolated: true,
            ..Gateway::default()
        };
        Ok(Self { host, a, b, outside, gateway })
    }

    /// Puts the table as the gateway is.
    pub(crate) fn put(&mut self) -> Result<()> {
        self.host.put(&gateway::table_id(), Some(&self.gateway.table()))?;
        Ok(())
    }

    /// Publishes a port of endpoint `a`.
    pub(crate) fn publish(
        &mut self,
        protocol: Protocol,
        on: Option<IpAddr>,
        port: u16,
        target: u16,
    ) {
        let (v4, v6) = (inside(false, 2), inside(true, 2));
        let mut addresses = Addresses::default();
        addresses.set(v4);
        addresses.set(v6);
        let host = HostPort { protocol, address: on, port };
        self.gateway.ports.insert(host, Target { addresses, port: target });
    }
}

#[test]
fn n18_endpoints_have_a_way_out_behind_the_hosts_address() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    site.put()?;
    for ipv6 in [false, true] {
        let listener = listen(&site.outside, outer(ipv6, 9), 80)?;
        let seen = connect(&site.a, listener.local_addr()?, &listener)?;
        assert!([1, 7].map(|number| outer(ipv6, number)).contains(&seen), "{seen}");
        // To the host itself nothing is translated.
        let listener = listen(&site.host.namespace, outer(ipv6, 1), 81)?;
        let seen = connect(&site.a, listener.local_addr()?, &listener)?;
        assert_eq!(seen, inside(ipv6, 2));
    }
    Ok(())
}

#[test]
fn n18_endpoints_do_not_reach_each_other_nor_anybody_them() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    kept_apart(false)?;
    kept_apart(true)
}

fn kept_apart(filtered: bool) -> Result<()> {
    let mut site = Site::new(filtered)?;
    site.put()?;
    for ipv6 in [false, true] {
        let listener = listen(&site.b, inside(ipv6, 3), 80)?;
        let target = listener.local_addr()?;
        assert!(is_refused(&site.a, target), "over the bridge");
        // Through the host, as if it were elsewhere.
        let host = inside(ipv6, 1);
        let length = if ipv6 { 128 } else { 32 };
        site.a.ip(&format!("route add {}/{length} via {host}", target.ip()))?;
        let before = site.host.counted("between endpoints")?;
        assert!(is_refused(&site.a, target), "through the host");
        assert!(site.host.counted("between endpoints")? > before);
        // From outside, by who knows the way.
        let network = if ipv6 { "fd20::/64" } else { "172.20.0.0/16" };
        site.outside.ip(&format!("route add {network} via {}", outer(ipv6, 1)))?;
        let before = site.host.counted("to what is not published")?;
        assert!(is_refused(&site.outside, target), "from outside");
        assert!(site.host.counted("to what is not published")? > before);
        // The host itself reaches them, and without the table everybody does.
        connect(&site.host.namespace, target, &listener)?;
    }
    site.host.put(&gateway::table_id(), None)?;
    let listener = listen(&site.b, inside(false, 3), 80)?;
    connect(&site.outside, listener.local_addr()?, &listener)?;
    Ok(())
}

/// A bridge that was there before is used as it is.
#[test]
fn n18_what_is_not_asked_for_is_not_done() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    site.gateway.masquerade = false;
    site.gateway.isolated = false;
    site.put()?;
    site.outside.ip(&format!("route add 172.20.0.0/16 via {}", outer(false, 1)))?;
    let listener = listen(&site.outside, outer(false, 9), 80)?;
    let seen = connect(&site.a, listener.local_addr()?, &listener)?;
    assert_eq!(seen, inside(false, 2));
    let listener = listen(&site.b, inside(false, 3), 80)?;
    connect(&site.outside, listener.local_addr()?, &listener)?;
    Ok(())
}
