//! Tells the endpoints of a network who has come, through their ports; on a thread of its own, because the
//! kernel waits when a packet socket is closed.

#![allow(
    unsafe_code,
    reason = "an address of a packet socket is made of a struct; the one use says why"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::mpsc,
    thread,
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket,
    },
};
use overlay_types::MacAddr;

use super::netns::NetNs;
use crate::wire::announcement::{Announcement, telling};

/// Networks whose endpoints wait to be told. Those of others are not: so many change at once when a node
/// starts only.
const NETWORKS: usize = 64;

/// What the endpoints of a network are to be told.
#[derive(Debug)]
pub(super) struct News {
    pub(super) netns: NetNs,
    /// Ports, and the Ethernet address behind each.
    pub(super) ports: Vec<(u32, MacAddr)>,
    pub(super) newcomers: Vec<Announcement>,
}

/// Who tells. It ends with its handle.
#[derive(Debug)]
pub(super) struct Announcer(mpsc::SyncSender<News>);

impl Announcer {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, news) = mpsc::sync_channel(NETWORKS);
        let thread = thread::Builder::new().name("overlay-announce".to_owned());
        thread.spawn(move || tell_all(&news))?;
        Ok(Self(sender))
    }

    pub(super) fn tell(&self, news: News) {
        // No room: whoever waits asks again.
        let _ = self.0.try_send(news);
    }
}

fn tell_all(all: &mpsc::Receiver<News>) {
    let mut warned = false;
    for news in all {
        let Err(error) = news.tell() else { continue };
        if core::mem::replace(&mut warned, true) {
            tracing::debug!(%error, "endpoints are not told who has come");
        } else {
            tracing::warn!(
                %error,
                "endpoints are not told who has come, and wait a second where they asked too early; it takes \
                 CAP_NET_RAW, and a kernel with CONFIG_PACKET"
            );
        }
    }
}

impl News {
    fn tell(&self) -> io::Result<()> {
        let socket = self.netns.enter(|| {
            Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?)
        })?;
        let (mut frame, mut outcome) = (Vec::new(), Ok(()));
        for (port, newcomer) in telling(&self.ports, self.newcomers.iter().copied()) {
            frame.clear();
            newcomer.emit(&mut frame);
            match send(&socket, port, &frame) {
                // One that is just going keeps it from no other.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
                sent => outcome = outcome.and(sent),
            }
        }
        outcome
    }
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
