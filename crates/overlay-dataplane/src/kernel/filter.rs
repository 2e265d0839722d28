//! The filter of members in the host's nf_tables: [`admission`] behind the trait.
//!
//! What somebody did to the table by hand, or by `nft flush ruleset`, shows in the next comparison;
//! the first operation after it makes the whole table anew, with all members that are known.

use core::net::IpAddr;
use std::collections::BTreeSet;

use overlay_types::Vni;

use super::{
    members::{MemberFilter, Members},
    nft::{
        Batch, Nft, NftError,
        admission::{self, Ports},
        diff,
    },
};
use crate::Error;

/// Lets frames in from members only, by a table on the host.
#[derive(Debug)]
pub struct NftFilter {
    nft: Nft,
    ports: Ports,
    /// Who shall be let in; `None` before the table that a process before this one left was read.
    members: Option<Members>,
    /// The table is as it was made.
    whole: bool,
}

impl NftFilter {
    /// A filter in the calling thread's namespace for VXLAN on these UDP ports. Changes nothing yet.
    pub fn open(ports: impl Into<Ports>) -> Result<Self, Error> {
        Ok(Self { nft: Nft::open()?, ports: ports.into(), members: None, whole: false })
    }

    fn read(&mut self) -> Result<&mut Members, NftError> {
        super::call().map_err(|source| NftError::Socket { step: "use", source })?;
        let found = self.nft.observe(&admission::table_id())?;
        let left = || found.as_ref().map(admission::members).unwrap_or_default();
        let members = self.members.get_or_insert_with(left);
        self.whole = found == Some(admission::table(self.ports, members));
        Ok(members)
    }

    fn write(&mut self, vni: Vni, after: &BTreeSet<IpAddr>) -> Result<(), NftError> {
        let (nobody, id) = (BTreeSet::new(), admission::table_id());
        if self.members.is_none() {
            self.read()?;
        }
        super::call().map_err(|source| NftError::Socket { step: "use", source })?;
        let members = self.members.get_or_insert_default();
        if self.whole {
            let mut batch = Batch::new();
            admission::change(&mut batch, vni, members.get(&vni).unwrap_or(&nobody), after);
            if self.nft.apply(&batch).is_ok() {
                put(members, vni, after);
                return Ok(());
            }
        }
        let mut wanted = members.clone();
        put(&mut wanted, vni, after);
        let found = self.nft.observe(&id)?;
        let table = admission::table(self.ports, &wanted);
        self.nft.apply(&diff(&id, Some(&table), found.as_ref()))?;
        (self.members, self.whole) = (Some(wanted), true);
        Ok(())
    }
}

/// Networks without members are not listed.
fn put(members: &mut Members, vni: Vni, after: &BTreeSet<IpAddr>) {
    if after.is_empty() {
        members.remove(&vni);
    } else {
        members.insert(vni, after.clone());
    }
}

impl MemberFilter for NftFilter {
    fn set(&mut self, vni: Vni, members: &BTreeSet<IpAddr>) -> Result<(), Error> {
        Ok(self.write(vni, members)?)
    }

    fn clear(&mut self) -> Result<(), Error> {
        super::call().map_err(|source| NftError::Socket { step: "use", source })?;
        let id = admission::table_id();
        let found = self.nft.observe(&id)?;
        self.nft.apply(&diff(&id, None, found.as_ref()))?;
        (self.members, self.whole) = (Some(Members::new()), false);
        Ok(())
    }

    fn observe(&mut self) -> Result<Option<Members>, Error> {
        let members = self.read()?.clone();
        Ok(self.whole.then_some(members))
    }
}
