//! What a process that is gone has left, for a node that has no protection.

use nix::errno::Errno;
use overlay_types::Encapsulation;

use super::{
    super::netlink::{Message, RouteSocket},
    association::{self, Found},
    policy,
    protection::{absent_is_fine, kernel},
};
use crate::Error;

/// What is ours in the calling thread's namespace, whatever process has left it.
#[derive(Debug)]
pub struct Leftovers {
    socket: RouteSocket,
    /// Associations first: without its policy, what is sent would leave in clear.
    removals: Vec<Message>,
}

impl Leftovers {
    /// Looks for it. There is nothing where the kernel has no IPsec, or this process no right to it.
    pub fn find() -> Result<Option<Self>, Error> {
        let is_lacking = |errno| matches!(errno, Errno::EPROTONOSUPPORT | Errno::EPERM);
        match Self::try_find() {
            Err(Error::Kernel { source, .. }) if is_lacking(source.errno) => Ok(None),
            found => found.map(Some),
        }
    }

    fn try_find() -> Result<Self, Error> {
        let socket = RouteSocket::open_xfrm().map_err(Error::unopened)?;
        let place = |payload: &[u8]| Found::parse(payload, 0, Encapsulation::None);
        let associations = socket.dump(association::list(), place);
        let associations = associations.map_err(|source| kernel("list", "associations", source))?;
        let policies = socket.dump(policy::list(), policy::remove_ours);
        let policies = policies.map_err(|source| kernel("list", "policies", source))?;
        let removals = associations.iter().map(|found| found.place.remove()).chain(policies);
        Ok(Self { removals: removals.collect(), socket })
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), Error> {
        let failed = |source| kernel("remove", "an association or policy", source);
        let mut removals = self.removals.into_iter();
        removals
            .try_for_each(|removal| absent_is_fine(self.socket.request(removal)).map_err(failed))
    }
}
