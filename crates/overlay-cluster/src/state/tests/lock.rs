//! The unlock key.

use super::*;
use crate::state::{ClusterUpdate, OpaqueSecret};

fn key(byte: u8) -> OpaqueSecret {
    OpaqueSecret(vec![byte; 32])
}

fn autolock(key: Option<OpaqueSecret>) -> Action {
    Action::UpdateCluster(ClusterUpdate { autolock: Some(key), ..ClusterUpdate::default() })
}

fn unlock_key(state: &State) -> Option<u8> {
    let kept = State::decode(state.encode()).unwrap();
    assert_eq!(kept.lock(), state.lock());
    let key = state.lock().unlock_key.as_ref().map(|key| key.0[0]);
    assert_eq!(state.view().cluster().unwrap().autolock, key.is_some());
    key
}

#[test]
fn c05_managers_are_locked_with_the_first_key_until_it_is_rotated() {
    let mut lab = Lab::new();
    assert_eq!(unlock_key(&lab.state), None);
    assert_eq!(lab.refuse(Action::RotateUnlockKey(key(1))), Rejection::NotLocked);
    lab.run(autolock(Some(key(1))));
    let revision = lab.state.revision();
    assert_eq!((unlock_key(&lab.state), lab.state.lock().revision), (Some(1), revision));
    // Its user has the first key.
    lab.run(autolock(Some(key(2))));
    assert_eq!((unlock_key(&lab.state), lab.state.revision()), (Some(1), revision));
    lab.run(Action::RotateUnlockKey(key(3)));
    assert_eq!((unlock_key(&lab.state), lab.state.lock().revision), (Some(3), revision.next()));
    lab.run(autolock(None));
    assert_eq!(unlock_key(&lab.state), None);
    assert_eq!(lab.state.lock().revision, lab.state.revision());
    assert!(!format!("{:?}", Action::RotateUnlockKey(key(77))).contains("77"));
}

#[test]
fn c05_a_cluster_is_made_locked() {
    let mut lab = Lab::blank();
    let init = InitCluster { unlock_key: Some(key(4)), ..init(cluster()) };
    lab.run(Action::InitCluster(Box::new(init)));
    assert_eq!(unlock_key(&lab.state), Some(4));
}

#[test]
fn c05_what_is_no_unlock_key_is_refused() {
    let mut lab = Lab::blank();
    let short = || OpaqueSecret(vec![1; 31]);
    let made = InitCluster { unlock_key: Some(short()), ..init(cluster()) };
    let refused = lab.apply(Action::InitCluster(Box::new(made))).unwrap_err();
    assert_eq!(refused.field(), Some("unlock_key"));
    let mut lab = Lab::new();
    assert_eq!(lab.refuse(autolock(Some(short()))).field(), Some("unlock_key"));
    lab.run(autolock(Some(key(1))));
    assert_eq!(lab.refuse(Action::RotateUnlockKey(short())).field(), Some("unlock_key"));
}
