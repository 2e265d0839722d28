//! Segments: begun, deleted, torn, lost and foreign.

use super::*;
use crate::raft::store::faults::FaultyDisk;

/// A store whose segments are small.
fn open_small(path: &Path) -> Result<Store, StoreError> {
    FaultyDisk::default().open(path, &owner(), None).map(Store::of)
}

/// Appends entries one by one.
async fn append_each(store: &mut Store, indexes: core::ops::Range<u64>) {
    for index in indexes {
        store.append(index..index + 1).await;
    }
}

#[tokio::test]
async fn r02_a_log_in_several_segments_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut store = open_small(&path).unwrap();
    append_each(&mut store, 0..100).await;
    // Others in place of the last ones.
    store.log.truncate(log_id(60)).await.unwrap();
    append_each(&mut store, 60..80).await;
    drop(store);
    assert!(segments(&path).len() > 3, "{:?}", segments(&path));
    let mut store = open_small(&path).unwrap();
    assert_eq!(store.recover().await, (0..80).map(entry).collect::<Vec<_>>());
    assert_eq!(fs::metadata(at(&path, 2)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn c05_a_snapshot_frees_the_segments_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut store = open_small(&path).unwrap();
    for index in 0..100 {
        store.commit(index..index + 1).await;
    }
    let all = segments(&path);
    store.machine.build_snapshot().await.unwrap();
    store.log.purge(log_id(89)).await.unwrap();
    let kept = segments(&path);
    assert!(kept.len() < all.len() && all.ends_with(&kept), "{all:?} {kept:?}");
    // A crash before the others were deleted.
    fs::write(at(&path, 1), b"old").unwrap();
    drop(store);
    let mut store = open_small(&path).unwrap();
    assert_eq!(segments(&path), kept);
    assert_eq!(store.recover().await, (90..100).map(entry).collect::<Vec<_>>());
    assert_eq!(store.state(), applied_up_to(99));
    // Nothing of the log is needed any more, and it goes on.
    store.log.purge(log_id(99)).await.unwrap();
    assert_eq!(segments(&path).len(), 1);
    store.commit(100..110).await;
    drop(store);
    assert_eq!(
        open_small(&path).unwrap().recover().await,
        (100..110).map(entry).collect::<Vec<_>>()
    );
}

/// Wherever the writing of the last frame was cut short, the frames before it are there, and the next
/// ones follow them.
#[tokio::test]
async fn r02_a_crash_while_a_frame_is_written_loses_that_frame_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let mut store = Store::open(&path).unwrap();
    store.append(0..10).await;
    let before = fs::read(at(&path, 1)).unwrap();
    store.append(10..12).await;
    let after = fs::read(at(&path, 1)).unwrap();
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (begin, end) = (used(&before), used(&after));
    for cut in (begin + 1..end).step_by(37) {
        copy_store(&path, &copy);
        let torn = [&after[..cut], &vec![0; after.len() - cut]].concat();
        fs::write(at(&copy, 1), torn).unwrap();
        let mut store = Store::open(&copy).unwrap();
        assert_eq!(store.recover().await, (0..10).map(entry).collect::<Vec<_>>(), "{cut}");
        store.append(10..15).await;
        drop(store);
        let mut store = Store::open(&copy).unwrap();
        assert_eq!(store.recover().await, (0..15).map(entry).collect::<Vec<_>>(), "{cut}");
    }
}

#[tokio::test]
async fn r05_a_segment_that_is_gone_or_of_another_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("state"), folder.path().join("other"));
    for path in [&path, &other] {
        append_each(&mut open_small(path).unwrap(), 0..60).await;
    }
    let numbers = segments(&path);
    let (first, last) = (numbers[0], *numbers.last().unwrap());
    let kept = fs::read(at(&path, last)).unwrap();
    let refused = |file: PathBuf| match open_small(&path) {
        Err(StoreError::Damaged { path, .. }) => assert_eq!(path, file),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{} was used", file.display()),
    };
    fs::copy(at(&other, first), at(&path, first)).unwrap();
    refused(at(&path, first));
    assert!(at(&path, last).exists(), "nothing was deleted");
    fs::remove_file(at(&path, first)).unwrap();
    refused(at(&path, first));
    assert_eq!(fs::read(at(&path, last)).unwrap(), kept, "nothing was changed");
}

/// Its tables fell back to what they were, or were put back from a copy.
#[tokio::test]
async fn r05_a_state_file_that_is_older_than_its_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("state"), folder.path().join("old"));
    append_each(&mut open_small(&path).unwrap(), 0..5).await;
    fs::copy(&path, &old).unwrap();
    append_each(&mut open_small(&path).unwrap(), 5..60).await;
    let kept = segments(&path);
    assert!(kept.len() > 2, "{kept:?}");
    fs::copy(&old, &path).unwrap();
    let error = open_small(&path).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(segments(&path), kept, "nothing was deleted");
}

#[tokio::test]
async fn r05_a_name_like_that_of_a_segment_is_another_files() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("state"), folder.path().join("state.log-01"));
    append_each(&mut Store::open(&path).unwrap(), 0..5).await;
    fs::rename(at(&path, 1), &other).unwrap();
    let error = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(other.exists() && !at(&path, 1).exists());
}

#[tokio::test]
async fn r05_a_log_that_is_refused_is_not_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    append_each(&mut open_small(&path).unwrap(), 0..60).await;
    let numbers = segments(&path);
    let (lost, last) = (at(&path, numbers[0]), at(&path, *numbers.last().unwrap()));
    let mut torn = fs::read(&last).unwrap();
    torn.extend(b"olog");
    fs::write(&last, &torn).unwrap();
    fs::write(&lost, []).unwrap();
    let error = open_small(&path).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("it is missing"), "{error}");
    assert_eq!(fs::read(&last).unwrap(), torn);
}

#[tokio::test]
async fn c07_a_store_that_is_erased_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let beside = folder.path().join("state.log-x");
    fs::write(&beside, b"somebody's").unwrap();
    append_each(&mut open_small(&path).unwrap(), 0..60).await;
    erase(&path).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(left, [beside]);
    erase(&path).unwrap();
}

/// Raft purges the log as it takes a snapshot from the leader, and goes on behind it, while the snapshot
/// is still being written.
#[tokio::test]
async fn r02_nothing_counts_before_the_snapshot_that_it_is_behind_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let snapshot = {
        let mut leader = Store::open(&folder.path().join("leader")).unwrap();
        leader.commit(0..50).await;
        leader.machine.build_snapshot().await.unwrap()
    };
    let mut store = Store::open(&path).unwrap();
    store.commit(0..10).await;
    store.log.purge(log_id(49)).await.unwrap();
    let state = store.log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(49)), Some(log_id(49))));
    assert_eq!(store.log.try_get_log_entries(..).await.unwrap(), []);
    let (mut log, mut again) = (store.log.clone(), store.log.clone());
    let mut appended = Box::pin(log.blocking_append([entry(50), entry(51)]));
    assert!(futures::poll!(&mut appended).is_pending());
    let mut behind = Box::pin(again.blocking_append([entry(52)]));
    assert!(futures::poll!(&mut behind).is_pending());
    // Written after them.
    store.log.save_vote(&Vote::new(7, NODE)).await.unwrap();
    assert!(futures::poll!(&mut appended).is_pending());
    assert!(futures::poll!(&mut behind).is_pending());

    // A crash at this moment leaves what was acknowledged.
    copy_store(&path, &copy);
    let mut crashed = Store::open(&copy).unwrap();
    assert_eq!(crashed.recover().await, (0..10).map(entry).collect::<Vec<_>>());
    assert_eq!(crashed.log.read_vote().await.unwrap(), Some(Vote::new(7, NODE)));

    store.machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    appended.await.unwrap();
    behind.await.unwrap();
    drop((store, log, again));
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.state(), applied_up_to(49));
    assert_eq!(store.recover().await, (50..53).map(entry).collect::<Vec<_>>());
    let state = store.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(49)));
}
