//! A service with a task on every node: connections spread over them, names lead to them.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use overlay_api::v1::{self, services_client::ServicesClient};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    demo::{Demo, PLAIN, SERVICE},
    guest::{Guest, all_reach},
    lab::until,
    names::Names,
    story::{Story, shown},
};

/// Connections to the virtual address, the same number from each node.
const CONNECTIONS: usize = 300;
/// What each of three tasks gets at least: 100 are expected, and the standard deviation is 8.
const FAIR: usize = 60;

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    story.step("A service with three tasks: one virtual address, then names only");
    let spec = v1::ServiceSpec {
        name: SERVICE.to_owned(),
        networks: vec![v1::ServiceNetwork { network: PLAIN.to_owned(), aliases: Vec::new() }],
        ..Default::default()
    };
    let mut client = ServicesClient::new(demo.nodes[0].channel().await?);
    let request = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
    client.create_service(request).await?;
    for place in 0..demo.nodes.len() {
        let name = format!("{SERVICE}.{}", place + 1);
        demo.tasks.push(demo.attach(place, PLAIN, &name, SERVICE).await?);
    }
    let network = demo.network_id(0, PLAIN).await?;
    for node in &demo.nodes {
        demo.names.push(Names::start(node, network).await?);
    }
    let vip = demo.virtual_address().await?;
    all_named(demo, &format!("tasks.{SERVICE}")).await?;
    all_reach(&demo.plain, &demo.tasks).await?;
    connections(story, demo, vip).await?;
    names(story, demo, vip).await?;

    set_mode(demo, v1::EndpointMode::Dnsrr).await?;
    let began = Instant::now();
    all_named(demo, SERVICE).await?;
    let records = demo.names[2].ask(SERVICE, RecordType::A).await?.join(", ");
    story.measured("updated to dnsrr, all nodes know after", shown(began.elapsed()));
    story.tell(format!("  {SERVICE} A → {records}"));

    set_mode(demo, v1::EndpointMode::Vip).await?;
    let vip = demo.virtual_address().await?;
    let waited = until("the service has a virtual address again", || async {
        let answers = demo.names[2].ask(SERVICE, RecordType::A).await;
        answers.is_ok_and(|answers| answers == [vip.to_string()])
    });
    story.measured("and back to a virtual address after", shown(waited.await?));
    Ok(())
}

/// Waits until each node has the three tasks under `name`.
async fn all_named(demo: &Demo, name: &str) -> Result<()> {
    let mut expected: Vec<_> = demo.tasks.iter().map(|task| task.address().to_string()).collect();
    expected.sort();
    for names in &demo.names {
        until("a name leads to the three tasks", || async {
            names.ask(name, RecordType::A).await.is_ok_and(|answers| answers == expected)
        })
        .await
        .with_context(|| format!("{name} → {expected:?}"))?;
    }
    Ok(())
}

async fn connections(story: &Story, demo: &Demo, vip: Ipv4Addr) -> Result<()> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for client in &demo.plain {
        let (client, count) = (Arc::clone(client), CONNECTIONS / demo.plain.len());
        clients.spawn(async move { fetch_many(&client, vip, count).await });
    }
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(answered) = clients.join_next().await {
        for name in answered?? {
            *spread.entry(name).or_default() += 1;
        }
    }
    let time = shown(began.elapsed());
    story.measured(format!("{CONNECTIONS} connections to {vip}, from all three nodes"), time);
    for (name, count) in &spread {
        story.measured(format!("  answered by {name}"), count);
    }
    ensure!(spread.values().sum::<usize>() == CONNECTIONS, "connections were lost");
    ensure!(spread.len() == 3 && spread.values().all(|n| *n >= FAIR), "not spread: {spread:?}");
    Ok(())
}

async fn fetch_many(client: &Guest, to: Ipv4Addr, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(client.fetch(to).await?);
    }
    Ok(names)
}

async fn names(story: &Story, demo: &Demo, vip: Ipv4Addr) -> Result<()> {
    let [a, b, c, d] = vip.octets();
    let reverse = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    let tasks = format!("tasks.{SERVICE}");
    let server = &demo.names[1];
    let address = server.ask(SERVICE, RecordType::A).await?;
    let all = server.ask(&tasks, RecordType::A).await?;
    let name = server.ask(&reverse, RecordType::PTR).await?;
    story.tell(format!("DNS on node2: {SERVICE} A → {}", address.join(", ")));
    story.tell(format!("  {tasks} A → {}", all.join(", ")));
    story.tell(format!("  {reverse} PTR → {}", name.join(", ")));
    ensure!(address == [vip.to_string()], "{SERVICE} is not at {vip}");
    ensure!(name.iter().any(|name| name.starts_with(SERVICE)), "{vip} is not {SERVICE}");
    Ok(())
}

async fn set_mode(demo: &Demo, mode: v1::EndpointMode) -> Result<()> {
    let service = demo.service(0, SERVICE).await?;
    let mut spec = service.spec.context("the answer has no specification")?;
    spec.set_mode(mode);
    let request = v1::UpdateServiceRequest {
        service: service.id,
        spec: Some(spec),
        changed_at: service.meta.map_or(0, |meta| meta.changed_at),
        ..Default::default()
    };
    ServicesClient::new(demo.nodes[0].channel().await?).update_service(request).await?;
    Ok(())
}
