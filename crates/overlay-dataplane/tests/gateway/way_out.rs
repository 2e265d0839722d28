//! The way out of containers, and between them.

use anyhow::Result;
use overlay_dataplane::{desired::Uplinks, kernel::GatewayConfig};
use overlay_testkit::{
    lab,
    traffic::{connect, is_refused, listen, strays},
};

use crate::site::{B, BRIDGE, Site, converge, inside, outer};

#[test]
fn n18_containers_have_a_way_out_behind_the_hosts_address() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    converge(&mut gateway, &site.uplinks(&[])?)?;
    for ipv6 in [false, true] {
        for container in [&site.a, &site.b] {
            let listener = listen(&site.outside, outer(ipv6, 9), 80)?;
            let seen = connect(container, listener.local_addr()?, &listener)?;
            assert!([1, 7].map(|number| outer(ipv6, number)).contains(&seen), "{seen}");
        }
    }
    // Without a duplicate being looked for, and with the size of what the host can send.
    let shown = site.a.ip("address show dev gw0")?;
    assert!(!shown.contains("global tentative") && shown.contains("mtu 1500"), "{shown}");
    Ok(())
}

#[test]
fn n18_containers_do_not_reach_each_other_nor_anybody_them() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    for filtered in [false, true] {
        let site = Site::new(filtered)?;
        let mut gateway = site.start()?;
        converge(&mut gateway, &site.uplinks(&[])?)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.b, inside(&site.b, ipv6)?, 80)?;
            let target = listener.local_addr()?;
            assert!(is_refused(&site.a, target), "over the bridge");
            let length = if ipv6 { 128 } else { 32 };
            site.a.ip(&format!(
                "route add {}/{length} via {}",
                target.ip(),
                site.gateway(ipv6)?
            ))?;
            assert!(is_refused(&site.a, target), "through the host");
            let none: [i32; 0] = [];
            assert_eq!(strays(&site.a, &site.b, target.ip())?, none, "of no connection");
            let net = if ipv6 { "fd20::/64" } else { "172.20.0.0/16" };
            site.outside.ip(&format!("route add {net} via {}", outer(ipv6, 1)))?;
            assert!(is_refused(&site.outside, target), "from outside");
            assert_eq!(strays(&site.outside, &site.b, target.ip())?, none, "from outside");
            connect(&site.host, target, &listener)?;
        }
    }
    Ok(())
}

/// Addresses stay when another container comes or goes, and the bridge goes with the last one.
#[test]
fn n18_the_bridge_is_there_while_somebody_needs_it() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start_as(GatewayConfig::default())?;
    let all = site.uplinks(&[])?;
    let mut one = all.clone();
    one.containers.retain(|_, uplink| uplink.endpoints.contains_key(&B));
    converge(&mut gateway, &one)?;
    let (address, bridge) = (inside(&site.b, false)?, site.gateway(false)?);
    assert_eq!(bridge.to_string(), "172.18.0.1");
    assert!(site.gateway(true).is_err(), "IPv6 only where it is configured");
    converge(&mut gateway, &all)?;
    assert_ne!(inside(&site.a, false)?, address);
    converge(&mut gateway, &one)?;
    assert!(site.a.ip("link show gw0").is_err());
    assert_eq!((inside(&site.b, false)?, site.gateway(false)?), (address, bridge));
    converge(&mut gateway, &Uplinks::default())?;
    assert!(site.host.ip(&format!("link show {BRIDGE}")).is_err());
    Ok(())
}

/// Two paths can stand for one namespace, and an endpoint can be in the host's.
#[test]
fn n18_a_namespace_has_one_way_out_and_the_hosts_has_its_own() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    let mut desired = site.uplinks(&[])?;
    let again = site.a.path().to_string_lossy().replace("/proc/", "/proc/./");
    let uplink = desired.containers[&site.b.path()].clone();
    desired.containers.insert(again.into(), uplink.clone());
    desired.containers.insert(site.host.path(), uplink);
    converge(&mut gateway, &desired)?;
    assert_eq!(site.a.ip("-br link show")?.matches("gw").count(), 1);
    assert_eq!(site.host.ip("-br link show type veth")?.matches("gw4").count(), 2);
    let route = site.host.ip("route show default")?;
    assert!(route.contains("cable") && route.lines().count() == 1, "{route}");
    Ok(())
}

/// A container that has a way out of its own keeps it.
#[test]
fn n18_a_default_route_that_is_there_stays() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    site.a.ip("link add own type bridge")?;
    site.a.ip("link set own up")?;
    site.a.ip("route add default dev own")?;
    let mut gateway = site.start()?;
    converge(&mut gateway, &site.uplinks(&[])?)?;
    assert!(site.a.ip("-4 route show default")?.contains("dev own"));
    assert!(site.a.ip("-6 route show default")?.contains("dev gw0"));
    Ok(())
}

#[test]
fn n18_a_subnet_that_is_in_use_is_refused() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    site.host.ip("route add 172.20.3.0/24 dev cable")?;
    let before = site.listing()?;
    let mut gateway = site.start()?;
    let desired = site.uplinks(&[])?;
    let error = converge(&mut gateway, &desired).unwrap_err();
    assert!(format!("{error:#}").contains("172.20.3.0/24"), "{error:#}");
    assert_eq!(site.listing()?, before, "nothing was changed");
    // Without a choice there is another one.
    let mut gateway = site.start_as(GatewayConfig::default())?;
    site.host.ip("route add 172.18.0.0/15 dev cable")?;
    let mut desired = site.uplinks(&[])?;
    desired.subnets.insert("172.21.0.0/16".parse()?);
    converge(&mut gateway, &desired)?;
    assert_eq!(site.gateway(false)?.to_string(), "172.22.0.1");
    // A network that came later, with the same addresses.
    let uplink = desired.containers.get_mut(&site.a.path()).expect("a");
    uplink.subnets.insert("172.22.9.0/24".parse()?);
    let error = converge(&mut gateway, &desired).unwrap_err();
    assert!(format!("{error:#}").contains("172.22.9.0/24"), "{error:#}");
    Ok(())
}

/// The kernel takes an uplink away with its namespace.
#[test]
fn n18_a_container_that_vanished_leaves_nothing() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    let before = site.host.ip("-br link show")?;
    let mut gateway = site.start()?;
    let desired = site.uplinks(&["8080:80"])?;
    converge(&mut gateway, &desired)?;
    let (a, b) = (lab::Namespace::new()?, lab::Namespace::new()?);
    (site.a, site.b) = (a, b);
    let outcome = gateway.reconcile(&desired);
    assert_eq!(outcome.refused.len(), 2, "{outcome:?}");
    converge(&mut gateway, &Uplinks::default())?;
    assert_eq!(site.host.ip("-br link show")?, before);
    Ok(())
}
