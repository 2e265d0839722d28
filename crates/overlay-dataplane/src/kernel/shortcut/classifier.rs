//! Where a program runs: as a classifier of what a device receives (`tc filter`), by netlink.

use std::os::fd::{AsRawFd, OwnedFd};

use neli::consts::{nl::NlmF, rtnl::Rtm};

use crate::kernel::netlink::{Attributes, Message, text};

/// `struct tcmsg`: family, padding, index, handle, parent, what depends on the message.
const HEADER_LEN: usize = 20;
/// Handles and parents of linux/pkt_sched.h: `clsact` (`TC_H_CLSACT`), and what comes in by it.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const RECEIVED: u32 = 0xffff_fff2;
/// Place among the classifiers of a device, and in that place.
const PRIORITY: u16 = 4789;
const HANDLE: u32 = 1;
/// `ETH_P_ALL`.
const ALL: u16 = 3;
/// Attributes of linux/rtnetlink.h.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// Attributes of linux/pkt_cls.h.
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is done.
const DIRECT: u32 = 1;

fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    for (at, word) in (4..).step_by(4).zip([index, handle, parent, info]) {
        header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    header
}

fn of_device(index: u32) -> [u8; HEADER_LEN] {
    let protocol = u32::from(ALL.to_be());
    header(index, HANDLE, RECEIVED, u32::from(PRIORITY) << 16 | protocol)
}

/// Has a device have classifiers. Refused if it has them.
pub(super) fn prepare(index: u32) -> Message {
    let flags = NlmF::CREATE | NlmF::EXCL;
    Message::new(Rtm::Newqdisc, flags, &header(index, CLSACT_HANDLE, CLSACT, 0))
        .put_text(KIND, b"clsact")
}

/// Has a program run for what a device receives, in the place of the one that may have.
pub(super) fn put(index: u32, program: &OwnedFd, name: &str) -> Message {
    Message::new(Rtm::Newtfilter, NlmF::CREATE | NlmF::REPLACE, &of_device(index))
        .put_text(KIND, b"bpf")
        .nest(OPTIONS, |options| {
            options
                .put_u32(BPF_FD, program.as_raw_fd().cast_unsigned())
                .put_text(BPF_NAME, name.as_bytes())
                .put_u32(BPF_FLAGS, DIRECT)
        })
}

/// Has it run no more.
pub(super) fn remove(index: u32) -> Message {
    Message::new(Rtm::Deltfilter, NlmF::empty(), &of_device(index)).put_text(KIND, b"bpf")
}

/// Asks for it.
pub(super) fn find(index: u32) -> Message {
    Message::new(Rtm::Gettfilter, NlmF::empty(), &of_device(index)).put_text(KIND, b"bpf")
}

/// A program that runs at a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Classifier {
    pub(super) name: String,
    /// The number that the kernel has for the program.
    pub(super) id: u32,
}

impl Classifier {
    /// Reads `struct tcmsg` and the attributes behind it. What does not do what its program returns has
    /// no name here.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let options = Attributes::new(payload.get(HEADER_LEN..)?).nested(OPTIONS);
        let name = options.get(BPF_NAME).map(text).unwrap_or_default();
        let is_direct = options.u32(BPF_FLAGS) == Some(DIRECT);
        let name =
            if is_direct { String::from_utf8_lossy(name).into_owned() } else { String::new() };
        Some(Self { name, id: options.u32(BPF_ID).unwrap_or(0) })
    }
}
