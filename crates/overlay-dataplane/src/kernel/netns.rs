//! Network namespaces as files: made, opened and entered.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread,
};

use neli::consts::{nl::NlmF, rtnl::Rtm};
use nix::{
    libc::{ENXIO, O_NONBLOCK},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        stat::fstat,
        statfs::{NSFS_MAGIC, fstatfs},
    },
};

use super::netlink::{Attributes, Message, Refusal, RouteSocket};
use crate::user::ports::interface;

/// `struct rtgenmsg` and padding.
const GENERIC_LEN: usize = 4;
/// `NETNSA_NSID` and `NETNSA_FD` of linux/net_namespace.h.
const NSID: u16 = 1;
const NSID_FD: u16 = 3;

/// The namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs(File);

/// Which namespace it is: the same by every path that leads to it, and no other's while it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetNsId(u64);

impl NetNs {
    /// Opens the namespace that a file stands for: a bind mount of one, or `/proc/PID/ns/net`. A file
    /// that stands for none is refused as invalid input.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A pipe would block.
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            let reason = "the file is no network namespace";
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        Ok(Self(file))
    }

    /// Opens that of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// Which one it is.
    pub fn id(&self) -> io::Result<NetNsId> {
        self.inode().map(NetNsId)
    }

    /// A number that no other namespace of this host has while this one lives.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(fstat(&self.0)?.st_ino)
    }

    /// As [`open`](Self::open). `None` when the file is not there or stands for none.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Ok(None)
            }
            // A socket cannot even be opened.
            Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Makes a namespace and the file that keeps it. A file that is left of a try before is used.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        super::call()?;
        drop(OpenOptions::new().create(true).append(true).open(path)?);
        super::call()?;
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Where this kernel hands bridged packets to the firewall, there is none in here.
            for family in ["iptables", "ip6tables", "arptables"] {
                let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
            }
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })?;
        Self::open(path)
    }

    /// Removes the file. The namespace ends with its last user.
    pub(super) fn remove(path: &Path) -> io::Result<()> {
        super::call()?;
        // One that was never mounted is a file all the same.
        let unmounted = umount2(path, MntFlags::MNT_DETACH);
        super::call()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unmounted.err().map_or(error, Into::into)),
            Ok(()) => Ok(()),
        }
    }

    /// Runs `inside` on a thread of its own that is in the namespace, and ends with it. Sockets that it
    /// opens stay in there, whoever uses them.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            inside()
        })
    }

    /// The number that the socket's namespace has for this one, if it has any.
    pub(super) fn number_in(&self, socket: &RouteSocket) -> Result<Option<u32>, Refusal> {
        // `struct rtgenmsg`, padded.
        let ask = Message::new(Rtm::Getnsid, NlmF::empty(), &[0; GENERIC_LEN])
            .put_u32(NSID_FD, self.0.as_raw_fd().cast_unsigned());
        let parse = |payload: &[u8]| Attributes::new(payload.get(GENERIC_LEN..)?).u32(NSID);
        // -1 stands for none.
        Ok(socket.get(ask, parse)?.filter(|number| number.cast_signed() >= 0))
    }

    /// A socket that speaks to the namespace.
    pub(super) fn socket(&self) -> io::Result<RouteSocket> {
        self.enter(RouteSocket::open)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `inside` on a thread in a namespace of its own, which ends with it.
pub(super) fn scratch<T: Send>(
    inside: impl FnOnce(&NetNs) -> io::Result<T> + Send,
) -> io::Result<T> {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        inside(&NetNs::own()?)
    })
}

/// Brings up the loopback device of the calling thread's namespace: in a new one it is down.
pub fn set_loopback_up() -> io::Result<()> {
    interface::set_up("lo")
}

/// The file that stands for the namespace of a process.
pub fn of_process(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// A namespace is a property of a thread: this one is thrown away afterwards.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("overlay-netns".into());
        let outcome = thread.spawn_scoped(scope, work)?.join();
        outcome.unwrap_or_else(|_| Err(io::Error::other("the thread in a namespace panicked")))
    })
}
