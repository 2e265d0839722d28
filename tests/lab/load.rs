//! Clients that ask without a pause, and servers that say who they are, and whom they see.
#![expect(clippy::disallowed_methods, reason = "a test measures when requests failed")]

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use overlay_testkit::{lab::Namespace, traffic::resumed};
use socket2::SockRef;

/// Longest wait for what a client sends, and for a server's answer where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of a server at a time.
const ACCEPTORS: usize = 4;
const QUESTION: &[u8] = b"who\n";
/// Between two requests of a client: the daemons need the processor, too.
const PAUSE: Duration = Duration::from_millis(2);

/// A program at a port of a namespace: answers each connection with its name and the client's address.
pub(crate) struct Server {
    listener: TcpListener,
    acceptors: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(on: &Namespace, port: u16, name: &str) -> Result<Self> {
        let listener = on.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        let acceptor = || -> Result<JoinHandle<()>> {
            let (listener, name) = (listener.try_clone()?, name.to_owned());
            Ok(thread::spawn(move || {
                while let Ok((stream, client)) = resumed(|| listener.accept()) {
                    // Whoever asks may have given up.
                    drop(answer(stream, &name, client.ip().to_canonical()));
                }
            }))
        };
        let acceptors = (0..ACCEPTORS).map(|_| acceptor()).collect::<Result<_>>()?;
        Ok(Self { listener, acceptors })
    }
}

/// Answers who has connected by now, and nobody after that.
impl Drop for Server {
    fn drop(&mut self) {
        // Wakes those that wait for a connection.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, client: IpAddr) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut question = [0; QUESTION.len()];
    stream.read_exact(&mut question)?;
    write!(stream, "{name} {client}")?;
    Ok(())
}

/// One request, from the namespace of the calling thread: who answers, and whom it sees.
pub(crate) fn ask(target: SocketAddr, patience: Duration) -> Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&target, patience).context("connect")?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(QUESTION)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    let (name, seen) =
        answer.split_once(' ').with_context(|| format!("half an answer: {answer:?}"))?;
    Ok((name.to_owned(), seen.parse()?))
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) asked_at: Instant,
    pub(crate) error: String,
}

/// What clients have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Requests by who answered.
    pub(crate) answered: BTreeMap<String, usize>,
    pub(crate) failed: Vec<Failure>,
    pub(crate) slowest: Duration,
}

impl Told {
    pub(crate) fn count(&self) -> usize {
        self.answered.values().sum()
    }
}

/// How clients ask.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Asked one after the other.
    pub(crate) targets: Vec<SocketAddr>,
    /// Whom servers have to see.
    pub(crate) client: IpAddr,
    /// Clients at a time.
    pub(crate) clients: usize,
    /// Longest time of a request.
    pub(crate) patience: Duration,
}

/// Clients in a namespace that ask until they are told to stop.
pub(crate) struct Load {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(from: &Namespace, plan: &Plan) -> Self {
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
        let client = |first: usize| {
            let (plan, told, stop) = (plan.clone(), Arc::clone(&told), Arc::clone(&stop));
            // A thread stays in the namespace that it is started in.
            from.enter(|| {
                thread::spawn(move || {
                    for target in plan.targets.iter().cycle().skip(first) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let asked_at = Instant::now();
                        note(&told, asked_at, request(*target, &plan));
                        thread::park_timeout(PAUSE);
                    }
                })
            })
        };
        let clients = (0..plan.clients).map(client).collect();
        Self { told, stop, clients }
    }

    pub(crate) fn so_far(&self) -> Told {
        lock(&self.told).clone()
    }

    pub(crate) fn end(mut self) -> Result<Told> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(self.so_far())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn request(target: SocketAddr, plan: &Plan) -> Result<String> {
    let (name, seen) = ask(target, plan.patience).with_context(|| format!("ask {target}"))?;
    ensure!(seen == plan.client, "{target}: {name} sees {seen} instead of {}", plan.client);
    Ok(name)
}

fn note(told: &Mutex<Told>, asked_at: Instant, answer: Result<String>) {
    let mut told = lock(told);
    told.slowest = told.slowest.max(asked_at.elapsed());
    match answer {
        Ok(name) => *told.answered.entry(name).or_default() += 1,
        Err(error) => told.failed.push(Failure { asked_at, error: format!("{error:#}") }),
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
