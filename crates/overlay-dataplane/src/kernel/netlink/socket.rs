//! The socket: requests out, answers in.

use core::cell::{Cell, RefCell};
use std::{io, thread};

use neli::{
    consts::{
        nl::NlmF,
        socket::{Msg, NlFamily},
    },
    socket::NlSocket,
    utils::Groups,
};
use nix::errno::Errno;
use zeroize::Zeroize;

use super::{Message, Refusal, Reply, replies};

/// Requests in one send. Their answers, up to a kilobyte each, have to fit in the socket's receive
/// buffer (212 992 octets by default), because the kernel writes all of them before the send returns.
const BATCH: usize = 100;
/// The kernel fills up to 32 KiB of a dump at once (`NLMSG_GOODSIZE` bounds it otherwise), and a refusal
/// of nf_tables repeats a message.
const BUFFER_LEN: usize = 1 << 16;
thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_LEN]);
}

/// Lends room for one datagram. Sockets are many, and each is read to the end before the next.
pub(in crate::kernel) fn with_buffer<T>(receive: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| receive(buffer))
}

/// How often a listing is begun again because its subject changed meanwhile.
const DUMP_TRIES: usize = 8;

/// A socket for routing or connection tracking. It speaks to the namespace of the thread that opened it, wherever it is used.
pub(in crate::kernel) struct RouteSocket {
    socket: NlSocket,
    sequence: Cell<u32>,
    /// Keys pass: what was sent and received is erased. The kernel repeats a request that it refuses.
    secret: bool,
}

/// Closes sockets of netfilter behind the caller's back. After changes of its namespace's rules the kernel does
/// not return from that before what they removed is gone, 10 ms and more.
pub(in crate::kernel) fn close<T: Send + 'static>(sockets: Vec<T>) {
    if sockets.is_empty() {
        return;
    }
    // Where no thread can be had they are closed here.
    let closer = thread::Builder::new().name("overlay-close".to_owned());
    let _ = closer.spawn(move || drop(sockets));
}

impl RouteSocket {
    /// Opens a socket to the calling thread's namespace.
    pub(in crate::kernel) fn open() -> io::Result<Self> {
        Self::open_for(NlFamily::Route)
    }

    /// As [`open`](Self::open), but to the kernel's IPsec.
    pub(in crate::kernel) fn open_xfrm() -> io::Result<Self> {
        Ok(Self { secret: true, ..Self::open_for(NlFamily::Xfrm)? })
    }

    fn open_for(family: NlFamily) -> io::Result<Self> {
        let socket = NlSocket::connect(family, None, Groups::empty())?;
        socket.enable_ext_ack(true)?;
        // Without it the kernel ignores what a listing is to be limited to.
        socket.enable_strict_checking(true)?;
        Ok(Self::new(socket))
    }

    /// Opens a socket to connection tracking in the calling thread's namespace.
    pub(in crate::kernel) fn open_netfilter() -> io::Result<Self> {
        let socket = NlSocket::connect(NlFamily::Netfilter, None, Groups::empty())?;
        socket.enable_ext_ack(true)?;
        Ok(Self::new(socket))
    }

    fn new(socket: NlSocket) -> Self {
        Self { socket, sequence: Cell::new(0), secret: false }
    }

    /// Makes one change.
    pub(in crate::kernel) fn request(&self, message: Message) -> Result<(), Refusal> {
        let sequence = self.send(vec![message], NlmF::ACK)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|reply| {
                if reply.sequence == sequence {
                    outcome = reply.verdict();
                }
            })?;
        }
        outcome.unwrap_or(Ok(()))
    }

    /// Makes changes in order, many in one call, and says of each whether it was made. A change that
    /// is refused does not keep the next from being tried.
    pub(in crate::kernel) fn batch(&self, messages: Vec<Message>) -> Vec<Result<(), Refusal>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let chunk: Vec<_> = messages.by_ref().take(batch_len()).collect();
            let count = chunk.len();
            match self.exchange(chunk) {
                Ok(chunk) => results.extend(chunk),
                Err(error) => results.extend((0..count).map(|_| Err(error.clone()))),
            }
        }
        results
    }

    /// One send of several changes, and the answers to all.
    fn exchange(&self, chunk: Vec<Message>) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let count = chunk.len();
        let first = self.send(chunk, NlmF::ACK)?;
        let mut results: Vec<Option<Result<(), Refusal>>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            self.receive(|reply| {
                let place = reply.sequence.wrapping_sub(first) as usize;
                if let (Some(place), Some(verdict)) = (results.get_mut(place), reply.verdict())
                    && place.replace(verdict).is_none()
                {
                    missing -= 1;
                }
            })?;
        }
        Ok(results.into_iter().map(|result| result.unwrap_or(Ok(()))).collect())
    }

    /// Asks for one object. `None` when there is none.
    pub(in crate::kernel) fn get<T>(
        &self,
        message: Message,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let sequence = self.send(vec![message], NlmF::empty())?;
        let mut found = None;
        while found.is_none() {
            self.receive(|reply| {
                if reply.sequence == sequence {
                    found = Some(match reply.verdict() {
                        Some(verdict) => verdict.map(|()| None),
                        None => Ok(parse(reply.payload)),
                    });
                }
            })?;
        }
        match found {
            Some(Err(refusal)) if is_absence(refusal.errno) => Ok(None),
            found => found.unwrap_or(Ok(None)),
        }
    }

    /// Lists objects. One that `parse` gives nothing for is left out.
    pub(in crate::kernel) fn dump<T>(
        &self,
        message: Message,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..DUMP_TRIES {
            if let Some(found) = self.dump_once(message.clone(), &parse)? {
                return Ok(found);
            }
        }
        Err(Refusal { errno: Errno::EBUSY, text: Some("what is listed keeps changing".into()) })
    }

    /// `None` when what is listed changed meanwhile: something may be missing.
    fn dump_once<T>(
        &self,
        message: Message,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        let sequence = self.send(vec![message], NlmF::DUMP)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        let mut end = None;
        while end.is_none() {
            self.receive(|reply| {
                if reply.sequence != sequence {
                    return;
                }
                interrupted |= reply.is_interrupted();
                match reply.verdict() {
                    Some(verdict) => end = Some(verdict),
                    None if reply.is_done() => end = Some(Ok(())),
                    None => found.extend(parse(reply.payload)),
                }
            })?;
        }
        end.unwrap_or(Ok(()))?;
        Ok((!interrupted).then_some(found))
    }

    /// Sends requests in one call and returns the first one's sequence number.
    fn send(&self, messages: Vec<Message>, flags: NlmF) -> Result<u32, Refusal> {
        #[cfg(test)]
        super::fuse::burn()?;
        #[cfg(test)]
        super::fuse::note_changes(if flags == NlmF::ACK { messages.len() } else { 0 });
        let first = self.sequence.get();
        let mut bytes = Vec::new();
        bytes.reserve_exact(messages.iter().map(Message::len).sum());
        for message in messages {
            let mut message = message.numbered(self.sequence.get(), flags);
            bytes.extend_from_slice(&message);
            self.erase(&mut message);
            self.sequence.set(self.sequence.get().wrapping_add(1));
        }
        let sent = self.socket.send(&bytes, Msg::empty());
        self.erase(&mut bytes);
        sent?;
        Ok(first)
    }

    fn receive(&self, mut each: impl FnMut(Reply<'_>)) -> Result<(), Refusal> {
        with_buffer(|buffer| {
            let length = loop {
                match self.socket.recv(&mut buffer[..], Msg::TRUNC) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    received => break received?.0,
                }
            };
            let outcome = match buffer.get(..length) {
                Some(received) => {
                    replies(received).for_each(&mut each);
                    Ok(())
                }
                None => Err(Refusal { errno: Errno::EMSGSIZE, text: None }),
            };
            let filled = length.min(buffer.len());
            self.erase(&mut buffer[..filled]);
            outcome
        })
    }

    fn erase(&self, bytes: &mut [u8]) {
        if self.secret {
            bytes.zeroize();
        }
    }
}

impl core::fmt::Debug for RouteSocket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RouteSocket").finish_non_exhaustive()
    }
}

/// A test that counts calls has each change in a call of its own.
fn batch_len() -> usize {
    #[cfg(test)]
    if super::fuse::is_lit() {
        return 1;
    }
    BATCH
}

/// Errors that say that what was asked for is not there.
fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
}
