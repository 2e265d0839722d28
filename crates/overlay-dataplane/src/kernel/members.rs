//! Where it is enforced who may send into a network.
//!
//! A VXLAN device takes frames of its VNI from any host. What keeps others out is a filter in front
//! of it, on the host: a [`MemberFilter`].

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::Vni;

use crate::Error;

/// Data-path addresses of the other nodes on each network, by its VNI. Nobody may send into a network
/// that is not listed.
pub type Members = BTreeMap<Vni, BTreeSet<IpAddr>>;

/// Lets frames of a VNI in from its network's members only (**no-entry**).
pub trait MemberFilter: core::fmt::Debug + Send {
    /// Lets frames in from these addresses and no others. Called with nobody before the network's
    /// device comes up. Makes the whole filter anew where somebody removed or changed it.
    fn set(&mut self, vni: Vni, members: &BTreeSet<IpAddr>) -> Result<(), Error>;

    /// Leaves nothing behind: there is no network any more.
    fn clear(&mut self) -> Result<(), Error>;

    /// Who is let in, read anew. `None` when the filter is not as it was made.
    fn observe(&mut self) -> Result<Option<Members>, Error>;
}

/// Lets everybody in: for hosts whose firewall keeps the data-path port to the cluster's nodes. It
/// remembers what it was told for as long as it lives, so that a change is seen as one.
#[derive(Debug, Default)]
pub struct Unfiltered(Members);

impl MemberFilter for Unfiltered {
    fn set(&mut self, vni: Vni, members: &BTreeSet<IpAddr>) -> Result<(), Error> {
        if members.is_empty() {
            self.0.remove(&vni);
        } else {
            self.0.insert(vni, members.clone());
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Error> {
        self.0.clear();
        Ok(())
    }

    fn observe(&mut self) -> Result<Option<Members>, Error> {
        Ok(Some(self.0.clone()))
    }
}
