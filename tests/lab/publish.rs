//! Ports that services publish in host mode: on the node of a task, and there only.

use core::net::{IpAddr, SocketAddr};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{hosts::address_v4, traffic, until::until};
use rstest::rstest;

use crate::{
    plane::Plane::{self, Kernel, User},
    setup::{Cluster, Container, Lab, PATIENCE},
};

fn connect(lab: &Lab, from: u8, to: u8, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(IpAddr::from(address_v4(to)), port);
    lab.host(from).netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE))
}

fn until_refused(lab: &Lab, from: u8, to: u8, port: u16) -> Result<()> {
    let to = SocketAddr::new(address_v4(to).into(), port);
    traffic::until_refused(&lab.host(from).netns, to, PATIENCE)
}

#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn s15_a_host_mode_port_answers_on_the_nodes_of_tasks_only(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let publish = "--publish published=8080,target=80,mode=host";
        lab.ctl(1, &format!("service create --name web --network net {publish}"))?;
        let task = Container::on_no_network()?.joined(lab, 2, "net", &["--service", "web"])?;
        let listener = task.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))?;
        let client = connect(lab, 1, 2, 8080).context("node 2 answers")?;
        let (mut served, from) = listener.accept()?;
        ensure!(from.ip() == IpAddr::from(address_v4(1)), "the client's address is {from}");
        served.write_all(b"hello")?;
        let mut heard = [0; 5];
        (&client).read_exact(&mut heard)?;
        ensure!(&heard == b"hello");
        until_refused(lab, 2, 1, 8080)?;
        let shown = lab.json(1, "service ps web")?;
        ensure!(shown[0]["host_ports"][0]["published"] == 8080, "{shown}");

        // The port is taken, by a task or by whoever is on the host.
        let own = Container::on_no_network()?;
        let attach = |service: &str| {
            let netns = own.netns.path();
            let to = format!("--interface eth0 --netns {}", netns.display());
            format!("endpoint attach --network net --service {service} {to}")
        };
        let said = lab.refused(2, &attach("web"))?;
        ensure!(said.contains("8080"), "{said}");
        let taken = "--publish published=8099,target=80,mode=host";
        lab.ctl(1, &format!("service create --name other --network net {taken}"))?;
        let program =
            lab.host(2).netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8099)))?;
        let said = lab.refused(2, &attach("other"))?;
        ensure!(said.contains("8099"), "{said}");
        drop(program);
        lab.ctl(2, &attach("other"))?;

        // What is published no more is free.
        lab.ctl(1, "service update --publish-rm 80 web")?;
        until_refused(lab, 1, 2, 8080)?;
        // Those that were not refused yet are in the way of others: the task's queue has an end.
        listener.set_nonblocking(true)?;
        while listener.accept().is_ok() {}
        lab.ctl(1, &format!("service update --publish-add {} web", &publish[10..]))?;
        until("it is published again", PATIENCE, || {
            connect(lab, 1, 2, 8080)?;
            Ok(())
        })?;
        lab.ctl(2, &format!("endpoint detach {}", task.endpoint))?;
        until_refused(lab, 1, 2, 8080)
    })
}

#[test]
fn s15_a_node_that_publishes_nothing_takes_no_task_that_publishes() -> Result<()> {
    let flags = "--gateway-bridge=";
    Cluster { flags, ..Cluster::of(&[User]) }.run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let publish = "--publish published=8080,target=80,mode=host";
        lab.ctl(1, &format!("service create --name web --network net {publish}"))?;
        let own = Container::on_no_network()?;
        let said = lab.refused(
            1,
            &format!(
                "endpoint attach --network net --service web --interface eth0 --netns {}",
                own.netns.path().display()
            ),
        )?;
        ensure!(said.contains("8080") && said.contains("--gateway-bridge"), "{said}");
        ensure!(lab.ctl(1, "endpoint ls --quiet")?.is_empty(), "it is attached");
        Ok(())
    })
}
