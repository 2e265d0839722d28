//! A service whose tasks come and go, as an orchestrator has them do.

use core::net::{IpAddr, SocketAddr};
use std::{collections::VecDeque, thread};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{hosts::address_v4, lab::Namespace, until::until};

use crate::{
    load::{Load, Server},
    setup::{Container, Lab, PATIENCE},
    stranger::Stranger,
};

/// Where tasks listen.
pub(crate) const PORT: u16 = 80;
/// Where nodes answer for them.
const PUBLISHED: u16 = 8080;
/// Nodes that tasks are on by turns.
const NODES: u32 = 3;

/// Where the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// In a container, asking the virtual address.
    Inside,
    /// On the wire, asking all nodes by turns.
    Outside,
}

impl Client {
    /// Makes the service `web`, and says what its network is.
    pub(crate) fn service(self, lab: &Lab) -> Result<&'static str> {
        match self {
            Self::Inside => {
                lab.ctl(1, "network create --attachable net")?;
                lab.ctl(1, "service create --name web --network net")?;
                Ok("net")
            }
            Self::Outside => {
                lab.ctl(1, &format!("service create --name web --publish {PUBLISHED}:{PORT}"))?;
                Ok("ingress")
            }
        }
    }

    /// A namespace to ask from, and its address.
    pub(crate) fn place(self, lab: &Lab) -> Result<(Namespace, IpAddr)> {
        Ok(match self {
            Self::Inside => {
                let container = lab.container(1, "net")?;
                let address = container.address();
                (container.netns, address)
            }
            Self::Outside => {
                let stranger = Stranger::on_wire(lab)?;
                (stranger.netns, stranger.address.into())
            }
        })
    }

    /// Where it is reached: through each of these nodes, from outside.
    pub(crate) fn targets(self, lab: &Lab, nodes: &[u8]) -> Result<Vec<SocketAddr>> {
        Ok(match self {
            Self::Inside => vec![(vip(lab)?, PORT).into()],
            Self::Outside => {
                nodes.iter().map(|node| (address_v4(*node), PUBLISHED).into()).collect()
            }
        })
    }
}

/// A task, and its program.
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) node: u8,
    pub(crate) container: Container,
    _server: Server,
}

impl Task {
    /// One that gets no connections yet.
    pub(crate) fn starting(lab: &Lab, node: u8, network: &str, name: String) -> Result<Self> {
        let container = Container::on_no_network()?;
        let server = Server::start(&container.netns, PORT, &name)?;
        let container =
            container.joined(lab, node, network, &["--service", "web", "--starting"])?;
        Ok(Self { name, node, container, _server: server })
    }

    /// Has it be ready, or draining.
    pub(crate) fn be(&self, lab: &Lab, readiness: &str) -> Result<()> {
        lab.ctl(self.node, &format!("endpoint {readiness} {}", self.container.endpoint)).map(drop)
    }

    pub(crate) fn detach(&self, lab: &Lab) -> Result<()> {
        lab.ctl(self.node, &format!("endpoint detach {}", self.container.endpoint)).map(drop)
    }
}

/// The tasks of the service `web`, oldest first.
pub(crate) struct Web<'a> {
    lab: &'a Lab,
    network: &'a str,
    pub(crate) tasks: VecDeque<Task>,
    started: u32,
}

impl<'a> Web<'a> {
    pub(crate) fn on(lab: &'a Lab, network: &'a str) -> Self {
        Self { lab, network, tasks: VecDeque::new(), started: 0 }
    }

    /// Starts so many tasks at a time, and has them take connections once they can.
    pub(crate) fn start(&mut self, count: u32) -> Result<()> {
        let (lab, network) = (self.lab, self.network);
        let numbers = self.started..self.started + count;
        self.started += count;
        self.tasks.extend(at_a_time(numbers, |number| {
            let node = 1 + (number % NODES) as u8;
            let task = Task::starting(lab, node, network, format!("task{number}"))?;
            task.be(lab, "ready")?;
            Ok(task)
        })?);
        Ok(())
    }

    /// Ends the oldest tasks: they get no new connections, then they have none, then they are no more.
    pub(crate) fn stop(&mut self, count: usize) -> Result<()> {
        let lab = self.lab;
        at_a_time(self.tasks.drain(..count), |task| {
            lab.ctl(task.node, &format!("endpoint drain --wait=10s {}", task.container.endpoint))?;
            task.detach(lab)
        })?;
        Ok(())
    }

    /// Waits until each task has answered a request.
    pub(crate) fn until_all_answer(&self, load: &Load) -> Result<()> {
        until("each task answers", PATIENCE, || {
            let told = load.so_far();
            let silent = self.tasks.iter().find(|task| !told.answered.contains_key(&task.name));
            ensure!(silent.is_none(), "not {}: {told:?}", silent.map_or("", |task| &task.name));
            Ok(())
        })
    }
}

/// Does it to each, all at a time.
fn at_a_time<T: Send, R: Send>(
    each: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = each.into_iter().map(|one| scope.spawn(move || act(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// The first virtual address of the service.
pub(crate) fn vip(lab: &Lab) -> Result<IpAddr> {
    let shown = lab.json(1, "service inspect web")?;
    let vip = shown[0]["vips"][0]["addresses"][0].as_str();
    Ok(vip.with_context(|| format!("a virtual address: {shown}"))?.parse()?)
}
