//! The protocol as any client meets it on the unix socket: reflection, health, and watches that are
//! taken up again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use overlay_api::{
    status::{Reason, reason},
    v1::{self, networks_client::NetworksClient, watcher_client::WatcherClient},
};
use prost_reflect::DescriptorPool;
use tokio::time::Instant;
use tonic::{Code, Request, client::Grpc, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use tonic_types::StatusExt;

use crate::lab::{Lab, PATIENCE, until};

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

/// What a client makes of a watch that knows nothing but the protocol: objects by their keys, as
/// they came.
#[derive(Clone, Default, PartialEq, Debug)]
struct Followed {
    revision: u64,
    objects: BTreeMap<Vec<u8>, v1::Object>,
}

/// The key of an object, as bytes.
fn key_of(object: &v1::Object) -> Vec<u8> {
    use v1::{object::Object, object_key::Key};
    let key = match object.object.clone().unwrap() {
        Object::Cluster(_) => Key::Cluster(v1::Unit {}),
        Object::Node(o) => Key::Node(o.id),
        Object::Network(o) => Key::Network(o.id),
        Object::Service(o) => Key::Service(o.id),
        Object::Endpoint(o) => Key::Endpoint(o.id),
        Object::KeyEpoch(o) => Key::KeyEpoch(o.epoch),
        Object::NodeKey(o) => Key::NodeKey(v1::NodeKeyId { epoch: o.epoch, node: o.node }),
        Object::GossipKeys(_) => Key::GossipKeys(v1::Unit {}),
    };
    prost::Message::encode_to_vec(&v1::ObjectKey { key: Some(key) })
}

impl Followed {
    /// Follows over this channel until a message says that the view is whole and at least at
    /// `revision`, and breaks off. Says whether it had to forget what it had, and how many changes
    /// came.
    async fn follow(&mut self, channel: &Channel, revision: u64) -> (bool, usize) {
        let request = v1::WatchRequest { node: String::new(), from_revision: self.revision };
        let client = WatcherClient::new(channel.clone());
        let mut watch = until("a manager is as far as this client", || async {
            client.clone().watch(request.clone()).await.ok()
        })
        .await
        .into_inner();
        let (mut forgot, mut changes) = (false, 0);
        loop {
            let message = watch.message().await.unwrap().unwrap();
            if message.snapshot {
                self.objects.clear();
                forgot = true;
            }
            changes += message.changes.len();
            for change in message.changes {
                match change.change.unwrap() {
                    v1::change::Change::Put(object) => {
                        self.objects.insert(key_of(&object), object);
                    }
                    v1::change::Change::Delete(key) => {
                        self.objects.remove(&prost::Message::encode_to_vec(&key));
                    }
                }
            }
            if !message.more {
                assert!(message.revision >= self.revision, "it went back");
                self.revision = message.revision;
                if self.revision >= revision {
                    return (forgot, changes);
                }
            }
        }
    }
}

async fn create(channel: &Channel, name: &str) -> u64 {
    let spec = Some(v1::NetworkSpec { name: name.to_owned(), ..Default::default() });
    let request = v1::CreateNetworkRequest { spec, ..Default::default() };
    let answer = NetworksClient::new(channel.clone()).create_network(request).await.unwrap();
    answer.into_inner().network.unwrap().meta.unwrap().changed_at
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_a_watch_goes_on_at_another_manager_where_it_broke_off() {
    let lab = Lab::managers(3).await;
    let mut channels = Vec::new();
    for node in &lab.nodes {
        channels.push(node.channel().await);
    }
    let mut followed = Followed::default();
    let created = create(&channels[0], "before").await;
    let (forgot, _) = followed.follow(&channels[0], created).await;
    assert!(forgot, "the first message of a new watch is a snapshot");

    // Broken off; meanwhile one comes and one goes.
    create(&channels[0], "after").await;
    let remove = v1::RemoveNetworkRequest { network: "before".into(), ..Default::default() };
    NetworksClient::new(channels[0].clone()).remove_network(remove).await.unwrap();
    let last = create(&channels[0], "last").await;
    for channel in &channels[1..] {
        let mut taken_up = followed.clone();
        let (forgot, changes) = taken_up.follow(channel, last).await;
        assert!(!forgot && changes >= 3, "{changes}");
        let mut whole = Followed::default();
        let (forgot, _) = whole.follow(channel, taken_up.revision).await;
        assert!(forgot);
        // The cluster goes on changing: keys become ready.
        let same = async {
            while taken_up != whole {
                taken_up.follow(channel, whole.revision).await;
                whole.follow(channel, taken_up.revision).await;
            }
        };
        tokio::time::timeout(PATIENCE, same).await.expect("both clients know the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_a_watch_with_a_deadline_ends_in_time() {
    let lab = Lab::managers(1).await;
    let limit = Duration::from_millis(500);
    let mut request = Request::new(v1::WatchRequest::default());
    request.set_timeout(limit);
    let begin = Instant::now();
    let mut client = WatcherClient::new(lab.nodes[0].channel().await);
    // The client looks at the clock for the first answer only; the rest is up to the node.
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let end = async {
        loop {
            match watch.message().await {
                Ok(message) => assert!(message.is_some(), "it ended without a reason"),
                Err(status) => return status,
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, end).await.expect("the watch ends");
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end}");
    assert_eq!(reason(&end), Some(Reason::Deadline));
    assert!(begin.elapsed() > limit / 2);
}

/// A refusal of the leader, as it reaches a caller on the unix socket of a node that asked another.
#[tokio::test(flavor = "multi_thread")]
async fn o03_a_refusal_keeps_its_details_on_the_way_from_the_leader() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    create(&lab.nodes[0].channel().await, "net").await;
    for node in &lab.nodes {
        let spec = Some(v1::NetworkSpec { name: "net".to_owned(), ..Default::default() });
        let request = v1::CreateNetworkRequest { spec, ..Default::default() };
        let mut client = NetworksClient::new(node.channel().await);
        let refused = client.create_network(request).await.unwrap_err();
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NAME_TAKEN", "overlay.v1"));
        assert_eq!(info.metadata, [("field".to_owned(), "name".to_owned())].into());

        let request = v1::ListNetworksRequest { page_size: 5000, ..Default::default() };
        let refused = client.list_networks(request).await.unwrap_err();
        let details = refused.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "page_size");
        assert!(violations[0].description.contains("5000"), "{violations:?}");
    }
    // Without a quorum a caller hears when to try again.
    lab.nodes[1].handle.halt().await;
    lab.nodes[2].handle.halt().await;
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let refused = client.list_networks(v1::ListNetworksRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, Some(Reason::NoLeader)));
    let retry = refused.get_details_retry_info().unwrap();
    assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()), "{retry:?}");
}
