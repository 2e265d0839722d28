//! The protocol as any client meets it on the unix socket: reflection, health, and watches that are
//! taken up again.

use std::collections::BTreeSet;

use overlay_api::v1::{
    self, networks_client::NetworksClient, object::Object, watcher_client::WatcherClient,
};
use prost_reflect::DescriptorPool;
use tonic::{Code, Request, client::Grpc, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::lab::Lab;

async fn reflect(channel: &Channel, wanted: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let request = tonic::codegen::tokio_stream::once(request);
    let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap().message_response.unwrap()
}

async fn services(channel: &Channel) -> BTreeSet<String> {
    let list = reflect(channel, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    list.service.into_iter().map(|service| service.name).collect()
}

/// All files behind a service, fetched one by one as a client does that has none of them.
async fn describe(channel: &Channel, service: &str) -> DescriptorPool {
    let mut wanted = vec![MessageRequest::FileContainingSymbol(service.to_owned())];
    let mut files = Vec::new();
    let mut known = BTreeSet::new();
    while let Some(request) = wanted.pop() {
        let answer = reflect(channel, request).await;
        let MessageResponse::FileDescriptorResponse(answer) = answer else { panic!("{answer:?}") };
        for file in answer.file_descriptor_proto {
            let file: prost_reflect::prost_types::FileDescriptorProto =
                prost::Message::decode(&*file).unwrap();
            let needs = file.dependency.iter().filter(|name| known.insert((*name).clone()));
            wanted.extend(needs.map(|name| MessageRequest::FileByFilename(name.clone())));
            known.insert(file.name().to_owned());
            files.push(file);
        }
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_set(prost_reflect::prost_types::FileDescriptorSet { file: files })
        .unwrap();
    pool
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_the_socket_describes_every_call_that_it_serves() {
    let lab = Lab::managers(1).await;
    let channel = lab.nodes[0].channel().await;
    let listed = services(&channel).await;
    assert!(listed.contains("overlay.v1.LocalNode") && listed.contains("grpc.health.v1.Health"));
    for service in listed {
        let pool = describe(&channel, &service).await;
        let described = pool.get_service_by_name(&service).unwrap();
        for method in described.methods() {
            let mut grpc = Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let path = format!("/{service}/{}", method.name()).parse().unwrap();
            let codec = ProstCodec::<(), ()>::default();
            let answer = grpc.server_streaming(Request::new(()), path, codec).await;
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_ne!(code, Code::Unimplemented, "{service}.{}", method.name());
        }
    }
}

async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_a_node_tells_its_health_in_a_cluster_and_out_of_one() {
    let mut lab = Lab::managers(1).await;
    assert_eq!(health(&lab.nodes[0].channel().await).await, ServingStatus::Serving);
    let alone = lab.start().await;
    assert_eq!(health(&lab.nodes[alone].channel().await).await, ServingStatus::Serving);
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    lab.join(alone, &token).await.unwrap();
    assert_eq!(health(&lab.nodes[alone].channel().await).await, ServingStatus::Serving);
}

async fn create(channel: &Channel, name: &str) {
    let spec = Some(v1::NetworkSpec { name: name.to_owned(), ..Default::default() });
    let request = v1::CreateNetworkRequest { spec, ..Default::default() };
    NetworksClient::new(channel.clone()).create_network(request).await.unwrap();
}

/// The first batch of a watch: its revision, whether it is a snapshot, and networks put.
async fn first(channel: &Channel, from_revision: u64) -> (u64, bool, BTreeSet<String>) {
    let request = v1::WatchRequest { node: String::new(), from_revision };
    let mut client = WatcherClient::new(channel.clone());
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let mut snapshot = false;
    let mut networks = BTreeSet::new();
    loop {
        let message = watch.message().await.unwrap().unwrap();
        snapshot |= message.snapshot;
        for change in message.changes {
            let Some(v1::change::Change::Put(object)) = change.change else { continue };
            if let Some(Object::Network(network)) = object.object {
                networks.insert(network.spec.unwrap().name);
            }
        }
        if !message.more {
            return (message.revision, snapshot, networks);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_a_watch_goes_on_where_it_broke_off() {
    let lab = Lab::managers(1).await;
    let channel = lab.nodes[0].channel().await;
    create(&channel, "before").await;
    let (seen, snapshot, networks) = first(&channel, 0).await;
    assert!(snapshot && networks.contains("before"), "{networks:?}");
    create(&channel, "after").await;
    let (revision, snapshot, networks) = first(&channel, seen).await;
    assert!(!snapshot && revision > seen);
    assert_eq!(networks, ["after".to_owned()].into());
}
