//! The switch's thread: what is ready is taken in bounded helpings, and what follows is sent.
#![expect(clippy::disallowed_methods, reason = "this is the shell that tells the engine the time")]

use core::{
    mem,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io,
    sync::{Arc, mpsc},
    time::Instant,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use super::{
    capture::{Capture, Captured, Direction},
    engine::{
        Batch, Channel, Counters, DropReason, Engine, FRAME_HEADROOM, Offload, Output, PortId,
    },
    ports::{Port, tap},
    sockets::{DatagramSocket, Receiver, Sockets},
    switch::Command,
    wake::Wake,
};
use crate::Error;

/// Token of the waker.
pub(super) const WAKE: Token = Token(usize::MAX);
const VXLAN: Token = Token(usize::MAX - 1);
const ESP: Token = Token(usize::MAX - 2);

/// Events taken from one poll; more wait for the next.
const EVENTS: usize = 256;
/// Frames that one port may send before the next one's turn.
const PORT_BUDGET: usize = 64;
/// Octets in a batch after which it is sent: what stays in the second-level cache.
const BATCH_BYTES: usize = 256 << 10;
/// Longest sleep; nothing depends on it, it only bounds how late a lost wake-up could be.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

struct PortState {
    port: Port,
    /// Something may wait in it. Polling tells of changes only.
    ready: bool,
}

/// The engine with all that it is fed from.
pub(super) struct Runner {
    poll: Poll,
    engine: Engine,
    sockets: Sockets,
    vxlan_ready: bool,
    esp_ready: bool,
    ports: Vec<Option<PortState>>,
    commands: mpsc::Receiver<Command>,
    wake: Arc<Wake>,
    receiver: Receiver,
    frame: Vec<u8>,
    batch: Batch,
    capture: Option<Capture>,
    counters: Arc<Counters>,
}

impl Runner {
    pub(super) fn new(
        poll: Poll,
        engine: Engine,
        sockets: Sockets,
        commands: mpsc::Receiver<Command>,
        wake: Arc<Wake>,
    ) -> Result<Self, Error> {
        let plain = sockets.plain.iter().map(|plain| (&plain.vxlan, VXLAN));
        let esp = sockets.esp.iter().map(|socket| (socket, ESP));
        for (socket, token) in plain.chain(esp) {
            let fd = socket.fd();
            poll.registry()
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
                .map_err(Error::Runtime)?;
        }
        Ok(Self {
            counters: Arc::clone(engine.counters()),
            poll,
            engine,
            vxlan_ready: sockets.plain.is_some(),
            esp_ready: sockets.esp.is_some(),
            sockets,
            ports: Vec::new(),
            commands,
            wake,
            receiver: Receiver::new(),
            frame: vec![0; tap::BUFFER_LEN],
            batch: Batch::default(),
            capture: None,
        })
    }

    /// Switches until it is told to stop, or nobody is left who could tell it.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let busy = self.vxlan_ready
                || self.esp_ready
                || self.ports.iter().flatten().any(|port| port.ready);
            let now = Instant::now();
            let sleep = if busy { Duration::ZERO } else { self.sleep(now) };
            match self.poll.poll(&mut events, Some(sleep)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "polling failed; the switch stops");
                    return;
                }
            }
            for event in &events {
                match event.token() {
                    WAKE => {}
                    VXLAN => self.vxlan_ready = true,
                    ESP => self.esp_ready = true,
                    Token(number) => {
                        if let Some(Some(port)) = self.ports.get_mut(number) {
                            port.ready = true;
                        }
                    }
                }
            }
            if events.iter().any(|event| event.token() == WAKE) && !self.woken() {
                return;
            }
            self.turn(Instant::now());
        }
    }

    fn sleep(&self, now: Instant) -> Duration {
        let until = self.engine.next_timeout().map(|at| at.saturating_duration_since(now));
        until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    /// Does what was commanded and marks the rings. `false` when the switch shall stop.
    fn woken(&mut self) -> bool {
        self.wake.clear();
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        for port in self.ports.iter_mut().flatten() {
            port.ready |= matches!(port.port, Port::Memory(_));
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::AddPort(id, port) => self.add_port(id, port),
            Command::RemovePort(id) => {
                if let Some(slot) = self.ports.get_mut(id.0 as usize) {
                    // Closing the file ends its registration.
                    *slot = None;
                }
            }
            Command::Swap(tables) => self.engine.swap(tables),
            Command::Announce(told) => {
                self.engine.announce(&told, &mut self.batch);
                self.flush();
            }
            Command::Sas(work) => work(self.engine.sas_mut()),
            Command::Greet(peer) => {
                self.engine.greet(peer, &mut self.batch);
                self.flush();
            }
            Command::Capture(capture) => self.capture = capture,
            Command::Barrier(done) => {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
            Command::Stop => {} // ends the loop in `woken`
        }
    }

    fn add_port(&mut self, id: PortId, port: Port) {
        let number = id.0 as usize;
        if let Port::Tap(tap) = &port {
            let fd = tap.fd();
            let registry = self.poll.registry();
            let done = registry.register(&mut SourceFd(&fd), Token(number), Interest::READABLE);
            if let Err(error) = done {
                tracing::error!(port = number, %error, "cannot poll a TAP device");
            }
        }
        if self.ports.len() <= number {
            self.ports.resize_with(number + 1, || None);
        }
        self.ports[number] = Some(PortState { port, ready: true });
    }

    /// One helping from everything that is ready.
    fn turn(&mut self, now: Instant) {
        self.vxlan_ready = self.vxlan_ready && self.take_datagrams(VXLAN, now);
        self.esp_ready = self.esp_ready && self.take_datagrams(ESP, now);
        for number in 0..self.ports.len() {
            let Some(state) = &mut self.ports[number] else { continue };
            if mem::take(&mut state.ready) {
                let more = self.take_frames(number, now);
                if let Some(state) = &mut self.ports[number] {
                    state.ready |= more;
                }
            }
        }
        self.engine.handle_timeout(now);
    }

    fn take_datagrams(&mut self, token: Token, now: Instant) -> bool {
        let (engine, batch, capture) = (&mut self.engine, &mut self.batch, &mut self.capture);
        let Sockets { plain, esp } = &self.sockets;
        let socket = if token == VXLAN { plain.as_ref().map(|p| &p.vxlan) } else { esp.as_ref() };
        let Some(socket) = socket else { return false };
        let taken = self.receiver.receive(socket, |from, datagram| {
            if let Some(capture) = capture {
                capture(Captured {
                    direction: Direction::Received,
                    source: from,
                    destination: socket.local,
                    payload: datagram,
                });
            }
            if token == ESP {
                engine.handle_esp(from.ip(), datagram, now, batch);
            } else {
                engine.handle_vxlan(from.ip(), datagram, now, batch);
            }
        });
        self.flush();
        taken.unwrap_or_else(|error| {
            // ICMP errors about earlier sends arrive this way; the next call is a new try.
            tracing::debug!(%error, "receiving failed");
            true
        })
    }

    /// Takes frames from a port. Says whether more may wait.
    fn take_frames(&mut self, number: usize, now: Instant) -> bool {
        let id = PortId(number as u32);
        let mut more = true;
        for _ in 0..PORT_BUDGET {
            let Some(Some(state)) = self.ports.get_mut(number) else { return false };
            match &mut state.port {
                Port::Memory(ring) => {
                    let Some(mut frame) = ring.pop() else {
                        more = false;
                        break;
                    };
                    self.engine.handle_frame(id, &mut frame, Offload::None, now, &mut self.batch);
                }
                Port::Tap(tap) => match tap.read(&mut self.frame) {
                    Ok((range, offload)) => {
                        let frame = &mut self.frame[range];
                        self.engine.handle_frame(id, frame, offload, now, &mut self.batch);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // A device that is down or gone reads as an error until it changes.
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::debug!(port = number, %error, "cannot read from a TAP device");
                        }
                        more = false;
                        break;
                    }
                },
            }
            if self.batch.bytes() >= BATCH_BYTES {
                self.flush();
            }
        }
        self.flush();
        more
    }

    /// Sends all outputs.
    fn flush(&mut self) {
        let mut batch = mem::take(&mut self.batch);
        let (outputs, arena) = batch.parts_mut();
        for output in outputs {
            match output {
                Output::Datagrams { to, channel, range, stride } => {
                    self.send(*to, *channel, &arena[range.clone()], *stride);
                }
                Output::Frame { port, range, offload } => {
                    let bytes = &mut arena[range.start - FRAME_HEADROOM..range.end];
                    self.deliver(*port, bytes, *offload);
                }
            }
        }
        batch.clear();
        self.batch = batch;
    }

    fn send(&mut self, to: IpAddr, channel: Channel, contents: &[u8], stride: usize) {
        let Sockets { plain, esp } = &self.sockets;
        let leaves = match channel {
            Channel::Plain { source_port } => {
                plain.as_ref().map(|p| (p.source(source_port), p.vxlan.local.port()))
            }
            Channel::Esp => esp.as_ref().map(|socket| (socket, socket.local.port())),
        };
        let Some((socket, port)) = leaves else {
            // Such a switch is given no such network.
            self.counters.count_drop(DropReason::SocketError);
            return;
        };
        let destination = SocketAddr::new(to, port);
        if let Some(capture) = &mut self.capture {
            show(capture, socket, destination, contents, stride);
        }
        let Err((lost, error)) = socket.send(destination, contents, stride) else { return };
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock => DropReason::SocketFull,
            _ => DropReason::SocketError,
        };
        tracing::debug!(%destination, %error, lost, "datagrams were not sent");
        self.counters.count_drops(reason, lost as u64);
    }

    /// `bytes` are the frame, after [`FRAME_HEADROOM`] octets of room.
    fn deliver(&mut self, id: PortId, bytes: &mut [u8], offload: Offload) {
        let Some(Some(state)) = self.ports.get_mut(id.0 as usize) else {
            self.counters.count_drop(DropReason::UnknownPort);
            return;
        };
        match &mut state.port {
            Port::Memory(ring) => {
                if !ring.push(&bytes[FRAME_HEADROOM..]) {
                    self.counters.count_drop(DropReason::PortFull);
                }
            }
            Port::Tap(tap) => {
                if let Err(error) = tap.write(bytes, offload) {
                    tracing::debug!(port = %id, %error, "cannot write to a TAP device");
                    self.counters.count_drop(DropReason::PortError);
                }
            }
        }
    }
}

fn show(
    capture: &mut Capture,
    socket: &DatagramSocket,
    destination: SocketAddr,
    contents: &[u8],
    stride: usize,
) {
    for payload in contents.chunks(stride) {
        let (direction, source) = (Direction::Sent, socket.local);
        capture(Captured { direction, source, destination, payload });
    }
}
