//! Clients outside of the cluster, that ask without a pause.

use core::{fmt, time::Duration};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, ensure};
use overlay_testkit::{
    cluster::Cluster,
    hosts::{self, address_v4},
    lab::Namespace,
};

use crate::PUBLISHED;

/// The clients' number on the wire, and their address.
const NUMBER: u8 = 99;
pub(crate) const CLIENT: Ipv4Addr = address_v4(NUMBER);
/// Clients at a time.
const CLIENTS: usize = 4;
/// Longest time of one request.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the clients have seen.
#[derive(Clone, Default)]
pub(crate) struct Told {
    asked: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) versions: BTreeSet<String>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.asked, self.failed.len())
    }
}

/// Clients that ask.
pub(crate) struct Load {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let netns = Namespace::new()?;
        hosts::plug(&netns, &cluster.wire, NUMBER)?;
        let nodes: Vec<SocketAddr> =
            cluster.hosts.iter().map(|host| (host.address, PUBLISHED).into()).collect();
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
        let client = |first: usize| {
            let (nodes, told, stop) = (nodes.clone(), Arc::clone(&told), Arc::clone(&stop));
            // A thread stays in the namespace that it is started in.
            netns.enter(|| {
                thread::spawn(move || {
                    for node in nodes.iter().cycle().skip(first) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        note(&told, ask(*node).with_context(|| format!("ask {node}")));
                    }
                })
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Ok(Self { told, stop, clients })
    }

    pub(crate) fn so_far(&self) -> Told {
        self.told.lock().expect("no client panics").clone()
    }

    pub(crate) fn end(mut self) -> Result<Told> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(self.so_far())
    }
}

fn note(told: &Mutex<Told>, answer: Result<String>) {
    let mut told = told.lock().expect("no client panics");
    told.asked += 1;
    match answer {
        Ok(version) => drop(told.versions.insert(version)),
        Err(error) => told.failed.push(format!("{error:#}")),
    }
}

/// One request. Returns the version that answered, which has to see the client's address.
fn ask(node: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&node, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").context("no answer")?.1;
    let (version, seen) = body.trim().split_once(' ').context("half an answer")?;
    ensure!(seen == CLIENT.to_string(), "the task saw {seen}");
    Ok(version.to_owned())
}
