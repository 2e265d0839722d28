mod disk;
mod journal;
mod power;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use openraft::{
    CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, StorageHelper},
};
use overlay_testkit::objects::{cluster, node};
use overlay_types::{ClusterId, NodeId, RequestId, UnixMillis};
use rstest::rstest;
use tempfile::TempDir;

use super::{segments::Beside, *};
use crate::{
    raft::types::{Entry, LogId, Member, Membership, StorageError, TypeConfig, Vote},
    state::{Action, Command, State, tests::init},
};

const NODE: NodeId = NodeId::from_u128(2);

fn owner() -> Owner {
    Owner { cluster: ClusterId::from_u128(1), node: NODE, key: DataKey::from_bytes([3; 32]) }
}

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let (log, machine, _) =
            open(&Medium::File, &folder.path().join("state"), &owner(), None).unwrap();
        Ok((folder, log, machine))
    }
}

#[test]
fn r02_openraft_accepts_the_store() {
    openraft::testing::Suite::test_all(Builder).unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, NODE), index)
}

/// A log that makes a cluster, and then nodes: entry 0 forms the group, entry 1 the cluster.
fn entry(index: u64) -> Entry {
    let payload = match index {
        0 => EntryPayload::Membership(Membership::new(
            vec![BTreeSet::from([NODE])],
            BTreeMap::from([(NODE, Member::default())]),
        )),
        1 => command(index, Action::InitCluster(Box::new(init(cluster())))),
        _ => command(index, Action::JoinNode(node((index % 200).into()))),
    };
    Entry { log_id: log_id(index), payload }
}

fn command(index: u64, action: Action) -> EntryPayload<TypeConfig> {
    let request = RequestId::from_u128(index.into());
    EntryPayload::Normal(vec![Command { request, at: UnixMillis(index), action }].into())
}

struct Store {
    log: LogStore,
    machine: Machine,
    replica: Arc<Replica>,
}

impl Store {
    fn open(path: &Path) -> Result<Self, StoreError> {
        open(&Medium::File, path, &owner(), None).map(Self::of)
    }

    fn of((log, machine, replica): super::Store) -> Self {
        Self { log, machine, replica }
    }

    async fn append(&mut self, indexes: core::ops::Range<u64>) {
        let last = indexes.end - 1;
        self.log.blocking_append(indexes.map(entry)).await.unwrap();
        self.log.durable().reach(last).await.unwrap();
    }

    async fn commit(&mut self, indexes: core::ops::Range<u64>) {
        self.append(indexes.clone()).await;
        self.machine.apply(indexes.clone().map(entry)).await.unwrap();
        self.log.save_committed(Some(log_id(indexes.end - 1))).await.unwrap();
    }

    /// Reads what is there as openraft does at start.
    async fn recover(&mut self) -> Vec<Entry> {
        StorageHelper::new(&mut self.log, &mut self.machine).get_initial_state().await.unwrap();
        self.log.try_get_log_entries(..).await.unwrap()
    }

    fn state(&self) -> State {
        self.replica.read(State::clone)
    }
}

/// Copies a state file with its log, in place of what is at `copy`.
fn copy_store(path: &Path, copy: &Path) {
    erase(copy).unwrap();
    fs::copy(path, copy).unwrap();
    for (from, to) in segments(path).into_iter().map(|number| (at(path, number), at(copy, number)))
    {
        fs::copy(from, to).unwrap();
    }
}

/// The numbers of the segments beside a state file, in order.
fn segments(path: &Path) -> Vec<u64> {
    let mut numbers = Beside::new(path).numbers().unwrap();
    numbers.sort_unstable();
    numbers
}

/// The path of a segment.
fn at(path: &Path, number: u64) -> PathBuf {
    Beside::new(path).path(number)
}

fn applied_up_to(last: u64) -> State {
    let mut state = State::default();
    for index in 0..=last {
        if let EntryPayload::Normal(batch) = entry(index).payload {
            batch.commands().iter().for_each(|command| drop(state.apply(command).unwrap()));
        }
    }
    state
}

#[tokio::test]
async fn r02_a_store_that_was_dropped_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let vote = Vote::new_committed(7, NodeId::from_u128(3));
    {
        let mut store = Store::open(&path).unwrap();
        store.log.save_vote(&vote).await.unwrap();
        store.commit(0..50).await;
        // Not committed, but acknowledged to the leader.
        store.append(50..60).await;
        store.log.save_vote(&vote).await.unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.recover().await, (0..60).map(entry).collect::<Vec<_>>());
    assert_eq!(store.state(), applied_up_to(49));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn r02_what_was_acknowledged_survives_a_power_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let mut store = Store::open(&path).unwrap();
    for round in 0..8 {
        store.append(round * 5..round * 5 + 5).await;
        // The files as a power loss leaves them at this moment: nothing was closed.
        copy_store(&path, &copy);
        let mut recovered = Store::open(&copy).unwrap();
        let expected: Vec<_> = (0..round * 5 + 5).map(entry).collect();
        assert_eq!(recovered.log.try_get_log_entries(..).await.unwrap(), expected);
        drop(recovered);
        erase(&copy).unwrap();
    }
}

#[tokio::test]
async fn c05_a_snapshot_replaces_the_log_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    {
        let mut store = Store::open(&path).unwrap();
        store.commit(0..100).await;
        let built = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(built.meta.last_log_id, Some(log_id(99)));
        store.log.purge(log_id(90)).await.unwrap();
        store.commit(100..120).await;
        store.log.save_vote(&Vote::new(1, NODE)).await.unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.state(), applied_up_to(99), "the snapshot, before the log is applied");
    assert_eq!(store.recover().await, (91..120).map(entry).collect::<Vec<_>>());
    assert_eq!(store.state(), applied_up_to(119));
    let log_state = store.log.get_log_state().await.unwrap();
    assert_eq!(log_state.last_purged_log_id, Some(log_id(90)));
}

#[tokio::test]
async fn c05_a_slow_snapshot_does_not_undo_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut store = Store::open(&path).unwrap();
    store.commit(0..10).await;
    let mut old = store.machine.clone();
    let slow = old.build_snapshot().await.unwrap();
    store.commit(10..20).await;
    let new = store.machine.build_snapshot().await.unwrap();
    old.store(&slow.meta, *slow.snapshot).await.unwrap();
    let current = store.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!((current.meta, current.snapshot), (new.meta, new.snapshot));
}

/// Raft has the log purged while the snapshot that it received is still being written.
#[tokio::test]
async fn r02_a_crash_while_a_snapshot_is_received_keeps_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut received = {
        let mut store = Store::open(&folder.path().join("other")).unwrap();
        store.commit(0..50).await;
        store.machine.build_snapshot().await.unwrap()
    };
    received.meta.snapshot_id = "received".to_owned();
    let mut store = Store::open(&path).unwrap();
    store.commit(0..10).await;
    store.log.purge(log_id(49)).await.unwrap();
    assert_eq!(store.log.get_log_state().await.unwrap().last_log_id, Some(log_id(49)));
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.recover().await, (0..10).map(entry).collect::<Vec<_>>());

    store.log.purge(log_id(49)).await.unwrap();
    store.machine.install_snapshot(&received.meta, received.snapshot).await.unwrap();
    store.append(50..55).await;
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.recover().await, (50..55).map(entry).collect::<Vec<_>>());
    assert_eq!(store.state(), applied_up_to(49));
    let log_state = store.log.get_log_state().await.unwrap();
    assert_eq!(log_state.last_purged_log_id, Some(log_id(49)));
}

/// The disk failed behind it, so the state in memory does not have it. Raft takes neither for the other's.
#[tokio::test]
async fn r02_a_state_in_memory_takes_a_snapshot_that_only_the_disk_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut store = Store::open(&path).unwrap();
    let behind = Arc::new(Replica::new(store.replica.lock().clone()));
    store.commit(0..50).await;
    store.machine.build_snapshot().await.unwrap();
    drop(store);
    let opened = open(&Medium::File, &path, &owner(), Some(Arc::clone(&behind))).unwrap();
    let mut store = Store::of(opened);
    assert_eq!(behind.read(State::clone), applied_up_to(49));
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(49)));
    store.recover().await;
}

#[tokio::test]
async fn c05_an_unfinished_snapshot_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    {
        let mut store = Store::open(&path).unwrap();
        store.commit(0..10).await;
        store.machine.build_snapshot().await.unwrap();
        let data = bytes::Bytes::from_static(b"half of a snapshot");
        let generation = store.machine.file.next_generation();
        let piece = Write::Piece { generation, number: 0, data };
        store.machine.writer.write(piece).await.unwrap();
        store.append(10..11).await;
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.state(), applied_up_to(9));
    store.commit(11..20).await;
    store.machine.build_snapshot().await.unwrap();
    let current = store.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(State::decode(*current.snapshot).unwrap(), store.state());
}

#[tokio::test]
async fn r05_a_damaged_file_is_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let expected = {
        let mut store = Store::open(&path).unwrap();
        store.commit(0..60).await;
        store.machine.build_snapshot().await.unwrap();
        store.log.purge(log_id(40)).await.unwrap();
        store.log.save_vote(&Vote::new(3, NODE)).await.unwrap();
        drop(store);
        let mut store = Store::open(&path).unwrap();
        (store.recover().await, store.state())
    };
    let log = segments(&path).last().copied().unwrap();
    for file in [|path: &Path, _| path.to_owned(), at] {
        copy_store(&path, &copy);
        let (bytes, spoiled) = (fs::read(file(&path, log)).unwrap(), file(&copy, log));
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let mut refused = 0;
        for byte in used.iter().step_by(used.len() / 150 + 1) {
            copy_store(&path, &copy);
            let mut damaged = bytes.clone();
            damaged[*byte] ^= 0x10;
            fs::write(&spoiled, &damaged).unwrap();
            let opened = catch_unwind(AssertUnwindSafe(|| Store::open(&copy)));
            match opened.unwrap_or_else(|_| panic!("byte {byte}: a panic instead of an error")) {
                Err(StoreError::Damaged { path, .. } | StoreError::NotAStore { path }) => {
                    assert_eq!(path, spoiled);
                    refused += 1;
                }
                Err(other) => panic!("byte {byte}: {other}"),
                // A page that is not in use any more, or the last frame: how far the log is committed.
                Ok(mut store) => {
                    assert_eq!((store.recover().await, store.state()), expected, "{byte}");
                }
            }
        }
        assert!(refused > 20, "{refused}");
    }
}

#[rstest]
#[case::cut(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2))]
#[case::cut_in_the_first_page(|bytes: &mut Vec<u8>| bytes.truncate(100))]
#[case::text(|bytes: &mut Vec<u8>| *bytes = b"not a database at all".repeat(500))]
#[case::zeros(|bytes: &mut Vec<u8>| bytes.fill(0))]
fn r05_what_is_no_store_is_refused_by_name(#[case] spoil: fn(&mut Vec<u8>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(Store::open(&path).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    spoil(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let error = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file is as it was");
}

#[test]
fn r05_the_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let database = redb::Database::create(&path).unwrap();
    let tx = database.begin_write().unwrap();
    tx.open_table(redb::TableDefinition::<u64, u64>::new("other")).unwrap();
    tx.commit().unwrap();
    drop(database);
    let error = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

#[test]
fn r05_the_store_of_another_cluster_node_or_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(Store::open(&path).unwrap());
    for other in [
        Owner { cluster: ClusterId::from_u128(9), ..owner() },
        Owner { node: NodeId::from_u128(9), ..owner() },
    ] {
        let error = open(&Medium::File, &path, &other, None).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    }
    let other = Owner { key: DataKey::from_bytes([4; 32]), ..owner() };
    let error = open(&Medium::File, &path, &other, None).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::OtherKey { .. }), "{error}");
    Store::open(&path).unwrap();
}

/// What a record says is nowhere in the file, neither in the log nor in a snapshot.
#[tokio::test]
async fn c05_nothing_of_the_log_is_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let secret = init(cluster()).trust.private_key.clone();
    let name = node(7).name.to_string();
    for snapshot in [false, true] {
        let mut store = Store::open(&path).unwrap();
        if snapshot {
            store.recover().await;
            store.machine.build_snapshot().await.unwrap();
        } else {
            store.commit(0..20).await;
        }
        drop(store);
        let files = segments(&path).into_iter().map(|number| at(&path, number));
        let files = files.chain([path.clone()]).map(|file| fs::read(file).unwrap());
        let bytes = files.collect::<Vec<_>>().concat();
        for clear in [secret.as_bytes(), name.as_bytes(), owner().key.as_bytes()] {
            assert!(!bytes.windows(clear.len()).any(|part| part == clear));
        }
    }
}
