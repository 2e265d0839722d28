//! The switch as a running thing: a thread with the engine, its sockets and its ports.
//!
//! ```text
//!            commands                     ┌─────────── thread ───────────┐
//!  Switch ──────────────► bounded queue ──► ports, tables, associations  │
//!  MemoryPort ──────────► ring ───────────► engine ─► batch ─► sockets   │
//!                                         │                  └► ports    │
//!                                         └──────────────────────────────┘
//! ```

use core::net::IpAddr;
use std::{
    sync::{Arc, mpsc},
    thread,
};

use overlay_types::{Encapsulation, NodeId};

use super::{
    capture::Capture,
    engine::{self, Counters, Engine, PortId, Sas, Tables},
    ports::{MemoryPort, Port, memory},
    runner::{Runner, WAKE},
    sockets::Sockets,
    wake::Wake,
};
use crate::{Error, wire::announcement::Announcement};

/// Commands that wait for the switch's thread. Whoever sends more waits too: changes are rare and
/// must not be lost.
const COMMANDS: usize = 256;

/// What a switch is told once.
#[derive(Debug, Clone)]
pub struct SwitchConfig {
    /// UDP port of plain VXLAN, the same on all nodes. 4789 (RFC 7348 §5). `None`: encrypted networks
    /// only, and the port is left to another, as to the kernel's own VXLAN.
    pub vxlan_port: Option<u16>,
    /// How ESP travels, the same on all nodes. In UDP, port 4500; as IP protocol 50 it takes CAP_NET_RAW.
    /// `None`: plain networks only.
    pub esp: Option<Encapsulation>,
    /// The engine's part.
    pub engine: engine::Config,
}

impl SwitchConfig {
    /// A switch whose data traffic leaves from and arrives at `data_path`, with the ports that the
    /// RFCs give. `seed` must be random.
    pub const fn new(data_path: IpAddr, seed: u64) -> Self {
        Self {
            vxlan_port: Some(4789),
            esp: Some(Encapsulation::Udp(4500)),
            engine: engine::Config::new(data_path, seed),
        }
    }
}

/// Something done with the associations on the switch's thread.
pub(super) type SaWork = Box<dyn FnOnce(&mut Sas) + Send>;

/// What the thread is told, in order.
pub(super) enum Command {
    AddPort(PortId, Port),
    RemovePort(PortId),
    /// Forward by these tables.
    Swap(Arc<Tables>),
    /// Tell these ports who has come.
    Announce(Vec<(PortId, Announcement)>),
    Sas(SaWork),
    /// Send a greeting to this peer.
    Greet(NodeId),
    Capture(Option<Capture>),
    /// Answer, when all before it is in effect.
    Barrier(mpsc::SyncSender<()>),
    Stop,
}

/// A handle to a running switch, which stops when the handle is dropped.
#[derive(Debug)]
pub struct Switch {
    commands: mpsc::SyncSender<Command>,
    wake: Arc<Wake>,
    counters: Arc<Counters>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Switch {
    /// Opens the sockets and starts the thread. It forwards nothing until it has tables.
    pub fn start(config: SwitchConfig) -> Result<Self, Error> {
        let data_path = config.engine.data_path;
        let sockets = Sockets::open(data_path, config.vxlan_port, config.esp)?;
        let poll = mio::Poll::new().map_err(Error::Runtime)?;
        let wake = Arc::new(Wake::new(&poll, WAKE).map_err(Error::Runtime)?);
        let (commands, queue) = mpsc::sync_channel(COMMANDS);
        let engine = Engine::new(config.engine);
        let counters = Arc::clone(engine.counters());
        let runner = Runner::new(poll, engine, sockets, queue, Arc::clone(&wake))?;
        let name = format!("switch {data_path}");
        let thread = thread::Builder::new().name(name).spawn(move || runner.run());
        let thread = Some(thread.map_err(Error::Runtime)?);
        Ok(Self { commands, wake, counters, thread })
    }

    /// Plugs a port in. Frames from it are dropped until the tables know it.
    pub fn add_port(&self, id: PortId, port: Port) -> Result<(), Error> {
        self.command(Command::AddPort(id, port))
    }

    /// Plugs a memory port in and returns the endpoint's side of it.
    pub fn add_memory_port(&self, id: PortId) -> Result<MemoryPort, Error> {
        let (endpoint, switch) = memory::pair(Arc::clone(&self.wake));
        self.add_port(id, Port::Memory(switch))?;
        Ok(endpoint)
    }

    /// Unplugs a port; a TAP device made by the switch goes away.
    pub fn remove_port(&self, id: PortId) -> Result<(), Error> {
        self.command(Command::RemovePort(id))
    }

    /// Forwards by `tables` from now on.
    pub fn swap(&self, tables: Arc<Tables>) -> Result<(), Error> {
        self.command(Command::Swap(tables))
    }

    /// Tells ports who has come.
    pub fn announce(&self, told: Vec<(PortId, Announcement)>) -> Result<(), Error> {
        self.command(Command::Announce(told))
    }

    /// Does something with the security associations on the switch's thread, and waits for what
    /// it returns.
    pub fn with_sas<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Sas) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, wait) = mpsc::sync_channel(1);
        self.command(Command::Sas(Box::new(move |sas| {
            // Who asked waits; if it is gone, nobody misses the answer.
            let _ = answer.send(work(sas));
        })))?;
        wait.recv().map_err(|_| Error::Stopped)
    }

    /// Sends one empty datagram to a peer, with the association that is in use for it.
    pub fn greet(&self, peer: NodeId) -> Result<(), Error> {
        self.command(Command::Greet(peer))
    }

    /// Shows every outer datagram to `capture`; `None` ends it. It runs on the switch's thread.
    pub fn capture(&self, capture: Option<Capture>) -> Result<(), Error> {
        self.command(Command::Capture(capture))
    }

    /// Waits until everything commanded so far is in effect.
    pub fn barrier(&self) -> Result<(), Error> {
        let (done, wait) = mpsc::sync_channel(1);
        self.command(Command::Barrier(done))?;
        wait.recv().map_err(|_| Error::Stopped)
    }

    /// The counters of the engine, its ports and sockets.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| Error::Stopped)?;
        self.wake.wake();
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // A thread that has ended already took its reason to the log.
        let _ = self.command(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the switch's thread panicked");
        }
    }
}
