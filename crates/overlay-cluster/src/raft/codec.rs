//! Raft's records as protobuf messages, on disk and on the wire.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{EntryPayload, LeaderId, raft::AppendEntriesResponse};
use overlay_api::internal::v1 as wire;
use overlay_types::{NodeId, SpecError};

use super::{
    batch::Batch,
    types::{Entry, LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote},
};
use crate::state::wire::WireError;

/// The bytes are no record of this kind.
pub(crate) type Malformed = SpecError;

fn missing(field: &'static str) -> Malformed {
    SpecError::new(field, "", "the record lacks it")
}

fn node_id(field: &'static str, text: &str) -> Result<NodeId, Malformed> {
    text.parse().map_err(|_| SpecError::new(field, text, "it is no node id"))
}

fn leader_to_wire(leader: LeaderId<NodeId>) -> wire::LeaderId {
    wire::LeaderId { term: leader.term, node: leader.node_id.to_string() }
}

fn leader_from_wire(message: Option<wire::LeaderId>) -> Result<LeaderId<NodeId>, Malformed> {
    let message = message.ok_or_else(|| missing("leader"))?;
    Ok(LeaderId::new(message.term, node_id("leader.node", &message.node)?))
}

pub(crate) fn log_id_to_wire(log_id: LogId) -> wire::LogId {
    wire::LogId { leader: Some(leader_to_wire(log_id.leader_id)), index: log_id.index }
}

pub(crate) fn log_id_from_wire(message: wire::LogId) -> Result<LogId, Malformed> {
    Ok(LogId::new(leader_from_wire(message.leader)?, message.index))
}

pub(crate) fn optional_log_id(message: Option<wire::LogId>) -> Result<Option<LogId>, Malformed> {
    message.map(log_id_from_wire).transpose()
}

pub(crate) fn vote_to_wire(vote: Vote) -> wire::Vote {
    wire::Vote { leader: Some(leader_to_wire(vote.leader_id)), committed: vote.committed }
}

pub(crate) fn vote_from_wire(message: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let message = message.ok_or_else(|| missing("vote"))?;
    let leader_id = leader_from_wire(message.leader)?;
    Ok(Vote { leader_id, committed: message.committed })
}

fn membership_to_wire(membership: &Membership) -> wire::Membership {
    let voters = |set: &BTreeSet<NodeId>| wire::Voters {
        nodes: set.iter().map(ToString::to_string).collect(),
    };
    let member = |(id, member): (&NodeId, &Member)| {
        let message = wire::Member {
            name: member.name.as_ref().map_or_else(String::new, ToString::to_string),
            control: member.control.map_or_else(String::new, |a| a.to_string()),
        };
        (id.to_string(), message)
    };
    wire::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

fn membership_from_wire(message: &wire::Membership) -> Result<Membership, Malformed> {
    let mut configs = Vec::with_capacity(message.configs.len());
    for voters in &message.configs {
        let set = voters.nodes.iter().map(|id| node_id("membership.voter", id));
        configs.push(set.collect::<Result<BTreeSet<_>, _>>()?);
    }
    let mut members = BTreeMap::new();
    for (id, member) in &message.members {
        let name = match member.name.as_str() {
            "" => None,
            name => Some(overlay_types::Name::parse("membership.name", name)?),
        };
        let control = match member.control.as_str() {
            "" => None,
            address => Some(overlay_api::convert::parse("membership.control", address)?),
        };
        members.insert(node_id("membership.member", id)?, Member { name, control });
    }
    Ok(Membership::new(configs, members))
}

fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

fn stored_membership_from_wire(
    message: Option<wire::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let message = message.ok_or_else(|| missing("last_membership"))?;
    let membership = message.membership.ok_or_else(|| missing("last_membership.membership"))?;
    let log_id = optional_log_id(message.log_id)?;
    Ok(StoredMembership::new(log_id, membership_from_wire(&membership)?))
}

pub(crate) fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last_log_id: meta.last_log_id.map(log_id_to_wire),
        last_membership: Some(stored_membership_to_wire(&meta.last_membership)),
        id: meta.snapshot_id.clone(),
    }
}

pub(crate) fn snapshot_meta_from_wire(
    message: Option<wire::SnapshotMeta>,
) -> Result<SnapshotMeta, Malformed> {
    let message = message.ok_or_else(|| missing("snapshot.meta"))?;
    Ok(SnapshotMeta {
        last_log_id: optional_log_id(message.last_log_id)?,
        last_membership: stored_membership_from_wire(message.last_membership)?,
        snapshot_id: message.id,
    })
}

/// Bytes of its commands. Entries without commands are small.
pub(crate) fn bytes_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.encoded().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

pub(crate) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(overlay_api::v1::Unit {}),
        EntryPayload::Normal(batch) => wire::entry::Payload::Commands(batch.encoded().clone()),
        EntryPayload::Membership(m) => wire::entry::Payload::Membership(membership_to_wire(m)),
    };
    wire::Entry { log_id: Some(log_id_to_wire(entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_wire(message: wire::Entry) -> Result<Entry, Malformed> {
    let log_id = log_id_from_wire(message.log_id.ok_or_else(|| missing("entry.log_id"))?)?;
    let payload = match message.payload.ok_or_else(|| missing("entry.payload"))? {
        wire::entry::Payload::Blank(_) => EntryPayload::Blank,
        wire::entry::Payload::Commands(encoded) => {
            let refuse = |error: WireError| SpecError::new("entry", log_id, error.to_string());
            EntryPayload::Normal(Batch::decode(encoded).map_err(refuse)?)
        }
        wire::entry::Payload::Membership(m) => EntryPayload::Membership(membership_from_wire(&m)?),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn append_response_to_wire(
    response: AppendEntriesResponse<NodeId>,
) -> wire::AppendResponse {
    use wire::append_response::Outcome;
    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Success(overlay_api::v1::Unit {}),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            Outcome::Partial(wire::Matched { log_id: log_id.map(log_id_to_wire) })
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict(overlay_api::v1::Unit {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to_wire(vote)),
    };
    wire::AppendResponse { outcome: Some(outcome) }
}

pub(crate) fn append_response_from_wire(
    message: wire::AppendResponse,
) -> Result<AppendEntriesResponse<NodeId>, Malformed> {
    use wire::append_response::Outcome;
    Ok(match message.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::Partial(matched) => {
            AppendEntriesResponse::PartialSuccess(optional_log_id(matched.log_id)?)
        }
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_wire(Some(vote))?),
    })
}
