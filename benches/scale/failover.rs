//! A manager dies, and the agents that watched it watch another one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use anyhow::Result;

use crate::{
    agent::Heard,
    managers::{Manager, Managers},
    print, until,
};

/// Watches of a manager.
fn watches(manager: &Manager) -> u64 {
    manager.handle.figures().ok().flatten().map_or(0, |figures| figures.watches)
}

/// `agents` watch the three `managers`.
pub(crate) async fn run(managers: &mut Managers, heard: &Arc<Heard>, agents: u64) -> Result<()> {
    let spread: Vec<u64> = managers.all.iter().map(watches).collect();
    let most = spread.iter().max().copied().unwrap_or(0);
    println!("agents on each manager: {spread:?}");
    let share = most as f64 * managers.all.len() as f64 / agents as f64;
    print(
        "agents on the manager that most of them watch, next to an even share",
        format!("{share:.2}"),
        "x",
        "",
    );

    let dying = (managers.leader().await? + 1) % managers.all.len();
    let ended = heard.ended.load(Ordering::Relaxed);
    let begun = Instant::now();
    managers.all[dying].handle.halt().await;
    // Its agents notice first, or this would be over at once.
    let lost = watches(&managers.all[dying]).max(spread[dying] / 2);
    until("agents notice", || {
        (heard.ended.load(Ordering::Relaxed) >= ended + lost / 2).then_some(())
    })
    .await?;
    until("all agents watch again", || {
        (heard.watching.load(Ordering::Relaxed) == agents).then_some(())
    })
    .await?;
    let moved = begun.elapsed();
    print(
        "all agents of a manager that died watch another",
        format!("{:.2}", moved.as_secs_f64()),
        "s",
        "<= 2",
    );
    managers.all[dying].stop().await?;
    managers.all[dying].start_again().await?;
    Ok(())
}
