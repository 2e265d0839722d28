//! Writes that are repeated because their answers were lost.

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
        services_client::ServicesClient,
    },
};
use tonic::Code;

use crate::lab::Lab;

/// A request id, as 25 characters.
fn id(last: char) -> String {
    format!("{last:0>25}")
}

fn attach() -> v1::AttachEndpointRequest {
    let spec = v1::EndpointSpec { network: "net".into(), name: "box".into(), ..Default::default() };
    v1::AttachEndpointRequest { spec: Some(spec), request_id: id('1'), port: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_repeated_writes_are_applied_once() {
    let lab = Lab::managers(1).await;
    let channel = lab.nodes[0].channel().await;
    let mut networks = NetworksClient::new(channel.clone());
    let mut services = ServicesClient::new(channel.clone());
    let mut endpoints = EndpointsClient::new(channel);
    let spec = v1::NetworkSpec { name: "net".into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    networks.create_network(request).await.unwrap();
    let spec = v1::ServiceSpec { name: "svc".into(), ..Default::default() };
    let request = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
    services.create_service(request).await.unwrap();

    let first = endpoints.attach_endpoint(attach()).await.unwrap().into_inner();
    let again = endpoints.attach_endpoint(attach()).await.unwrap().into_inner();
    assert_eq!(first, again);

    let detach = v1::DetachEndpointRequest { endpoint: "box".into(), request_id: id('2') };
    let no_service = v1::RemoveServiceRequest { service: "svc".into(), request_id: id('3') };
    let no_network = v1::RemoveNetworkRequest { network: "net".into(), request_id: id('4') };
    for _ in 0..2 {
        endpoints.detach_endpoint(detach.clone()).await.unwrap();
    }
    let gone = endpoints.attach_endpoint(attach()).await.unwrap_err();
    assert_eq!(
        (gone.code(), reason(&gone)),
        (Code::Aborted, Some(Reason::RequestUndone)),
        "{gone}"
    );
    for _ in 0..2 {
        services.remove_service(no_service.clone()).await.unwrap();
        networks.remove_network(no_network.clone()).await.unwrap();
    }
    // Another request finds nothing to remove.
    let other = v1::RemoveNetworkRequest { request_id: id('5'), ..no_network };
    assert_eq!(networks.remove_network(other).await.unwrap_err().code(), Code::NotFound);
}
