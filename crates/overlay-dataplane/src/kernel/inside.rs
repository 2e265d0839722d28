//! Sockets that speak to a network's namespace. They are kept from one comparison to the next: a thread
//! that enters the namespace and opens them takes longer than reading a network of a few endpoints.

use std::io;

use super::{
    netlink::RouteSocket,
    netns::NetNs,
    nft::{Nft, NftError},
};

/// Networks whose sockets are kept open, two for each, and their program and its table. Those of more are
/// opened for each comparison.
pub(super) const KEPT: usize = 2000;

/// Sockets in one namespace. It lives at least as long as they do.
#[derive(Debug)]
pub(super) struct Inside {
    inode: u64,
    pub(super) route: RouteSocket,
    pub(super) nft: Nft,
}

impl Inside {
    /// Opens sockets that speak to a namespace.
    pub(super) fn open(netns: &NetNs) -> io::Result<Result<Self, NftError>> {
        let inode = netns.inode()?;
        let (route, nft) = netns.enter(|| Ok((RouteSocket::open()?, Nft::open())))?;
        Ok(nft.map(|nft| Self { inode, route, nft }))
    }

    /// Whether it speaks to this namespace.
    pub(super) fn is_in(&self, netns: &NetNs) -> bool {
        netns.inode().is_ok_and(|inode| inode == self.inode)
    }
}
