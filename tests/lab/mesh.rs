//! The routing mesh: every node answers on a published port, and tasks see clients' own addresses.

use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    hosts::{self, address_v4},
    lab::Namespace,
    traffic,
    until::until,
};
use rstest::rstest;
use socket2::SockRef;

use crate::{
    plane::{KERNELS, MIXED, Plane, USERS},
    setup::{Cluster, Container, Lab, PATIENCE},
};

const PORT: u16 = 8080;
/// The client's number on the wire.
const NUMBER: u8 = 99;

/// Somebody on the wire who has no part in the cluster.
fn client(lab: &Lab) -> Result<Namespace> {
    let client = Namespace::new()?;
    hosts::plug(&client, &lab.wire, NUMBER)?;
    Ok(client)
}

fn connect(client: &Namespace, node: u8) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(IpAddr::from(address_v4(node)), PORT);
    client.enter(|| TcpStream::connect_timeout(&to, PATIENCE))
}

fn until_connected(client: &Namespace, node: u8) -> Result<TcpStream> {
    until(&format!("node {node} answers"), PATIENCE, || Ok(connect(client, node)?))
}

fn until_refused(client: &Namespace, node: u8) -> Result<()> {
    traffic::until_refused(client, SocketAddr::new(address_v4(node).into(), PORT), PATIENCE)
}

/// Question and answer over a connection through a node, and who the task takes the client for.
fn check(client: &Namespace, listener: &TcpListener, node: u8) -> Result<()> {
    // Those of before that were given up may leave no room for this one.
    listener.set_nonblocking(true)?;
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false)?;
    let mut here = until_connected(client, node)?;
    here.set_read_timeout(Some(PATIENCE))?;
    let own = here.local_addr()?;
    SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
    let mut seen = Vec::new();
    let mut there = loop {
        let accepted = listener.accept();
        let (there, from) =
            accepted.with_context(|| format!("through {node}: {own}, not {seen:?}"))?;
        if from == own {
            break there;
        }
        seen.push(from);
    };
    there.set_read_timeout(Some(PATIENCE))?;
    here.write_all(b"ask")?;
    let mut heard = [0; 3];
    there.read_exact(&mut heard)?;
    there.write_all(&heard)?;
    here.read_exact(&mut heard)?;
    ensure!(&heard == b"ask", "{heard:?}");
    Ok(())
}

fn task(lab: &Lab, node: u8, network: &str) -> Result<(Container, TcpListener)> {
    let task = Container::on_no_network()?.joined(lab, node, network, &["--service", "web"])?;
    let listener = task.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))?;
    Ok((task, listener))
}

#[rstest]
#[case::kernel(KERNELS)]
#[case::user(USERS)]
#[case::mixed(MIXED)]
fn s10_s11_every_node_answers_and_a_task_anywhere_sees_the_client(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let client = client(lab)?;
        lab.ctl(1, &format!("service create --name web --publish {PORT}:80"))?;
        for node in [3, 1] {
            let (task, listener) = task(lab, node, "ingress")?;
            for through in [1, 2, 3] {
                check(&client, &listener, through)?;
            }
            lab.ctl(node, &format!("endpoint detach {}", task.endpoint))?;
            for through in [1, 2, 3] {
                until_refused(&client, through)?;
            }
        }
        lab.ctl(1, "service rm web")?;
        Ok(())
    })
}

#[test]
fn n07_the_mesh_moves_to_an_ingress_network_that_is_made_anew() -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        let client = client(lab)?;
        let create = format!("service create --name web --publish {PORT}:80");
        lab.ctl(1, &create)?;
        let (task_before, listener) = task(lab, 2, "ingress")?;
        check(&client, &listener, 1)?;
        let said = lab.refused(1, "network rm --force ingress")?;
        ensure!(said.contains("in use"), "{said}");
        lab.ctl(2, &format!("endpoint detach {}", task_before.endpoint))?;
        lab.ctl(1, "service rm web")?;
        lab.ctl(1, "network rm --force ingress")?;
        let said = lab.refused(1, &create)?;
        ensure!(said.contains("ingress"), "{said}");

        lab.ctl(3, "network create --ingress --subnet 10.99.0.0/24 --opt mtu=1300 own")?;
        lab.ctl(1, &create)?;
        let (_task, listener) = task(lab, 2, "own")?;
        for through in [1, 2, 3] {
            check(&client, &listener, through)?;
        }
        Ok(())
    })
}

/// A drain and its end, and a reset, as a client sees them that is connected all the while.
#[rstest]
#[case::kernel(KERNELS)]
#[case::user(USERS)]
fn s13_s10_a_port_answers_again_while_an_old_connection_goes_on(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let client = client(lab)?;
        let publish = format!("--publish {PORT}:80 --publish {PORT}:80/udp");
        lab.ctl(1, &format!("service create --name web {publish}"))?;
        let (task, listener) = task(lab, 2, "ingress")?;
        let server = task.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 80)))?;
        let asker = client.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        asker.connect((address_v4(1), PORT))?;
        for socket in [&server, &asker] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let mut old = until_connected(&client, 1)?;
        let (mut there, _) = listener.accept()?;
        let mut exchange = || -> Result<()> {
            let mut heard = [0; 3];
            old.write_all(b"old")?;
            there.read_exact(&mut heard)?;
            there.write_all(&heard)?;
            old.read_exact(&mut heard)?;
            asker.send(b"ask")?;
            let (_, from) = server.recv_from(&mut heard)?;
            server.send_to(&heard, from)?;
            asker.recv(&mut heard)?;
            ensure!(&heard == b"ask", "{heard:?}");
            Ok(())
        };
        exchange()?;
        for _ in 0..2 {
            lab.ctl(2, &format!("endpoint drain {}", task.endpoint))?;
            until_refused(&client, 1)?;
            exchange().context("while it drains")?;
            lab.ctl(2, &format!("endpoint ready {}", task.endpoint))?;
            check(&client, &listener, 1)?;
            exchange().context("when it is ready again")?;
        }
        // The task breaks off in the middle of what it says.
        let mut old = until_connected(&client, 1)?;
        old.set_read_timeout(Some(PATIENCE))?;
        let (mut there, _) = listener.accept()?;
        there.write_all(b"half")?;
        let mut heard = [0; 4];
        old.read_exact(&mut heard)?;
        SockRef::from(&there).set_linger(Some(Duration::ZERO))?;
        drop(there);
        let end = old.read(&mut heard);
        ensure!(end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "{end:?}");
        Ok(())
    })
}
