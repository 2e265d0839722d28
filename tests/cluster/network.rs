//! Networks through the API of whole nodes.

use overlay_api::v1::{self, networks_client::NetworksClient};
use tonic::Code;

use crate::lab::Lab;

fn create(name: &str, subnet: &str) -> v1::CreateNetworkRequest {
    let subnets = match subnet {
        "" => vec![],
        subnet => vec![v1::SubnetSpec { subnet: subnet.to_owned(), ..Default::default() }],
    };
    let spec = Some(v1::NetworkSpec {
        name: name.to_owned(),
        subnets,
        attachable: true,
        ..Default::default()
    });
    v1::CreateNetworkRequest { spec, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_a_write_to_any_node_is_read_from_every_other() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    for writer in 0..4 {
        let name = format!("net{writer}");
        let mut client = NetworksClient::new(lab.nodes[writer].channel().await);
        client.create_network(create(&name, "")).await.unwrap();
        for reader in 0..4 {
            let mut client = NetworksClient::new(lab.nodes[reader].channel().await);
            let request = v1::GetNetworkRequest { network: name.clone(), consistency: None };
            let found = client.get_network(request).await.unwrap().into_inner();
            assert_eq!(found.network.unwrap().spec.unwrap().name, name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_a_repeated_write_is_applied_once() {
    let lab = Lab::managers(1).await;
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let request_id = overlay_types::RequestId::from_u128(42).to_string();
    let request = v1::CreateNetworkRequest { request_id, ..create("net", "") };
    let first = client.create_network(request.clone()).await.unwrap().into_inner();
    let second = client.create_network(request).await.unwrap().into_inner();
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn n02_overlaps_are_refused_with_the_conflict() {
    let lab = Lab::managers(1).await;
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    client.create_network(create("one", "10.77.0.0/16")).await.unwrap();
    let refused = client.create_network(create("two", "10.77.3.0/24")).await.unwrap_err();
    assert!(refused.message().contains("one"), "{refused}");
    assert!(refused.message().contains("10.77.0.0/16"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn n01_a_wrong_field_is_named_with_its_value() {
    let lab = Lab::managers(1).await;
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let refused = client.create_network(create("a b", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(overlay_api::status::field(&refused).as_deref(), Some("name"));
    let refused = client.create_network(create("net", "10.0.0.1/24")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("10.0.0.1/24"), "{refused}");
    let missing = v1::RemoveNetworkRequest { network: "nope".into(), ..Default::default() };
    let refused = client.remove_network(missing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
