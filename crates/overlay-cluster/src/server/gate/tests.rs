//! Who is let in: the decision by table, and every call of the protocol against a real manager.

mod served;

use core::time::Duration;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use overlay_types::{ClusterId, Revision, RootId};
use protox::prost_reflect::DescriptorPool;
use rstest::rstest;
use tonic::Code;

use super::*;
use crate::ca::PeerIdentity;

/// Calls that managers do not serve: those of a node's unix socket.
const LOCAL: &str = "/overlay.v1.LocalNode/";

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            proto_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Paths of all calls of all services: in the `.proto` files, and those that are standard.
fn calls() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlay-api/proto");
    let mut files = Vec::new();
    proto_files(&root, &mut files);
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_set(protox::compile(files, [root]).unwrap()).unwrap();
    for standard in
        [tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET]
    {
        pool.decode_file_descriptor_set(standard).unwrap();
    }
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|m| format!("/{}/{}", m.parent_service().full_name(), m.name())).collect()
}

#[test]
fn c04_every_call_is_in_the_table_once_and_nothing_else() {
    let served: BTreeSet<String> =
        calls().into_iter().filter(|call| !call.starts_with(LOCAL)).collect();
    let known: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(known, served);
    assert_eq!(known.len(), TABLE.len());
}

const NODE: NodeId = NodeId::from_u128(7);
const NOW: UnixMillis = UnixMillis(1_000_000);

const ROOT: RootId = RootId::from_u128(5);

const fn peer(role: Role) -> Peer {
    let identity = PeerIdentity { cluster: ClusterId::from_u128(1), node: NODE, role };
    let as_of = Revision::ZERO;
    Peer { identity, as_of, not_after: NOW, issuer: ROOT, anchor: ROOT }
}

fn decided(access: Access, peer: Option<Peer>, known: Known, now: UnixMillis) -> String {
    match check(access, peer, known, now) {
        Ok(None) => "anyone".to_owned(),
        Ok(Some(caller)) => caller.role.to_string(),
        Err(refusal) => {
            overlay_api::status::reason(&refusal.into()).expect("a reason").text().to_owned()
        }
    }
}

const WORKER: Standing = Standing::Member(Role::Worker);
const MANAGER: Standing = Standing::Member(Role::Manager);

/// By access: anyone, member, manager, raft.
#[rstest]
#[case::no_certificate(None, WORKER, ["anyone", "NO_CERTIFICATE", "NO_CERTIFICATE", "NO_CERTIFICATE"])]
#[case::worker(Some(peer(Role::Worker)), WORKER, ["anyone", "worker", "NOT_MANAGER", "NOT_MANAGER"])]
#[case::manager(Some(peer(Role::Manager)), MANAGER, ["anyone", "manager", "manager", "manager"])]
#[case::promoted(Some(peer(Role::Worker)), MANAGER, ["anyone", "worker", "NOT_MANAGER", "NOT_MANAGER"])]
#[case::demoted(Some(peer(Role::Manager)), WORKER, ["anyone", "worker", "NOT_MANAGER", "NOT_MANAGER"])]
#[case::absent(Some(peer(Role::Worker)), Standing::Absent, ["anyone", "NODE_REMOVED", "NODE_REMOVED", "NOT_MANAGER"])]
#[case::absent(Some(peer(Role::Manager)), Standing::Absent, ["anyone", "NODE_REMOVED", "NODE_REMOVED", "NODE_REMOVED"])]
#[case::removed(Some(peer(Role::Worker)), Standing::Removed, ["anyone", "NODE_REMOVED", "NODE_REMOVED", "NODE_REMOVED"])]
#[case::removed(Some(peer(Role::Manager)), Standing::Removed, ["anyone", "NODE_REMOVED", "NODE_REMOVED", "NODE_REMOVED"])]
fn c04_certificate_and_state_decide(
    #[case] peer: Option<Peer>,
    #[case] standing: Standing,
    #[case] expected: [&str; 4],
) {
    let by_access = [Access::Anyone, Access::Member, Access::Manager, Access::Raft];
    let known = |freshness, footing| Known { standing, footing, freshness, tie: Tie::None };
    let trusted = |freshness| known(freshness, Footing::Trusted);
    let current = by_access.map(|a| decided(a, peer, trusted(Freshness::Current), NOW));
    assert_eq!(current, expected);

    // A state that may lag says the same, or nothing.
    let certified = peer.map(|peer| peer.identity.role);
    let in_doubt = match (certified, standing) {
        (Some(_), Standing::Absent) => true,
        (Some(certified), Standing::Member(given)) => {
            (certified, given) == (Role::Manager, Role::Worker)
        }
        (None, _) | (Some(_), Standing::Removed) => false,
    };
    for (access, expected) in by_access.into_iter().zip(expected) {
        let doubted = in_doubt && matches!(access, Access::Member | Access::Manager);
        let expected = if doubted { "NODE_UNKNOWN" } else { expected };
        assert_eq!(decided(access, peer, trusted(Freshness::MayLag), NOW), expected);
    }

    // A root that was replaced ends it, whatever else is known but that the node was removed. One
    // that nobody knows yet is known as soon as this manager is not behind; raft cannot wait for that.
    let by_root = [
        (Footing::Former, Freshness::MayLag, "FORMER_ROOT"),
        (Footing::Former, Freshness::Current, "FORMER_ROOT"),
        (Footing::Unknown, Freshness::MayLag, "NODE_UNKNOWN"),
        (Footing::Unknown, Freshness::Current, "FORMER_ROOT"),
    ];
    for (footing, freshness, refusal) in by_root {
        for (access, as_before) in by_access.into_iter().zip(expected) {
            let raft = access == Access::Raft && footing == Footing::Unknown;
            let removed = standing == Standing::Removed;
            let kept = access == Access::Anyone || peer.is_none() || removed || raft;
            let expected = if kept { as_before } else { refusal };
            assert_eq!(decided(access, peer, known(freshness, footing), NOW), expected);
        }
    }

    // A millisecond later the certificate is over, whatever the state says.
    let later = NOW.after(Duration::from_millis(1));
    for access in [Access::Member, Access::Manager, Access::Raft] {
        let expected = if peer.is_some() { "CERTIFICATE_EXPIRED" } else { "NO_CERTIFICATE" };
        assert_eq!(decided(access, peer, trusted(Freshness::Current), later), expected);
    }
}

/// By what ties it to the group of managers: nothing, a newer certificate, being in it.
#[rstest]
#[case::worker(Role::Worker, WORKER, ["NOT_MANAGER"; 3])]
#[case::promoted_by_a_later_write(Role::Manager, WORKER, ["NOT_MANAGER", "manager", "manager"])]
#[case::joined_by_a_later_write(Role::Manager, Standing::Absent, ["NODE_REMOVED", "manager", "manager"])]
#[case::manager(Role::Manager, MANAGER, ["manager"; 3])]
#[case::removed(Role::Manager, Standing::Removed, ["NODE_REMOVED"; 3])]
fn c04_raft_is_for_managers_of_this_state_or_a_later_one(
    #[case] certified: Role,
    #[case] standing: Standing,
    #[case] expected: [&str; 3],
) {
    let by_tie = [Tie::None, Tie::Newer, Tie::InGroup];
    for (footing, freshness) in [
        (Footing::Trusted, Freshness::MayLag),
        (Footing::Trusted, Freshness::Current),
        (Footing::Unknown, Freshness::MayLag),
    ] {
        let known = |tie| Known { standing, footing, freshness, tie };
        let found = by_tie.map(|t| decided(Access::Raft, Some(peer(certified)), known(t), NOW));
        assert_eq!(found, expected);
    }
    // It is for raft only.
    for (access, tie) in [(Access::Manager, Tie::Newer), (Access::Manager, Tie::InGroup)] {
        let known =
            |tie| Known { standing, footing: Footing::Trusted, freshness: Freshness::Current, tie };
        let by_none = decided(access, Some(peer(certified)), known(Tie::None), NOW);
        assert_eq!(decided(access, Some(peer(certified)), known(tie), NOW), by_none);
    }
}

#[test]
fn c04_a_worker_speaks_for_itself_and_a_manager_for_all() {
    let other = NodeId::from_u128(8);
    let worker = Caller { node: NODE, role: Role::Worker };
    worker.speaks_for(NODE).unwrap();
    let refused = worker.speaks_for(other).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains(&other.to_string()), "{refused}");
    Caller { node: NODE, role: Role::Manager }.speaks_for(other).unwrap();
}
