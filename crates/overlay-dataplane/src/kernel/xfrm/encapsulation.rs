//! The UDP socket that ESP comes in by (RFC 3948): as long as it is open, the kernel takes what it
//! receives for ESP, and hands it to the associations.
#![allow(unsafe_code, reason = "no library has the option; the one use says why it is sound")]

use core::net::SocketAddr;
use std::{io, net::UdpSocket, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    libc::{self, c_int, socklen_t},
};
use socket2::{Domain, Protocol, Socket, Type};

/// `UDP_ENCAP` and `UDP_ENCAP_ESPINUDP` of linux/udp.h.
const ENCAPSULATES: c_int = 100;
const ESP_IN_UDP: c_int = 2;

/// Opens one.
pub(super) fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
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
    Ok(socket.into())
}
