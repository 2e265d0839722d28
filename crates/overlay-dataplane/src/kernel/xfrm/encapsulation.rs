//! The UDP socket that ESP comes in by (RFC 3948): as long as it is open, the kernel takes what it
//! receives for ESP, and hands it to the associations. Nobody reads from it.
#![allow(unsafe_code, reason = "no library has the option; each use says why it is sound")]

use core::net::SocketAddr;
use std::{
    io::{self, ErrorKind},
    net::UdpSocket,
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    libc::{self, c_int, socklen_t},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::holder::{self, Held, Holder};
use crate::Error;

/// `UDP_ENCAP` and `UDP_ENCAP_ESPINUDP` of linux/udp.h.
const ENCAPSULATES: c_int = 100;
const ESP_IN_UDP: c_int = 2;
/// Most looks that pass between two starts of a program that does not do what a holder does.
const MOST_PASSED: u32 = 64;

/// The socket, and the process that has it, too, while that is wanted.
#[derive(Debug)]
pub(super) struct EspSocket {
    socket: UdpSocket,
    holder: Option<Holder>,
    held: Option<Held>,
    failures: Failures,
}

/// Starts of a holder that came to nothing, one after the other.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// Looks that are to pass before the next start.
    passing: u32,
}

impl EspSocket {
    /// The one that a holder has at this address, or a new one. A holder of another one is ended.
    pub(super) fn open(address: SocketAddr, holder: Option<Holder>) -> Result<Self, Error> {
        let failed = |source| Error::Socket { address, source };
        let (socket, held) = match bind(address) {
            Ok(socket) => {
                // What a holder has is at another address then, or in another namespace.
                if let Some(holder) = &holder
                    && let Err(error) = holder::end(&holder.path)
                {
                    let path = holder.path.display();
                    tracing::warn!(%error, %path, "a process that holds a socket of ESP stays");
                }
                (socket, None)
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                take_over(address, holder.as_ref())?
            }
            Err(error) => return Err(failed(error)),
        };
        encapsulate(&socket).map_err(failed)?;
        Ok(Self { socket, holder, held, failures: Failures::default() })
    }

    /// Has a holder, which keeps the socket open when this process ends. Without one this process goes on.
    pub(super) fn keep(&mut self) {
        let Some(holder) = &self.holder else { return };
        if self.held.as_mut().is_some_and(Held::lives) {
            if holder.path.exists() {
                return;
            }
            // The next daemon would not find it.
            if let Some(Err(error)) = self.held.take().map(Held::end) {
                tracing::warn!(%error, "a process that holds the socket of ESP stays; end it");
            }
        }
        if let Some(ended) = self.held.take() {
            if ended.has_greeted() {
                self.failures = Failures::default();
                tracing::warn!(
                    "the process that holds the socket of ESP has ended; another one is started"
                );
            } else {
                self.failures.note(holder, &"it ended without a word");
            }
            // Nobody else waits for it.
            let _ = ended.reap();
        }
        if !self.failures.is_due() {
            return;
        }
        match holder.start(&self.socket) {
            Ok(held) => self.held = Some(held),
            Err(error) => self.failures.note(holder, &error),
        }
    }

    /// Has none any more.
    pub(super) fn release(&mut self) {
        let (Some(holder), Some(held)) = (&self.holder, self.held.take()) else { return };
        if let Err(error) = held.end().and_then(|()| holder::end(&holder.path)) {
            let path = holder.path.display();
            tracing::error!(%error, %path, "a process that holds the socket of ESP stays; end it");
        }
    }
}

impl Failures {
    fn note(&mut self, holder: &Holder, reason: &dyn core::fmt::Display) {
        if self.count == 0 {
            let (program, path) = (holder.program.display(), holder.path.display());
            tracing::error!(
                %reason, %program, %path,
                "no process holds the socket of ESP: encrypted networks will receive nothing while \
                 this daemon is down"
            );
        }
        self.count = self.count.saturating_add(1);
        self.passing = 1_u32.checked_shl(self.count).unwrap_or(MOST_PASSED).min(MOST_PASSED);
    }

    /// Whether another start may be made; one that is not, is one less to wait for.
    fn is_due(&mut self) -> bool {
        let due = self.passing == 0;
        self.passing = self.passing.saturating_sub(1);
        due
    }
}

/// The socket of the holder that has this address. One that has another, or says something else, is ended.
fn take_over(
    address: SocketAddr,
    holder: Option<&Holder>,
) -> Result<(UdpSocket, Option<Held>), Error> {
    let failed = |source| Error::Socket { address, source };
    let found = holder.map(|holder| holder::find(&holder.path)).transpose();
    if let Some((held, socket)) = found.map_err(failed)?.flatten() {
        if let Some(socket) = socket
            && is_here(&socket, address)
        {
            return Ok((socket, Some(held)));
        }
        held.end().map_err(failed)?;
    }
    // It may have been one of another release that had the port, or one that ended meanwhile.
    match bind(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Error::EspPortInUse { address }),
        bound => Ok((bound.map_err(failed)?, None)),
    }
}

/// Whether a socket is at an address, of the calling thread's namespace.
fn is_here(socket: &UdpSocket, address: SocketAddr) -> bool {
    let own = Socket::new(Domain::for_address(address), Type::DGRAM, None);
    socket.local_addr().is_ok_and(|at| at == address)
        && own.is_ok_and(|own| namespace(&own) == namespace(socket))
}

/// A number that each network namespace has; `None` on kernels that tell none (before Linux 5.14).
fn namespace(socket: &impl AsRawFd) -> Option<u64> {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as socklen_t);
    // SAFETY: the descriptor is open while `socket` lives, and the kernel writes no more than `length`
    // octets, which are `cookie`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(outcome).ok().map(|_| cookie)
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn encapsulate(socket: &UdpSocket) -> io::Result<()> {
    let value = ESP_IN_UDP;
    // SAFETY: the descriptor is open while `socket` lives, and the kernel reads one `c_int`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            ENCAPSULATES,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    Errno::result(outcome)?;
    Ok(())
}
