//! How soon what is asked of a cluster holds: real daemons on three hosts, all managers, their disks
//! those of this machine.
//!
//! ```text
//!  host 1, kernel ── host 2, kernel ── host 3, user: 10 000 endpoints in memory
//! ```
//!
//! - a network is created: answered once it is on the disks of a quorum
//! - an endpoint is attached: from the call to the first answer to a ping from another host
//! - a service is made: from the call to the first answer to a question for its name on another host
//! - one change of a network with 10 000 endpoints elsewhere: what a turn of the daemon's loop takes, as
//!   its figures say
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines. `OVERLAY_ATTACH_REMOTES` is the number of endpoints.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod figures;
mod named;
mod pinger;
#[path = "../../tests/lab/programs.rs"]
mod programs;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use overlay_api::{
    client::connect_unix,
    v1::{self, endpoints_client::EndpointsClient, networks_client::NetworksClient},
};
use overlay_testkit::{
    cluster::Cluster,
    lab::{self, Namespace},
    until::until,
};
use tonic::transport::Channel;

use self::pinger::Pinger;

/// Networks that are created one after another.
const NETWORKS: u32 = 100;
/// Endpoints that are attached one after another.
const ATTACHED: u32 = 50;
const REMOTES: u32 = 10_000;
/// Attachments under way at once.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

fn start(folder: &Path) -> Result<Cluster> {
    let metrics = format!("127.0.0.1:{}", figures::PORT);
    let flags =
        |plane| ["--dataplane", plane, "--metrics-addr", &metrics].map(str::to_owned).into();
    let flags = ["kernel", "kernel", "user"].map(flags);
    Cluster::start(folder, &programs::programs()?, &flags)
}

fn network(name: &str, subnet: Option<&str>) -> v1::CreateNetworkRequest {
    let subnets = subnet.map(|s| v1::SubnetSpec { subnet: s.to_owned(), ..Default::default() });
    let spec = v1::NetworkSpec {
        name: name.to_owned(),
        attachable: true,
        subnets: subnets.into_iter().collect(),
        ..Default::default()
    };
    v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() }
}

fn endpoint(network: &str, netns: Option<&Namespace>) -> v1::AttachEndpointRequest {
    let port = netns.map(|netns| v1::EndpointPort {
        interface: "eth0".to_owned(),
        namespace: Some(v1::endpoint_port::Namespace::Netns(netns.path().display().to_string())),
    });
    let spec = v1::EndpointSpec { network: network.to_owned(), ..Default::default() };
    v1::AttachEndpointRequest { spec: Some(spec), port, ..Default::default() }
}

/// Prints median and 99th percentile.
fn tell(what: &str, mut millis: Vec<f64>, target: &str) {
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis[(millis.len() - 1) * percent / 100];
    println!("attach: {what}, p50\t{:.2}\tms\t{target}", at(50));
    println!("attach: {what}, p99\t{:.2}\tms\t", at(99));
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

async fn networks(channel: &Channel) -> Result<()> {
    let mut client = NetworksClient::new(channel.clone());
    let mut times = Vec::new();
    for number in 0..NETWORKS {
        let begin = Instant::now();
        client.create_network(network(&format!("made{number}"), None)).await?;
        times.push(millis(begin));
    }
    tell("a network created, three managers", times, "<= 10");
    Ok(())
}

async fn attach(channel: &Channel, request: v1::AttachEndpointRequest) -> Result<v1::Endpoint> {
    let mut client = EndpointsClient::new(channel.clone());
    let answer = client.attach_endpoint(request).await?.into_inner();
    answer.endpoint.context("an endpoint")
}

/// Before their namespaces end, and others get their paths.
async fn detach(channel: &Channel, endpoints: impl IntoIterator<Item = &String>) -> Result<()> {
    let mut client = EndpointsClient::new(channel.clone());
    for endpoint in endpoints {
        let request =
            v1::DetachEndpointRequest { endpoint: endpoint.clone(), ..Default::default() };
        client.detach_endpoint(request).await?;
    }
    Ok(())
}

/// From the call to the first ping that is answered, and to the answer of the call.
async fn attachments(near: &Channel, far: &Channel) -> Result<()> {
    let mut client = NetworksClient::new(near.clone());
    client.create_network(network("pinged", Some("10.200.0.0/16"))).await?;
    let from = Namespace::new()?;
    let asking = attach(far, endpoint("pinged", Some(&from))).await?;
    let (mut calls, mut pings, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ATTACHED {
        let container = Namespace::new()?;
        let begin = Instant::now();
        let attached = attach(near, endpoint("pinged", Some(&container))).await?;
        calls.push(millis(begin));
        let address = attached.addresses.first().context("an address")?.parse()?;
        Pinger::inside(&from)?.until_answered(address, PATIENCE)?;
        pings.push(millis(begin));
        kept.push((container, attached.id));
    }
    tell("the call answered", calls, "");
    tell("an endpoint attached, to the first ping from another host", pings, "<= 30");
    detach(near, kept.iter().map(|(_, id)| id)).await?;
    detach(far, [&asking.id]).await
}

/// Changes of a network with many endpoints elsewhere.
async fn changes(cluster: &Cluster, near: &Channel, crowd: &Channel) -> Result<()> {
    let remotes = std::env::var("OVERLAY_ATTACH_REMOTES").ok().and_then(|text| text.parse().ok());
    let remotes: u32 = remotes.unwrap_or(REMOTES);
    let mut client = NetworksClient::new(near.clone());
    client.create_network(network("crowd", Some("10.201.0.0/16"))).await?;
    let container = Namespace::new()?;
    attach(near, endpoint("crowd", Some(&container))).await?;
    let begin = Instant::now();
    let attached = stream::iter(0..remotes).map(|_| attach(crowd, endpoint("crowd", None)));
    let attached: Vec<_> = attached.buffer_unordered(AT_ONCE).collect().await;
    attached.into_iter().collect::<Result<Vec<_>>>()?;
    println!(
        "attach: endpoints of one node attached at once\t{:.0}\t1/s\t",
        f64::from(remotes) / begin.elapsed().as_secs_f64()
    );
    let host = &cluster.hosts[0];
    let (mut turns, mut comparisons) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let before = figures::look(host)?;
        attach(crowd, endpoint("crowd", None)).await?;
        let after = until("the change is in the kernel", PATIENCE, || {
            let now = figures::look(host)?;
            anyhow::ensure!(now.revision > before.revision, "not yet");
            Ok(now)
        })?;
        turns.push(after.change * 1e3);
        comparisons.push(after.comparison * 1e3);
    }
    tell(&format!("a change, {remotes} endpoints elsewhere, view to kernel"), turns, "<= 5");
    tell(&format!("a comparison in full, {remotes} endpoints elsewhere"), comparisons, "<= 1000");
    Ok(())
}

async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = start(folder.path())?;
    let mut channels = Vec::new();
    for host in &cluster.hosts {
        channels.push(connect_unix(&host.socket()).await?);
    }
    networks(&channels[0]).await?;
    attachments(&channels[0], &channels[1]).await?;
    named::services(&channels[0], &channels[1]).await?;
    changes(&cluster, &channels[0], &channels[2]).await
}

fn main() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    lab::isolated(|| tokio::runtime::Runtime::new()?.block_on(run()))
}
