//! The shell: a netlink socket, and what is said over it.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good. The kernel does
//! everything that a message asks for before `send` returns, so its answers are there then: nothing
//! here waits.
#![allow(unsafe_code, reason = "neli gives a socket as a number; the one use says why it is sound")]

use core::ops::ControlFlow;
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
    thread,
};

use neli::{
    consts::socket::{Msg, NlFamily},
    socket::NlSocket,
    utils::Groups,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{getsockopt, setsockopt, sockopt},
};

use super::{
    attribute::{Attributes, HEADER_LEN, Message, Writer},
    batch::{ACK, Batch, REQUEST, SUBSYSTEM},
    dump::{self, Counted, DumpedChain, DumpedRule},
    error::NftError,
    table::{Family, Table, TableId},
};
use crate::kernel::netlink::{replies, with_buffer};

/// `NLM_F_DUMP`, `NLM_F_DUMP_INTR`, `NLM_F_CAPPED`, `NLM_F_ACK_TLVS`.
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const TEXT: u16 = 0x200;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NFT_MSG_GET*`.
const GET_TABLE: u16 = SUBSYSTEM + 1;
const GET_CHAIN: u16 = SUBSYSTEM + 4;
const GET_RULE: u16 = SUBSYSTEM + 7;
const GET_SET: u16 = SUBSYSTEM + 10;
const GET_ELEMENTS: u16 = SUBSYSTEM + 13;
const GET_GENERATION: u16 = SUBSYSTEM + 16;

/// Room for a transaction of some 100 000 elements, and for the answers to it. The system's limit
/// holds where this process may not exceed it.
const BUFFER: usize = 16 << 20;
/// Readings before others' changes between them are an error. Each takes milliseconds.
const READINGS: usize = 16;

/// nf_tables of one namespace.
pub struct Nft {
    socket: NlSocket,
    room: usize,
    sequence: u32,
}

impl core::fmt::Debug for Nft {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Nft").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What a listing came to.
enum Listing<T> {
    /// All that there is.
    Whole(T),
    /// What was listed is not there.
    Absent,
    /// It changed meanwhile.
    Torn,
}

/// A socket as the standard library has it.
pub(super) fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed here.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

impl Nft {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NftError> {
        let failed = |step| move |source| NftError::Socket { step, source };
        let socket = NlSocket::connect(NlFamily::Netfilter, None, Groups::empty())
            .map_err(failed("open"))?;
        socket.enable_ext_ack(true).map_err(failed("ask for error texts of"))?;
        let fd = borrow(&socket);
        // Beyond the system's limit where that is allowed, else up to it.
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &BUFFER).map_err(|e| failed("enlarge")(e.into()))?;
        }
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &BUFFER).map_err(|e| failed("enlarge")(e.into()))?;
        }
        let room = getsockopt(&fd, sockopt::SndBuf).map_err(|e| failed("measure")(e.into()))?;
        Ok(Self { socket, room, sequence: 0 })
    }

    /// Opens a socket in the namespace that the file at `path` stands for.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn open_in(path: &Path) -> Result<Self, NftError> {
        let failed = |source| NftError::Namespace { path: path.to_owned(), source };
        let namespace = File::open(path).map_err(failed)?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
                Self::open()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Octets of the largest transaction.
    pub(in crate::kernel) const fn room(&self) -> usize {
        self.room
    }

    /// Makes all changes of a batch, or none.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let (bytes, last) = batch.encode(first);
        self.sequence = last.wrapping_add(1);
        self.send(&bytes)?;
        let mut acknowledged = false;
        let mut refused = None;
        let lost = self.receive(|message| {
            let number = message.sequence.wrapping_sub(first);
            if message.kind == ERROR && number <= last.wrapping_sub(first) {
                match Refusal::parse(message) {
                    Some(refusal) => drop(refused.get_or_insert((number, refusal))),
                    None => acknowledged |= message.sequence == last,
                }
            }
            ControlFlow::Continue(())
        })?;
        match refused {
            Some((number, Refusal { source, text, offset })) => {
                Err(NftError::Refused { object: batch.describe(number, offset), source, text })
            }
            None if acknowledged && !lost => Ok(()),
            None => Err(NftError::Unanswered),
        }
    }

    /// Reads a table with all that is in it; `None` when there is none.
    pub fn observe(&mut self, id: &TableId) -> Result<Option<Table>, NftError> {
        for _ in 0..READINGS {
            let generation = self.generation()?;
            let read = self.read(id)?;
            let is_consistent = self.generation()? == generation;
            match read {
                Listing::Whole(table) if is_consistent => return Ok(Some(table)),
                Listing::Absent if is_consistent => return Ok(None),
                _ => {}
            }
        }
        Err(NftError::Changing(READINGS))
    }

    /// The chains of all tables of a family, without their rules.
    pub fn chains(&mut self, family: Family) -> Result<Vec<DumpedChain>, NftError> {
        for _ in 0..READINGS {
            match self.list_chains(family)? {
                Listing::Whole(chains) => return Ok(chains),
                Listing::Absent => return Ok(Vec::new()),
                Listing::Torn => {}
            }
        }
        Err(NftError::Changing(READINGS))
    }

    /// The rules of one chain; none when there is no such chain.
    pub fn rules(&mut self, id: &TableId, chain: &str) -> Result<Vec<DumpedRule>, NftError> {
        for _ in 0..READINGS {
            match self.list_rules(id, Some(chain))? {
                Listing::Whole(rules) => return Ok(rules),
                Listing::Absent => return Ok(Vec::new()),
                Listing::Torn => {}
            }
        }
        Err(NftError::Changing(READINGS))
    }

    /// What the rules of a table have counted, those that have a counter and a comment; nothing when
    /// there is no such table.
    pub fn counted(&mut self, id: &TableId) -> Result<Vec<Counted>, NftError> {
        for _ in 0..READINGS {
            let (family, what) = (id.family.number(), format!("rules of {id}"));
            let content = |w: &mut Writer| w.text(1, &id.name);
            let found = self.ask(GET_RULE, DUMP, family, &what, content, |message| {
                // Kernels before 4.14 do not select.
                let is_ours = message.attributes().text(1).is_some_and(|name| name == id.name);
                if is_ours { dump::counted(message) } else { None }
            })?;
            match found {
                Listing::Whole(counted) => return Ok(counted),
                Listing::Absent => return Ok(Vec::new()),
                Listing::Torn => {}
            }
        }
        Err(NftError::Changing(READINGS))
    }

    /// Number of the rules as they are: another one after each transaction of anybody.
    pub(in crate::kernel) fn generation(&mut self) -> Result<Option<u32>, NftError> {
        let what = "the generation of the rules";
        let generation = self.ask(GET_GENERATION, 0, 0, what, |_| {}, |m| m.attributes().u32(1))?;
        Ok(match generation {
            Listing::Whole(numbers) => numbers.first().copied(),
            Listing::Absent | Listing::Torn => None,
        })
    }

    fn read(&mut self, id: &TableId) -> Result<Listing<Table>, NftError> {
        let family = id.family.number();
        let content = |w: &mut Writer| w.text(1, &id.name);
        let found =
            self.ask(GET_TABLE, 0, family, &id.to_string(), content, |m| Some(dump::table(m)))?;
        let Listing::Whole(Some(mut table)) = found.map(|tables| tables.into_iter().next()) else {
            return Ok(Listing::Absent);
        };
        let Listing::Whole(chains) = self.list_chains(id.family)? else { return Ok(Listing::Torn) };
        for dumped in chains.into_iter().filter(|chain| chain.table == id.name) {
            if dumped.is_foreign {
                table.foreign.push(dumped.name.clone());
            }
            table.chains.insert(dumped.name, dumped.chain);
        }
        let Listing::Whole(rules) = self.list_rules(id, None)? else { return Ok(Listing::Torn) };
        for dumped in rules {
            let Some(chain) = table.chains.get_mut(&dumped.chain) else {
                return Ok(Listing::Torn);
            };
            chain.rules.push(dumped.rule);
        }
        Ok(if self.read_sets(id, &mut table)? { Listing::Whole(table) } else { Listing::Torn })
    }

    /// Whether it came to an end.
    fn read_sets(&mut self, id: &TableId, table: &mut Table) -> Result<bool, NftError> {
        let family = id.family.number();
        let what = format!("sets of {id}");
        let content = |w: &mut Writer| w.text(1, &id.name);
        let Listing::Whole(sets) = self.ask(GET_SET, DUMP, family, &what, content, dump::set)?
        else {
            return Ok(false);
        };
        for found in sets {
            let Some(spec) = found.spec else {
                table.foreign.push(found.name);
                continue;
            };
            if spec.filled.is_some() {
                table.sets.insert(found.name, super::set::Set::new(spec));
                continue;
            }
            let what = format!("elements of set {} of {id}", found.name);
            let content = |w: &mut Writer| {
                w.text(1, &id.name);
                w.text(2, &found.name);
            };
            let Listing::Whole(elements) =
                self.ask(GET_ELEMENTS, DUMP, family, &what, content, |m| Some(dump::elements(m)))?
            else {
                return Ok(false);
            };
            let elements = elements.into_iter().flatten().collect();
            let mut set = super::set::Set::new(spec);
            set.elements = dump::assemble(&set.spec, elements);
            table.sets.insert(found.name, set);
        }
        Ok(true)
    }

    fn list_chains(&mut self, family: Family) -> Result<Listing<Vec<DumpedChain>>, NftError> {
        let what = format!("chains of family {}", family.as_str());
        self.ask(GET_CHAIN, DUMP, family.number(), &what, |_| {}, |m| dump::chain(m, family))
    }

    fn list_rules(
        &mut self,
        id: &TableId,
        chain: Option<&str>,
    ) -> Result<Listing<Vec<DumpedRule>>, NftError> {
        let content = |w: &mut Writer| {
            w.text(1, &id.name);
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        };
        let rules = self.ask(
            GET_RULE,
            DUMP,
            id.family.number(),
            &format!("rules of {id}"),
            content,
            dump::rule,
        )?;
        // Kernels before 4.14 do not select.
        Ok(rules.map(|mut rules| {
            rules.retain(|rule| chain.is_none_or(|chain| rule.chain == chain));
            rules
        }))
    }

    /// Asks for objects and reads each of them.
    fn ask<T>(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        object: &str,
        content: impl FnOnce(&mut Writer),
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Listing<Vec<T>>, NftError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut writer = Writer::default();
        // A listing says itself that it is at its end.
        let flags = if flags == DUMP { REQUEST | DUMP } else { REQUEST | ACK };
        writer.message(kind, flags, family, 0, content);
        let mut bytes = writer.bytes().to_vec();
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.send(&bytes)?;

        let (mut found, mut torn, mut ended, mut refused) = (Vec::new(), false, false, None);
        let lost = self.receive(|message| {
            if message.sequence != sequence {
                return ControlFlow::Continue(());
            }
            torn |= message.flags & INTERRUPTED != 0;
            match message.kind {
                ERROR | DONE => {
                    refused = Refusal::parse(message);
                    ended = true;
                    return ControlFlow::Break(());
                }
                _ => found.extend(read(message)),
            }
            ControlFlow::Continue(())
        })?;
        match refused {
            Some(refusal) if refusal.source.raw_os_error() == Some(Errno::ENOENT as i32) => {
                Ok(Listing::Absent)
            }
            Some(refusal) if refusal.source.kind() == io::ErrorKind::Interrupted => {
                Ok(Listing::Torn)
            }
            Some(Refusal { source, text, .. }) => {
                Err(NftError::List { object: object.to_owned(), source, text })
            }
            None if torn || lost || !ended => Ok(Listing::Torn),
            None => Ok(Listing::Whole(found)),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NftError> {
        loop {
            match self.socket.send(bytes, Msg::empty()) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                    return Err(NftError::TooLarge { octets: bytes.len() });
                }
                Err(source) => return Err(NftError::Socket { step: "send over", source }),
            }
        }
    }

    /// Reads what the kernel has answered, to the end of it or of the caller's interest. Whether
    /// something was lost for want of room.
    fn receive(
        &mut self,
        mut each: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<bool, NftError> {
        let mut lost = false;
        with_buffer(|buffer| {
            loop {
                let length = match self.socket.recv(&mut buffer[..], Msg::DONTWAIT) {
                    Ok((length, _)) => length,
                    Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EAGAIN) => return Ok(lost),
                        Some(Errno::EINTR) => continue,
                        Some(Errno::ENOBUFS) => {
                            lost = true;
                            continue;
                        }
                        _ => return Err(NftError::Socket { step: "receive from", source: error }),
                    },
                };
                for message in replies(&buffer[..length]) {
                    if each(message).is_break() {
                        return Ok(lost);
                    }
                }
            }
        })
    }
}

impl<T> Listing<T> {
    fn map<U>(self, function: impl FnOnce(T) -> U) -> Listing<U> {
        match self {
            Self::Whole(found) => Listing::Whole(function(found)),
            Self::Absent => Listing::Absent,
            Self::Torn => Listing::Torn,
        }
    }
}

/// What the kernel says when it does not do something.
#[derive(Debug)]
struct Refusal {
    source: io::Error,
    text: Option<String>,
    /// Of the attribute that it is about.
    offset: Option<u32>,
}

impl Refusal {
    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says; `None` for success.
    fn parse(message: Message<'_>) -> Option<Self> {
        let number = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
        if number == 0 {
            return None;
        }
        let source = io::Error::from_raw_os_error(number.saturating_neg());
        let mut refusal = Self { source, text: None, offset: None };
        if message.kind == ERROR && message.flags & TEXT != 0 {
            let repeated = if message.flags & CAPPED == 0 {
                let length = message.payload.get(4..8)?.try_into().ok()?;
                (u32::from_ne_bytes(length) as usize).next_multiple_of(4)
            } else {
                HEADER_LEN
            };
            let attributes = Attributes(message.payload.get(4 + repeated..).unwrap_or_default());
            refusal.text = attributes.text(1);
            let offset = attributes.get(2).and_then(|octets| octets.try_into().ok());
            refusal.offset = offset.map(u32::from_ne_bytes);
        }
        Some(refusal)
    }
}
