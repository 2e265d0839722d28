//! A service under load while its tasks come and go, and while a node dies.
#![expect(clippy::disallowed_methods, reason = "a test measures how long a failure disturbs")]

use core::time::Duration;
use std::{net::UdpSocket, thread, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::{hosts::CABLE, lab::Namespace, traffic::resumed, until::until};
use rstest::rstest;

use crate::{
    load::{Load, Plan, Told},
    plane::{KERNELS, Plane, USERS},
    setup::{Cluster, Container, Lab, PATIENCE},
    web::{Client, PORT, Web, vip},
};

/// Longest time of a request: one segment that is lost is sent again within it.
const REQUEST: Duration = Duration::from_secs(5);
/// The same while a node is dead, so that each request that went there counts.
const SHORT_REQUEST: Duration = Duration::from_secs(1);
/// From the verdict on a node until its tasks get no connections, on a busy machine.
const MASKED_WITHIN: Duration = Duration::from_secs(1);
const CLIENTS: usize = 4;

/// Clients, and what they ask.
struct Clients {
    netns: Namespace,
    plan: Plan,
}

impl Clients {
    fn of(client: Client, lab: &Lab, nodes: &[u8], patience: Duration) -> Result<Self> {
        let targets = client.targets(lab, nodes)?;
        let (netns, client) = client.place(lab)?;
        Ok(Self { netns, plan: Plan { targets, client, clients: CLIENTS, patience } })
    }

    /// Waits until each target answers, and starts the load.
    fn start(&self) -> Result<Load> {
        for target in &self.plan.targets {
            until(&format!("{target} answers"), PATIENCE, || {
                self.netns.enter(|| crate::load::ask(*target, self.plan.patience))
            })?;
        }
        Ok(Load::start(&self.netns, &self.plan))
    }
}

fn ensure_none_failed(told: &Told) -> Result<()> {
    let count = told.count();
    tell(&format!("{count} requests, the slowest took {:?}", told.slowest));
    if let Some(first) = told.failed.first() {
        bail!("{} of {count} requests failed, the first one: {}", told.failed.len(), first.error);
    }
    Ok(())
}

/// For who reads the results.
#[expect(clippy::print_stderr, reason = "figures of a test")]
fn tell(line: &str) {
    eprintln!("{line}");
}

#[rstest]
#[case::vip(KERNELS, Client::Inside)]
#[case::vip_in_user_space(USERS, Client::Inside)]
#[case::mesh(KERNELS, Client::Outside)]
fn s13_case_1_no_request_fails_while_tasks_are_replaced_and_scaled(
    #[case] planes: [Plane; 3],
    #[case] client: Client,
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let network = client.service(lab)?;
        let clients = Clients::of(client, lab, &[1, 2, 3], REQUEST)?;
        let mut web = Web::on(lab, network);
        web.start(3)?;
        let load = clients.start()?;
        web.until_all_answer(&load)?;
        // 10, then 2.
        web.start(7)?;
        web.until_all_answer(&load)?;
        web.stop(8)?;
        // 3 again, which are replaced one by one.
        web.start(1)?;
        for _ in 0..3 {
            web.start(1)?;
            web.until_all_answer(&load)?;
            web.stop(1)?;
        }
        ensure_none_failed(&load.end()?)
    })
}

#[rstest]
#[case::vip(Client::Inside)]
#[case::mesh(Client::Outside)]
fn g04_requests_fail_only_until_the_death_of_a_node_is_detected(
    #[case] client: Client,
) -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        let network = client.service(lab)?;
        let clients = Clients::of(client, lab, &[1, 2], SHORT_REQUEST)?;
        let mut web = Web::on(lab, network);
        web.start(3)?;
        let load = clients.start()?;
        web.until_all_answer(&load)?;
        ensure_none_failed(&load.so_far())?;

        let killed_at = kill(lab, 3)?;
        let detected_at = lab.until_known(3, "dead")?;
        let before = load.so_far().count();
        until("the others answer", PATIENCE, || {
            ensure!(load.so_far().count() > before + 500, "{:?}", load.so_far().answered);
            Ok(())
        })?;
        let told = load.end()?;
        let last = told.failed.iter().max_by_key(|failure| failure.asked_at);
        let disturbed = last.map_or(Duration::ZERO, |last| last.asked_at - killed_at);
        tell(&format!(
            "the death was detected after {:?}; {} of {} requests failed, the last one was asked after \
             {disturbed:?}",
            detected_at - killed_at,
            told.failed.len(),
            told.count() + told.failed.len(),
        ));
        ensure!(disturbed <= detected_at - killed_at + MASKED_WITHIN, "{last:?}");
        Ok(())
    })
}

/// Takes a node away as a power failure does, once the others have heard of it.
fn kill(lab: &mut Lab, node: u8) -> Result<Instant> {
    lab.until_known(node, "alive")?;
    let killed_at = Instant::now();
    lab.host(node).netns.ip(&format!("link set {CABLE} down"))?;
    lab.stop(node, Signal::SIGKILL)?;
    Ok(killed_at)
}

/// A flow of datagrams to a service whose tasks are on nodes 2 and 3.
struct Datagrams {
    flow: UdpSocket,
    /// The server that it does not go to, and the one that it does, on node 3.
    servers: [UdpSocket; 2],
    _containers: [Container; 3],
}

impl Datagrams {
    fn to_node_3(lab: &Lab) -> Result<Self> {
        lab.ctl(1, "network create --attachable net")?;
        lab.ctl(1, "service create --name web --network net")?;
        let client = lab.container(1, "net")?;
        let task = |node| -> Result<_> {
            let flags = ["--service", "web"];
            let task = Container::on_no_network()?.joined(lab, node, "net", &flags)?;
            let socket = task.netns.enter(|| UdpSocket::bind(("0.0.0.0", PORT)))?;
            socket.set_nonblocking(true)?;
            Ok((task, socket))
        };
        let ((near, other), (far, server)) = (task(2)?, task(3)?);
        let vip = vip(lab)?;
        let flow = until("a flow goes to node 3", PATIENCE, || {
            let flow = client.netns.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
            flow.connect((vip, PORT))?;
            until("it arrives there", Duration::from_millis(200), || asked(&flow, &server))?;
            Ok(flow)
        })?;
        // All that was said before.
        while other.recv(&mut [0; 8]).is_ok() {}
        Ok(Self { flow, servers: [other, server], _containers: [client, near, far] })
    }

    fn until_at(&self, server: usize) -> Result<()> {
        until("the flow goes there", PATIENCE, || asked(&self.flow, &self.servers[server]))
    }
}

#[rstest]
#[case::kernel(KERNELS)]
#[case::user(USERS)]
fn s12_g04_a_flow_of_datagrams_leaves_a_dead_node(#[case] planes: [Plane; 3]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let datagrams = Datagrams::to_node_3(lab)?;
        let killed_at = kill(lab, 3)?;
        let lab = &*lab;
        let (moved_after, detected_after) = thread::scope(|scope| {
            let detected = scope.spawn(|| lab.until_known(3, "dead"));
            datagrams.until_at(0)?;
            let moved_after = killed_at.elapsed();
            anyhow::Ok((moved_after, detected.join().expect("no panic")? - killed_at))
        })?;
        tell(&format!("detected within {detected_after:?}, moved within {moved_after:?}"));
        ensure!(moved_after <= detected_after + MASKED_WITHIN);
        Ok(())
    })
}

#[test]
fn s12_d05_a_flow_of_datagrams_leaves_a_host_that_follows_its_daemon() -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        let datagrams = Datagrams::to_node_3(lab)?;
        lab.stop(3, Signal::SIGKILL)?;
        lab.until_known(3, "dead")?;
        datagrams.until_at(1).context("its host is there")?;
        ensure!(datagrams.servers[0].recv(&mut [0; 8]).is_err(), "some went elsewhere");
        lab.host(3).netns.ip(&format!("link set {CABLE} down"))?;
        datagrams.until_at(0)
    })
}

/// Whether a datagram of a flow arrives at a server.
fn asked(flow: &UdpSocket, server: &UdpSocket) -> Result<()> {
    // Without a backend it is refused, which the next one tells.
    let _ = flow.send(b"question");
    let from = resumed(|| server.recv_from(&mut [0; 8])).context("nothing arrives")?.1;
    ensure!(from.port() == flow.local_addr()?.port(), "of {from}");
    Ok(())
}
