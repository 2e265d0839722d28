//! Connections through a virtual address: how they spread, and what they outlive.

#![expect(clippy::disallowed_methods, reason = "a test watches for a while")]

use core::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::{lab::Namespace, traffic::resumed, until::until};
use rstest::rstest;
use socket2::{Domain, Socket, Type};

use crate::{
    load::{self, Load, Plan},
    plane::{KERNELS, Plane, USERS},
    setup::{Cluster, Container, Lab, PATIENCE},
    web::{Client, PORT, Web, vip},
};

/// Connections of [`s01_connections_spread_evenly`].
const CONNECTIONS: &str = "OVERLAY_TEST_CONNECTIONS";
/// Flows of [`s01_flows_stay_with_their_task_through_updates`], on each of its tasks.
const FLOWS: usize = 250;
const UPDATES: usize = 50;
/// Clients' ports, below those that the system gives.
const FIRST_PORT: u16 = 20_000;
/// How long flows are watched while a daemon is away: its host is asked several times.
const WATCHED: Duration = Duration::from_secs(6);
/// Flows to each task while daemons go and come back.
const FLOWS_WHILE_AWAY: usize = 30;

fn service(lab: &Lab) -> Result<SocketAddr> {
    lab.ctl(1, "network create --attachable net")?;
    lab.ctl(1, "service create --name web --network net")?;
    Ok((vip(lab)?, PORT).into())
}

fn connections() -> Result<usize> {
    let Some(text) = env::var_os(CONNECTIONS) else { return Ok(4_000) };
    let text = text.to_string_lossy();
    text.parse().with_context(|| format!("{CONNECTIONS}={text} is no number"))
}

/// In turns on the kernel dataplane. By a hash of the flow on the user dataplane, where five standard
/// deviations are as far as chance goes.
#[rstest]
#[case::kernel(KERNELS, |even: usize| even * 3 / 100)]
#[case::user(USERS, |even: usize| 5 * even.isqrt())]
fn s01_connections_spread_evenly(
    #[case] planes: [Plane; 3],
    #[case] tolerance: fn(usize) -> usize,
) -> Result<()> {
    const TASKS: usize = 10;
    Cluster::of(&planes).run(|lab| {
        let (target, count) = (service(lab)?, connections()?);
        let client = lab.container(1, "net")?;
        let mut web = Web::on(lab, "net");
        web.start(TASKS as u32)?;
        let plan = Plan {
            targets: vec![target],
            client: client.address(),
            clients: 1,
            patience: PATIENCE,
        };
        let load = Load::start(&client.netns, &plan);
        web.until_all_answer(&load)?;
        load.end()?;

        let counted = count_answers(&client.netns, target, count)?;
        let (even, tolerated) = (count / TASKS, tolerance(count / TASKS));
        let is_even = counted.values().all(|found| found.abs_diff(even) <= tolerated);
        ensure!(
            counted.len() == TASKS && is_even,
            "{count} connections over {TASKS} tasks: {counted:?}"
        );
        Ok(())
    })
}

/// Connects so often, and says how often each task answered.
fn count_answers(
    from: &Namespace,
    target: SocketAddr,
    count: usize,
) -> Result<BTreeMap<String, usize>> {
    const CLIENTS: usize = 4;
    let mut counted = BTreeMap::new();
    let ask_all = || {
        let answers = (0..count / CLIENTS).map(|_| Ok(load::ask(target, PATIENCE)?.0));
        answers.collect::<Result<Vec<String>>>()
    };
    let answers = from.enter(|| {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask_all)).collect();
            let answers = clients.into_iter().map(|client| client.join().expect("no panic"));
            answers.collect::<Result<Vec<_>>>()
        })
    })?;
    for name in answers.into_iter().flatten() {
        *counted.entry(name).or_default() += 1;
    }
    Ok(counted)
}

/// A connection, both ends of it.
struct Flow {
    client: TcpStream,
    task: TcpStream,
}

impl Flow {
    /// Connects from a port of its own, so that a task sees that one whatever node it came by, and looks who
    /// got the connection.
    fn open(from: &Namespace, port: u16, to: SocketAddr, tasks: &[TcpListener]) -> Result<Self> {
        let client = from.enter(|| -> Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(socket.into())
        })?;
        let own = client.local_addr()?;
        let task = until("a task has the connection", PATIENCE, || {
            for listener in tasks {
                if let Ok((task, peer)) = resumed(|| listener.accept()) {
                    ensure!(peer == own, "{peer} is another one");
                    return Ok(task);
                }
            }
            bail!("nobody has it")
        })?;
        for end in [&client, &task] {
            end.set_nonblocking(false)?;
            end.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, task })
    }

    fn carries(&self, octet: u8) -> Result<()> {
        let mut heard = [0];
        for (mut from, mut to) in [(&self.client, &self.task), (&self.task, &self.client)] {
            from.write_all(&[octet])?;
            to.read_exact(&mut heard)?;
            ensure!(heard == [octet], "{heard:?}");
        }
        Ok(())
    }
}

/// A task, and its listener, which waits for nobody.
fn listening(lab: &Lab, node: u8, network: &str) -> Result<(Container, TcpListener)> {
    let task = Container::on_no_network()?;
    let listener = task.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    listener.set_nonblocking(true)?;
    Ok((task.joined(lab, node, network, &["--service", "web"])?, listener))
}

/// Flows of a client to tasks on all nodes.
struct Pinned {
    tasks: Vec<Container>,
    /// They hold the ports.
    _listeners: Vec<TcpListener>,
    flows: Vec<Flow>,
}

impl Pinned {
    /// Opens so many for each task, to the targets by turns.
    fn open(
        lab: &Lab,
        network: &str,
        from: &Namespace,
        targets: &[SocketAddr],
        each: usize,
    ) -> Result<Self> {
        let (tasks, listeners): (Vec<_>, Vec<_>) = [1, 2, 3, 2]
            .map(|node| listening(lab, node, network))
            .into_iter()
            .collect::<Result<_>>()?;
        for target in targets {
            until("each task is known", PATIENCE, || {
                for listener in &listeners {
                    let connect = || TcpStream::connect_timeout(target, PATIENCE);
                    drop(from.enter(connect)?);
                    ensure!(resumed(|| listener.accept()).is_ok(), "not to each");
                }
                Ok(())
            })?;
        }
        for listener in &listeners {
            while resumed(|| listener.accept()).is_ok() {}
        }
        let targets = targets.iter().cycle().take(each * tasks.len());
        let ports = FIRST_PORT..;
        let flows = ports.zip(targets).map(|(port, to)| Flow::open(from, port, *to, &listeners));
        let flows = flows.collect::<Result<_>>()?;
        Ok(Self { tasks, _listeners: listeners, flows })
    }

    /// All of them carry an octet in both directions.
    fn carry(&self, octet: u8) -> Result<()> {
        let mut flows = (1..).zip(&self.flows);
        flows.try_for_each(|(number, flow)| {
            let what = || format!("flow {number} of {} has moved or ended", self.flows.len());
            flow.carries(octet).with_context(what)
        })
    }
}

#[rstest]
#[case::kernel(KERNELS)]
#[case::user(USERS)]
fn s01_flows_stay_with_their_task_through_updates(#[case] planes: [Plane; 3]) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        let target = service(lab)?;
        let client = lab.container(1, "net")?;
        let pinned = Pinned::open(lab, "net", &client.netns, &[target], FLOWS)?;
        let first = &pinned.tasks[0].endpoint;
        let mut guest = None;
        for update in 0..UPDATES {
            match update % 5 {
                0 => lab.ctl(1, &format!("endpoint drain {first}")).map(drop)?,
                1 => guest = Some(listening(lab, 3, "net")?),
                2 => lab.ctl(2, &format!("service update --label-add n={update} web")).map(drop)?,
                3 => lab.ctl(1, &format!("endpoint ready {first}")).map(drop)?,
                _ => {
                    let guest = guest.take().context("a task that comes and goes")?;
                    lab.ctl(3, &format!("endpoint detach {}", guest.0.endpoint))?;
                }
            }
            pinned.carry(update as u8)?;
        }
        Ok(())
    })
}

/// For longer than the others take to say that it is dead, and shorter: a daemon is killed, or replaced by
/// another release, and its node's connections live, those that come in by the node and those to its tasks.
#[rstest]
#[case::vip(Client::Inside)]
#[case::mesh(Client::Outside)]
fn s01_d05_flows_stay_with_their_task_while_daemons_are_away(#[case] client: Client) -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        let network = client.service(lab)?;
        let (netns, _) = client.place(lab)?;
        let targets = client.targets(lab, &[1, 2, 3])?;
        let pinned = Pinned::open(lab, network, &netns, &targets, FLOWS_WHILE_AWAY)?;
        for (node, signal, known) in [
            (1, Signal::SIGKILL, None),
            (2, Signal::SIGKILL, Some("dead")),
            (3, Signal::SIGTERM, Some("left")),
        ] {
            let what = format!("node {node} went by {signal}");
            lab.stop(node, signal)?;
            if let Some(known) = known {
                lab.until_known(node, known)?;
                let known_at = Instant::now();
                while known_at.elapsed() < WATCHED {
                    pinned.carry(node).with_context(|| what.clone())?;
                }
            }
            pinned.carry(node).with_context(|| what.clone())?;
            lab.start(node)?;
            lab.until_known(node, "alive")?;
            pinned.carry(node).with_context(|| format!("{what}, and came back"))?;
        }
        Ok(())
    })
}
