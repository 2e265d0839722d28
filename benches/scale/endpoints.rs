//! As many endpoints as the design must carry: what they cost the managers, and how long it takes
//! whoever starts.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use overlay_api::v1::{
    self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
    services_client::ServicesClient,
};
use overlay_cluster::ca::JoinToken;
use overlay_service::{Answer, Question, RecordKind};
use overlay_types::{NetworkId, NodeId};

use crate::{
    agent::Agent,
    managers::{Managers, worker},
    print, resident, until,
};

const NET: u8 = 64;
const ENDPOINTS: usize = 200_000;
const NETWORKS: usize = 4_000;
const ON_EACH: usize = ENDPOINTS / NETWORKS;
/// A fifth of what the design has: the bench has to end, and joins have a part of their own.
const NODES: u16 = 1_000;
/// Nodes that a network's endpoints are on.
const SPREAD: usize = 10;
/// Writes at a time.
const WRITERS: usize = 256;

pub(crate) async fn run(folder: &Path) -> Result<()> {
    let mut managers = Managers::start(folder, NET, 3).await?;
    let agents = join_agents(&managers).await?;
    let nodes: Arc<[NodeId]> = agents.iter().map(|agent| agent.id).collect();
    let (before, term) = (resident()?, managers.term());
    let networks = fill(&managers, &nodes).await?;
    let each = (resident()? - before) / ENDPOINTS as u64 / 3;
    print("200 000 endpoints, resident memory of a manager for each", each, "B", "");

    snapshot(&managers).await?;
    restart(&mut managers).await?;
    let fourth = Instant::now();
    managers.add(folder).await?;
    print("the same, a new manager has them and votes", seconds(fourth), "s", "");
    first_view(&managers, &agents[0]).await?;
    first_name(folder, &managers, networks[0]).await?;
    let elections = managers.term() - term;
    // The leader was not restarted, so nobody had a reason to.
    print("elections while there were 200 000 endpoints", elections, "", "<= 0");
    managers.stop().await
}

fn seconds(since: Instant) -> String {
    format!("{:.2}", since.elapsed().as_secs_f64())
}

async fn join_agents(managers: &Managers) -> Result<Vec<Agent>> {
    let token: JoinToken = managers.worker_token.parse()?;
    let remotes = managers.remotes();
    let joins = (0..NODES).map(|number| Agent::join(&token, &remotes, NET, number));
    stream::iter(joins).buffered(64).try_collect().await
}

/// Makes networks, a service on each, and its tasks.
async fn fill(managers: &Managers, nodes: &Arc<[NodeId]>) -> Result<Vec<NetworkId>> {
    let leader = managers.leader().await?;
    let channel = managers.all[leader].handle.managers().await?;
    let made = stream::iter(0..NETWORKS).map(|number| {
        let mut networks = NetworksClient::new(channel.clone());
        let mut services = ServicesClient::new(channel.clone());
        async move {
            let name = format!("net{number}");
            let spec =
                v1::NetworkSpec { name: name.clone(), attachable: true, ..Default::default() };
            let create = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
            let network = networks.create_network(create).await?.into_inner().network;
            let attachment = v1::ServiceNetwork { network: name, ..Default::default() };
            let spec = v1::ServiceSpec {
                name: format!("svc{number}"),
                networks: vec![attachment],
                ..Default::default()
            };
            let create = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
            services.create_service(create).await?;
            Ok::<_, anyhow::Error>(network.context("the network")?.id.parse::<NetworkId>()?)
        }
    });
    let networks: Vec<NetworkId> = made.buffered(WRITERS).try_collect().await?;
    let begun = Instant::now();
    let attached = stream::iter(0..ENDPOINTS).map(|number| {
        let mut endpoints = EndpointsClient::new(channel.clone());
        let nodes = Arc::clone(nodes);
        async move {
            let network = number / ON_EACH;
            let node = (network + number % SPREAD * 97) % nodes.len();
            let spec = v1::EndpointSpec {
                network: format!("net{network}"),
                service: format!("svc{network}"),
                node: nodes[node].to_string(),
                ..Default::default()
            };
            let attach = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
            endpoints.attach_endpoint(attach).await.map(drop)
        }
    });
    attached.buffer_unordered(WRITERS).try_collect::<()>().await?;
    let rate = ENDPOINTS as f64 / begun.elapsed().as_secs_f64();
    print("endpoints attached on 3 managers, 256 at a time", format!("{rate:.0}"), "1/s", "");
    Ok(networks)
}

/// The last snapshot that was made on the way, if one was: entries hold many commands each.
async fn snapshot(managers: &Managers) -> Result<()> {
    let leader = managers.leader().await?;
    let figures = managers.all[leader].handle.figures()?.context("it is a manager")?;
    print("the same, entries of the log", figures.last_index, "", "");
    if figures.snapshot_bytes > 0 {
        let size = figures.snapshot_bytes as f64 / 1e6;
        print("the same, the last snapshot", format!("{size:.1}"), "MB", "");
        let took = figures.snapshot_time.as_secs_f64();
        print("the same, until it was encoded and on the disk", format!("{took:.2}"), "s", "");
    }
    print("the same, the state file", managers.all[leader].state_bytes()? / 1_000_000, "MB", "");
    Ok(())
}

async fn restart(managers: &mut Managers) -> Result<()> {
    let leader = managers.leader().await?;
    let place = (leader + 1) % managers.all.len();
    let applied = |managers: &Managers, place: usize| {
        managers.all[place].handle.figures().ok().flatten().map_or(0, |f| f.applied_index)
    };
    let wanted = applied(managers, leader);
    managers.all[place].stop().await?;
    let begun = Instant::now();
    managers.all[place].start_again().await?;
    print("the same, a manager that restarts serves", seconds(begun), "s", "");
    until("it has caught up", || (applied(managers, place) >= wanted).then_some(())).await?;
    print("the same, until it has caught up", seconds(begun), "s", "");
    Ok(())
}

/// A node's whole view over a new connection, from each of the managers.
async fn first_view(managers: &Managers, agent: &Agent) -> Result<()> {
    let mut slowest = Duration::ZERO;
    let mut objects = 0;
    for remote in managers.remotes() {
        let begun = Instant::now();
        let (_channel, mut watch) = agent.watch(remote).await?;
        objects = 0;
        loop {
            let message = watch.message().await?.context("a snapshot")?;
            objects += message.changes.len();
            if !message.more {
                break;
            }
        }
        slowest = slowest.max(begun.elapsed());
    }
    println!("objects in the agent's view: {objects}");
    let slowest = format!("{:.0}", slowest.as_secs_f64() * 1e3);
    print("the same, an agent's first whole view, the slowest manager", slowest, "ms", "");
    Ok(())
}

/// A real node joins, and answers names of a network that it gets on.
async fn first_name(folder: &Path, managers: &Managers, network: NetworkId) -> Result<()> {
    let mut worker = worker(folder, IpAddr::from([127, NET, 0, 200]))?;
    worker.handle.ready().await;
    let begun = Instant::now();
    let remotes = managers.remotes().iter().map(ToString::to_string).collect();
    let token = managers.worker_token.clone();
    worker.handle.join(v1::JoinClusterRequest { token, remotes }).await?;
    let spec = v1::EndpointSpec { network: network.to_string(), ..Default::default() };
    let attach = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
    worker.handle.attach(attach).await?;
    until("the service has an address there", || {
        let question = Question { name: "svc0", kind: RecordKind::A };
        let answer = worker.handle.resolve([network], question, 1).ok()?;
        matches!(answer, Answer::Records(records) if !records.is_empty()).then_some(())
    })
    .await?;
    print(
        "the same, a node joins, attaches, and knows a service's address",
        seconds(begun),
        "s",
        "",
    );
    worker.stop().await
}
