//! Three members of etcd, as processes on loopback, written through etcd's own gRPC API.
//!
//! The messages are those fields of etcd's `rpc.proto` that are used here.

use std::{
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{PAYLOAD, Speed, speed};

/// How long the members may take to elect a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.DeleteRangeRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// What answers a write: nothing that matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Written {}

/// `etcdserverpb.StatusRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// `etcdserverpb.ResponseHeader`
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// A running etcd of three members, which end with it.
pub(crate) struct Etcd {
    leader: Channel,
    members: Vec<Member>,
}

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Etcd {
    /// Starts three members with their data in `folder`, and finds the leader.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let members = (1..=3).map(|place| start(folder, place)).collect::<Result<Vec<_>>>()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            for place in 1..=3 {
                let channel = Endpoint::from_shared(client_url(place))?.connect_lazy();
                if leads(channel.clone()).await.unwrap_or(false) {
                    return Ok(Self { leader: channel, members });
                }
            }
            anyhow::ensure!(Instant::now() < deadline, "etcd has no leader after {PATIENCE:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Keys are put and deleted.
    pub(crate) async fn writes(&self, clients: usize) -> Result<Speed> {
        let members: Vec<_> = self.members.iter().map(|member| member.0.id()).collect();
        let leader = self.leader.clone();
        let pair = move |name: String| {
            let leader = leader.clone();
            async move {
                let (key, value) = (name.into_bytes(), PAYLOAD.into());
                let put = PutRequest { key: key.clone(), value };
                let _: Written = call(leader.clone(), "/etcdserverpb.KV/Put", put).await?;
                let delete = DeleteRangeRequest { key };
                let _: Written = call(leader, "/etcdserverpb.KV/DeleteRange", delete).await?;
                Ok(())
            }
        };
        speed((clients, &members), pair).await
    }
}

fn client_url(place: u8) -> String {
    format!("http://127.61.0.{place}:2379")
}

fn peer_url(place: u8) -> String {
    format!("http://127.61.0.{place}:2380")
}

/// Everything as etcd has it by default, which is durable.
fn start(folder: &Path, place: u8) -> Result<Member> {
    let all = (1..=3).map(|place| format!("etcd{place}={}", peer_url(place)));
    let all = all.collect::<Vec<_>>().join(",");
    let mut command = Command::new("etcd");
    command.arg("--name").arg(format!("etcd{place}"));
    command.arg("--data-dir").arg(folder.join(format!("etcd{place}")));
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        command.args([flag, &client_url(place)]);
    }
    for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
        command.args([flag, &peer_url(place)]);
    }
    command.args(["--initial-cluster", &all, "--logger", "zap", "--log-level", "error"]);
    let started = command.spawn();
    Ok(Member(started.context("etcd cannot be started: cargo xtask setup installs it")?))
}

async fn leads(channel: Channel) -> Result<bool, Status> {
    let path = "/etcdserverpb.Maintenance/Status";
    let status: StatusResponse = call(channel, path, StatusRequest {}).await?;
    Ok(status.leader != 0 && status.header.is_some_and(|own| own.member_id == status.leader))
}

async fn call<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = client.unary(Request::new(request), PathAndQuery::from_static(path), codec).await;
    answer.map(tonic::Response::into_inner)
}
