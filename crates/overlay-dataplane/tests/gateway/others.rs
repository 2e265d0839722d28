//! Others on the same host: a bridge that is there, firewalls, Docker.

use core::net::SocketAddr;

use anyhow::Result;
use overlay_dataplane::{desired::Uplinks, kernel::GatewayConfig};
use overlay_testkit::{
    lab::{self, DOCKER},
    traffic::{connect, is_refused, listen},
};

use crate::site::{BRIDGE, Site, converge, inside, outer, set};

#[test]
fn n18_an_existing_bridge_is_used_as_it_is() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let there = lab::Namespace::new()?;
    // With an address of its own, as whoever wants it to have one gives it. A bridge without one has
    // that of one of its ports.
    site.host.ip(&format!("link add {BRIDGE} address 02:00:00:00:00:01 type bridge"))?;
    site.host.ip(&format!("link set {BRIDGE} up"))?;
    site.host.ip(&format!("address add 172.31.0.5/28 dev {BRIDGE}"))?;
    site.host.connect("theirs", &there, "eth0")?;
    site.host.ip(&format!("link set theirs master {BRIDGE}"))?;
    there.ip("address add 172.31.0.6/28 dev eth0")?;
    there.ip("route add default via 172.31.0.5")?;
    let listener = listen(&there, [172, 31, 0, 6].into(), 80)?;
    connect(&site.host, listener.local_addr()?, &listener)?;
    let look = || -> Result<String> {
        let link = site.host.ip(&format!("-d link show dev {BRIDGE}"))?;
        let passing = |word: &&str| !word.ends_with("_timer") && word.parse::<f64>().is_err();
        let link: Vec<_> = link.split_whitespace().filter(passing).collect();
        Ok(format!("{link:?}{}", site.host.ip(&format!("address show dev {BRIDGE}"))?))
    };
    let before = look()?;

    let mut gateway = site.start_as(GatewayConfig::default())?;
    converge(&mut gateway, &site.uplinks(&["8080:80"])?)?;
    assert_eq!(look()?, before);
    // From its subnet, and nobody's who is there.
    let own = [inside(&site.a, false)?, inside(&site.b, false)?];
    assert!(own.iter().all(|address| address.to_string().starts_with("172.31.0.")), "{own:?}");
    assert!(!own.map(|a| a.to_string()).contains(&"172.31.0.6".to_owned()));
    let out = listen(&site.outside, outer(false, 9), 80)?;
    assert_eq!(connect(&site.a, out.local_addr()?, &out)?, outer(false, 1));
    let published = listen(&site.a, own[0], 80)?;
    connect(&site.outside, SocketAddr::new(outer(false, 1), 8080), &published)?;
    // Ours are kept apart; who was there is reached as before, and is not masqueraded.
    let target = listen(&site.b, own[1], 80)?.local_addr()?;
    assert!(is_refused(&site.a, target));
    connect(&site.a, listener.local_addr()?, &listener)?;
    site.outside.ip(&format!("route add 172.31.0.0/28 via {}", outer(false, 1)))?;
    assert_eq!(connect(&there, out.local_addr()?, &out)?.to_string(), "172.31.0.6");

    converge(&mut gateway, &Uplinks::default())?;
    assert_eq!(look()?, before);
    Ok(())
}

#[test]
fn n18_what_cannot_be_the_bridge_is_left_alone_and_named() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    for kind in ["veth", "bridge"] {
        site.host.ip(&format!("link add {BRIDGE} type {kind}"))?;
        let before = site.listing()?;
        let mut gateway = site.start_as(GatewayConfig::default())?;
        let error = converge(&mut gateway, &site.uplinks(&[])?).unwrap_err();
        assert!(format!("{error:#}").contains(BRIDGE), "{error:#}");
        assert_eq!(site.listing()?, before);
        site.host.ip(&format!("link delete {BRIDGE}"))?;
    }
    Ok(())
}

/// FORWARD drops by default, bridges hand packets to the firewall, and it reloads.
#[test]
fn n18_s16_docker_on_the_same_host_disturbs_nothing() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(true)?;
    let restore = |program: &str| {
        let script = format!("printf '{DOCKER}' | {program}-restore");
        site.host.run(&["sh", "-c", &script])
    };
    let rules = |program: &str| site.host.run(&[program, "-S"]);
    for program in ["iptables-nft", "ip6tables-nft"] {
        restore(program)?;
    }
    let before = rules("iptables-nft")?;
    let mut gateway = site.start()?;
    let desired = site.uplinks(&["8080:80", "8081:81"])?;
    converge(&mut gateway, &desired)?;
    for (ipv6, program) in [(false, "iptables-nft"), (true, "ip6tables-nft")] {
        let listener = listen(&site.a, inside(&site.a, ipv6)?, 80)?;
        let target = SocketAddr::new(outer(ipv6, 1), 8080);
        connect(&site.outside, target, &listener)?;
        connect(&site.b, target, &listener)?;
        let out = listen(&site.outside, outer(ipv6, 9), 70)?;
        connect(&site.a, out.local_addr()?, &out)?;
        let _refused = listen(&site.a, inside(&site.a, ipv6)?, 81)?;
        assert!(is_refused(&site.outside, SocketAddr::new(outer(ipv6, 1), 8081)), "as they want");
        // A reload that forgets ours.
        restore(program)?;
        assert!(is_refused(&site.outside, target));
        assert!(!converge(&mut gateway, &desired)?.is_empty());
        connect(&site.outside, target, &listener)?;
    }
    // Docker stops, and later starts: bridges filter no more, and again.
    for filtered in [0, 1] {
        set(&site.host, "bridge/bridge-nf-call-iptables", filtered)?;
        set(&site.host, "bridge/bridge-nf-call-ip6tables", filtered)?;
        converge(&mut gateway, &desired)?;
        let listener = listen(&site.a, inside(&site.a, false)?, 80)?;
        connect(&site.b, SocketAddr::new(outer(false, 1), 8080), &listener)?;
        let target = listen(&site.b, inside(&site.b, false)?, 80)?;
        assert!(is_refused(&site.a, target.local_addr()?), "over the bridge");
    }
    converge(&mut gateway, &Uplinks::default())?;
    assert_eq!(rules("iptables-nft")?, before);
    Ok(())
}
