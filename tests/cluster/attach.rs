//! Endpoints of whole nodes.

use overlay_api::v1::{self, endpoints_client::EndpointsClient, networks_client::NetworksClient};
use overlay_types::EndpointId;

use crate::lab::{Lab, until};

fn on(network: &str) -> v1::AttachEndpointRequest {
    let spec = v1::EndpointSpec { network: network.to_owned(), ..Default::default() };
    v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() }
}

async fn network(lab: &Lab, name: &str, attachable: bool) {
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let spec = v1::NetworkSpec { name: name.to_owned(), attachable, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    client.create_network(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn n05_only_attachable_networks_take_standalone_endpoints() {
    let lab = Lab::managers(1).await;
    network(&lab, "open", true).await;
    network(&lab, "closed", false).await;
    let node = &lab.nodes[0].handle;
    let attached = node.attach(on("open")).await.unwrap().endpoint.unwrap();
    let id: EndpointId = attached.id.parse().unwrap();
    assert!(node.take_memory_port(id).unwrap().is_some());
    assert!(node.take_memory_port(id).unwrap().is_none());
    for (network, reason) in [("closed", "--attachable"), ("ingress", "the ingress network")] {
        let refused = node.attach(on(network)).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g03_every_node_on_a_network_knows_its_endpoints() {
    let lab = Lab::managers(2).await;
    network(&lab, "net", true).await;
    let mut ids = Vec::new();
    for node in &lab.nodes {
        let attached = node.handle.attach(on("net")).await.unwrap().endpoint.unwrap();
        ids.push(attached.id.parse::<EndpointId>().unwrap());
    }
    for node in &lab.nodes {
        until("both endpoints are known", || async {
            let known =
                |view: &overlay_types::View| ids.iter().all(|id| view.endpoints().contains_key(id));
            node.handle.view(known).unwrap().then_some(())
        })
        .await;
    }
    lab.nodes[1].handle.detach(&ids[1].to_string()).await.unwrap();
    until("the detached one is forgotten", || async {
        let gone = |view: &overlay_types::View| !view.endpoints().contains_key(&ids[1]);
        lab.nodes[0].handle.view(gone).unwrap().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_endpoints_in_memory_are_plugged_in_again_after_a_restart() {
    let mut lab = Lab::managers(1).await;
    network(&lab, "net", true).await;
    let attached = lab.nodes[0].handle.attach(on("net")).await.unwrap().endpoint.unwrap();
    let id: EndpointId = attached.id.parse().unwrap();
    let _port = lab.nodes[0].handle.take_memory_port(id).unwrap().unwrap();
    let taken = lab.nodes[0].handle.replug(id).await.unwrap_err();
    assert!(taken.to_string().contains("plugged in"), "{taken}");

    lab.nodes[0].restart().await;
    let node = &lab.nodes[0].handle;
    until("the node is in its cluster again", || async { node.node().ok() }).await;
    assert!(node.take_memory_port(id).unwrap().is_none());
    node.replug(id).await.unwrap();
    let unknown = node.replug(EndpointId::from_u128(1)).await.unwrap_err();
    assert!(unknown.to_string().contains("none of this node's"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn n13_an_attach_that_its_caller_gives_up_is_whole_or_nothing() {
    let lab = Lab::managers(1).await;
    network(&lab, "net", true).await;
    let mut client = EndpointsClient::new(lab.nodes[0].channel().await);
    for step in 0..40 {
        // Gone before the write, between write and plug, or after it: which one is chance.
        let patience = core::time::Duration::from_micros(250 * step);
        let _ = tokio::time::timeout(patience, client.attach_endpoint(on("net"))).await;
    }
    until("what was attached is plugged in", || async {
        let known = |view: &overlay_types::View| {
            let endpoints = view.endpoints().values();
            endpoints.filter(|endpoint| !endpoint.is_mesh()).map(|endpoint| endpoint.id).collect()
        };
        let attached: Vec<EndpointId> = lab.nodes[0].handle.view(known).unwrap();
        let plugged = |id: &EndpointId| lab.nodes[0].handle.is_plugged(*id).unwrap();
        (!attached.is_empty() && attached.iter().all(plugged)).then_some(())
    })
    .await;
}
