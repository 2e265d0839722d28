//! What one process in a network namespace may have, and no other beside it.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use overlay_types::DataplaneKind;

/// Held for as long as this lives. The name of an abstract socket belongs to a network namespace, and
/// ends with its process.
#[derive(Debug)]
pub(crate) struct Seat {
    _held: UnixListener,
}

/// What there is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Two would undo each other's filter of members for ever.
    KernelDataplane,
    /// Two would remove each other's containers' way out.
    Gateway,
}

impl Seat {
    /// In the namespace of the calling thread.
    pub(super) fn take(part: Part) -> io::Result<Self> {
        let name = match part {
            Part::KernelDataplane => "overlayd kernel dataplane",
            Part::Gateway => "overlayd gateway",
        };
        let address = SocketAddr::from_abstract_name(name)?;
        Ok(Self { _held: UnixListener::bind_addr(&address)? })
    }
}

/// Taken by whoever changes what a kernel dataplane left, unless it is its own.
pub(super) fn of_another(kind: DataplaneKind) -> io::Result<Option<Seat>> {
    (kind == DataplaneKind::User).then(|| Seat::take(Part::KernelDataplane)).transpose()
}
