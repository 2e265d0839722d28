//! Packets that say they are from elsewhere, or belong to nothing.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    lab::Namespace,
    traffic::{resumed, strays},
};

use crate::{
    probe::{any, ask, is_silent},
    site::{HOSTS, Site, gate, in_lab, outer, service},
};

/// Sends a datagram with this source, as a raw socket could.
fn send_as(from: &Namespace, source: IpAddr, target: SocketAddr) -> Result<()> {
    let socket = from.enter(|| UdpSocket::bind((source, 5000)))?;
    socket.send_to(b"forged", target)?;
    Ok(())
}

fn check(server: &UdpSocket, is_forged: bool) -> Result<()> {
    if is_forged {
        ensure!(is_silent(server)?, "it arrives");
    } else {
        server.set_read_timeout(Some(Duration::from_secs(20)))?;
        resumed(|| server.recv(&mut [0; 8])).context("it does not arrive")?;
    }
    Ok(())
}

/// From the network that the hosts are on, and from a container of a host.
#[test]
fn s11_nobody_speaks_to_a_task_in_the_name_of_the_clusters_own_addresses() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["5353:53/udp"], &[0])?)?;
        let container = Namespace::new()?;
        for host in &site.hosts {
            let host = &host.netns;
            host.ip(&format!("route add default via {}", outer(false, 9)))?;
            host.ip(&format!("route add default via {}", outer(true, 9)))?;
        }
        let host = &site.hosts[1].netns;
        host.connect("inside", &container, "eth0")?;
        for (net, [host_address, own]) in
            [("24", ["172.29.0.1", "172.29.0.2"]), ("64 nodad", ["fd29::1", "fd29::2"])]
        {
            host.ip(&format!("address add {host_address}/{net} dev inside"))?;
            container.ip(&format!("address add {own}/{net} dev eth0"))?;
            container.ip(&format!("route add default via {host_address}"))?;
        }
        // An honest one from elsewhere, and addresses of two networks.
        let sources =
            ["203.0.113.5", "10.0.0.12", "10.0.7.12", "2001:db8::5", "fd00:1::c", "fd00:7::c"];
        for source in sources {
            let source: IpAddr = source.parse()?;
            let length = if source.is_ipv6() { "128 nodad" } else { "32" };
            for forger in [&site.client, &container] {
                forger.ip(&format!("address add {source}/{length} dev lo"))?;
            }
            let server =
                site.tasks[0].netns.enter(|| UdpSocket::bind((any(source.is_ipv6()), 53)))?;
            let is_forged = !["203.0.113.5", "2001:db8::5"].contains(&source.to_string().as_str());
            for host in 1..=HOSTS {
                let target = SocketAddr::new(outer(source.is_ipv6(), host), 5353);
                send_as(&site.client, source, target)?;
                check(&server, is_forged).with_context(|| format!("{source} through {host}"))?;
            }
            let length = if source.is_ipv6() { 128 } else { 32 };
            host.ip(&format!("route add {source}/{length} dev inside"))?;
            let target = SocketAddr::new(outer(source.is_ipv6(), 2), 5353);
            send_as(&container, source, target)?;
            check(&server, is_forged).with_context(|| format!("{source} from a container"))?;
            ask(&site.client, target, &server).context("an honest client")?;
        }
        Ok(())
    })
}

/// Connection tracking knows nothing of them, so nothing says that they are to a published port.
#[test]
fn s11_the_gate_is_no_way_out_for_packets_of_no_connection() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["8080:80"], &[0])?)?;
        let task = &site.tasks[0].netns;
        for ipv6 in [false, true] {
            for host in 1..=HOSTS {
                let netns = &site.hosts[usize::from(host) - 1].netns;
                netns.ip(&format!("route add default via {}", outer(ipv6, 9)))?;
                let (gate, client) = (gate(ipv6, host), outer(ipv6, 9));
                task.ip(&format!("route replace {client} via {gate} dev eth0"))?;
                let arrived = strays(task, &site.client, client)?;
                ensure!(arrived.is_empty(), "IPv6 {ipv6}, through {host}: {arrived:?}");
            }
        }
        Ok(())
    })
}
