//! Which tasks get connections: probes of listeners that come and go, and drains that wait for the end of
//! connections.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{traffic, until::until};
use rstest::rstest;

use crate::{
    plane::Plane::{self, Kernel, User},
    setup::{Cluster, Container, Lab, PATIENCE},
};

const PORT: u16 = 80;

fn listen(task: &Container) -> Result<TcpListener> {
    Ok(task.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?)
}

fn connect(client: &Container, to: IpAddr) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to, PORT);
    client.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE))
}

fn until_readiness(lab: &Lab, task: &Container, wanted: &str) -> Result<()> {
    until(&format!("the task is {wanted}"), PATIENCE, || {
        let shown = lab.json(1, &format!("endpoint inspect {}", task.endpoint))?;
        ensure!(shown[0]["readiness"] == wanted, "{shown}");
        Ok(())
    })
}

/// New connections to the service are refused: no task takes any.
fn until_refused(client: &Container, vip: IpAddr) -> Result<()> {
    traffic::until_refused(&client.netns, SocketAddr::new(vip, PORT), PATIENCE)
}

/// A service on `net`, and its virtual address.
fn service(lab: &Lab) -> Result<IpAddr> {
    lab.ctl(1, "network create --attachable net")?;
    lab.ctl(1, "service create --name web --network net")?;
    let shown = lab.json(1, "service inspect web")?;
    let vip = shown[0]["vips"][0]["addresses"][0].as_str().context("a virtual address")?;
    Ok(vip.parse()?)
}

#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn s13_a_task_gets_connections_while_its_probe_passes(#[case] planes: [Plane; 2]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let vip = service(lab)?;
        let client = lab.container(1, "net")?;
        let flags = "--service web --health tcp:80 --health-interval 100ms --health-retries 2";
        let flags: Vec<&str> = flags.split(' ').collect();
        let task = Container::on_no_network()?.joined(lab, 2, "net", &flags)?;
        until_readiness(lab, &task, "starting")?;
        until_refused(&client, vip)?;

        for _ in 0..2 {
            let listener = listen(&task)?;
            until_readiness(lab, &task, "ready")?;
            until("the client is told", PATIENCE, || {
                connect(&client, vip)?;
                Ok(())
            })?;
            drop(listener);
            until_readiness(lab, &task, "failing")?;
            until_refused(&client, vip)?;
        }
        // What its owner drains stays so, whatever its probe says.
        let _listener = listen(&task)?;
        until_readiness(lab, &task, "ready")?;
        lab.ctl(2, &format!("endpoint drain {}", task.endpoint))?;
        until_readiness(lab, &task, "draining")?;
        until_refused(&client, vip)
    })
}

#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn s13_a_drain_waits_for_the_last_connection(#[case] planes: [Plane; 2]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let vip = service(lab)?;
        let client = lab.container(1, "net")?;
        let task = Container::on_no_network()?.joined(lab, 2, "net", &["--service", "web"])?;
        let listener = listen(&task)?;
        until("the client is told", PATIENCE, || {
            connect(&client, vip)?;
            Ok(())
        })?;
        let mut here = connect(&client, vip)?;
        here.set_read_timeout(Some(PATIENCE))?;
        let (mut there, _) = listener.accept()?;
        if there.peer_addr()? != here.local_addr()? {
            // The one before.
            there = listener.accept()?.0;
        }
        there.set_read_timeout(Some(Duration::from_secs(10)))?;

        let said = lab.refused(2, &format!("endpoint drain --wait=1s {}", task.endpoint))?;
        ensure!(said.contains("still has connections: 1"), "{said}");
        until_refused(&client, vip)?;
        // The connection that was there goes on.
        for text in [b"ask", b"yes"] {
            here.write_all(text)?;
            let mut heard = [0; 3];
            there.read_exact(&mut heard)?;
            there.write_all(&heard)?;
            here.read_exact(&mut heard)?;
            ensure!(&heard == text, "{heard:?}");
        }
        drop(here);
        drop(there);
        lab.ctl(2, &format!("endpoint drain --wait=30s {}", task.endpoint))?;
        lab.ctl(2, &format!("endpoint detach {}", task.endpoint))?;
        // Who is asked on another node does not see its connections.
        let other = Container::on_no_network()?.joined(lab, 2, "net", &["--service", "web"])?;
        let said = lab.refused(1, &format!("endpoint drain --wait {}", other.endpoint))?;
        ensure!(said.contains("ask that node"), "{said}");
        Ok(())
    })
}
