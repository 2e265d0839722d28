//! The UDP socket that ESP comes in by (RFC 3948): as long as it is open, the kernel takes what it
//! receives for ESP, and hands it to the associations. Nobody reads from it.
#![allow(unsafe_code, reason = "no library has the option; the one use says why it is sound")]

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

/// The socket, and the process that has it, too, while that is wanted.
#[derive(Debug)]
pub(super) struct EspSocket {
    socket: UdpSocket,
    holder: Option<Holder>,
    held: Option<Held>,
    /// That there is no holder was logged.
    told: bool,
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
                let found = holder.as_ref().map(|holder| holder::find(&holder.path)).transpose();
                let found = found.map_err(failed)?.flatten();
                let here = |socket: &UdpSocket| socket.local_addr().is_ok_and(|at| at == address);
                match found {
                    Some((held, Some(socket))) if here(&socket) => (socket, Some(held)),
                    _ => return Err(Error::EspPortInUse { address }),
                }
            }
            Err(error) => return Err(failed(error)),
        };
        encapsulate(&socket).map_err(failed)?;
        Ok(Self { socket, holder, held, told: false })
    }

    /// Has a holder, which keeps the socket open when this process ends. Without one this process goes on.
    pub(super) fn keep(&mut self) {
        let Some(holder) = &self.holder else { return };
        if self.held.as_ref().is_some_and(Held::lives) {
            return;
        }
        if let Some(ended) = self.held.take() {
            tracing::warn!(
                "the process that holds the socket of ESP has ended; another one is started"
            );
            // Nobody else waits for it.
            let _ = ended.reap();
        }
        match holder.start(&self.socket) {
            Ok(held) => {
                self.told = false;
                self.held = Some(held);
            }
            Err(error) if !self.told => {
                self.told = true;
                let (program, path) = (holder.program.display(), holder.path.display());
                tracing::error!(
                    %error, %program, %path,
                    "no process holds the socket of ESP: encrypted networks will receive nothing \
                     while this daemon is down"
                );
            }
            Err(_) => {}
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
