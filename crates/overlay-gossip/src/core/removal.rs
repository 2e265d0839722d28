//! Nodes that were removed from the cluster for good: nothing of them is heard, and nothing about them.

use std::{borrow::Cow, collections::BTreeSet, time::Instant};

use bytes::{Buf, BufMut};
use foca::Member;
use overlay_types::NodeId;

use super::{Gossip, Phase, codec};
use crate::{config::MAX_REMOVED, counters::DropReason, error::GossipError, identity::Identity};

impl Gossip {
    /// Replaces the set of nodes that were removed from the cluster for good. They are forgotten, what
    /// they send is dropped ([`DropReason::Removed`]), and so is what members say about them that do
    /// not know it yet. No event tells of it.
    ///
    /// A removed node still has the gossip key, with which it can call itself another. Only a rotation
    /// of the key shuts it out for certain; this holds at once.
    ///
    /// Give it to all members at about the same time: one that still listens to a removed node can
    /// pass on its verdicts, and a node that nobody answers soon calls everybody dead. Who is called
    /// dead so comes back at once, with an event.
    ///
    /// This node itself is left out of the set. Fails when the set has more than [`MAX_REMOVED`]
    /// nodes, and changes nothing then.
    pub fn set_removed(
        &mut self,
        mut nodes: BTreeSet<NodeId>,
        now: Instant,
    ) -> Result<(), GossipError> {
        if nodes.len() > MAX_REMOVED {
            return Err(GossipError::TooManyRemoved { count: nodes.len() });
        }
        nodes.remove(&self.identity().node);
        self.removed = nodes;
        if self.phase != Phase::Running {
            return Ok(());
        }
        let known = self.foca.iter_membership_state().map(|member| *member.id());
        let gone: Vec<Identity> = known.filter(|id| self.removed.contains(&id.node)).collect();
        let down = gone.iter().map(|id| Member::down(*id));
        let applied = self.foca.apply_many(down, true, &mut self.runtime);
        debug_assert!(applied.is_ok(), "the codec encodes every identity");
        for id in gone {
            self.probe.take_if(|probe| probe.target == id);
            // foca forgets the dead when this timer fires, and by no other means.
            let forgotten = self.foca.handle_timer(foca::Timer::RemoveDown(id), &mut self.runtime);
            debug_assert!(forgotten.is_ok(), "this timer cannot fail");
        }
        self.drain(now, None);
        Ok(())
    }

    /// A packet of foca's without what it says about removed nodes. Its header has `header` bytes.
    pub(super) fn without_removed<'a>(
        &self,
        packet: &'a [u8],
        header: usize,
    ) -> Result<Cow<'a, [u8]>, DropReason> {
        let (header, mut updates) = packet.split_at(header);
        if self.removed.is_empty() || updates.is_empty() {
            return Ok(Cow::Borrowed(packet));
        }
        let count = updates.try_get_u16().map_err(|_| DropReason::Malformed)?;
        let members: Result<Vec<_>, _> =
            (0..count).map(|_| codec::get_member(&mut updates)).collect();
        let mut members = members.map_err(|_| DropReason::Malformed)?;
        members.retain(|member| !self.removed.contains(&member.id().node));
        if members.len() == usize::from(count) {
            return Ok(Cow::Borrowed(packet));
        }
        let mut kept = header.to_vec();
        kept.put_u16(members.len() as u16);
        for member in &members {
            codec::put_member(member, &mut kept);
        }
        kept.put_slice(updates);
        Ok(Cow::Owned(kept))
    }
}
