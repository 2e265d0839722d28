//! All agents of a large cluster join at once, and the leader is restarted meanwhile.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use anyhow::{Context, Result};
use overlay_cluster::ca::JoinToken;
use overlay_types::Revision;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    agent::{Agent, Heard},
    failover,
    managers::Managers,
    print, until,
};

const NET: u8 = 62;
const AGENTS: u16 = 2_000;
/// Of which so many are about to join at a time: their half of the handshakes takes this machine, too.
const AT_A_TIME: usize = 64;

pub(crate) async fn run(folder: &Path) -> Result<()> {
    let mut managers = Managers::start(folder, NET, 3).await?;
    let token: JoinToken = managers.worker_token.parse()?;
    let heard = Arc::new(Heard::default());
    let begun = Instant::now();
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut joins = JoinSet::new();
    for number in 0..AGENTS {
        let (token, heard, turns) = (token.clone(), Arc::clone(&heard), Arc::clone(&turns));
        let mut remotes = managers.remotes();
        // People name another manager first on each host.
        remotes.rotate_left(usize::from(number) % 3);
        joins.spawn(async move {
            let _turn = turns.acquire().await?;
            let agent = Agent::join(&token, &remotes, NET, number).await?;
            let (revision, _) = watch::channel(Revision::ZERO);
            anyhow::Ok(tokio::spawn(agent.follow(heard, revision)))
        });
    }
    let mut agents = Vec::new();
    let mut failed = 0_u32;
    let mut restarted = None;
    while let Some(joined) = joins.join_next().await {
        match joined? {
            Ok(agent) => agents.push(agent),
            Err(error) => {
                if failed == 0 {
                    println!("the first join that failed: {error:#}");
                }
                failed += 1;
            }
        }
        if restarted.is_none() && agents.len() >= usize::from(AGENTS) / 2 {
            let leader = managers.leader().await?;
            let restart = Instant::now();
            managers.all[leader].stop().await?;
            managers.all[leader].start_again().await?;
            restarted = Some(restart.elapsed());
        }
    }
    let joined = begun.elapsed();
    let restarted = restarted.context("the leader was restarted")?;
    print(
        format!("{AGENTS} agents join, the leader restarts meanwhile"),
        format!("{:.1}", joined.as_secs_f64()),
        "s",
        "<= 60",
    );
    print("the same, joins that failed", failed, "", "<= 0");
    print(
        "the same, until the leader was back",
        format!("{:.2}", restarted.as_secs_f64()),
        "s",
        "",
    );
    let all = agents.len() as u64;
    until("all agents watch", || (heard.watching.load(Ordering::Relaxed) == all).then_some(()))
        .await?;
    print(
        "the same, until all of them watch",
        format!("{:.1}", begun.elapsed().as_secs_f64()),
        "s",
        "",
    );
    failover::run(&mut managers, &heard, all).await?;
    // They would look for managers while others are measured.
    agents.iter().for_each(JoinHandle::abort);
    managers.stop().await
}
