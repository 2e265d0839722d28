//! The fence of a network in its namespace, [`nft::fence`](super::nft::fence) as the kernel has it, and the
//! [short way](super::shortcut) of what it would let pass.
//!
//! What is not as it was made shows in the next comparison. The generation of a namespace's rules, which
//! every transaction of anybody raises, tells without a listing that nothing was done to it.

use std::collections::BTreeMap;

use overlay_types::EndpointId;

use super::{
    capability,
    inside::Inside,
    nft::{
        Nft, NftError, diff,
        fence::{Fence, Port, table_id},
    },
    port, scaffold,
    shortcut::Shortcut,
};
use crate::{
    Error,
    desired::{Network, Role},
};

/// The fence that a network is to have, and the short way of what it would let pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) fence: Fence,
    /// Frames go past the bridge. Else the bridge has all of them.
    pub(super) shortens: bool,
    /// The VXLAN device sends what it does not know to all members: the bridge has to sort that out.
    pub(super) floods: bool,
}

/// The fence of one network, and what it is made of.
#[derive(Debug, Default)]
pub(super) struct Fenced {
    /// Indices of endpoints' ports.
    ports: BTreeMap<EndpointId, u32>,
    /// What the kernel has, if it is whole.
    present: Option<Wanted>,
    /// Generation of the rules when it was read.
    generation: Option<u32>,
    shortcut: Shortcut,
    /// The operation that wants it looked at.
    asked: Option<usize>,
}

/// Whether frames can be sent past bridges here. Tried once, when first needed.
#[derive(Debug, Default)]
pub(super) struct ShortWay(pub(super) Option<bool>);

impl ShortWay {
    pub(super) fn exists(&mut self) -> bool {
        *self.0.get_or_insert_with(|| match capability::short_way() {
            Some(missing) => {
                tracing::warn!(%missing, "networks are slower than they could be");
                false
            }
            None => true,
        })
    }
}

impl Fenced {
    /// Has the fence looked at for an operation.
    pub(super) fn ask(&mut self, op: usize) {
        self.asked = Some(op);
    }

    /// Takes note of an endpoint's port.
    pub(super) fn add_port(&mut self, endpoint: EndpointId, index: u32) {
        self.ports.insert(endpoint, index);
    }

    /// Takes note of ports that were found.
    pub(super) fn extend(&mut self, ports: impl IntoIterator<Item = (EndpointId, u32)>) {
        self.ports.extend(ports);
    }

    /// Takes note that an endpoint has no port any more.
    pub(super) fn remove_port(&mut self, endpoint: EndpointId) {
        self.ports.remove(&endpoint);
    }

    /// The ports that endpoints are behind.
    pub(super) fn ports(&self) -> impl Iterator<Item = (EndpointId, u32)> {
        self.ports.iter().map(|(endpoint, index)| (*endpoint, *index))
    }

    /// The operation that wants it looked at, if any.
    pub(super) fn take_asked(&mut self) -> Option<usize> {
        self.asked.take()
    }

    /// Lets go of what is open beside sockets.
    pub(super) fn close(&mut self) {
        self.shortcut.close();
    }

    #[cfg(test)]
    pub(super) const fn shortcut(&self) -> &Shortcut {
        &self.shortcut
    }

    /// Whether the kernel has this one.
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.present.as_ref() == Some(wanted)
    }

    /// Whether the kernel has it as it was made.
    pub(super) const fn is_whole(&self) -> bool {
        self.present.is_some()
    }

    /// The fence that a network is to have. An endpoint that is shown without addresses, because something
    /// of it is missing, keeps those that it has in `before`.
    pub(super) fn wanted(
        &self,
        before: &Self,
        network: &Network,
        tunnel: u32,
        shortens: bool,
    ) -> Wanted {
        let port = |(id, index): (&EndpointId, &u32)| {
            let local = network.locals.get(id)?;
            let name = port::port_name(*id);
            let known = before.present.as_ref().and_then(|wanted| wanted.fence.ports.get(&name));
            let known = known.filter(|_| local.addresses.iter().next().is_none());
            let addresses = known.map_or(local.addresses, |port| port.addresses);
            let forwards = local.role == Role::Gate;
            Some((name, Port { index: *index, mac: local.mac, addresses, forwards }))
        };
        let ports = self.ports.iter().filter_map(port).collect();
        let fence = Fence { ports, tunnel: (scaffold::VXLAN.to_owned(), tunnel) };
        Wanted { fence, shortens, floods: network.settings.multicast }
    }

    /// Reads whether the kernel has `wanted`. `before` is what is known of the same fence.
    pub(super) fn read(
        &mut self,
        inside: &mut Inside,
        wanted: Wanted,
        before: Self,
    ) -> Result<(), Error> {
        let are_whole = self.read_rules(&mut inside.nft, &wanted, &before)?;
        let is_whole = self.shortcut.read(&inside.route, &wanted, before.shortcut);
        self.present = Some(wanted).filter(|_| are_whole && is_whole);
        Ok(())
    }

    fn read_rules(
        &mut self,
        nft: &mut Nft,
        wanted: &Wanted,
        before: &Self,
    ) -> Result<bool, NftError> {
        call()?;
        self.generation = nft.generation()?;
        let untouched =
            before.is(wanted) && before.generation == self.generation && self.generation.is_some();
        Ok(untouched || nft.observe(&table_id())? == Some(wanted.fence.table()))
    }

    /// Makes it what it shall be, whatever is there of it.
    pub(super) fn put(&mut self, inside: &mut Inside, wanted: Wanted) -> Result<(), Error> {
        let before = self.present.take();
        let fence_before = before.as_ref().map(|before| &before.fence);
        put_rules(&mut inside.nft, &wanted.fence, fence_before)?;
        let is_whole = self.shortcut.put(&inside.route, &wanted, before.as_ref())?;
        self.present = Some(wanted).filter(|_| is_whole);
        Ok(())
    }
}

fn put_rules(nft: &mut Nft, wanted: &Fence, before: Option<&Fence>) -> Result<(), NftError> {
    call()?;
    let (id, table) = (table_id(), wanted.table());
    if let Some(before) = before
        && nft.apply(&diff(&id, Some(&table), Some(&before.table()))).is_ok()
    {
        return Ok(());
    }
    call()?;
    // Chains go with their devices on some kernels; somebody may have done something.
    let found = nft.observe(&id)?;
    nft.apply(&diff(&id, Some(&table), found.as_ref()))
}

fn call() -> Result<(), NftError> {
    super::call().map_err(|source| NftError::Socket { step: "use", source })
}
