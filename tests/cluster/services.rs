//! Services that change while they run: who is ready, and which networks they are on.

use core::net::IpAddr;
use std::collections::BTreeSet;

use overlay_api::{
    status,
    v1::{
        self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
        services_client::ServicesClient,
    },
};
use overlay_service::{Answer, Question, Record, RecordKind};
use overlay_types::NetworkId;

use crate::lab::{Lab, until};

async fn network(lab: &Lab, name: &str) -> NetworkId {
    let spec = v1::NetworkSpec { name: name.into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let network = client.create_network(request).await.unwrap().into_inner().network.unwrap();
    network.id.parse().unwrap()
}

/// A spec of round robin on these networks.
fn round_robin(networks: &[&str]) -> v1::ServiceSpec {
    let attachment =
        |name: &&str| v1::ServiceNetwork { network: (*name).to_owned(), aliases: vec![] };
    v1::ServiceSpec {
        name: "web".into(),
        mode: v1::EndpointMode::Dnsrr.into(),
        networks: networks.iter().map(attachment).collect(),
        ..Default::default()
    }
}

async fn task(lab: &Lab, place: usize, network: &str, readiness: v1::Readiness) -> v1::Endpoint {
    let spec = v1::EndpointSpec {
        network: network.into(),
        service: "web".into(),
        readiness: readiness.into(),
        ..Default::default()
    };
    let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
    lab.nodes[place].handle.attach(request).await.unwrap().endpoint.unwrap()
}

/// Addresses that `web` resolves to on a node.
fn resolved(lab: &Lab, place: usize, network: NetworkId) -> BTreeSet<IpAddr> {
    let question = Question { name: "web", kind: RecordKind::A };
    let Answer::Records(records) = lab.nodes[place].handle.resolve([network], question, 1).unwrap()
    else {
        return BTreeSet::new();
    };
    let address = |record| match record {
        Record::A(address) => Some(IpAddr::V4(address)),
        _ => None,
    };
    records.into_iter().filter_map(address).collect()
}

/// Waits for the tasks to be the answer on these nodes, which have endpoints on the network.
async fn until_resolved(lab: &Lab, places: &[usize], network: NetworkId, tasks: &[&v1::Endpoint]) {
    let wanted: BTreeSet<IpAddr> = tasks.iter().map(|t| t.addresses[0].parse().unwrap()).collect();
    for place in places.iter().copied() {
        until(&format!("{wanted:?} on node {place}"), || async {
            (resolved(lab, place, network) == wanted).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_a_task_is_in_answers_from_ready_to_draining() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let net = network(&lab, "net").await;
    let mut services = ServicesClient::new(lab.nodes[0].channel().await);
    let spec = Some(round_robin(&["net"]));
    services.create_service(v1::CreateServiceRequest { spec, ..Default::default() }).await.unwrap();
    let old = task(&lab, 0, "net", v1::Readiness::Ready).await;
    until_resolved(&lab, &[0], net, &[&old]).await;
    let new = task(&lab, worker, "net", v1::Readiness::Starting).await;
    until_resolved(&lab, &[0, worker], net, &[&old]).await;

    let set = async |place: usize, task: &v1::Endpoint, to: v1::Readiness| {
        let mut client = EndpointsClient::new(lab.nodes[place].channel().await);
        let (endpoint, readiness) = (task.id.clone(), to.into());
        let request = v1::SetReadinessRequest { endpoint, readiness, ..Default::default() };
        client.set_readiness(request).await
    };
    let answer = set(worker, &new, v1::Readiness::Ready).await.unwrap().into_inner();
    assert_eq!(answer.endpoint.unwrap().readiness(), v1::Readiness::Ready);
    until_resolved(&lab, &[0, worker], net, &[&old, &new]).await;
    // A worker speaks for its own endpoints; a manager, asked on any node, for all.
    set(0, &new, v1::Readiness::Draining).await.unwrap();
    until_resolved(&lab, &[0, worker], net, &[&old]).await;
    let refused = set(worker, &old, v1::Readiness::Draining).await.unwrap_err();
    assert_eq!(status::reason(&refused), Some(status::Reason::OtherNode));
}

/// Adding a network to a service that runs, and taking one away, changes nothing on the others.
#[tokio::test(flavor = "multi_thread")]
async fn s04_a_service_gets_on_networks_and_off_them_while_it_runs() {
    let lab = Lab::managers(1).await;
    let (front, back) = (network(&lab, "front").await, network(&lab, "back").await);
    let mut services = ServicesClient::new(lab.nodes[0].channel().await);
    let spec = Some(round_robin(&["front"]));
    let request = v1::CreateServiceRequest { spec, ..Default::default() };
    let service = services.create_service(request).await.unwrap().into_inner().service.unwrap();
    let on_front = task(&lab, 0, "front", v1::Readiness::Ready).await;
    until_resolved(&lab, &[0], front, &[&on_front]).await;

    let mut update = async |spec, from: &v1::Service| {
        let changed_at = from.meta.unwrap().changed_at;
        let request = v1::UpdateServiceRequest {
            service: "web".into(),
            spec: Some(spec),
            changed_at,
            ..Default::default()
        };
        let answer = services.update_service(request).await?;
        Ok::<_, tonic::Status>(answer.into_inner().service.unwrap())
    };
    let both = update(round_robin(&["front", "back"]), &service).await.unwrap();
    assert_eq!(both.previous, service.spec);
    let on_back = task(&lab, 0, "back", v1::Readiness::Ready).await;
    until_resolved(&lab, &[0], back, &[&on_back]).await;
    until_resolved(&lab, &[0], front, &[&on_front]).await;

    let refused = update(round_robin(&["back"]), &both).await.unwrap_err();
    assert_eq!(status::reason(&refused), Some(status::Reason::ServiceInUse));
    lab.nodes[0].handle.detach(&on_front.id).await.unwrap();
    let one = update(round_robin(&["back"]), &both).await.unwrap();
    assert_eq!(one.previous, both.spec);
    until_resolved(&lab, &[0], front, &[]).await;
    until_resolved(&lab, &[0], back, &[&on_back]).await;
}
