//! Every call with every field that can be wrong: the answer names field and value, and nothing
//! was written.
//!
//! `cases.txt` has the cases. The protobuf descriptors say which there must be: a field without a
//! case, or without a reason why no value of it is wrong, fails the test.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use overlay_api::{
    status::{self, Reason},
    v1::{
        self, endpoints_client::EndpointsClient, keys_client::KeysClient,
        local_node_client::LocalNodeClient, networks_client::NetworksClient,
        nodes_client::NodesClient, services_client::ServicesClient, watcher_client::WatcherClient,
    },
};
use overlay_cluster::{
    ca::{JoinToken, PendingJoin},
    raft::transport::Channel,
};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use tower::ServiceExt;

use self::table::{Case, FREE};
use crate::lab::{Lab, until};

/// Services that managers serve to nodes only.
const OVER_TLS: [&str; 2] = ["Membership", "Reports"];

fn descriptors() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/overlay-api/proto");
    let files = ["control", "membership", "node"].map(|name| format!("overlay/v1/{name}.proto"));
    let set = protox::compile(files, [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(set).unwrap()
}

/// Paths of all fields below a message, and whether each is a field of fields.
fn fields(
    message: &MessageDescriptor,
    prefix: &str,
    found: &mut BTreeMap<String, FieldDescriptor>,
) {
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        if let Kind::Message(inner) = field.kind()
            && !field.is_map()
            && !is_request(&inner)
        {
            fields(&inner, &format!("{path}."), found);
        }
        found.insert(path, field);
    }
}

/// Whether a message is the request of a call, and tried there.
fn is_request(message: &MessageDescriptor) -> bool {
    let pool = message.parent_pool();
    pool.services().any(|service| service.methods().any(|method| method.input() == *message))
}

/// Whether no value of a field can be wrong.
fn is_free(field: &FieldDescriptor, rpc: &str, path: &str) -> bool {
    let fields_of_its_own = matches!(field.kind(), Kind::Message(_)) && !field.is_map();
    fields_of_its_own
        || field.kind() == Kind::Bool
        || FREE
            .iter()
            .any(|(name, _)| *name == field.full_name() || *name == format!("{rpc} {path}"))
}

#[test]
fn r06_every_field_of_every_call_has_a_case() {
    let mut wanted = BTreeSet::new();
    let mut known = BTreeSet::new();
    for service in descriptors().services().filter(|s| s.package_name() == "overlay.v1") {
        for method in service.methods() {
            let rpc = format!("{}.{}", service.name(), method.name());
            let mut found = BTreeMap::new();
            fields(&method.input(), "", &mut found);
            for (path, field) in found {
                if !is_free(&field, &rpc, &path) {
                    wanted.insert((rpc.clone(), path.clone()));
                }
                known.insert((rpc.clone(), path));
            }
        }
    }
    let tried: BTreeSet<(String, String)> =
        table::cases().iter().map(|case| (case.rpc.to_owned(), case.field.to_owned())).collect();
    let untried: Vec<_> = wanted.difference(&tried).collect();
    assert!(untried.is_empty(), "fields without a case in cases.txt: {untried:#?}");
    let unknown: Vec<_> = tried.difference(&known).collect();
    assert!(unknown.is_empty(), "cases for fields that do not exist: {unknown:#?}");
}

/// One of the labels of a spec that has too many.
fn label(number: u16) -> String {
    format!("labels {{ key: '{number}' }} ")
}

/// One of the aux addresses of a subnet that has too many.
fn aux_address(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("aux_addresses {{ key: 'a{number}' value: '10.71.{}.{low}' }} ", high + 1)
}

/// A node that is the only manager, one that is in no cluster, and what the cases refer to.
struct Stage {
    lab: Lab,
    pool: DescriptorPool,
    /// Placeholders of the table and what they stand for.
    names: Vec<(&'static str, String)>,
}

impl Stage {
    async fn new() -> Self {
        let mut lab = Lab::managers(1).await;
        lab.start().await;
        let node = lab.nodes[0].handle.node().unwrap();
        let text = lab.nodes[0].handle.tokens().unwrap().worker;
        let token: JoinToken = text.parse().unwrap();
        let backup = lab.nodes[0].handle.back_up("right".to_owned()).await.unwrap();
        let names = vec![
            ("$NODE", node.to_string()),
            ("$TOKEN", text),
            ("$SECRET", token.secret().expose().escape_ascii().to_string()),
            ("$DIGEST", token.digest().to_bytes().escape_ascii().to_string()),
            ("$LONG", "x".repeat(257)),
            ("$BACKUP", backup.escape_ascii().to_string()),
            ("$LABELS", (0..65).map(label).collect()),
            ("$AUX_ADDRESSES", (0..257).map(aux_address).collect()),
            ("$CSR", PendingJoin::new().unwrap().request().escape_ascii().to_string()),
        ];
        let mut stage = Self { lab, pool: descriptors(), names };
        for (rpc, request) in table::STAGE {
            stage.call(rpc, request).await.unwrap();
        }
        stage.names.extend(stage.revisions().await);
        stage.names.push(("$NETWORKS_TOKEN", stage.networks_token().await));
        // What the node reports about itself is written before the first case.
        until("the node is ready for its first key epoch", || async {
            let mut keys = KeysClient::new(stage.lab.nodes[0].channel().await);
            let status = keys.get_key_status(v1::GetKeyStatusRequest::default()).await.unwrap();
            status.into_inner().node_keys.iter().any(|key| key.ready).then_some(())
        })
        .await;
        until("the node has its place in the routing mesh", || async {
            let mut endpoints = EndpointsClient::new(stage.lab.nodes[0].channel().await);
            let roles = vec![v1::EndpointRole::Mesh.into()];
            let filter = Some(v1::EndpointFilter { roles, ..Default::default() });
            let request = v1::ListEndpointsRequest { filter, ..Default::default() };
            let places = endpoints.list_endpoints(request).await.unwrap().into_inner().endpoints;
            (!places.is_empty()).then_some(())
        })
        .await;
        stage
    }

    /// What an update of the network, the service and the node has to be based on.
    async fn revisions(&self) -> [(&'static str, String); 3] {
        let channel = self.lab.nodes[0].channel().await;
        let request = v1::GetNetworkRequest { network: "net".into(), ..Default::default() };
        let mut networks = NetworksClient::new(channel.clone());
        let network = networks.get_network(request).await.unwrap().into_inner().network.unwrap();
        let request = v1::GetServiceRequest { service: "svc".into(), ..Default::default() };
        let mut services = ServicesClient::new(channel.clone());
        let service = services.get_service(request).await.unwrap().into_inner().service.unwrap();
        let own = self.lab.nodes[0].handle.node().unwrap().to_string();
        let request = v1::GetNodeRequest { node: own, ..Default::default() };
        let status = NodesClient::new(channel).get_node(request).await.unwrap().into_inner();
        let node = status.node.unwrap().node.unwrap();
        let revision = |meta: Option<v1::Meta>| meta.unwrap().changed_at.to_string();
        [
            ("$NETWORK_REVISION", revision(network.meta)),
            ("$SERVICE_REVISION", revision(service.meta)),
            ("$REVISION_OF_NODE", revision(node.meta)),
        ]
    }

    /// A page token of the list of all networks.
    async fn networks_token(&self) -> String {
        let mut networks = NetworksClient::new(self.lab.nodes[0].channel().await);
        let request = v1::ListNetworksRequest { page_size: 1, ..Default::default() };
        networks.list_networks(request).await.unwrap().into_inner().next_page_token
    }

    /// Calls with a request in protobuf's text format.
    async fn call(&self, rpc: &str, request: &str) -> Result<(), Status> {
        let (service, method) = rpc.split_once('.').unwrap();
        let descriptor = self.pool.get_service_by_name(&format!("overlay.v1.{service}")).unwrap();
        let method = descriptor.methods().find(|m| m.name() == method).unwrap();
        let text = self.names.iter().fold(request.to_owned(), |t, (name, v)| t.replace(name, v));
        let message = DynamicMessage::parse_text_format(method.input(), &text)
            .unwrap_or_else(|error| panic!("{rpc} {text}: {error}"));
        let mut grpc = Grpc::new(self.channel(service, method.name()).await);
        grpc.ready().await.unwrap();
        let path = format!("/overlay.v1.{service}/{}", method.name()).parse().unwrap();
        let codec = ProstCodec::<DynamicMessage, ()>::default();
        if method.is_client_streaming() {
            let messages = Request::new(futures::stream::iter([message]));
            grpc.client_streaming(messages, path, codec).await.map(drop)
        } else if method.is_server_streaming() {
            grpc.server_streaming(Request::new(message), path, codec).await.map(drop)
        } else {
            grpc.unary(Request::new(message), path, codec).await.map(drop)
        }
    }

    async fn channel(&self, service: &str, method: &str) -> Channel {
        if OVER_TLS.contains(&service) {
            self.lab.nodes[0].handle.managers().await.unwrap()
        } else {
            // Who is in a cluster already is refused for that.
            let place =
                usize::from(["InitCluster", "JoinCluster", "RestoreCluster"].contains(&method));
            let channel = self.lab.nodes[place].channel().await;
            Channel::new(channel.map_err(|error| Status::from_error(error.into())))
        }
    }

    /// Revision of the state, and the cluster of the node that is in none.
    async fn state(&self) -> (u64, String) {
        let mut watcher = WatcherClient::new(self.lab.nodes[0].channel().await);
        let mut watch = watcher.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
        let revision = watch.message().await.unwrap().unwrap().revision;
        let mut alone = LocalNodeClient::new(self.lab.nodes[1].channel().await);
        (revision, alone.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner().cluster)
    }

    /// What is wrong with the answer, if anything.
    async fn try_case(&self, case: &Case) -> Option<String> {
        let before = self.state().await;
        let answer = self.call(case.rpc, case.request).await;
        let Err(status) = answer else { return Some("accepted".to_owned()) };
        let named = status::field(&status);
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
        let violated = violations.and_then(|all| Some(all.into_iter().next()?.field));
        let value =
            self.names.iter().fold(case.value.to_owned(), |t, (name, v)| t.replace(name, v));
        if status.code() != case.code || !status.message().contains(&value) {
            return Some(format!("{status}"));
        }
        if named.as_deref() != case.named {
            return Some(format!("names {named:?}: {}", status.message()));
        }
        if status::reason(&status).map(Reason::code) != Some(case.code) {
            return Some(format!("has the reason {:?}", status::reason(&status)));
        }
        if violated.as_deref() != case.named.filter(|_| case.code == Code::InvalidArgument) {
            return Some(format!("violates {violated:?}"));
        }
        let after = self.state().await;
        (before != after).then(|| format!("{before:?} became {after:?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_a_wrong_field_is_named_with_its_value_and_changes_nothing() {
    let stage = Stage::new().await;
    let mut failed = Vec::new();
    let cases = table::cases();
    for case in &cases {
        if let Some(trouble) = stage.try_case(case).await {
            failed.push(format!("{} {} ({}): {trouble}", case.rpc, case.field, case.request));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    // The node that was told wrong things can still join.
    let token = stage.lab.nodes[0].handle.tokens().unwrap().worker;
    stage.lab.join(1, &token).await.unwrap();
}
