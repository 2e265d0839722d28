//! Every node's place in the routing mesh.

use overlay_api::{
    status,
    v1::{
        self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
        services_client::ServicesClient,
    },
};

use crate::lab::{Lab, until};

/// The places that a manager knows, by node.
async fn places(lab: &Lab) -> Vec<v1::Endpoint> {
    let mut client = EndpointsClient::new(lab.nodes[0].channel().await);
    let filter =
        v1::EndpointFilter { roles: vec![v1::EndpointRole::Mesh.into()], ..Default::default() };
    let request = v1::ListEndpointsRequest { filter: Some(filter), ..Default::default() };
    let mut places = client.list_endpoints(request).await.unwrap().into_inner().endpoints;
    places.sort_by(|a, b| a.node.cmp(&b.node));
    places
}

async fn until_places(lab: &Lab, count: usize, network: &str) -> Vec<v1::Endpoint> {
    until(&format!("{count} nodes have their place on {network}"), async || {
        let places = places(lab).await;
        let here = places.iter().all(|place| place.network == network);
        (here && places.len() == count).then_some(places)
    })
    .await
}

async fn ingress(lab: &Lab) -> v1::Network {
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let filter = v1::NetworkFilter { ingress: Some(true), ..Default::default() };
    let request = v1::ListNetworksRequest { filter: Some(filter), ..Default::default() };
    client.list_networks(request).await.unwrap().into_inner().networks.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_every_node_has_its_place_in_the_mesh_and_keeps_it() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let network = ingress(&lab).await;
    let before = until_places(&lab, 2, &network.id).await;

    // What users do with endpoints is not about these.
    let mut client = EndpointsClient::new(lab.nodes[0].channel().await);
    let all = client.list_endpoints(v1::ListEndpointsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().endpoints, []);
    let detach = v1::DetachEndpointRequest { endpoint: before[0].id.clone(), ..Default::default() };
    let refused = client.detach_endpoint(detach).await.unwrap_err();
    assert_eq!(status::reason(&refused), Some(status::Reason::MeshEndpoint));
    let spec = v1::EndpointSpec { role: v1::EndpointRole::Mesh.into(), ..Default::default() };
    let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
    let refused = client.attach_endpoint(request).await.unwrap_err();
    assert_eq!(status::field(&refused).as_deref(), Some("role"));

    for node in &mut lab.nodes {
        node.restart().await;
    }
    // It was asked for a place again if it was to be: by now all nodes have heard a manager.
    let mut client = NetworksClient::new(lab.nodes[worker].channel().await);
    let spec = Some(v1::NetworkSpec { name: "net".into(), ..Default::default() });
    client.create_network(v1::CreateNetworkRequest { spec, ..Default::default() }).await.unwrap();
    assert_eq!(until_places(&lab, 2, &network.id).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn n07_nodes_get_a_place_on_an_ingress_network_that_is_made_anew() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let old = ingress(&lab).await;
    until_places(&lab, 2, &old.id).await;
    let mut services = ServicesClient::new(lab.nodes[0].channel().await);
    let mut create = async |name: &str, published: u32| {
        let ports: Vec<_> = (published > 0)
            .then(|| v1::PortSpec { published, target: 80, ..Default::default() })
            .into_iter()
            .collect();
        let spec = v1::ServiceSpec { name: name.into(), ports, ..Default::default() };
        let request = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
        services.create_service(request).await
    };
    create("web", 8080).await.unwrap();
    create("quiet", 0).await.unwrap();

    let mut networks = NetworksClient::new(lab.nodes[0].channel().await);
    let mut remove = async || networks.remove_network(remove_request(&old.id)).await.map(drop);
    let refused = remove().await.unwrap_err();
    assert!(refused.message().contains("web") && !refused.message().contains("quiet"), "{refused}");
    let mut client = ServicesClient::new(lab.nodes[0].channel().await);
    let request = v1::RemoveServiceRequest { service: "web".into(), ..Default::default() };
    client.remove_service(request).await.unwrap();
    remove().await.unwrap();
    assert_eq!(places(&lab).await, []);
    // Without it, services that publish are refused and others are not (N07).
    let refused = create("web", 8080).await.unwrap_err();
    assert_eq!(status::reason(&refused), Some(status::Reason::NoIngress));
    create("more", 0).await.unwrap();

    let subnets = vec![v1::SubnetSpec { subnet: "10.77.0.0/24".into(), ..Default::default() }];
    let spec = v1::NetworkSpec { name: "own".into(), ingress: true, subnets, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    networks.create_network(request).await.unwrap();
    let new = ingress(&lab).await;
    let places = until_places(&lab, 2, &new.id).await;
    assert!(places.iter().all(|place| place.addresses[0].starts_with("10.77.0.")), "{places:?}");
    create("web", 8080).await.unwrap();
}

fn remove_request(network: &str) -> v1::RemoveNetworkRequest {
    v1::RemoveNetworkRequest { network: network.to_owned(), ..Default::default() }
}
