//! Init, two joins by token, and what each node says of all.

use anyhow::{Context, Result, ensure};
use overlay_api::v1::{self, local_node_client::LocalNodeClient};
use tokio::time::Instant;

use crate::{
    demo::Demo,
    lab::until,
    story::{Story, shown},
};

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    story.step("A cluster: init on one node, two joins by token");
    let began = Instant::now();
    let mut first = LocalNodeClient::new(demo.nodes[0].channel().await?);
    let made = first.init_cluster(v1::InitClusterRequest::default()).await;
    let made = made.context("init; does another run of this example have the ports?")?;
    let made = made.into_inner();
    story.measured("node1 made the cluster", shown(began.elapsed()));
    let (scheme, _) = made.manager_token.split_at(made.manager_token.len().min(24));
    story.tell(format!("token for managers: {scheme}…"));
    for place in 1..demo.nodes.len() {
        let node = &demo.nodes[place];
        let began = Instant::now();
        let request = v1::JoinClusterRequest {
            token: made.manager_token.clone(),
            remotes: vec![demo.nodes[0].address.to_string()],
        };
        let joined = LocalNodeClient::new(node.channel().await?).join_cluster(request).await?;
        let role = joined.into_inner().role();
        ensure!(role == v1::Role::Manager, "{} joined as {role:?}", node.name);
        story.measured(format!("{} joined as a manager", node.name), shown(began.elapsed()));
    }
    for node in &demo.nodes {
        demo.wire.tap(node)?;
    }
    let waited = until("each node lists three that are alive, and the same leader", || async {
        all_agree(demo).await.unwrap_or(false)
    });
    story.measured("each of them lists all three as alive", shown(waited.await?));
    story.tell("");
    story.tell(format!("{:8}{:9}{:11}{:8}LEADER", "ASKED", "NODE", "ADDRESS", "STATUS"));
    for place in 0..demo.nodes.len() {
        for status in demo.listed(place).await? {
            let liveness = format!("{:?}", status.liveness());
            let node = status.node.unwrap_or_default();
            let leader = if status.leader { "leader" } else { "" };
            let asked = &demo.nodes[place].name;
            let line = format!("{asked:8}{:9}{:11}{liveness:8}{leader}", node.name, node.data_path);
            story.tell(line.trim_end());
        }
    }
    Ok(())
}

async fn all_agree(demo: &Demo) -> Result<bool> {
    let mut leaders = Vec::new();
    for place in 0..demo.nodes.len() {
        let listed = demo.listed(place).await?;
        let alive = listed.iter().filter(|node| node.liveness() == v1::Liveness::Alive);
        if listed.len() != demo.nodes.len() || alive.count() != listed.len() {
            return Ok(false);
        }
        leaders.push(demo.leader(place).await?);
    }
    Ok(leaders.iter().all(|leader| *leader == leaders[0]))
}
