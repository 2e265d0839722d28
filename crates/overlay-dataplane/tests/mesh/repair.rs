//! What is damaged, restarted and removed.

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    lab,
    traffic::{listen, resumed},
    until::until,
};

use crate::{
    probe::{any, exchange},
    site::{HOSTS, Services, Site, in_lab, outer, service, whole},
};

fn all_nodes_answer(site: &Site) -> Result<()> {
    for ipv6 in [false, true] {
        // Commands of other tests that are just being started have the last one's socket for a moment.
        let listener = until("the port is free", Duration::from_secs(20), || {
            listen(&site.tasks[0].netns, any(ipv6), 80)
        })?;
        for host in 1..=HOSTS {
            let target = SocketAddr::new(outer(ipv6, host), 8080);
            let [own, seen] = exchange(&site.client, target, &listener)
                .with_context(|| format!("through {host}, IPv6 {ipv6}"))?;
            ensure!(own == seen, "through {host}: {own} is seen as {seen}");
        }
    }
    Ok(())
}

#[test]
fn d05_a_restart_changes_nothing_and_connections_go_on() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 2])?;
        let services = service(&["8080:80"], &[0])?;
        site.converge(&services)?;
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        let target = SocketAddr::new(outer(false, 1), 8080);
        let mut client = site.client.enter(|| TcpStream::connect(target))?;
        let (mut server, _) = resumed(|| listener.accept())?;
        let before = site.listing()?;
        for host in [1, 2] {
            site.restart(host)?;
            let changes = site.converge_host(host, &services)?;
            assert!(changes.is_empty(), "{changes:?}");
        }
        assert_eq!(site.listing()?, before);
        let mut buffer = [0; 4];
        client.write_all(b"ping")?;
        server.read_exact(&mut buffer)?;
        server.write_all(b"pong")?;
        client.read_exact(&mut buffer)?;
        // A gate that is new changes no number of the others.
        site.gates.remove(&3);
        site.converge(&services)?;
        site.restart(1)?;
        site.gates.insert(3);
        site.converge(&services)?;
        client.write_all(b"ping")?;
        server.read_exact(&mut buffer)?;
        drop((client, server, listener));
        all_nodes_answer(&site)
    })
}

#[test]
fn d06_what_somebody_deletes_comes_back() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80"], &[0])?;
        site.converge(&services)?;
        let gate = lab::Namespace::open("/run/node1/mesh".as_ref())?;
        let damage: [(&lab::Namespace, &str); 18] = [
            (&site.hosts[0].netns, "nft flush ruleset"),
            (&site.hosts[0].netns, "nft delete table inet overlay_mesh"),
            (&site.hosts[0].netns, "ip link delete overlay_mesh"),
            (&site.hosts[0].netns, "ip link set overlay_mesh down"),
            (&site.hosts[0].netns, "ip route delete 198.19.0.0/16"),
            (&site.hosts[0].netns, "ip address flush dev overlay_mesh"),
            (&site.hosts[0].netns, "ip neighbor flush dev overlay_mesh nud permanent"),
            (&gate, "nft flush ruleset"),
            (&gate, "ip link set host0 down"),
            (&gate, "ip route delete default"),
            (&gate, "ip -6 route delete default"),
            (&gate, "ip link delete ingress0"),
            (&site.tasks[0].netns, "nft flush ruleset"),
            (&site.tasks[0].netns, "ip rule delete priority 7946"),
            (&site.tasks[0].netns, "ip -6 rule delete priority 32800"),
            (&site.tasks[0].netns, "ip route flush table 1835365224"),
            (&site.tasks[0].netns, "ip neighbor flush dev eth0 nud permanent"),
            (&site.tasks[0].netns, "ip link delete eth0"),
        ];
        // Ends of the same namespaces, which stay while the site changes.
        let damage: Vec<_> = damage
            .into_iter()
            .map(|(netns, command)| Ok((lab::Namespace::open(&netns.path())?, command)))
            .collect::<Result<_>>()?;
        for (netns, command) in damage {
            netns.run(&command.split(' ').collect::<Vec<_>>()).context(command)?;
            let changes = site.converge_host(1, &services).context(command)?;
            assert!(!changes.is_empty() || command.contains("ruleset"), "{command}");
            all_nodes_answer(&site).context(command)?;
        }
        Ok(())
    })
}

/// Connections are marked with the numbers of gates, and outlive tables.
#[test]
fn d06_gates_keep_their_numbers_when_somebody_clears_a_tasks_tables() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        let services = service(&["8080:80"], &[0])?;
        site.converge(&services)?;
        // The numbers are not those that would be given now.
        site.gates.remove(&1);
        site.converge(&services)?;
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        let target = SocketAddr::new(outer(false, 3), 8080);
        let mut client = site.client.enter(|| TcpStream::connect(target))?;
        let (mut server, _) = resumed(|| listener.accept())?;
        site.tasks[0].netns.run(&["nft", "flush", "ruleset"])?;
        assert!(!site.converge_host(1, &services)?.is_empty());
        let mut buffer = [0; 4];
        client.set_read_timeout(Some(Duration::from_secs(20)))?;
        client.write_all(b"ping")?;
        server.read_exact(&mut buffer)?;
        server.write_all(b"pong")?;
        client.read_exact(&mut buffer).context("the answer goes to another gate")?;
        Ok(())
    })
}

/// Of a node that answers on no published port, and whose daemon was away meanwhile.
#[test]
fn s11_d05_ways_back_stay_until_a_comparison_with_endpoints() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&Services::new())?;
        let without = site.listing()?;
        site.converge(&service(&["8080:80"], &[0])?)?;
        site.restart(1)?;
        let plugged = site.plugged(1);
        let mesh = &mut site.host(1).mesh;
        let changes = whole(mesh.reconcile_tasks(None, &BTreeMap::new()))?;
        assert!(changes.is_empty(), "{changes:?}");
        assert_eq!(whole(mesh.reconcile_tasks(None, &plugged))?.len(), 1);
        assert!(whole(mesh.reconcile_tasks(None, &plugged))?.is_empty());
        // Nothing else was touched.
        site.converge(&Services::new())?;
        assert_eq!(site.listing()?, without);
        Ok(())
    })
}

#[test]
fn r09_d07_what_was_removed_leaves_nothing() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 2])?;
        for host in 1..=HOSTS {
            let netns = &site.hosts[usize::from(host) - 1].netns;
            netns.run(&["iptables-nft", "-P", "FORWARD", "DROP"])?;
            // What stays: the host forwards.
            netns.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
            netns.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"])?;
        }
        let before = site.listing()?;
        let services = service(&["8080:80", "5353:53/udp", "3868:80/sctp"], &[0])?;
        site.converge(&services)?;
        assert_ne!(site.listing()?, before);
        for host in 1..=HOSTS {
            site.remove(host)?;
        }
        assert_eq!(site.listing()?, before);
        assert!(!std::path::Path::new("/run/node1").exists());
        // Nor what is removed by a process that did not make it.
        site.converge(&services)?;
        for host in 1..=HOSTS {
            site.restart(host)?;
            site.remove(host)?;
        }
        assert_eq!(site.listing()?, before);
        // An endpoint that is a task no more, also if the daemon was away meanwhile.
        site.converge(&Services::new())?;
        let without = site.listing()?;
        for restarts in [false, true] {
            site.converge(&services)?;
            if restarts {
                site.restart(1)?;
            }
            site.converge(&Services::new())?;
            assert_eq!(site.listing()?, without);
        }
        Ok(())
    })
}
