//! Disks that fail, that are full, and that are slower than those of the followers.

use core::task::Poll;

use futures::poll;

use super::*;
use crate::raft::store::faults::{Fault, FaultyDisk};

#[rstest]
#[case::short_write(Fault::ShortWrite, "half of it was written")]
#[case::failed_sync(Fault::FailedSync, "the device did not answer")]
#[case::full(Fault::Full, "no storage space")]
#[tokio::test]
async fn r02_a_disk_that_fails_loses_nothing_that_was_acknowledged(
    #[case] fault: Fault,
    #[case] reason: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let (disk, path) = (FaultyDisk::default(), folder.path().join("state"));
    let mut store = Store::of(disk.open(&path, &owner(), None).unwrap());
    store.commit(0..20).await;

    disk.set(fault);
    let appended = store.log.blocking_append((20..25).map(entry)).await;
    let failure = store.log.durable().failure().expect("the store says that it failed");
    for error in [appended.unwrap_err().to_string(), failure.to_string()] {
        assert!(error.contains(reason), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    // Nothing is written behind a gap.
    disk.set(Fault::None);
    store.log.blocking_append((25..26).map(entry)).await.unwrap_err();
    assert!(store.log.durable().reach(20).await.is_err());

    let replica = Arc::clone(&store.replica);
    drop(store);
    let mut store = Store::of(disk.open(&path, &owner(), Some(replica)).unwrap());
    let recovered = store.recover().await;
    let expected: Vec<_> = (0..25).map(entry).collect();
    assert!(recovered.len() >= 20 && expected.starts_with(&recovered), "{}", recovered.len());
    assert_eq!(store.state(), applied_up_to(19));
    store.append(recovered.len() as u64..40).await;
    store.machine.apply((20..40).map(entry)).await.unwrap();
    assert_eq!(store.state(), applied_up_to(39));
}

/// A store whose node leads the term of [`entry`].
async fn leading(disk: &FaultyDisk, path: &Path) -> Store {
    let mut store = Store::of(disk.open(path, &owner(), None).unwrap());
    store.log.save_vote(&Vote::new_committed(1, NODE)).await.unwrap();
    store.commit(0..10).await;
    store
}

#[tokio::test]
async fn r02_what_a_leader_applies_is_on_its_own_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, path) = (FaultyDisk::default(), folder.path().join("state"));
    let mut store = leading(&disk, &path).await;
    disk.set(Fault::SlowSync);
    // Its followers may have it already: raft goes on.
    store.log.blocking_append((10..20).map(entry)).await.unwrap();
    let durable = store.log.durable();
    assert!(poll!(Box::pin(durable.reach(10))).is_pending());
    {
        let mut applied = Box::pin(store.machine.apply((10..20).map(entry)));
        assert!(poll!(&mut applied).is_pending());
        disk.set(Fault::None);
        applied.await.unwrap();
    }
    assert!(matches!(poll!(Box::pin(durable.reach(19))), Poll::Ready(Ok(()))));
    assert_eq!(store.state(), applied_up_to(19));
}

#[rstest]
#[case::of_another_leader(Vote::new_committed(2, NodeId::from_u128(9)), entry(10))]
#[case::of_the_group(Vote::new_committed(1, NODE), Entry { log_id: log_id(10), ..entry(0) })]
#[case::of_a_term_begun(Vote::new_committed(1, NODE), Entry { log_id: log_id(10), ..blank() })]
#[tokio::test]
async fn r02_raft_counts_such_an_entry_when_it_is_on_the_disk(
    #[case] vote: Vote,
    #[case] entry: Entry,
) {
    let folder = tempfile::tempdir().unwrap();
    let (disk, path) = (FaultyDisk::default(), folder.path().join("state"));
    let mut store = leading(&disk, &path).await;
    store.log.save_vote(&vote).await.unwrap();
    disk.set(Fault::SlowSync);
    let mut appended = Box::pin(store.log.blocking_append([entry]));
    assert!(poll!(&mut appended).is_pending());
    disk.set(Fault::None);
    appended.await.unwrap();
}

fn blank() -> Entry {
    Entry { log_id: log_id(0), payload: EntryPayload::Blank }
}

#[tokio::test]
async fn r02_a_leader_is_not_far_ahead_of_its_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, path) = (FaultyDisk::default(), folder.path().join("state"));
    let mut store = leading(&disk, &path).await;
    disk.set(Fault::SlowSync);
    let far = 10 + log::MAX_AHEAD;
    store.log.blocking_append((10..far).map(entry)).await.unwrap();
    {
        let mut appended = Box::pin(store.log.blocking_append([entry(far)]));
        assert!(poll!(&mut appended).is_pending());
        disk.set(Fault::None);
        appended.await.unwrap();
    }
    store.log.durable().reach(far).await.unwrap();
}

/// It may have lost entries that its followers have: with new ones of the same term there would be
/// two of one id.
#[tokio::test]
async fn r02_a_leader_that_restarts_does_not_lead_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(leading(&FaultyDisk::default(), &path).await);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.log.read_vote().await.unwrap(), Some(Vote::new(1, NODE)));
}
