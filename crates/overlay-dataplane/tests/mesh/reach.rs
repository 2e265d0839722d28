//! Who is reached, and whom the server sees.

use core::net::SocketAddr;
use std::net::{TcpStream, UdpSocket};

use anyhow::{Context, Result};
use overlay_dataplane::kernel::IngressMode;
use overlay_testkit::{
    lab,
    traffic::{associate, is_refused, listen},
};

use crate::{
    probe::{any, ask, exchange},
    site::{HOSTS, Site, address, gate, in_lab, inner, outer, service},
};

#[test]
fn s10_s11_every_node_answers_and_the_task_sees_the_client() -> Result<()> {
    in_lab(|| {
        // On its own node, with a way out of its own and without one.
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80", "5353:53/udp", "3868:3868/sctp"], &[0])?;
        site.converge(&services)?;
        for has_way_out in [false, true] {
            if has_way_out {
                site.add_way_out(0)?;
            }
            let task = &site.tasks[0].netns;
            for ipv6 in [false, true] {
                // Bound to no address, and to its own.
                for on in [any(ipv6), address(inner(11), ipv6)] {
                    let listener = listen(task, on, 80)?;
                    let server = task.enter(|| UdpSocket::bind((on, 53)))?;
                    for host in 1..=HOSTS {
                        let what = || format!("IPv6 {ipv6}, through {host}, way out {has_way_out}");
                        let to = |port| SocketAddr::new(outer(ipv6, host), port);
                        let [own, seen] =
                            exchange(&site.client, to(8080), &listener).with_context(what)?;
                        assert_eq!(own, seen, "{}", what());
                        let [own, seen] =
                            ask(&site.client, to(5353), &server).with_context(what)?;
                        assert_eq!(own, seen, "{}", what());
                    }
                }
            }
            for host in 1..=HOSTS {
                let to = [192, 0, 2, host].into();
                let seen = associate(&site.client, to, 3868, task, 3868);
                assert_eq!(seen.with_context(|| format!("through {host}"))?, outer(false, 9));
            }
        }
        Ok(())
    })
}

/// A node of the user dataplane: its gate and its tasks are behind TAP devices.
#[test]
fn s10_s11_a_node_of_the_user_dataplane_is_a_node_like_others() -> Result<()> {
    in_lab(|| {
        let mut site = Site::with(&[1, 3], IngressMode::Transparent, Some(3))?;
        let mut services = service(&["8080:80", "5353:53/udp"], &[0])?;
        services.insert(2, crate::site::published(&["8081:80", "5354:53/udp"], &[1])?);
        site.converge(&services)?;
        site.settle()?;
        for ipv6 in [false, true] {
            for (task, ports) in [(0, [8080, 5353]), (1, [8081, 5354])] {
                let task = &site.tasks[task].netns;
                let listener = listen(task, any(ipv6), 80)?;
                let server = task.enter(|| UdpSocket::bind((any(ipv6), 53)))?;
                for host in 1..=HOSTS {
                    let what = || format!("port {}, IPv6 {ipv6}, through {host}", ports[0]);
                    let to = |port| SocketAddr::new(outer(ipv6, host), port);
                    let [own, seen] =
                        exchange(&site.client, to(ports[0]), &listener).with_context(what)?;
                    assert_eq!(own, seen, "{}", what());
                    let [own, seen] =
                        ask(&site.client, to(ports[1]), &server).with_context(what)?;
                    assert_eq!(own, seen, "{}", what());
                }
            }
        }
        Ok(())
    })
}

/// Tasks on other nodes, several services, and ports of ranges.
#[test]
fn s10_flows_go_round_over_all_tasks_from_every_node() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 2, 2])?;
        let mut services = service(&["8080:80"], &[0, 1, 2])?;
        services.insert(2, crate::site::published(&["8081:80", "8082-8083:81-82"], &[2])?);
        site.converge(&services)?;
        for ipv6 in [false, true] {
            let servers = site.tasks.iter().map(|task| listen(&task.netns, any(ipv6), 80));
            let servers = servers.collect::<Result<Vec<_>>>()?;
            for host in 1..=HOSTS {
                let counts = crate::flows::count(
                    &site,
                    SocketAddr::new(outer(ipv6, host), 8080),
                    &servers,
                    9,
                )?;
                assert_eq!(counts, [3, 3, 3], "through {host}");
                exchange(&site.client, SocketAddr::new(outer(ipv6, host), 8081), &servers[2])?;
            }
            let other = listen(&site.tasks[2].netns, any(ipv6), 82)?;
            exchange(&site.client, SocketAddr::new(outer(ipv6, 3), 8083), &other)?;
        }
        Ok(())
    })
}

#[test]
fn s10_a_port_answers_on_the_chosen_address_only() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 3])?;
        for host in 1..=HOSTS {
            let netns = &site.hosts[usize::from(host) - 1].netns;
            netns.ip(&format!("address add 192.0.2.{}/24 dev cable", 20 + host))?;
        }
        // Only the second host has the address; two services share the number.
        let mut services = service(&["192.0.2.22:8080:80"], &[0])?;
        services
            .insert(2, crate::site::published(&["192.0.2.2:8080:80", "[fd99::2]:8081:80"], &[1])?);
        site.converge(&services)?;
        let servers = [
            listen(&site.tasks[0].netns, any(false), 80)?,
            listen(&site.tasks[1].netns, any(false), 80)?,
        ];
        let v6 = listen(&site.tasks[1].netns, address(inner(12), true), 80)?;
        exchange(&site.client, "192.0.2.22:8080".parse()?, &servers[0])?;
        exchange(&site.client, "192.0.2.2:8080".parse()?, &servers[1])?;
        exchange(&site.client, "[fd99::2]:8081".parse()?, &v6)?;
        for other in ["192.0.2.1:8080", "192.0.2.3:8080", "192.0.2.2:8081", "[fd99::1]:8081"] {
            assert!(is_refused(&site.client, other.parse()?), "{other}");
        }
        Ok(())
    })
}

/// From the host itself by any of its addresses, and from a container that the host masquerades.
#[test]
fn s10_a_port_answers_on_its_own_host_too() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80", "5353:53/udp"], &[0])?;
        site.converge(&services)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            let server = site.tasks[0].netns.enter(|| UdpSocket::bind((any(ipv6), 53)))?;
            for host in [1, 2] {
                let netns = &site.hosts[usize::from(host) - 1].netns;
                let own = outer(ipv6, host);
                let [_, seen] = exchange(netns, SocketAddr::new(own, 8080), &listener)?;
                assert_eq!(seen.ip(), own);
                let [_, seen] = ask(netns, SocketAddr::new(own, 5353), &server)?;
                assert_eq!(seen.ip(), own);
                if ipv6 {
                    let loopback = SocketAddr::from((core::net::Ipv6Addr::LOCALHOST, 8080));
                    let refused = netns.enter(|| TcpStream::connect(loopback)).unwrap_err();
                    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "at once");
                } else {
                    let loopback = SocketAddr::from(([127, 0, 0, 1], 8080));
                    let [_, seen] = exchange(netns, loopback, &listener)?;
                    assert_eq!(seen.ip(), gate(false, host));
                }
            }
        }
        // Its own task asks its node: not by the ingress network.
        let container = lab::Namespace::new()?;
        let host = &site.hosts[1].netns;
        host.connect("inside", &container, "eth0")?;
        host.ip("address add 172.29.0.1/24 dev inside")?;
        container.ip("address add 172.29.0.2/24 dev eth0")?;
        container.ip("route add default via 172.29.0.1")?;
        let masquerade = "table ip theirs { chain post { type nat hook postrouting priority 100; ip \
                          saddr 172.29.0.0/24 oifname != \"inside\" masquerade\n }\n }\n";
        host.run(&["nft", masquerade])?;
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        for address in [outer(false, 2), "172.29.0.1".parse()?] {
            let [_, seen] = exchange(&container, SocketAddr::new(address, 8080), &listener)?;
            assert_eq!(seen.ip(), gate(false, 2), "an address that is not the cluster's alone");
        }
        Ok(())
    })
}

/// As with Docker: tasks need nothing.
#[test]
fn s10_with_snat_tasks_see_the_gate() -> Result<()> {
    in_lab(|| {
        let mut site = Site::with(&[1], IngressMode::Snat, None)?;
        site.gates.clear();
        let services = service(&["8080:80", "5353:53/udp"], &[0])?;
        site.converge(&services)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            let server = site.tasks[0].netns.enter(|| UdpSocket::bind((any(ipv6), 53)))?;
            for host in 1..=HOSTS {
                let to = |port| SocketAddr::new(outer(ipv6, host), port);
                let [_, seen] = exchange(&site.client, to(8080), &listener)?;
                assert_eq!(seen.ip(), gate(ipv6, host));
                let [_, seen] = ask(&site.client, to(5353), &server)?;
                assert_eq!(seen.ip(), gate(ipv6, host));
            }
        }
        Ok(())
    })
}
