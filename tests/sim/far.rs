//! Managers that are far from one another. Raft waits 100 ms for an answer to what it appends.

use core::time::Duration;

use overlay_cluster::{
    control::Control,
    state::{Action, Response},
};
use overlay_types::{NetworkDraft, NetworkId, RequestId};
use tokio::time::{self, Instant};
use tonic::Status;

use crate::{
    check,
    cluster::{Cluster, Size},
    run,
    trace::Trace,
};

/// Writes, one after the other.
const WRITES: u128 = 40;
/// How long a cluster may take until it writes again.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes a network; again with the same number it is the same write.
async fn write(manager: &Control, number: u128) -> Result<Response, Status> {
    let draft = NetworkDraft::new(format!("network-{number}").parse().expect("a name"));
    let spec = draft.try_into().expect("a network");
    let id = NetworkId::from_u128(1000 + number);
    let create = Action::CreateNetwork { id, spec, host_routes: Vec::new() };
    manager.write(RequestId::from_u128(1000 + number), create).await
}

async fn form(trace: &Trace) -> (Cluster, Control) {
    let size = Size { managers: 3, workers: 0 };
    let cluster = Cluster::form(1, size, None, trace.clone()).await;
    let leader = cluster.controls().into_iter().find(|control| control.figures().leads).cloned();
    (cluster, leader.expect("it was elected"))
}

#[test]
fn c10_managers_at_a_distance_append_over_one_call() {
    let appends = run::alone(1, || async {
        let trace = Trace::new();
        let (mut cluster, leader) = form(&trace).await;
        // The first answer takes four ways here: a call's body comes after its head.
        cluster.shared.net.set_distance(Duration::from_millis(20));
        write(&leader, 0).await.unwrap();
        trace.take();
        for number in 1..WRITES {
            write(&leader, number).await.unwrap();
        }
        let calls = trace.take();
        cluster.stop();
        calls.iter().filter(|call| call.ends_with("Raft/Append")).count()
    });
    // To two followers. What is left asks whether the leader still leads, or follows an answer that was late.
    assert!(appends < WRITES as usize, "{appends} calls for {WRITES} writes");
}

#[test]
fn c10_managers_that_were_too_far_apart_write_again_when_they_are_not() {
    let violations = run::alone(2, || async {
        let trace = Trace::new();
        let (mut cluster, leader) = form(&trace).await;
        // Every answer comes when raft has given up.
        cluster.shared.net.set_distance(Duration::from_millis(300));
        for number in 0..3 {
            let unsure = time::timeout(Duration::from_secs(2), write(&leader, number)).await;
            assert!(!matches!(unsure, Ok(Ok(_))), "{unsure:?}");
        }
        cluster.shared.net.heal();
        let healed = Instant::now();
        for number in 0..WRITES {
            while let Err(status) = write(&leader, number).await {
                assert!(healed.elapsed() < LIMIT, "{status}");
            }
        }
        let mut violations = Vec::new();
        let last = check::converged::check(&mut cluster, &mut violations).await;
        assert_eq!(last.networks().len() as u128, WRITES + 1, "and the ingress network");
        violations.extend(cluster.shared.ledger.take_violations());
        cluster.stop();
        violations
    });
    assert_eq!(violations, []);
}
