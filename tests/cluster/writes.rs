//! Many writes over one call, through a worker's socket.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use overlay_api::{
    client::{lists, writes::WriteStream},
    codec::MessageCodec,
    status::{self, Reason},
    v1::{self, writes_client::WritesClient},
};
use overlay_types::RequestId;
use prost::Message;
use tonic::{Code, Request, transport::Channel};

use crate::lab::{Lab, until};

/// More than a manager has of a call under way.
const MANY: usize = 1500;

fn create(name: String) -> v1::CreateNetworkRequest {
    let spec = v1::NetworkSpec { name, ..Default::default() };
    let request_id = RequestId::from_u128(rand::random()).to_string();
    v1::CreateNetworkRequest { spec: Some(spec), request_id, ..Default::default() }
}

fn remove(network: String) -> v1::RemoveNetworkRequest {
    v1::RemoveNetworkRequest { network, ..Default::default() }
}

async fn names(channel: Channel) -> BTreeSet<String> {
    let networks = lists::networks(channel, v1::ListNetworksRequest::default()).await.unwrap();
    let names = networks.into_iter().filter_map(|network| Some(network.spec?.name));
    names.filter(|name| name != "ingress").collect()
}

/// A manager and a worker.
async fn manager_and_worker() -> Lab {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    lab.start().await;
    lab.join(1, &token).await.unwrap();
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_many_writes_over_one_call_are_answered_each_for_itself() {
    let lab = manager_and_worker().await;
    let channel = lab.nodes[1].channel().await;
    let writes = WriteStream::open(channel.clone()).await.unwrap();
    let made: Vec<_> = stream::iter((0..MANY).map(|number| format!("n{number}")))
        .map(|name| {
            let writes = writes.clone();
            async move {
                let network = writes.create_network(create(name.clone())).await.unwrap().network;
                assert_eq!(network.unwrap().spec.unwrap().name, name);
                name
            }
        })
        .buffer_unordered(MANY)
        .collect()
        .await;
    assert_eq!(names(channel.clone()).await, made.iter().cloned().collect());

    // What is refused is refused for the reason that a call of its own would have, and the others go on.
    let taken = writes.create_network(create("n0".to_owned())).await.unwrap_err();
    assert_eq!(
        (taken.code(), status::reason(&taken), status::field(&taken).as_deref()),
        (Code::AlreadyExists, Some(Reason::NameTaken), Some("name")),
        "{taken}"
    );
    let wrong = writes.create_network(create("a name".to_owned())).await.unwrap_err();
    assert_eq!(status::field(&wrong).as_deref(), Some("name"), "{wrong}");

    let removals = made.into_iter().map(|name| writes.remove_network(remove(name)));
    let removed: Vec<_> = stream::iter(removals).buffer_unordered(MANY).collect().await;
    assert!(removed.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(names(channel).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_networks_and_services_are_changed_over_one_call() {
    let lab = manager_and_worker().await;
    let writes = WriteStream::open(lab.nodes[1].channel().await).await.unwrap();
    let labels = [("colour".to_owned(), "blue".to_owned())];

    let made = writes.create_network(create("net".to_owned())).await.unwrap().network.unwrap();
    let spec = v1::NetworkSpec { labels: labels.clone().into(), ..made.spec.unwrap() };
    let update = v1::UpdateNetworkRequest {
        network: made.id,
        spec: Some(spec),
        changed_at: made.meta.unwrap().changed_at,
        ..Default::default()
    };
    let changed = writes.update_network(update.clone()).await.unwrap().network.unwrap();
    assert_eq!(changed.spec.unwrap().labels, labels.clone().into());
    let stale = writes.update_network(update).await.unwrap_err();
    assert_eq!(status::reason(&stale), Some(Reason::Stale), "{stale}");

    let spec = v1::ServiceSpec { name: "svc".into(), ..Default::default() };
    let create = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
    let made = writes.create_service(create).await.unwrap().service.unwrap();
    let spec = v1::ServiceSpec { labels: labels.clone().into(), ..made.spec.unwrap() };
    let update = v1::UpdateServiceRequest {
        service: made.id,
        spec: Some(spec),
        changed_at: made.meta.unwrap().changed_at,
        ..Default::default()
    };
    let changed = writes.update_service(update).await.unwrap().service.unwrap();
    assert_eq!(changed.spec.unwrap().labels, labels.into());
    let remove = v1::RemoveServiceRequest { service: "svc".into(), ..Default::default() };
    writes.remove_service(remove).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_a_request_without_a_write_is_refused_and_the_call_goes_on() {
    let lab = manager_and_worker().await;
    let empty = v1::WriteRequest { number: 7, write: None };
    let create = v1::write_request::Write::CreateNetwork(create("net".to_owned()));
    let good = v1::WriteRequest { number: 7, write: Some(create) };
    let mut client = WritesClient::new(lab.nodes[1].channel().await);
    let mut answers = client.write(stream::iter([empty, good])).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.number, 7);
        kinds.push(match answer.answer.unwrap() {
            v1::write_response::Answer::Refusal(refusal) => {
                assert!(refusal.message.contains("write"), "{}", refusal.message);
                "refused"
            }
            v1::write_response::Answer::CreateNetwork(_) => "created",
            other => panic!("{other:?}"),
        });
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["created", "refused"]);
}

/// A `WriteRequest` that may be none: its update of a network is no message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct AnyWrite {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    create_network: Vec<u8>,
    #[prost(uint64, tag = "3")]
    update_network: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_a_request_that_is_no_message_ends_the_call_with_an_error_behind_the_answers() {
    let lab = manager_and_worker().await;
    let write = |number: u64| {
        let create_network = create(format!("net-{number}")).encode_to_vec();
        AnyWrite { number, create_network, update_network: 0 }
    };
    let broken = AnyWrite { number: 9, update_network: 1, ..Default::default() };
    let writes = (1..=3).map(write).chain([broken, write(10)]);
    let mut client = tonic::client::Grpc::new(lab.nodes[1].channel().await);
    client.ready().await.unwrap();
    let path = "/overlay.v1.Writes/Write".parse().unwrap();
    let codec = MessageCodec::<AnyWrite, v1::WriteResponse>::default();
    let answers = client.streaming(Request::new(stream::iter(writes)), path, codec).await;
    let mut answers = answers.unwrap().into_inner();
    let mut answered = BTreeSet::new();
    let error = loop {
        match answers.message().await {
            Ok(answer) => answered.insert(answer.expect("an error at the end").number),
            Err(status) => break status,
        };
    };
    assert_eq!(answered, BTreeSet::from([1, 2, 3]));
    assert!(error.message().contains("decode"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_what_was_not_answered_when_the_call_ended_is_repeated_over_another() {
    let mut lab = manager_and_worker().await;
    let channel = lab.nodes[1].channel().await;
    let writes = WriteStream::open(channel.clone()).await.unwrap();
    let request = create("net".to_owned());
    let first = writes.create_network(request.clone()).await.unwrap();
    lab.nodes[0].restart().await;
    until("the call ends with the manager", || async {
        let ended = writes.create_network(request.clone()).await.err()?;
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        Some(())
    })
    .await;
    let again = until("another call is taken", || async {
        let writes = WriteStream::open(channel.clone()).await.ok()?;
        writes.create_network(request.clone()).await.ok()
    })
    .await;
    assert_eq!(first, again);
}
