//! Many watch one manager: how long a change takes to all of them, and what each costs.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use overlay_api::v1::{self, nodes_client::NodesClient};
use overlay_cluster::ca::JoinToken;
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{PATIENCE, agent::Agent, managers::Managers, percentile, print, resident};

const NET: u8 = 63;
const WATCHERS: usize = 5_000;
/// Nodes that the watches are of; a connection each all the same.
const NODES: u16 = 50;
/// Handshakes at a time from one host; a manager drops further ones.
const DIALS: usize = 32;
/// Changes, one after the other.
const CHANGES: usize = 40;

/// A watch has seen this revision.
type Seen = (u64, Instant);

pub(crate) async fn run(folder: &Path) -> Result<()> {
    let managers = Managers::start(folder, NET, 1).await?;
    let manager = *managers.remotes().first().context("a manager")?;
    let token: JoinToken = managers.worker_token.parse()?;
    let mut agents = Vec::new();
    for number in 0..NODES {
        agents.push(Agent::join(&token, &[manager], NET, number).await?);
    }
    let before = resident()?;
    let (seen, mut sightings) = mpsc::unbounded_channel();
    let mut watches = start(&agents, manager, &seen).await?;
    print(
        format!("{WATCHERS} watches over TLS: memory of both ends, each"),
        (resident()? - before) / WATCHERS as u64 / 1024,
        "KiB",
        "",
    );

    let mut nodes = NodesClient::new(managers.all[0].channel().await?);
    let (mut delays, mut last) = (Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let revision = change(&mut nodes, &agents[0], number).await?;
        let acknowledged = Instant::now();
        let mut counted = 0;
        while counted < WATCHERS {
            let next = tokio::time::timeout(PATIENCE, sightings.recv()).await;
            let (at, when) =
                next.context("a watch does not see the change")?.context("watches go on")?;
            if at == revision {
                counted += 1;
                delays.push(when.saturating_duration_since(acknowledged));
            }
        }
        last.push(acknowledged.elapsed());
    }
    delays.sort_unstable();
    last.sort_unstable();
    let name = format!("a change acknowledged, until {WATCHERS} watches over TLS have seen it");
    for percent in [50, 99] {
        let target = if percent == 99 { "<= 200" } else { "" };
        let delay = percentile(&delays, percent).as_secs_f64() * 1e3;
        print(format!("{name}, p{percent}"), format!("{delay:.0}"), "ms", target);
    }
    let worst = percentile(&last, 100).as_secs_f64() * 1e3;
    print(format!("{name}, the last one of the worst change"), format!("{worst:.0}"), "ms", "");
    burst(&mut nodes, &agents[0], &mut sightings).await?;
    print(
        format!("{WATCHERS} watches, after a burst of changes: memory, each"),
        (resident()? - before) / WATCHERS as u64 / 1024,
        "KiB",
        "",
    );
    watches.shutdown().await;
    managers.stop().await
}

/// Many changes at once: whoever is slow must not make the manager hold more for it.
async fn burst(
    nodes: &mut NodesClient<tonic::transport::Channel>,
    agent: &Agent,
    sightings: &mut mpsc::UnboundedReceiver<Seen>,
) -> Result<()> {
    let begun = Instant::now();
    let mut revision = 0;
    for number in 0..100 {
        revision = change(nodes, agent, CHANGES + number).await?;
    }
    let acknowledged = begun.elapsed();
    let mut counted = 0;
    while counted < WATCHERS {
        let next = tokio::time::timeout(PATIENCE, sightings.recv()).await;
        let (at, _) = next.context("a watch does not see the burst")?.context("watches go on")?;
        counted += usize::from(at >= revision);
    }
    print(
        format!("100 changes in a row under {WATCHERS} watches"),
        format!("{:.2}", acknowledged.as_secs_f64()),
        "s",
        "",
    );
    print(
        "the same, until all have seen the last",
        format!("{:.2}", begun.elapsed().as_secs_f64()),
        "s",
        "",
    );
    Ok(())
}

async fn start(
    agents: &[Agent],
    manager: SocketAddr,
    seen: &mpsc::UnboundedSender<Seen>,
) -> Result<JoinSet<()>> {
    let dials = Arc::new(Semaphore::new(DIALS));
    let mut starts = JoinSet::new();
    for number in 0..WATCHERS {
        let (agent, dials) = (agents[number % agents.len()].clone(), Arc::clone(&dials));
        starts.spawn(async move {
            let _turn = dials.acquire().await?;
            let (channel, mut stream) = agent.watch(manager).await?;
            while stream.message().await?.context("a snapshot")?.more {}
            anyhow::Ok((channel, stream))
        });
    }
    let mut watches = JoinSet::new();
    while let Some(started) = starts.join_next().await {
        let (channel, mut stream) = started??;
        let seen = seen.clone();
        watches.spawn(async move {
            let _open = channel;
            while let Ok(Some(message)) = stream.message().await {
                if !message.more && seen.send((message.revision, Instant::now())).is_err() {
                    return;
                }
            }
        });
    }
    Ok(watches)
}

/// Changes a label of a node, which concerns everyone. Returns the revision.
async fn change(
    nodes: &mut NodesClient<tonic::transport::Channel>,
    agent: &Agent,
    number: usize,
) -> Result<u64> {
    let node = agent.id.to_string();
    let look = v1::GetNodeRequest { node: node.clone(), ..Default::default() };
    let found = nodes.get_node(look).await?.into_inner().node.and_then(|status| status.node);
    let found = found.context("the node")?;
    let update = v1::UpdateNodeRequest {
        node,
        changed_at: found.meta.context("its revisions")?.changed_at,
        role: found.role,
        availability: found.availability,
        labels: [("number".to_owned(), number.to_string())].into(),
        ..Default::default()
    };
    let changed = nodes.update_node(update).await?.into_inner().node.context("the node")?;
    // Let what the clients still have to do for the last change end.
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(changed.meta.context("its revisions")?.changed_at)
}
