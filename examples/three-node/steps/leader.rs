//! The leader dies: the others elect another one, and traffic does not notice.

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::rotation::{PACE, tell};
use crate::{
    demo::Demo,
    guest::Stream,
    lab::{PATIENCE, until},
    story::{Story, shown},
};

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    let leader = demo.leader(0).await?;
    let name = demo.nodes[leader].name.clone();
    story.step(&format!("The leader, {name}, dies"));
    let rest: Vec<usize> = (0..demo.nodes.len()).filter(|place| *place != leader).collect();
    let (one, other) = (*rest.first().context("no node")?, *rest.last().context("no node")?);
    let mut streams = Vec::new();
    for guests in [&demo.plain, &demo.sealed] {
        let (from, to) = (&guests[one], &guests[other]);
        let who = format!("{} → {}", from.config.name, to.config.name);
        from.reach(to.address()).await?;
        streams.push((who, Stream::start(from, to.address(), PACE)));
    }
    demo.nodes[leader].die().await?;
    let died = Instant::now();
    for (place, network) in [(one, "after1"), (other, "after2")] {
        create(demo, place, network, died).await?;
        let what = format!("a network is created through {} after", demo.nodes[place].name);
        story.measured(what, shown(died.elapsed()));
    }
    until("both name the same new leader", || async {
        let leaders = (demo.leader(one).await.ok(), demo.leader(other).await.ok());
        leaders.0.is_some() && leaders.0 == leaders.1 && leaders.0 != Some(leader)
    })
    .await?;
    let new = &demo.nodes[demo.leader(one).await?].name;
    story.tell(format!("{new} leads now"));
    for (who, stream) in streams {
        tell(story, &who, stream.end().await?)?;
    }
    Ok(())
}

/// Tries to create a network until it succeeds.
async fn create(demo: &Demo, place: usize, name: &str, since: Instant) -> Result<()> {
    loop {
        match demo.create_network(place, name, false).await {
            Ok(_) => return Ok(()),
            Err(error) if since.elapsed() > PATIENCE => bail!("no writes: {error}"),
            Err(_) => {}
        }
    }
}
