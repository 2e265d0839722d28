//! A store for one manager that goes on alone.
//!
//! ```text
//!   file of a group that lost its quorum ──salvage──► state ──seed──► file of a group of one
//! ```
//!
//! Everything in the log is kept, also what this manager never heard to be committed: it may have been
//! acknowledged to its writer, and nobody is left who could undo it.

use std::{collections::BTreeMap, fs, path::Path};

use openraft::{CommittedLeaderId, EntryPayload};
use overlay_api::internal::v1 as wire;

use super::{
    Owner, StoreError,
    file::{File, Write},
    machine::{self, PIECE},
    segments::sync_name,
};
use crate::{
    raft::{
        codec,
        types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote},
    },
    state::State,
};

/// What a store leads to.
#[derive(Clone, Debug, Default)]
pub struct Salvaged {
    /// The state after the whole log.
    pub state: State,
    /// The last index of the log.
    pub last_index: u64,
    /// The last term that the manager took part in.
    pub term: u64,
}

/// Reads the store at `path`, which nobody may have open.
pub fn salvage(path: &Path, owner: &Owner) -> Result<Salvaged, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    let file = File::open(path, owner)?;
    let applied = machine::load(&file)?;
    let first = applied.last.map_or(0, |last| last.index + 1);
    let (mut state, mut last_index) = (applied.state, first.saturating_sub(1));
    file.for_each_entry(first.., |entry| {
        last_index = entry.log_id.index;
        if let EntryPayload::Normal(batch) = entry.payload {
            for command in batch.commands() {
                // A refusal is an answer like any other.
                let _ = state.apply(command);
            }
        }
        Ok(())
    })?;
    let term = file.vote()?.map_or(0, |vote| vote.leader_id.term);
    Ok(Salvaged { state, last_index, term })
}

/// Puts a store in place of what is at `path`: of a group whose only voter is its owner, with this
/// state. There is the former file or the new one, whatever happens meanwhile.
pub fn seed(
    path: &Path,
    owner: &Owner,
    member: Member,
    salvaged: &Salvaged,
) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let io = |source| StoreError::Create { path: new.clone(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let file = File::open(&new, owner)?;
    write(&file, owner, member, salvaged)?;
    drop(file);
    fs::rename(&new, path).map_err(io)?;
    sync_name(path).map_err(io)
}

fn write(
    file: &File,
    owner: &Owner,
    member: Member,
    salvaged: &Salvaged,
) -> Result<(), StoreError> {
    let node = owner.node;
    let last = LogId::new(CommittedLeaderId::new(salvaged.term, node), salvaged.last_index + 1);
    let membership = Membership::new(vec![[node].into()], BTreeMap::from([(node, member)]));
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: last.index.to_string(),
    };
    let mut rest = salvaged.state.encode();
    let (generation, length) = (file.next_generation(), rest.len() as u64);
    let mut pieces = 0;
    while !rest.is_empty() {
        let data = rest.split_to(rest.len().min(PIECE));
        file.write(&[Write::Piece { generation, number: pieces, data }])?;
        pieces += 1;
    }
    let meta = Some(codec::snapshot_meta_to_wire(&meta));
    let stored = wire::StoredSnapshot { meta, generation, pieces, length };
    file.write(&[
        Write::Snapshot(Box::new(stored)),
        Write::Purge(last),
        Write::Vote(Vote::new(salvaged.term, node)),
    ])
}
