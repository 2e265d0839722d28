//! A node that does not lead dies without a word: its backends leave service and names on the
//! others. Then it comes back, and they serve again.

use core::time::Duration;
use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, timeout};

use crate::{
    demo::{Demo, SERVICE},
    guest::Guest,
    lab::{PATIENCE, until},
    names::Names,
    story::{Story, shown},
};

/// How long a connection may take before it counts as failed.
const CONNECT: Duration = Duration::from_millis(250);
/// As many connections in a row succeed by chance, with one of three backends dead, once in a
/// million runs.
const IN_A_ROW: u32 = 34;

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    let leader = demo.leader(0).await?;
    let victim = (0..demo.nodes.len()).rev().find(|place| *place != leader).context("no other")?;
    let name = demo.nodes[victim].name.clone();
    story.step(&format!("{name} dies without a word; later it returns"));
    let vip = demo.virtual_address().await?;
    demo.nodes[victim].die().await?;
    let died = Instant::now();
    let rest: Vec<usize> = (0..demo.nodes.len()).filter(|place| *place != victim).collect();
    let dead = demo.tasks[victim].address().to_string();
    let (one, other) = tokio::try_join!(
        heals(&demo.plain[rest[0]], vip, &demo.names[rest[0]], &dead, died),
        heals(&demo.plain[rest[1]], vip, &demo.names[rest[1]], &dead, died),
    )?;
    for (place, (dns, service)) in [(rest[0], one), (rest[1], other)] {
        let node = &demo.nodes[place].name;
        story.measured(format!("{node}: gone from tasks.{SERVICE} after"), shown(dns));
        let Settled { last_failure, answered, failed } = service;
        let what = format!(
            "{node}: last connection that hit it ({failed} of {}) after",
            answered + failed
        );
        story.measured(what, shown(last_failure));
    }
    returns(story, demo, victim, vip).await
}

/// What a node sees of the death: when the backend is gone from names, and from the service.
async fn heals(
    client: &Guest,
    vip: Ipv4Addr,
    names: &Names,
    dead: &str,
    died: Instant,
) -> Result<(Duration, Settled)> {
    tokio::try_join!(gone(names, dead, died), settled(client, vip, died))
}

/// How connections to a virtual address went after a backend died.
struct Settled {
    answered: u32,
    failed: u32,
    /// When the last one failed.
    last_failure: Duration,
}

/// Connects until no connection fails any more.
async fn settled(client: &Guest, vip: Ipv4Addr, died: Instant) -> Result<Settled> {
    let mut settled = Settled { answered: 0, failed: 0, last_failure: Duration::ZERO };
    let mut row = 0;
    while row < IN_A_ROW {
        if let Ok(Ok(_)) = timeout(CONNECT, client.fetch(vip)).await {
            (settled.answered, row) = (settled.answered + 1, row + 1);
        } else {
            (settled.failed, row) = (settled.failed + 1, 0);
            settled.last_failure = died.elapsed();
        }
        if died.elapsed() > PATIENCE {
            bail!("{}: connections to {vip} still fail", client.config.name);
        }
    }
    ensure!(settled.answered > 0, "the service stopped answering");
    Ok(settled)
}

async fn gone(names: &Names, address: &str, died: Instant) -> Result<Duration> {
    let tasks = format!("tasks.{SERVICE}");
    until("the dead node's task is gone from DNS", || async {
        let answers = names.ask(&tasks, RecordType::A).await;
        answers.is_ok_and(|answers| !answers.is_empty() && !answers.iter().any(|a| a == address))
    })
    .await?;
    Ok(died.elapsed())
}

async fn returns(story: &Story, demo: &mut Demo, place: usize, vip: Ipv4Addr) -> Result<()> {
    let began = Instant::now();
    let took = demo.revive(place).await?;
    let name = &demo.nodes[place].name;
    story.measured(format!("{name} runs again, on its data directory, after"), shown(took));
    let other = (place + 1) % demo.nodes.len();
    let (client, task) = (Arc::clone(&demo.plain[other]), demo.tasks[place].config.name.clone());
    until("the backend of the returned node serves again", || async {
        timeout(CONNECT, client.fetch(vip)).await.is_ok_and(|a| a.is_ok_and(|name| name == task))
    })
    .await?;
    story.measured(format!("{task} on it serves again after"), shown(began.elapsed()));
    let began = Instant::now();
    demo.sealed[other].reach(demo.sealed[place].address()).await?;
    story.measured(
        "and the encrypted network reaches it, with new keys, after",
        shown(began.elapsed()),
    );
    demo.keep_keys().await
}
