//! Learns at once that somebody changed the rules, so that what a firewall's reload or a flush took
//! away is back before the next periodic comparison.

use std::os::fd::{AsFd, BorrowedFd};

use neli::{
    consts::socket::{Msg, NlFamily},
    socket::NlSocket,
    utils::Groups,
};
use nix::errno::Errno;

use super::{error::NftError, socket::borrow};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Hears of each transaction of a namespace, one's own too.
pub struct Watch {
    socket: NlSocket,
    buffer: Vec<u8>,
}

impl core::fmt::Debug for Watch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Hears of what happens in the calling thread's namespace from now on.
    pub fn open() -> Result<Self, NftError> {
        let socket = NlSocket::connect(NlFamily::Netfilter, None, Groups::new_groups(&[GROUP]))
            .and_then(|socket| socket.nonblock().map(|()| socket))
            .map_err(|source| NftError::Socket { step: "listen on", source })?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// Whether anything was changed since this was asked last. Does not wait.
    pub fn changed(&mut self) -> Result<bool, NftError> {
        let mut changed = false;
        loop {
            match self.socket.recv(&mut self.buffer, Msg::DONTWAIT) {
                Ok(_) => changed = true,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(changed),
                    // More happened than there is room for.
                    Some(Errno::ENOBUFS) => changed = true,
                    Some(Errno::EINTR) => {}
                    _ => return Err(NftError::Socket { step: "receive from", source: error }),
                },
            }
        }
    }
}

/// Readable when there is something to ask about: for `poll`, or a runtime's equivalent.
impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}
