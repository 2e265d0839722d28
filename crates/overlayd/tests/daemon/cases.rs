//! What Docker's own suites check of a cluster, against real processes.

use nix::sys::signal::Signal;
use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, ca_client::CaClient, endpoints_client::EndpointsClient,
        networks_client::NetworksClient,
    },
};
use overlay_types::RequestId;
use tonic::{Code, Status, transport::Channel};

use crate::{
    Daemon,
    calls::{channel_of, cluster, daemons, join, leader, list, local, nodes, tokens, until},
};

async fn networks(daemon: &Daemon) -> NetworksClient<Channel> {
    NetworksClient::new(until("its socket answers", || channel_of(daemon)).await)
}

async fn create(daemon: &Daemon, name: &str) -> Result<(), Status> {
    let spec = v1::NetworkSpec { name: name.into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    networks(daemon).await.create_network(request).await.map(drop)
}

/// What inspect says of the network `net`; `stale`: what this manager knows by itself.
async fn inspect(daemon: &Daemon, stale: bool) -> Option<v1::GetNetworkResponse> {
    let consistency = Some(v1::Consistency { stale });
    let request = v1::GetNetworkRequest { network: "net".into(), consistency };
    Some(networks(daemon).await.get_network(request).await.ok()?.into_inner())
}

/// Changes the node of `daemon`, asked at another, as soon as that can be.
async fn update(
    daemon: &Daemon,
    asked: &Daemon,
    change: impl Fn(&mut v1::UpdateNodeRequest) + Copy,
) {
    until("the node is changed", async || {
        let mut client = nodes(asked).await;
        let all = list(asked).await?;
        let mut known = all.into_iter().filter_map(|status| status.node);
        let node = known.find(|n| n.control.starts_with(&format!("{}:", daemon.address)))?;
        let mut request = v1::UpdateNodeRequest {
            node: node.id,
            role: node.role,
            availability: node.availability,
            labels: node.labels,
            changed_at: node.meta?.changed_at,
            ..Default::default()
        };
        change(&mut request);
        // Gossip may not have heard of all managers yet.
        client.update_node(request).await.ok()
    })
    .await;
}

/// Waits until this many managers are there.
async fn until_managers(asked: &Daemon, count: usize) {
    until("just so many managers are there", async || {
        let all = list(asked).await?;
        let managers =
            all.iter().filter(|s| s.node.as_ref().is_some_and(|n| n.role() == v1::Role::Manager));
        (managers.count() == count).then_some(())
    })
    .await;
}

/// Case 7.
#[tokio::test(flavor = "multi_thread")]
async fn c10_inspect_answers_the_same_before_during_and_after_a_leader_change() {
    let mut managers = daemons(20, 3);
    cluster(&managers).await;
    create(&managers[0], "net").await.unwrap();
    let before = inspect(&managers[0], false).await.unwrap();
    for daemon in &managers {
        let known = async || (inspect(daemon, true).await.as_ref() == Some(&before)).then_some(());
        until("every manager has the network", known).await;
    }
    let first = leader(&managers, 0).await;
    managers[first].kill();
    let survivors: Vec<&Daemon> =
        managers.iter().filter(|d| d.address != managers[first].address).collect();
    // Nobody leads for a while; what a manager knows by itself is the same all the time.
    until("another manager leads", async || {
        for daemon in &survivors {
            assert_eq!(inspect(daemon, true).await.as_ref(), Some(&before));
        }
        create(survivors[0], "after").await.ok()
    })
    .await;
    for daemon in survivors {
        assert_eq!(inspect(daemon, false).await.as_ref(), Some(&before));
    }
}

/// Case 14.
#[tokio::test(flavor = "multi_thread")]
async fn c05_a_locked_manager_is_killed_unlocked_and_locked_anew() {
    let mut managers = daemons(21, 1);
    let request = v1::InitClusterRequest { autolock: true, ..Default::default() };
    let made = local(&managers[0]).await.init_cluster(request).await.unwrap().into_inner();
    create(&managers[0], "net").await.unwrap();
    let unlock = async |daemon: &Daemon, key: &str| {
        let request = v1::UnlockClusterRequest { unlock_key: key.to_owned() };
        local(daemon).await.unlock_cluster(request).await
    };
    let first = made.unlock_key;
    managers[0].kill();
    managers[0].restart();
    let refused = create(&managers[0], "locked").await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::Locked), "{refused}");
    unlock(&managers[0], &first).await.unwrap();
    until("it leads", async || create(&managers[0], "unlocked").await.ok()).await;

    let request = v1::RotateUnlockKeyRequest::default();
    let second = local(&managers[0]).await.rotate_unlock_key(request).await.unwrap();
    let second = second.into_inner().unlock_key;
    managers[0].kill();
    managers[0].restart();
    let refused = unlock(&managers[0], &first).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    unlock(&managers[0], &second).await.unwrap();
    until("the network is there", async || inspect(&managers[0], false).await).await;
}

/// Case 15: it stops in order; the test of kills has the other way.
#[tokio::test(flavor = "multi_thread")]
async fn c09_another_manager_leads_when_the_leader_stops() {
    let mut managers = daemons(22, 3);
    cluster(&managers).await;
    let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    for name in &names {
        create(&managers[1], name).await.unwrap();
    }
    let first = leader(&managers, 0).await;
    managers[first].signal(Signal::SIGTERM);
    assert!(managers[first].exit().success());
    let next = (first + 1) % 3;
    until("another manager leads", async || create(&managers[next], "after").await.ok()).await;
    assert_ne!(leader(&managers, next).await, first);
    let answer = networks(&managers[next])
        .await
        .list_networks(v1::ListNetworksRequest::default())
        .await
        .unwrap();
    let found: Vec<String> =
        answer.into_inner().networks.into_iter().map(|n| n.spec.unwrap().name).collect();
    assert!(names.iter().all(|name| found.contains(name)), "{found:?}");
}

/// Case 16.
#[tokio::test(flavor = "multi_thread")]
async fn c06_workers_are_promoted_and_the_leader_itself_is_demoted() {
    let daemons = daemons(23, 3);
    let made =
        local(&daemons[0]).await.init_cluster(v1::InitClusterRequest::default()).await.unwrap();
    let token = made.into_inner().worker_token;
    for daemon in &daemons[1..] {
        join(daemon, &token, &daemons[0]).await;
    }
    for daemon in &daemons[1..] {
        update(daemon, &daemons[0], |request| request.set_role(v1::Role::Manager)).await;
    }
    until_managers(&daemons[0], 3).await;
    for daemon in &daemons[1..] {
        let tokens =
            async || local(daemon).await.get_join_tokens(v1::GetJoinTokensRequest {}).await.ok();
        until("it is a manager", tokens).await;
    }
    let first = leader(&daemons, 0).await;
    let next = (first + 1) % 3;
    update(&daemons[first], &daemons[first], |request| request.set_role(v1::Role::Worker)).await;
    until("another manager leads", async || (leader(&daemons, next).await != first).then_some(()))
        .await;
    create(&daemons[next], "after").await.unwrap();
    until_managers(&daemons[next], 2).await;
    // As a worker it writes through the others.
    until("it writes", async || create(&daemons[first], "worker").await.ok()).await;
    let tokens = async || {
        local(&daemons[first]).await.get_join_tokens(v1::GetJoinTokensRequest {}).await.err()
    };
    until("it has no tokens any more", tokens).await;
}

/// What a node says of the CA.
async fn ca(daemon: &Daemon) -> Option<v1::GetCaResponse> {
    let mut client = CaClient::new(channel_of(daemon).await?);
    Some(client.get_ca(v1::GetCaRequest::default()).await.ok()?.into_inner())
}

/// Begins a root rotation, once, as soon as somebody leads. Returns the digest of the new root.
async fn rotate(daemon: &Daemon) -> String {
    let request_id = RequestId::from_u128(rand::random()).to_string();
    let begin = async || {
        let mut client = CaClient::new(channel_of(daemon).await?);
        let request = v1::RotateCaRequest { request_id: request_id.clone() };
        client.rotate_ca(request).await.ok()?.into_inner().root
    };
    until("the root rotation begins", begin).await.digest
}

/// Case 17: the leader is killed while nodes get certificates of the second root, before the third.
#[tokio::test(flavor = "multi_thread")]
async fn c04_the_root_is_replaced_again_and_again_and_the_leader_is_killed_meanwhile() {
    let mut daemons = daemons(25, 5);
    let (worker, joiner) = (3, 4);
    cluster(&daemons[..3]).await;
    let before = tokens(&daemons[0]).await;
    join(&daemons[worker], &before.worker, &daemons[0]).await;
    // It is away, so that no rotation ends.
    daemons[worker].kill();
    let first = leader(&daemons, 0).await;
    let next = (first + 1) % 3;
    rotate(&daemons[first]).await;
    create(&daemons[next], "between").await.unwrap();
    rotate(&daemons[next]).await;
    daemons[first].kill();
    let last = rotate(&daemons[next]).await;
    until("another manager leads", async || create(&daemons[next], "after").await.ok()).await;
    daemons[first].restart();
    until("the rotation waits for the worker alone", async || {
        let rotation = ca(&daemons[first]).await?.rotation?;
        assert_eq!(rotation.root?.digest, last);
        let waiting = rotation.waiting.into_iter().filter_map(|status| status.node);
        let addresses: Vec<String> = waiting.map(|node| node.control).collect();
        let away = format!("{}:", daemons[worker].address);
        (addresses.len() == 1 && addresses[0].starts_with(&away)).then_some(())
    })
    .await;
    // What admitted before does until the end.
    assert_eq!(tokens(&daemons[first]).await, before);

    daemons[worker].restart();
    for daemon in &daemons[..=worker] {
        until("the last root is the only one", async || {
            let answer = ca(daemon).await?;
            (answer.rotation.is_none() && answer.root?.digest == last).then_some(())
        })
        .await;
        create(daemon, &format!("from-{}", daemon.address.octets()[3])).await.unwrap();
    }
    let listed = networks(&daemons[first]).await;
    let listed = { listed }.list_networks(v1::ListNetworksRequest::default()).await.unwrap();
    let names = listed.into_inner().networks.into_iter().filter_map(|n| Some(n.spec?.name));
    let names: Vec<String> = names.collect();
    for made in ["between", "after", "from-1", "from-2", "from-3", "from-4"] {
        assert!(names.iter().any(|name| name == made), "{made} is not among {names:?}");
    }
    let remotes = vec![daemons[next].address.to_string()];
    let request = v1::JoinClusterRequest { token: before.worker, remotes };
    let refused = local(&daemons[joiner]).await.join_cluster(request).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::JoinRefused), "{refused}");
    let after = tokens(&daemons[next]).await;
    join(&daemons[joiner], &after.manager, &daemons[first]).await;
}

/// Case 18.
#[tokio::test(flavor = "multi_thread")]
async fn c06_a_node_that_is_paused_or_drained_takes_nothing_new() {
    let daemons = daemons(24, 2);
    cluster(&daemons).await;
    create(&daemons[0], "net").await.unwrap();
    let attach = async |name: &str| {
        let spec =
            v1::EndpointSpec { network: "net".into(), name: name.into(), ..Default::default() };
        let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        let channel = until("its socket answers", || channel_of(&daemons[1])).await;
        EndpointsClient::new(channel).attach_endpoint(request).await
    };
    attach("before").await.unwrap();
    for availability in [v1::Availability::Pause, v1::Availability::Drain] {
        update(&daemons[1], &daemons[0], |r| r.set_availability(availability)).await;
        let refused = attach("refused").await.unwrap_err();
        assert_eq!(reason(&refused), Some(Reason::NodeNotActive), "{refused}");
    }
    update(&daemons[1], &daemons[0], |r| r.set_availability(v1::Availability::Active)).await;
    attach("after").await.unwrap();
    let channel = until("its socket answers", || channel_of(&daemons[1])).await;
    let listed = EndpointsClient::new(channel)
        .list_endpoints(v1::ListEndpointsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().endpoints.len(), 2);
}
