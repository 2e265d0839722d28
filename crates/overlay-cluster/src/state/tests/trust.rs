//! Join secrets.

use overlay_types::Role;

use super::*;
use crate::state::OpaqueSecret;

fn rotate(role: Role, byte: u8) -> Action {
    Action::RotateJoinSecret { role, secret: OpaqueSecret(vec![byte; 16]) }
}

fn secrets(state: &State) -> [u8; 2] {
    let trust = state.trust().unwrap();
    assert_eq!((trust.worker_secret.len(), trust.manager_secret.len()), (16, 16));
    [trust.worker_secret[0], trust.manager_secret[0]]
}

#[test]
fn c02_a_join_secret_is_replaced_once_however_often_the_request_comes() {
    let mut lab = Lab::new();
    let revision = lab.state.revision();
    lab.run(rotate(Role::Worker, 7));
    assert_eq!(secrets(&lab.state), [7, 2]);
    assert_eq!(lab.state.revision(), revision.next());

    let request = RequestId::from_u128(lab.draw());
    for byte in [8, 9] {
        let action = rotate(Role::Manager, byte);
        lab.state.apply(&Command { request, at: lab.now, action }).unwrap();
    }
    assert_eq!(secrets(&lab.state), [7, 8]);
    let kept = State::decode(lab.state.encode()).unwrap();
    assert_eq!(secrets(&kept), [7, 8]);
    assert!(!format!("{:?}", rotate(Role::Worker, 77)).contains("77"));
}

#[test]
fn c02_a_secret_that_says_no_role_or_is_none_is_refused() {
    let mut lab = Lab::new();
    for action in [
        rotate(Role::Worker, 2),
        rotate(Role::Manager, 1),
        Action::RotateJoinSecret { role: Role::Worker, secret: OpaqueSecret(vec![7; 15]) },
    ] {
        assert_eq!(lab.refuse(action).field(), Some("secret"));
    }
}
