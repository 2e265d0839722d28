//! Managers fall silent: their connections stay, and nothing comes over them, as when a host loses
//! power or a virtual machine is stopped.

#![expect(clippy::disallowed_methods, reason = "the time until others take over is looked at")]

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use overlay_api::v1::{self, networks_client::NetworksClient};
use overlay_types::RequestId;
use tonic::{Code, Status};

use crate::{
    Daemon,
    calls::{channel_of, cluster, daemons, join, leader, list, local, nodes, until},
};

/// What a node may take to leave a silent manager is 2 s; gossip and TCP take longer than this. The
/// second more is for a machine that is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(3);

/// The places of the managers that a daemon has control connections to.
fn asked(daemon: &Daemon, managers: &[Daemon]) -> Vec<usize> {
    const ESTABLISHED: &str = "01";
    let hex = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let (own, control) = (hex(daemon.address), format!("{:04X}", 2377));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (from, to) = (fields.next()?.split_once(':')?, fields.next()?.split_once(':')?);
        let counts = from.0 == own && to.1 == control && fields.next()? == ESTABLISHED;
        managers.iter().position(|m| counts && hex(m.address) == to.0)
    };
    table.lines().filter_map(remote).collect()
}

/// Labels the node of `daemon`, asked at a manager. Returns the revision.
async fn label(daemon: &Daemon, manager: &Daemon, label: &str) -> Option<u64> {
    let mut known = list(manager).await?.into_iter().filter_map(|status| status.node);
    let node = known.find(|n| n.control.starts_with(&format!("{}:", daemon.address)))?;
    let request = v1::UpdateNodeRequest {
        node: node.id,
        role: node.role,
        availability: node.availability,
        labels: [("label".to_owned(), label.to_owned())].into(),
        changed_at: node.meta?.changed_at,
        ..Default::default()
    };
    let changed = nodes(manager).await.update_node(request).await.ok()?.into_inner();
    Some(changed.node?.meta?.changed_at)
}

/// Waits until the view of `daemon` is as new as this.
async fn until_seen(daemon: &Daemon, revision: u64) {
    until("the node has seen the change", async || {
        let status = local(daemon).await.get_status(v1::GetStatusRequest {}).await.ok()?;
        (status.get_ref().revision >= revision).then_some(())
    })
    .await;
}

/// Makes a network through the node of `daemon`, tried again as the refusal says.
async fn create(daemon: &Daemon, name: &str) -> Result<(), Status> {
    let spec = v1::NetworkSpec { name: name.into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest {
        spec: Some(spec),
        request_id: RequestId::from_u128(rand::random()).to_string(),
        ..Default::default()
    };
    let mut client = NetworksClient::new(until("it answers", || channel_of(daemon)).await);
    loop {
        match client.create_network(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => {}
            answer => return answer.map(drop),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_a_node_leaves_a_manager_that_fell_silent_and_its_callers_do_too() {
    let daemons = daemons(26, 4);
    let (managers, worker) = (&daemons[..3], &daemons[3]);
    cluster(managers).await;
    let mut first = local(&managers[0]).await;
    let tokens = first.get_join_tokens(v1::GetJoinTokensRequest {}).await.unwrap().into_inner();
    join(worker, &tokens.worker, &managers[0]).await;
    let before = until("it is labelled", || label(worker, &managers[0], "before")).await;
    until_seen(worker, before).await;

    let silent = until("it watches one manager", async || {
        let asked = asked(worker, managers);
        (asked.len() == 1).then(|| asked[0])
    })
    .await;
    let other = &managers[(silent + 1) % 3];
    managers[silent].signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let (seen, created) = tokio::join!(
        async {
            let change = until("it is labelled", || label(worker, other, "silent")).await;
            until_seen(worker, change).await;
            begun.elapsed()
        },
        async {
            create(worker, "meanwhile").await.unwrap();
            begun.elapsed()
        }
    );
    assert!(seen < IN_TIME, "the change was seen after {seen:?}");
    assert!(created < IN_TIME, "the network was made after {created:?}");

    managers[silent].signal(Signal::SIGCONT);
    // Who was silent takes part again.
    let change = until("it is labelled", || label(worker, &managers[silent], "after")).await;
    for daemon in &daemons {
        until_seen(daemon, change).await;
    }
    create(worker, "after").await.unwrap();
}

/// A write that is on its way to a leader that falls silent goes to the next one.
#[tokio::test(flavor = "multi_thread")]
async fn c10_a_write_does_not_wait_for_a_leader_that_fell_silent() {
    let daemons = daemons(27, 3);
    cluster(&daemons).await;
    let leader = leader(&daemons, 0).await;
    let other = &daemons[(leader + 1) % 3];
    create(other, "before").await.unwrap();
    daemons[leader].signal(Signal::SIGSTOP);
    let begun = Instant::now();
    create(other, "meanwhile").await.unwrap();
    let created = begun.elapsed();
    assert!(created < IN_TIME, "the network was made after {created:?}");
    daemons[leader].signal(Signal::SIGCONT);
    until("it follows", async || create(&daemons[leader], "after").await.ok()).await;
}
