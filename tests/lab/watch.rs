//! A watchman over a host's devices: counts what is sealed, and keeps what is in clear.

use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use overlay_testkit::{hosts::CABLE, lab::Namespace};
use socket2::{Domain, Protocol, Socket, Type};

use crate::ear::{EVERYTHING, READ};

/// Octets of frames that wait for the watchman: he may sleep for a while on a busy machine.
const ROOM: usize = 64 << 20;
/// Frames in clear that are kept to be shown.
const SHOWN: usize = 3;
const ESP: u8 = 50;
const UDP: u8 = 17;
const ESP_PORT: u16 = 4500;

/// What passed the devices of a host since the watch began.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Frames with ESP in them.
    pub(crate) sealed: u64,
    /// Frames with the word in them.
    pub(crate) clear: u64,
    shown: Vec<String>,
}

/// A watch over all devices of a namespace. Ends when it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Looks for a word in every frame on the cable of a host and its other devices.
    ///
    /// The cable carries no batches from now on, which are not in one piece of memory: the kernel that
    /// receives ESP in UDP opens the other pieces where they are, and the watchman would see that.
    pub(crate) fn over(host: &Namespace, word: &'static [u8]) -> Result<Self> {
        host.run(&["ethtool", "--features", CABLE, "scatter-gather", "off"])?;
        Self::over_all(host, word)
    }

    /// Looks for a word in every frame.
    pub(crate) fn over_all(netns: &Namespace, word: &'static [u8]) -> Result<Self> {
        let protocol = Some(Protocol::from(EVERYTHING));
        let socket = netns.enter(|| -> Result<Socket> {
            let socket = Socket::new(Domain::PACKET, Type::RAW, protocol)?;
            if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
                socket.set_recv_buffer_size(ROOM)?;
            }
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(READ))?;
        let (seen, stop) = <(Arc<Mutex<Seen>>, Arc<AtomicBool>)>::default();
        let (write, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || look(socket, word, &write, &ends));
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a frame in clear, and a watch that saw nothing that was sealed.
    pub(crate) fn all_was_sealed(&self) -> Result<()> {
        let seen = self.seen();
        ensure!(seen.clear == 0, "{} frames in clear: {:#?}", seen.clear, seen.shown);
        ensure!(seen.sealed > 0, "nothing was sealed either: {seen:?}");
        Ok(())
    }

    /// Ends it, and says what it came to.
    pub(crate) fn end(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it ends once")?;
        thread.join().expect("the watchman panicked")?;
        Ok(core::mem::take(&mut *self.seen()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(mut socket: Socket, word: &[u8], seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut ends = false;
    loop {
        if !ends && stop.load(Ordering::Relaxed) {
            // What waits is looked at before it ends, and nothing is waited for: others may talk on.
            ends = true;
            socket.set_nonblocking(true)?;
        }
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock && ends => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // A device went down.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENETDOWN) => continue,
            Err(error) => return Err(error.into()),
        };
        let frame = &buffer[..length];
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sealed += u64::from(is_sealed(frame));
        if frame.windows(word.len()).any(|w| w == word) {
            seen.clear += 1;
            if seen.shown.len() < SHOWN {
                seen.shown.push(frame.escape_ascii().to_string());
            }
        }
    }
}

fn is_sealed(frame: &[u8]) -> bool {
    let Ok(packet) = etherparse::LaxSlicedPacket::from_ethernet(frame) else { return false };
    let ip = packet.net.as_ref().and_then(|net| net.ip_payload_ref());
    let Some(ip) = ip else { return false };
    let port = |at: usize| ip.payload.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]]));
    ip.ip_number.0 == ESP || ip.ip_number.0 == UDP && port(2) == Some(ESP_PORT)
}
