//! What becomes of flows when backends and ports come and go.

use core::{net::SocketAddr, time::Duration};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context, Result, bail, ensure};
use overlay_dataplane::desired::PortKind;
use overlay_testkit::{
    lab::Namespace,
    traffic::{is_refused, listen, resumed},
    until::until,
};

use crate::{
    probe::{any, ask, ask_again, exchange, is_silent},
    site::{HOSTS, Site, in_lab, outer, published, service},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// How many of some connections each server gets.
pub(crate) fn count(
    site: &Site,
    target: SocketAddr,
    servers: &[TcpListener],
    connections: usize,
) -> Result<Vec<usize>> {
    for server in servers {
        server.set_nonblocking(true)?;
    }
    let mut counts = vec![0; servers.len()];
    for _ in 0..connections {
        let stream = site.client.enter(|| TcpStream::connect(target)).context("connect")?;
        let accepted = until("a connection is accepted", PATIENCE, || {
            servers.iter().position(|server| server.accept().is_ok()).context("by nobody")
        })?;
        counts[accepted] += 1;
        drop(stream);
    }
    for server in servers {
        server.set_nonblocking(false)?;
    }
    Ok(counts)
}

/// A connection through a node, with both its ends.
struct Open {
    client: TcpStream,
    server: TcpStream,
}

impl Open {
    fn new(from: &Namespace, target: SocketAddr, listener: &TcpListener) -> Result<Self> {
        let client = from.enter(|| TcpStream::connect(target)).context("connect")?;
        let (server, _) = resumed(|| listener.accept())?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, server })
    }

    /// Whether it is reset when the client goes on, or has been: what answers the client's late
    /// acknowledgement of what it got last.
    fn is_reset(&mut self) -> bool {
        let read =
            self.client.write_all(b"ping").and_then(|()| resumed(|| self.client.read(&mut [0; 4])));
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }

    fn goes_on(&mut self) -> Result<()> {
        let mut buffer = [0; 4];
        self.client.write_all(b"ping")?;
        self.server.read_exact(&mut buffer)?;
        self.server.write_all(b"pong")?;
        self.client.read_exact(&mut buffer)?;
        ensure!(&buffer == b"pong");
        Ok(())
    }
}

/// Draining keeps flows and gets none; removal ends them, and a datagram finds another task.
#[test]
fn s01_s12_flows_stay_with_their_task_until_it_is_gone() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 2])?;
        let ports = ["8080:80", "5353:53/udp"];
        site.converge(&service(&ports, &[0])?)?;
        let tcp = [
            listen(&site.tasks[0].netns, any(false), 80)?,
            listen(&site.tasks[1].netns, any(false), 80)?,
        ];
        let udp = |task: usize| site.tasks[task].netns.enter(|| UdpSocket::bind((any(false), 53)));
        let udp = [udp(0)?, udp(1)?];
        let mut open = Vec::new();
        let mut asking = Vec::new();
        for host in 1..=HOSTS {
            let to = |port| SocketAddr::new(outer(false, host), port);
            open.push(Open::new(&site.client, to(8080), &tcp[0])?);
            let client = site.client.enter(|| UdpSocket::bind((any(false), 0)))?;
            client.connect(to(5353))?;
            ask_again(&client, &udp[0])?;
            asking.push(client);
        }
        // Another one comes, and the first one drains.
        let mut services = service(&ports, &[1])?;
        services.get_mut(&1).context("service")?.draining = vec![0];
        for services in [service(&ports, &[0, 1])?, services] {
            site.converge(&services)?;
            for (open, client) in open.iter_mut().zip(&asking) {
                open.goes_on()?;
                ask_again(client, &udp[0])?;
            }
        }
        for host in 1..=HOSTS {
            let target = SocketAddr::new(outer(false, host), 8080);
            assert_eq!(count(&site, target, &tcp, 4)?, [0, 4]);
        }
        // It goes.
        site.converge(&service(&ports, &[1])?)?;
        for client in &asking {
            ask_again(client, &udp[1])?;
        }
        assert!(is_silent(&udp[0])?);
        for open in &mut open {
            assert!(open.is_reset(), "a connection to a task that is gone");
        }
        // None is left: refused at once.
        site.converge(&service(&ports, &[])?)?;
        for ipv6 in [false, true] {
            let error =
                site.client.enter(|| TcpStream::connect(SocketAddr::new(outer(ipv6, 3), 8080)));
            assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        }
        Ok(())
    })
}

/// An hour of silence breaks no connection: whoever translates it remembers it for longer.
#[test]
fn s12_an_idle_connection_is_remembered_on_its_whole_way() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["8080:80"], &[0])?)?;
        for ipv6 in [false, true] {
            let listener = listen(&site.tasks[0].netns, any(ipv6), 80)?;
            let target = SocketAddr::new(outer(ipv6, 2), 8080);
            let mut open = Open::new(&site.client, target, &listener)?;
            open.goes_on()?;
            let port = format!("sport={} ", open.client.local_addr()?.port());
            let PortKind::Veth { netns: gate, .. } = site.host(2).mesh.gate()? else {
                bail!("no gate in a namespace")
            };
            let family = if ipv6 { "ipv6" } else { "ipv4" };
            let gate = Namespace::open(&gate)?;
            for (place, netns) in
                [("host", &site.hosts[1].netns), ("gate", &gate), ("task", &site.tasks[0].netns)]
            {
                let listed = netns.run(&["conntrack", "-L", "-p", "tcp", "-f", family])?;
                let mut entries = listed.lines().filter(|entry| entry.contains(&port));
                let entry = entries.next().with_context(|| format!("unknown to the {place}"))?;
                let left: u32 = entry.split_whitespace().nth(2).context("a time")?.parse()?;
                ensure!(left > 3600, "{place}: {entry}");
            }
        }
        Ok(())
    })
}

#[test]
fn s12_a_port_that_is_published_no_more_ends_its_flows_and_is_free() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[2, 2])?;
        site.converge(&service(&["8080:80", "5353:53/udp"], &[0])?)?;
        let listener = listen(&site.tasks[0].netns, any(false), 80)?;
        let udp = |task: usize| site.tasks[task].netns.enter(|| UdpSocket::bind((any(false), 53)));
        let udp = [udp(0)?, udp(1)?];
        let client = site.client.enter(|| UdpSocket::bind((any(false), 0)))?;
        client.connect(SocketAddr::new(outer(false, 1), 5353))?;
        ask_again(&client, &udp[0])?;
        // Another service gets the port.
        let mut services = service(&["8080:80"], &[0])?;
        services.insert(2, published(&["5353:53/udp"], &[1])?);
        site.converge(&services)?;
        ask_again(&client, &udp[1])?;
        assert!(is_silent(&udp[0])?);
        exchange(&site.client, SocketAddr::new(outer(false, 1), 8080), &listener)?;
        services.remove(&1);
        site.converge(&services)?;
        let target = SocketAddr::new(outer(false, 1), 8080);
        assert!(is_refused(&site.client, target));
        let server = until("the port is free", PATIENCE, || {
            listen(&site.hosts[0].netns, outer(false, 1), 8080)
        })?;
        exchange(&site.client, target, &server)?;
        Ok(())
    })
}

#[test]
fn s10_tasks_of_the_same_node_are_preferred_if_asked() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1, 2])?;
        let mut services = service(&["8080:80"], &[0, 1])?;
        services.get_mut(&1).context("service")?.prefer_local = true;
        site.converge(&services)?;
        let servers = [
            listen(&site.tasks[0].netns, any(false), 80)?,
            listen(&site.tasks[1].netns, any(false), 80)?,
        ];
        for (host, expected) in [(1, [4, 0]), (2, [0, 4]), (3, [2, 2])] {
            let target = SocketAddr::new(outer(false, host), 8080);
            assert_eq!(count(&site, target, &servers, 4)?, expected, "through {host}");
        }
        // Its own one drains: the others are better than none.
        let published = services.get_mut(&1).context("service")?;
        (published.tasks, published.draining) = (vec![1], vec![0]);
        site.converge(&services)?;
        assert_eq!(count(&site, SocketAddr::new(outer(false, 1), 8080), &servers, 4)?, [0, 4]);
        Ok(())
    })
}

/// What many forged sources ask must not push out the dialogues of others for long.
#[test]
fn s11_a_question_without_an_answer_is_soon_forgotten() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[1])?;
        site.converge(&service(&["5353:53/udp"], &[0])?)?;
        let task = &site.tasks[0].netns;
        let remembered = || task.run(&["nft", "list", "ruleset"]);
        for ipv6 in [false, true] {
            let server = task.enter(|| UdpSocket::bind((any(ipv6), 53)))?;
            server.set_read_timeout(Some(PATIENCE))?;
            let client = site.client.enter(|| UdpSocket::bind((any(ipv6), 0)))?;
            client.connect(SocketAddr::new(outer(ipv6, 2), 5353))?;
            // In minutes: seconds are what a question gets.
            let answered = |shown: &str| {
                ["expires 2m", "expires 3m"].map(|part| shown.matches(part).count()).iter().sum()
            };
            let before: usize = answered(&remembered()?);
            client.send(b"question")?;
            let (_, peer) = resumed(|| server.recv_from(&mut [0; 8]))?;
            let shown = remembered()?;
            ensure!(shown.contains("expires ") && answered(&shown) == before, "{shown}");
            // From the answer on, and with the next question.
            server.send_to(b"answer", peer)?;
            let shown = remembered()?;
            ensure!(answered(&shown) == before + 1, "{shown}");
            ask_again(&client, &server)?;
            client.send(b"question")?;
            resumed(|| server.recv(&mut [0; 8]))?;
            let shown = remembered()?;
            ensure!(answered(&shown) == before + 1, "{shown}");
        }
        Ok(())
    })
}

/// What a task tells of a datagram that nobody listens for, and of one that is too large for the network.
#[test]
fn s11_errors_find_the_client() -> Result<()> {
    in_lab(|| {
        let mut site = Site::new(&[2])?;
        site.converge(&service(&["5353:53/udp"], &[0])?)?;
        for has_way_out in [false, true] {
            if has_way_out {
                site.add_way_out(0)?;
            }
            for ipv6 in [false, true] {
                for host in 1..=HOSTS {
                    let client = site.client.enter(|| UdpSocket::bind((any(ipv6), 0)))?;
                    client.connect(SocketAddr::new(outer(ipv6, host), 5353))?;
                    client.set_read_timeout(Some(Duration::from_secs(10)))?;
                    client.send(b"question")?;
                    let error = resumed(|| client.recv(&mut [0; 8])).unwrap_err();
                    assert_eq!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{ipv6} {host}"
                    );
                }
            }
        }
        // Not to be fragmented: 1450 octets fit.
        let server = site.tasks[0].netns.enter(|| UdpSocket::bind((any(false), 53)))?;
        let target = SocketAddr::new(outer(false, 1), 5353);
        ask(&site.client, target, &server)?;
        let probe = "import socket,sys\ns=socket.socket(2,2)\ns.setsockopt(0,10,2)\ns.connect(('192.0.2.1',5353))\n\
                     s.settimeout(10)\n\
                     try:\n s.send(b'x'*1440)\n s.recv(9)\nexcept OSError as e: print(e.errno, s.getsockopt(0,14))";
        let said = site.client.run(&["python3", "-c", probe])?;
        assert_eq!(said.trim(), "90 1450", "EMSGSIZE, and the MTU of the way");
        Ok(())
    })
}
