//! Three members on loopback sockets: they meet, one leaves, one dies and comes back.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]
#![expect(clippy::disallowed_methods, reason = "it measures, and incarnations come from the clock")]

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use overlay_crypto::{
    aead::AeadKey,
    keyring::{RingKey, RingKeys},
};
use overlay_gossip::{
    GossipConfig, Identity, MemberState,
    io::{GossipHandle, GossipSettings, PORT, incarnation},
};
use overlay_types::{Epoch, NodeId};
use tokio::time::timeout;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], PORT))
}

fn id(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

fn start(number: u8, folder: &Path) -> Result<GossipHandle> {
    // Managers draw this key and replicate it.
    let key = RingKey { epoch: Epoch::new(1), key: AeadKey::from_bytes([42; 32]) };
    let file = folder.join(format!("incarnation-{number}"));
    let incarnation = incarnation::reserve(&file, SystemTime::now())?;
    Ok(GossipHandle::start(GossipSettings {
        listen: address(number),
        identity: Identity::new(id(number), incarnation, address(number)),
        keys: RingKeys { next: None, current: key, previous: None },
        config: GossipConfig::default(),
        seed: number.into(),
    })?)
}

async fn wait(at: &GossipHandle, number: u8, state: MemberState) -> Result<()> {
    let begin = Instant::now();
    let mut members = at.members();
    let seen = members.wait_for(|known| known.get(&id(number)) == Some(&state));
    timeout(Duration::from_secs(15), seen).await.context("took longer than 15 s")??;
    println!("  node {number} is {state:?}, known after {:.1?}", begin.elapsed());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("three nodes start; two and three know the address of one");
    let one = start(1, folder.path())?;
    let two = start(2, folder.path())?;
    let three = start(3, folder.path())?;
    two.announce(vec![address(1)]).await?;
    three.announce(vec![address(1)]).await?;
    wait(&one, 2, MemberState::Alive).await?;
    wait(&two, 3, MemberState::Alive).await?;
    println!("node 2 leaves");
    two.leave().await?;
    wait(&one, 2, MemberState::Left).await?;
    println!("node 3 dies without a word");
    drop(three);
    wait(&one, 3, MemberState::Dead).await?;
    println!("node 3 starts again, without seeds: node 1 still greets it");
    let _three = start(3, folder.path())?;
    wait(&one, 3, MemberState::Alive).await?;
    println!("node 1 counted {:?}", one.counters().await?);
    Ok(())
}
