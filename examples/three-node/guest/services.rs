//! What every guest answers: its name on TCP port 80, what it is sent on port 7 (RFC 862).

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::{tcp, udp},
};

use super::stack::{tcp_socket, udp_socket};

pub(super) const NAME_PORT: u16 = 80;
pub(super) const ECHO_PORT: u16 = 7;
/// Connections at once. A stack has no queue of connections that are not accepted.
const NAMING: usize = 16;
const ECHOING: usize = 4;
/// What is echoed in one go.
const CHUNK: usize = 16 << 10;

/// The sockets of a guest's services.
#[derive(Debug)]
pub(super) struct Services {
    name: String,
    naming: Vec<SocketHandle>,
    echoing: Vec<SocketHandle>,
    datagrams: SocketHandle,
    chunk: Vec<u8>,
}

impl Services {
    pub(super) fn new(name: String, sockets: &mut SocketSet<'static>) -> Self {
        let naming = (0..NAMING).map(|_| sockets.add(tcp_socket())).collect();
        let echoing = (0..ECHOING).map(|_| sockets.add(tcp_socket())).collect();
        let datagrams = sockets.add(udp_socket(ECHO_PORT));
        Self { name, naming, echoing, datagrams, chunk: vec![0; CHUNK] }
    }

    /// Answers what there is to answer. Whether there was anything.
    pub(super) fn work(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let mut worked = false;
        for handle in &self.naming {
            let tcp = sockets.get_mut(*handle);
            worked |= listen(tcp, NAME_PORT) || greet(tcp, &self.name);
        }
        for handle in &self.echoing {
            let tcp = sockets.get_mut(*handle);
            worked |= listen(tcp, ECHO_PORT) || echo(tcp, &mut self.chunk);
        }
        worked | echo_datagrams(sockets.get_mut(self.datagrams), &mut self.chunk)
    }
}

/// A connection that ended makes room for the next one.
fn listen(tcp: &mut tcp::Socket<'_>, port: u16) -> bool {
    !tcp.is_open() && tcp.listen(port).is_ok()
}

fn greet(tcp: &mut tcp::Socket<'_>, name: &str) -> bool {
    if tcp.state() != tcp::State::Established && tcp.state() != tcp::State::CloseWait {
        return false;
    }
    // The buffer of a new connection has room for a name.
    let _ = tcp.send_slice(name.as_bytes());
    tcp.close();
    true
}

fn echo(tcp: &mut tcp::Socket<'_>, chunk: &mut [u8]) -> bool {
    let mut worked = false;
    while tcp.can_recv() && tcp.can_send() {
        let room = chunk.len().min(tcp.send_capacity() - tcp.send_queue());
        let read = tcp.recv_slice(&mut chunk[..room]).unwrap_or(0);
        // There is room for it.
        let _ = tcp.send_slice(&chunk[..read]);
        worked = true;
    }
    if tcp.state() == tcp::State::CloseWait && !tcp.can_recv() {
        tcp.close();
        worked = true;
    }
    worked
}

fn echo_datagrams(udp: &mut udp::Socket<'_>, chunk: &mut [u8]) -> bool {
    let mut worked = false;
    while udp.can_send()
        && let Ok((length, from)) = udp.recv_slice(chunk)
    {
        // What finds no room is lost, as datagrams may be.
        let _ = udp.send_slice(&chunk[..length], from.endpoint);
        worked = true;
    }
    worked
}
