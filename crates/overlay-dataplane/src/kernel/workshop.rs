//! Where TAP devices are made: a namespace of this process, which is nobody's otherwise.
//!
//! ```text
//!  workshop ── make ── move ──► container's namespace        ends with the namespace
//!     ▲                              device ◄─┄┄┄┄┄┄┄┄┐
//!     └──────── held by ──────── file of the device ──┘
//! ```
//!
//! The file of a TAP device holds on to the namespace in which it was opened, not to the one that its
//! device is in. Opened in a container's namespace, it would keep that alive when the container has
//! ended.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use neli::consts::rtnl::Ifla;
use nix::errno::Errno;

use super::{
    link::{self, Link},
    netlink::RouteSocket,
    netns::{NetNs, scratch},
};
use crate::Error;

/// The workshop, while a device that was made in it is there. Held during the making: in it a name is
/// had by one device at a time.
static WORKSHOP: Mutex<Weak<NetNs>> = Mutex::new(Weak::new());

/// What keeps the workshop. A device that was made in it does so by itself, this only has the next one
/// made in the same.
#[derive(Debug)]
pub(crate) struct Kept(#[expect(dead_code, reason = "held, not read")] Arc<NetNs>);

/// Makes a device of this name with `make`, and moves it to a namespace, which `path` leads to.
pub(crate) fn make_in<T: Send>(
    (netns, path): (&NetNs, &Path),
    name: &str,
    make: impl FnOnce() -> io::Result<T> + Send,
) -> Result<(T, Kept), Error> {
    let failed = |step| move |source| Error::Tap { name: name.to_owned(), step, source };
    let mut last = WORKSHOP.lock().unwrap_or_else(PoisonError::into_inner);
    let workshop = match last.upgrade() {
        Some(workshop) => workshop,
        None => Arc::new(scratch(|_| NetNs::own()).map_err(failed("make a namespace for"))?),
    };
    *last = Arc::downgrade(&workshop);
    let (made, socket) =
        workshop.enter(|| Ok((make()?, RouteSocket::open()?))).map_err(failed("create"))?;
    let refused = |step| {
        let subject = format!("interface {name:?} in {}", path.display());
        move |source| Error::Kernel { step, subject, source }
    };
    let found = socket.get(link::named(name.as_bytes()), Link::parse).map_err(refused("find"))?;
    let index = found.map_or(0, |link| link.index);
    let fd = netns.as_fd().as_raw_fd().cast_unsigned();
    socket.request(link::set(index).put_u32(Ifla::NetNsFd, fd)).map_err(|source| {
        match source.errno {
            Errno::EEXIST => Error::InterfaceInUse { name: name.to_owned(), path: path.to_owned() },
            _ => refused("move")(source),
        }
    })?;
    Ok((made, Kept(workshop)))
}
