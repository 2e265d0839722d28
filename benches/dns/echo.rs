//! A server that knows nothing: questions come back as answers, by the batch. What it cannot do through its
//! socket on this machine, no name server can.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::Result;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

const BATCH: usize = 64;
const LEN: usize = 512;
/// Octet of a message of DNS with the bit that tells answers from questions (RFC 1035 §4.1.1).
const FLAGS: usize = 2;
const ANSWER: u8 = 0x80;

/// Serves until it is ended.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut buffers = vec![[0; LEN]; BATCH];
    loop {
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
        let (lens, from): (Vec<_>, Vec<_>) = received.map(|m| (m.bytes, m.address)).unzip();
        for buffer in &mut buffers {
            buffer[FLAGS] |= ANSWER;
        }
        let all = buffers.iter().zip(&lens);
        let slices: Vec<_> = all.map(|(buffer, len)| [IoSlice::new(&buffer[..*len])]).collect();
        let mut headers = MultiHeaders::preallocate(lens.len(), None);
        let flags = MsgFlags::empty();
        sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &from, [], flags)?.for_each(drop);
    }
}
