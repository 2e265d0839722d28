//! Committed writes per second of three managers on loopback, at 1, 16 and 256 clients, next to raw
//! fdatasync calls per second on the same disk.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    fs::File,
    io::Write,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use overlay_api::{client::connect_unix, v1};
use overlayd::{Config, Node, NodeHandle};
use tonic::transport::Channel;

/// Time measured for each number of clients.
const MEASURED: Duration = Duration::from_secs(5);

struct Manager {
    handle: NodeHandle,
    config: Config,
}

fn start(folder: &Path, place: u8) -> Result<Manager> {
    let address = IpAddr::from([127, 60, 0, place]);
    let config = Config {
        data_dir: folder.join(format!("data{place}")),
        socket: folder.join(format!("socket{place}")),
        name: Some(format!("node{place}")),
        advertise_addr: Some(address),
        ..Config::default()
    };
    let node = Node::builder(config.clone()).build()?;
    let handle = node.handle();
    tokio::spawn(async move { node.run(std::future::pending()).await });
    Ok(Manager { handle, config })
}

async fn socket(manager: &Manager) -> Result<Channel> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match connect_unix(&manager.config.socket).await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Networks are created and removed, as often as the time allows. Returns writes per second.
async fn writes(channel: &Channel, clients: usize) -> Result<f64> {
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let channel = channel.clone();
        tasks.push(tokio::spawn(async move {
            let mut networks = v1::networks_client::NetworksClient::new(channel);
            let mut done = 0_u32;
            while begun.elapsed() < MEASURED {
                let name = format!("n{client}-{done}-{}", rand::random::<u32>());
                let spec = v1::NetworkSpec { name: name.clone(), ..Default::default() };
                let create = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
                networks.create_network(create).await?;
                let remove = v1::RemoveNetworkRequest { network: name, ..Default::default() };
                networks.remove_network(remove).await?;
                done += 2;
            }
            Ok::<u32, tonic::Status>(done)
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// Overwrites one block and syncs it, as often as a second allows.
fn syncs(folder: &Path) -> Result<f64> {
    use std::os::unix::fs::FileExt;
    let mut file = File::create(folder.join("sync"))?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    let begun = Instant::now();
    let mut done = 0_u32;
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&done.to_ne_bytes().repeat(1024), 0)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<()> {
    // Benches run in the package's folder: the disk of the project, not a file system in memory.
    let folder = tempfile::tempdir_in("target").context("a folder in target/")?;
    println!("raw fdatasync\t{:.0}\t1/s\t", syncs(folder.path())?);
    let managers = (1..=3).map(|place| start(folder.path(), place)).collect::<Result<Vec<_>>>()?;
    for manager in &managers {
        socket(manager).await?;
    }
    let tokens = managers[0].handle.init(v1::InitClusterRequest::default()).await?;
    for manager in &managers[1..] {
        let token = tokens.manager_token.clone();
        let remotes = vec!["127.60.0.1".to_owned()];
        manager.handle.join(v1::JoinClusterRequest { token, remotes }).await?;
    }
    let channel = socket(&managers[0]).await?;
    for clients in [1, 16, 256] {
        let rate = writes(&channel, clients).await?;
        println!("writes committed on 3 managers, {clients} clients\t{rate:.0}\t1/s\t");
    }
    Ok(())
}
