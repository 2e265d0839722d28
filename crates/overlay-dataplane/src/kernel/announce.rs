//! Tells the endpoints of a network who has come, through their ports.

#![allow(
    unsafe_code,
    reason = "an address of a packet socket is made of a struct; the one use says why"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket,
    },
};
use overlay_types::MacAddr;

use super::netns::NetNs;
use crate::wire::announcement::{Announcement, MOST};

/// Tells the endpoints behind `ports`, of which each has its own address, in a network's namespace.
/// Fails without `CAP_NET_RAW`.
pub(super) fn tell(
    netns: &NetNs,
    ports: &[(u32, MacAddr)],
    newcomers: &[Announcement],
) -> io::Result<()> {
    let pairs =
        newcomers.iter().flat_map(|newcomer| ports.iter().map(move |port| (port, newcomer)));
    let mut others =
        pairs.filter(|((_, own), newcomer)| *own != newcomer.mac).take(MOST).peekable();
    if others.peek().is_none() {
        return Ok(());
    }
    let opened = netns.enter(|| {
        Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?)
    })?;
    let (mut frame, mut outcome) = (Vec::new(), Ok(()));
    for ((port, _), newcomer) in others {
        frame.clear();
        newcomer.emit(&mut frame);
        // One that is just going keeps it from no other.
        outcome = outcome.and(send(&opened, *port, &frame));
    }
    outcome
}

/// Puts a frame on the endpoint's side of a port.
fn send(socket: &OwnedFd, port: u32, frame: &[u8]) -> io::Result<()> {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: port.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&to) as libc::socklen_t;
    // SAFETY: it points to a whole `sockaddr_ll`, whose family and length say so, and is copied from.
    let to = unsafe { LinkAddr::from_raw((&raw const to).cast(), Some(length)) };
    let to = to.ok_or(io::ErrorKind::InvalidInput)?;
    sendto(socket.as_raw_fd(), frame, &to, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}
