//! The routing mesh in user space: published ports of services answer on a node without privileges, and
//! lead to a task anywhere under the client's own address (S10, S11).
//!
//! ```text
//!  client ─── sockets of the host ─── relays (TCP), flows (UDP) ─── port in memory ═══ switch ═══ task
//!             port 8080                 packets from the client's address               ingress network
//! ```
//!
//! The node's place on the ingress network, its gate, is a port in memory, which this takes. The system
//! accepts a client's TCP connection; a second one, made here, leads to a task: it has the client's
//! address and port, so that the task sees these, and answers come back because the task's node knows the
//! gate by its Ethernet address. Datagrams are put into packets of their own.
//!
//! Beside the dataplane, like [`KernelMesh`](crate::kernel::KernelMesh), which it takes the place of. SCTP
//! is not carried. Connections end with the process.
//!
//! - `ways`: who gets what; `relay`: a connection; `datagrams`: flows; all pure
//! - `gate`, `call`, `sockets`: the shell

mod call;
mod datagrams;
mod gate;
mod relay;
mod sockets;
mod ways;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::Shutdown,
    sync::Arc,
};

use overlay_types::{Protocol, ServiceId};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use self::{gate::Gate, sockets::DatagramSocket};
use super::ports::MemoryPort;
use crate::{
    Error,
    desired::{Mesh, MeshPort},
    kernel::nft::{
        publish::HostPort,
        reservation::{PortTaken, Reservation},
    },
    mesh::{Concerned, IngressMode, MeshOutcome, spec},
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A node's part of the routing mesh without the kernel's help.
#[derive(Debug)]
pub struct UserMesh {
    runtime: Handle,
    mode: IngressMode,
    running: Option<Running>,
    /// What the gate was last told.
    agreed: Option<Mesh>,
    held: BTreeMap<HostPort, Held>,
}

/// The gate, while it has its port.
#[derive(Debug)]
struct Running {
    gate: Arc<Gate>,
    pump: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pump.abort();
        self.gate.close();
    }
}

/// A port that nobody else can have.
#[derive(Debug)]
struct Held {
    reservation: Reservation,
    port: MeshPort,
    /// What serves its sockets.
    serving: Vec<AbortHandle>,
}

impl Held {
    /// Whether all of it is served.
    fn is_served(&self) -> bool {
        self.serving.len() == self.reservation.sockets().len()
            && !self.serving.iter().any(AbortHandle::is_finished)
    }

    fn serve(&mut self, gate: &Arc<Gate>) -> io::Result<()> {
        for socket in self.reservation.sockets() {
            self.serving.push(listen(socket, self.port, gate)?.abort_handle());
        }
        Ok(())
    }

    /// Nobody is let in any more.
    fn stop(&mut self, gate: Option<&Gate>) {
        if self.serving.is_empty() {
            return;
        }
        for task in self.serving.drain(..) {
            task.abort();
        }
        if let Some(gate) = gate {
            gate.forget(&self.port);
        }
        if self.port.protocol == Protocol::Tcp {
            for socket in self.reservation.sockets() {
                // It does not listen after this, and stays bound, and in the way of others. One that did
                // not listen says so.
                let _ = socket.shutdown(Shutdown::Read);
                let _ = socket.set_reuse_address(false);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop(None);
    }
}

impl UserMesh {
    /// The part of a node whose tasks run on `runtime`. Holds nothing yet.
    pub const fn new(runtime: Handle, mode: IngressMode) -> Self {
        Self { runtime, mode, running: None, agreed: None, held: BTreeMap::new() }
    }

    /// Makes the part what it shall be. `port` is that of the node's gate, if there is a new one. What is
    /// refused is tried again the next time.
    pub fn reconcile(&mut self, mesh: Option<&Mesh>, port: Option<MemoryPort>) -> MeshOutcome {
        let mut outcome = MeshOutcome::default();
        let Some(mesh) = mesh else {
            if !self.held.is_empty() {
                outcome.changes.push("publish no ports".to_owned());
            }
            self.held.clear();
            (self.running, self.agreed) = (None, None);
            return outcome;
        };
        if let Some(port) = port {
            self.begin(mesh, port);
        }
        let Some(gate) = self.running.as_ref().map(|running| Arc::clone(&running.gate)) else {
            return outcome;
        };
        if self.agreed.as_ref() != Some(mesh) {
            gate.set(|ways| ways.set(mesh));
            self.agreed = Some(mesh.clone());
        }
        let wanted: BTreeMap<HostPort, (MeshPort, ServiceId)> = mesh
            .services
            .iter()
            .flat_map(|(id, service)| service.ports.iter().map(|p| (p.into(), (*p, *id))))
            .collect();
        self.held.retain(|host, held| {
            let stays = wanted.contains_key(host);
            if !stays {
                held.stop(Some(&gate));
                outcome.changes.push(format!("publish {} no more", name(&held.port)));
            }
            stays
        });
        for (port, service) in wanted.into_values() {
            if let Err(error) = self.serve(port, &gate, &mut outcome) {
                outcome.refused.push((Concerned::Service(service), error));
            }
        }
        outcome
    }

    /// Has a new gate, which knows where to lead before it hears of anybody.
    fn begin(&mut self, mesh: &Mesh, port: MemoryPort) {
        let before = self.running.take();
        for held in self.held.values_mut() {
            held.stop(before.as_ref().map(|running| &*running.gate));
        }
        let gate = Arc::new(Gate::new(&port, self.mode == IngressMode::Snat));
        gate.set(|ways| ways.set(mesh));
        let pump = self.runtime.spawn(Arc::clone(&gate).pump(port));
        self.running = Some(Running { gate, pump });
    }

    /// Holds a port, and serves it. One of connections only while there is somebody to lead to: others
    /// are to be refused. Flows of datagrams go on while their task drains.
    fn serve(
        &mut self,
        port: MeshPort,
        gate: &Arc<Gate>,
        outcome: &mut MeshOutcome,
    ) -> Result<(), Error> {
        if port.protocol == Protocol::Sctp {
            let reason = "this node answers on published ports in user space, for TCP and UDP only; \
                          start it with --dataplane kernel";
            let unknown = Error::Unsupported("publish SCTP");
            return Err(spec(&port).map_or(unknown, |port| Error::Publish { port, reason }));
        }
        let held = match self.held.entry(HostPort::from(&port)) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                let Some(reservation) = take(&port)? else { return Ok(()) };
                outcome.changes.push(format!("publish {}", name(&port)));
                place.insert(Held { reservation, port, serving: Vec::new() })
            }
        };
        let is_open = port.protocol == Protocol::Udp || gate.is_open(&port);
        if held.port != port || !is_open || !held.is_served() {
            held.stop(Some(gate));
            held.port = port;
        }
        if is_open && !held.is_served() {
            let _entered = self.runtime.enter();
            held.serve(gate).map_err(|source| {
                held.stop(Some(gate));
                Error::Kernel {
                    step: "listen on",
                    subject: format!("published port {}", name(&port)),
                    source: source.into(),
                }
            })?;
        }
        Ok(())
    }
}

/// Takes a port. `None`: its address is another node's.
fn take(port: &MeshPort) -> Result<Option<Reservation>, PortTaken> {
    match Reservation::take(port.into()) {
        Ok(reservation) => Ok(Some(reservation)),
        Err(error) if error.source.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error),
    }
}

/// Serves a socket of a published port, on the runtime that was entered.
fn listen(
    socket: &socket2::Socket,
    port: MeshPort,
    gate: &Arc<Gate>,
) -> io::Result<JoinHandle<()>> {
    let own = socket.try_clone()?;
    own.set_nonblocking(true)?;
    let gate = Arc::clone(gate);
    if port.protocol == Protocol::Udp {
        let socket = Arc::new(DatagramSocket::new(own)?);
        return Ok(tokio::spawn(gate.receive(port, socket)));
    }
    // Connections of before would be in the way.
    own.set_reuse_address(true)?;
    own.listen(BACKLOG)?;
    let listener = TcpListener::from_std(own.into())?;
    Ok(tokio::spawn(gate.accept(port, listener)))
}

fn name(port: &MeshPort) -> String {
    match port.bind {
        Some(address) => format!("{}/{} on {address}", port.published, port.protocol),
        None => format!("{}/{}", port.published, port.protocol),
    }
}
