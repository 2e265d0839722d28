//! Datagrams of a socket, many by one call of the system: a call costs more than an answer.

use core::net::SocketAddr;
use std::{
    cell::RefCell,
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::net::UdpSocket;

use super::message::MAX_QUERY_LEN;

/// Datagrams at once. A call costs about as much as two of them.
const BATCH: usize = 16;

thread_local! {
    /// What they are received into, for all sockets of a thread: most have nothing to receive.
    static BUFFERS: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * MAX_QUERY_LEN]);
}

/// A reply, and whom it is for.
pub(super) type Reply = (Vec<u8>, SocketAddr);

/// Takes what has arrived, and sends what `answer` says to each. Returns the replies that there was no
/// room for.
///
/// # Errors
/// `WouldBlock` when nothing has arrived, and what else keeps the socket from receiving.
pub(super) fn exchange(
    socket: &UdpSocket,
    mut answer: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>>,
) -> io::Result<Vec<Reply>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let mut replies = Vec::with_capacity(BATCH);
        for (place, (length, from)) in receive(socket, buffers)?.into_iter().enumerate() {
            let message = &buffers[place * MAX_QUERY_LEN..][..length];
            replies.extend(answer(message, from).map(|reply| (reply, from)));
        }
        Ok(send(socket, replies))
    })
}

/// Lengths and senders.
fn receive(socket: &UdpSocket, buffers: &mut [u8]) -> io::Result<Vec<(usize, SocketAddr)>> {
    // Made anew each time: the kernel writes lengths into them.
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut slices: Vec<_> =
        buffers.chunks_mut(MAX_QUERY_LEN).map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
    // One without a sender cannot be answered; it does not happen. It keeps its place.
    let nobody = SocketAddr::from(([0; 4], 0));
    Ok(received.map(|m| (m.bytes, m.address.and_then(plain).unwrap_or(nobody))).collect())
}

fn plain(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Returns those that are not sent.
fn send(socket: &UdpSocket, mut replies: Vec<Reply>) -> Vec<Reply> {
    if replies.is_empty() {
        return replies;
    }
    let slices: Vec<_> = replies.iter().map(|(reply, _)| [IoSlice::new(reply)]).collect();
    let to: Vec<_> = replies.iter().map(|(_, to)| Some(SockaddrStorage::from(*to))).collect();
    let mut headers = MultiHeaders::preallocate(replies.len(), None);
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, [], flags);
    // An error is about the first of them; whoever sends the rest hears of it.
    let sent = sent.map_or(0, Iterator::count);
    replies.drain(..sent);
    replies
}
