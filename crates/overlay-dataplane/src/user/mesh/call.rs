//! One connection: the client's socket, and the relay to its task.

use core::time::Duration;
use std::{
    io::{self, ErrorKind},
    net::Shutdown,
    sync::Arc,
    time::Instant,
};

use overlay_types::MacAddr;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::mpsc, time::sleep_until};

use super::{
    datagrams::Ends,
    gate::{Gate, now},
    relay::{Progress, Relay},
};

/// How long a task may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest time between two looks at a connection on which nothing happens.
const IDLE_LOOK: Duration = Duration::from_hours(1);

/// A connection that somebody waits for. Forgotten when dropped.
pub(super) struct Call {
    pub(super) gate: Arc<Gate>,
    /// Which one it is, of those that had the same ends.
    pub(super) number: u64,
    pub(super) ends: Ends,
    /// Ethernet address of the task.
    pub(super) mac: MacAddr,
    pub(super) relay: Relay,
    /// What comes from the task. Ends when it may not be talked to any more.
    pub(super) packets: mpsc::Receiver<Vec<u8>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.gate.hang_up(&self.ends, self.number);
    }
}

impl Call {
    fn step(&mut self) {
        self.relay.poll(self.gate.room(), now());
        while let Some(packet) = self.relay.poll_output() {
            self.gate.send_packet(self.mac, &packet);
        }
    }

    /// The task is told that nobody is there any more.
    pub(super) fn abort(&mut self) {
        self.relay.abort();
        self.step();
    }

    /// Takes what came with this packet. `None`: the task may not be talked to any more.
    fn take(&mut self, packet: Option<Vec<u8>>) -> bool {
        let Some(packet) = packet else { return false };
        self.relay.handle_packet(&packet);
        while let Ok(packet) = self.packets.try_recv() {
            self.relay.handle_packet(&packet);
        }
        true
    }

    /// When the relay has something to do by itself, at the latest at `deadline`.
    fn due(&mut self, deadline: Instant) -> tokio::time::Instant {
        self.relay.poll_at(now()).map_or(deadline, |due| due.min(deadline)).into()
    }

    /// Waits until the task accepts. Says whether it did.
    pub(super) async fn open(&mut self) -> bool {
        let deadline = now() + PATIENCE;
        loop {
            self.step();
            match self.relay.progress() {
                Progress::Opening if now() < deadline => {}
                Progress::Opening | Progress::Broken => return false,
                Progress::Open | Progress::Ended => return true,
            }
            let due = self.due(deadline);
            tokio::select! {
                packet = self.packets.recv() => if !self.take(packet) { return false },
                () = sleep_until(due) => {}
            }
        }
    }

    /// Carries octets both ways until both ends have finished.
    pub(super) async fn carry(&mut self, client: &TcpStream) -> io::Result<()> {
        let (mut client_finished, mut task_finished) = (false, false);
        loop {
            self.step();
            if self.give(client)? {
                // The task is told of the room.
                self.step();
            }
            // Not before: an end in order says that all was said.
            if self.relay.progress() == Progress::Broken {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if self.relay.has_finished() && !task_finished {
                SockRef::from(client).shutdown(Shutdown::Write)?;
                task_finished = true;
            }
            if self.relay.progress() == Progress::Ended && !self.relay.can_recv() {
                return Ok(());
            }
            let reads = !client_finished && self.relay.can_send();
            let writes = self.relay.can_recv();
            let is_over = self.relay.progress() == Progress::Ended;
            let due = self.due(now() + IDLE_LOOK);
            tokio::select! {
                packet = self.packets.recv(), if !is_over => if !self.take(packet) {
                    return Err(ErrorKind::ConnectionAborted.into());
                },
                ready = client.readable(), if reads => {
                    ready?;
                    client_finished = self.ask(client)?;
                }
                ready = client.writable(), if writes => ready?,
                () = sleep_until(due), if !is_over => {}
            }
        }
    }

    /// Gives the client what waits for it. Says whether there was something.
    fn give(&mut self, client: &TcpStream) -> io::Result<bool> {
        let mut gave = false;
        while self.relay.can_recv() {
            match self.relay.recv(|octets| client.try_write(octets)) {
                Ok(_) => gave = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(gave)
    }

    /// Takes what the client sends. Says whether it has finished.
    fn ask(&mut self, client: &TcpStream) -> io::Result<bool> {
        while self.relay.can_send() {
            match self.relay.send(|buffer| client.try_read(buffer)) {
                Ok(0) => {
                    self.relay.finish();
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
