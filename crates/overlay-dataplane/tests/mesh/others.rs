//! Others on the same hosts and in the same namespaces.

use core::{net::SocketAddr, time::Duration};
use std::net::TcpListener;

use anyhow::Result;
use overlay_dataplane::Error;
use overlay_testkit::{
    lab::{self, DOCKER},
    traffic::{is_refused, listen},
    until::until,
};

use crate::{
    probe::{any, exchange},
    site::{HOSTS, Services, Site, in_lab, outer, service, whole},
};

/// FORWARD drops by default, bridges hand packets to the firewall, and it reloads.
#[test]
fn s10_docker_on_the_same_host_disturbs_nothing() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let restore = |netns: &lab::Namespace, program: &str| {
            netns.run(&["sh", "-c", &format!("printf '{DOCKER}' | {program}-restore")])
        };
        for host in &site.hosts {
            for program in ["iptables-nft", "ip6tables-nft"] {
                restore(&host.netns, program)?;
            }
            for family in ["iptables", "ip6tables"] {
                let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
                host.netns.run(&["sh", "-c", &format!("echo 1 > {setting}")])?;
            }
        }
        let before = site.hosts[1].netns.run(&["iptables-nft", "-S"])?;
        let services = service(&["8080:80"], &[0])?;
        site.converge(&services)?;
        for (ipv6, program) in [(false, "iptables-nft"), (true, "ip6tables-nft")] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            for host in 1..=HOSTS {
                let target = SocketAddr::new(outer(ipv6, host), 8080);
                exchange(&site.client, target, &listener)?;
            }
            // A reload that forgets ours.
            restore(&site.hosts[1].netns, program)?;
            let target = SocketAddr::new(outer(ipv6, 2), 8080);
            assert!(is_refused(&site.client, target));
            assert!(!site.converge_host(2, &services)?.is_empty());
            exchange(&site.client, target, &listener)?;
        }
        site.remove(2)?;
        assert_eq!(site.hosts[1].netns.run(&["iptables-nft", "-S"])?, before);
        Ok(())
    })
}

/// Refused at once, by its number, and the other way round nobody else gets a published port.
#[test]
fn s09_a_port_in_use_is_refused_and_a_published_one_is_in_use() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[2])?;
        let theirs = listen(&site.hosts[0].netns, outer(false, 1), 8080)?;
        let services = service(&["8080:80", "8081:80"], &[0])?;
        let _ = site.reconcile(1, &services)?;
        let refused = site.reconcile(1, &services)?.refused;
        let [(_, error @ Error::PortTaken(_))] = &refused[..] else { panic!("{refused:?}") };
        assert!(error.to_string().contains("8080/tcp"), "{error}");
        site.converge_host(2, &services)?;
        // What somebody listens on is theirs; the other port is published.
        exchange(&site.client, theirs.local_addr()?, &theirs)?;
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        exchange(&site.client, SocketAddr::new(outer(false, 1), 8081), &listener)?;
        assert!(site.hosts[0].netns.enter(|| TcpListener::bind("0.0.0.0:8081")).is_err());
        drop(theirs);
        site.converge_host(1, &services)?;
        exchange(&site.client, SocketAddr::new(outer(false, 1), 8080), &listener)?;
        site.converge_host(1, &Services::new())?;
        // Commands of other tests that are just being started have its socket for a moment.
        until("the port is free", Duration::from_secs(20), || {
            Ok(site.hosts[0].netns.enter(|| TcpListener::bind("0.0.0.0:8081"))?)
        })?;
        Ok(())
    })
}

/// A device of somebody else that has the cable's name, and a subnet that the host routes.
#[test]
fn s10_what_is_in_the_way_is_left_alone_and_named() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80"], &[0])?;
        site.hosts[0].netns.ip("link add overlay_mesh type bridge")?;
        let refused = site.reconcile(1, &services)?.refused;
        assert!(refused.iter().any(|(_, e)| e.to_string().contains("overlay_mesh")), "{refused:?}");
        site.hosts[0].netns.ip("link delete overlay_mesh")?;
        site.hosts[0].netns.ip("route add 198.18.0.0/15 via 192.0.2.9")?;
        site.converge(&services)?;
        let shown = site.hosts[0].netns.ip("-4 address show dev overlay_mesh")?;
        assert!(shown.contains("172.31.0.1/30"), "{shown}");
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        exchange(&site.client, SocketAddr::new(outer(false, 1), 8080), &listener)?;
        Ok(())
    })
}

/// What a task does otherwise goes its own ways: its marks, and destinations that it has no route to.
#[test]
fn s11_a_tasks_own_routes_and_marks_are_not_touched() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80"], &[0])?;
        site.converge(&services)?;
        let task = lab::Namespace::open(&site.tasks[0].netns.path())?;
        // Without a route it is told at once that there is none.
        for target in ["198.51.100.1:80", "[2001:db8::1]:80"] {
            let target: SocketAddr = target.parse()?;
            let error = task.enter(|| std::net::TcpStream::connect(target)).unwrap_err();
            let kinds =
                [std::io::ErrorKind::HostUnreachable, std::io::ErrorKind::NetworkUnreachable];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
        site.add_way_out(0)?;
        assert!(task.ip("route get 198.51.100.1")?.contains("dev gw0"));
        // Somebody who marks the lower half of a connection's mark.
        let marks = "table inet theirs { chain pre { type filter hook prerouting priority -140; ct mark set ct \
                     mark or 0x539\n }\n }\n";
        task.run(&["nft", marks])?;
        let listener = listen(&task, any(false), 80)?;
        for host in 1..=HOSTS {
            let target = SocketAddr::new(outer(false, host), 8080);
            let [own, seen] = exchange(&site.client, target, &listener)?;
            assert_eq!(own, seen);
        }
        // A task in the host's own namespace cannot be told apart from the host.
        let path = site.hosts[0].netns.path();
        site.tasks[0].netns = lab::Namespace::open(&path)?;
        let outcome = site.reconcile(1, &services)?;
        let error = whole(outcome).unwrap_err();
        assert!(format!("{error:#}").contains("host's own"), "{error:#}");
        Ok(())
    })
}
