//! One port of a client towards several nodes: its connections are one for the task but for the gate.

use core::{net::SocketAddr, time::Duration};
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    lab::Namespace,
    traffic::{listen, resumed},
    until::until,
};

use crate::{
    probe::{any, connect_from},
    site::{HOSTS, Site, in_lab, outer, service},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Of the client.
const PORT: u16 = 40_000;

/// Connects from a port of the client, and returns both ends, and whom the server sees.
fn connect(
    client: &Namespace,
    port: u16,
    target: SocketAddr,
    listener: &TcpListener,
) -> Result<(TcpStream, TcpStream, SocketAddr)> {
    // The client's end of the one before is there until its last segment is acknowledged.
    let near = until("the port is free", PATIENCE, || match connect_from(client, port, target) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(error.into()),
        other => Ok(other),
    });
    let near = near?.with_context(|| format!("connect to {target} from port {port}"))?;
    let (far, peer) = resumed(|| listener.accept())?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((near, far, peer))
}

/// How many SYNs a namespace has sent again.
fn repeated_syns(netns: &Namespace) -> Result<u64> {
    let text = netns.run(&["cat", "/proc/net/netstat"])?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both.find(|(name, _)| *name == "TCPSynRetrans").context("TCPSynRetrans")?;
    Ok(value.parse()?)
}

/// A task that ended a connection itself remembers it for a minute. A client knows nothing of that: it asked
/// another node, and its numbers and timestamps are others there.
#[test]
fn s11_a_port_that_the_client_had_towards_another_node_connects_at_once() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["8080:80"], &[0])?)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            // The first ones wait for neighbours to be found.
            for host in 1..=HOSTS {
                let target = SocketAddr::new(outer(ipv6, host), 8080);
                connect(&site.client, PORT - 1, target, &listener)?;
            }
            let before = repeated_syns(&site.client)?;
            for port in PORT..PORT + 4 {
                // Once up and once down: the kernel's timestamps towards one are behind the other's.
                for host in (1..=HOSTS).chain((1..=HOSTS).rev()) {
                    let target = SocketAddr::new(outer(ipv6, host), 8080);
                    let (mut near, far, peer) = connect(&site.client, port, target, &listener)?;
                    assert_eq!(peer.ip(), outer(ipv6, 9));
                    drop(far);
                    assert_eq!(near.read(&mut [0])?, 0, "the task ends it");
                }
            }
            assert_eq!(repeated_syns(&site.client)?, before, "IPv6 {ipv6}");
        }
        Ok(())
    })
}

#[test]
fn s11_connections_from_one_port_through_several_nodes_live_side_by_side() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["8080:80"], &[0])?)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            let open = (1..=HOSTS).map(|host| {
                connect(&site.client, PORT, SocketAddr::new(outer(ipv6, host), 8080), &listener)
            });
            let mut open = open.collect::<Result<Vec<_>>>()?;
            // Only who comes second has another port.
            assert_eq!(open[0].2, SocketAddr::new(outer(ipv6, 9), PORT));
            for number in (0..open.len()).chain(0..open.len()) {
                let (near, far, peer) = &mut open[number];
                assert_eq!(peer.ip(), outer(ipv6, 9));
                let mut buffer = [0; 4];
                near.write_all(b"ping")?;
                far.read_exact(&mut buffer).with_context(|| format!("host {}", number + 1))?;
                far.write_all(b"pong")?;
                near.read_exact(&mut buffer).with_context(|| format!("host {}", number + 1))?;
                ensure!(&buffer == b"pong");
            }
        }
        Ok(())
    })
}
