//! Managers are killed at random moments while clients write: nothing that was acknowledged is lost,
//! and no state file is refused.
//!
//! `OVERLAY_KILL_ROUNDS` says how often; `OVERLAY_KILL_SEED` draws the moments.

#![expect(clippy::disallowed_methods, reason = "the moments of the kills pass in real time")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use overlay_api::v1::{self, networks_client::NetworksClient, nodes_client::NodesClient};
use overlay_types::RequestId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tonic::{Code, Status, transport::Channel};

use crate::{
    Daemon,
    calls::{channel, channel_of, cluster, until},
};

/// Answers of a daemon that died or finds no leader, and of tonic when its connection broke.
const RETRIED: [Code; 4] = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];

const ROUNDS: u64 = 12;
const WRITERS: u64 = 4;
/// Networks of one writer that exist at a time.
const KEPT: u64 = 20;

/// What writers know of a network that they made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Its creation was acknowledged, and nothing was done to it since.
    There,
    /// Its removal was acknowledged.
    Gone,
    /// No answer came for the last call.
    Unknown,
}

type Fates = Arc<Mutex<BTreeMap<String, Fate>>>;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Makes and removes networks through any manager, repeating a write with its id until it is
/// answered.
async fn write(writer: u64, sockets: Vec<PathBuf>, fates: Fates, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(writer);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = |number: u64| format!("w{writer}-{number}");
        let set = |name: String, fate| {
            fates.lock().unwrap().insert(name, fate);
        };
        set(name(number), Fate::Unknown);
        let create = Write::Create(v1::CreateNetworkRequest {
            spec: Some(v1::NetworkSpec { name: name(number), ..Default::default() }),
            request_id: RequestId::from_u128(random.random()).to_string(),
            host_routes: Vec::new(),
        });
        if create.repeat(&sockets, &mut random, &stop).await {
            set(name(number), Fate::There);
        }
        let Some(old) = number.checked_sub(KEPT) else { continue };
        set(name(old), Fate::Unknown);
        let remove = Write::Remove(v1::RemoveNetworkRequest {
            network: name(old),
            request_id: RequestId::from_u128(random.random()).to_string(),
        });
        if remove.repeat(&sockets, &mut random, &stop).await {
            set(name(old), Fate::Gone);
        }
    }
}

enum Write {
    Create(v1::CreateNetworkRequest),
    Remove(v1::RemoveNetworkRequest),
}

impl Write {
    async fn call(&self, channel: Channel) -> Result<(), Status> {
        let mut client = NetworksClient::new(channel);
        match self {
            Self::Create(request) => client.create_network(request.clone()).await.map(drop),
            Self::Remove(request) => client.remove_network(request.clone()).await.map(drop),
        }
    }

    /// Says whether the write was acknowledged before the end.
    async fn repeat(&self, sockets: &[PathBuf], random: &mut StdRng, stop: &AtomicBool) -> bool {
        while !stop.load(Ordering::Relaxed) {
            let socket = &sockets[random.random_range(0..sockets.len())];
            let Some(channel) = channel(socket).await else {
                tokio::task::yield_now().await;
                continue;
            };
            match self.call(channel).await {
                Ok(()) => return true,
                // The daemon that was asked died, or finds no leader.
                Err(status) if RETRIED.contains(&status.code()) => {}
                Err(status) => panic!("{status}"),
            }
        }
        false
    }
}

/// Names of the networks, as this manager and a quorum say.
async fn names(daemon: &Daemon) -> BTreeSet<String> {
    let list = async || {
        let mut client = NetworksClient::new(channel_of(daemon).await?);
        let answer = client.list_networks(v1::ListNetworksRequest::default()).await.ok()?;
        let networks = answer.into_inner().networks.into_iter();
        Some(networks.filter_map(|network| Some(network.spec?.name)).collect())
    };
    until("a list of networks", list).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_no_acknowledged_write_is_lost_when_managers_are_killed() {
    let (rounds, seed) = (setting("OVERLAY_KILL_ROUNDS", ROUNDS), setting("OVERLAY_KILL_SEED", 1));
    let mut random = StdRng::seed_from_u64(seed);
    let mut managers: Vec<Daemon> =
        (1..=3).map(|host| Daemon::start(Ipv4Addr::new(127, 51, 9, host), "warn")).collect();
    cluster(&managers).await;
    let sockets: Vec<PathBuf> = managers.iter().map(Daemon::socket).collect();
    let (fates, stop) = (Fates::default(), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, sockets.clone(), fates.clone(), stop.clone())))
        .collect();

    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        // One manager, two, or all of them.
        let victims = match random.random_range(0..10) {
            0 => vec![0, 1, 2],
            1 | 2 => vec![round as usize % 3, (round as usize + 1) % 3],
            _ => vec![random.random_range(0..3)],
        };
        for victim in &victims {
            managers[*victim].kill();
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        for victim in &victims {
            managers[*victim].restart();
        }
        for daemon in &managers {
            until("the manager is back and a leader is there", async || {
                let mut client = NodesClient::new(channel_of(daemon).await?);
                let answer = client.list_nodes(v1::ListNodesRequest::default()).await.ok()?;
                (answer.into_inner().nodes.len() == 3).then_some(())
            })
            .await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }

    let fates = fates.lock().unwrap().clone();
    let acknowledged = fates.values().filter(|fate| **fate != Fate::Unknown).count();
    assert!(acknowledged as u64 > rounds, "{acknowledged} writes in {rounds} rounds");
    for daemon in &managers {
        let names = names(daemon).await;
        for (name, fate) in &fates {
            match fate {
                Fate::There => assert!(names.contains(name), "{name} is lost (seed {seed})"),
                Fate::Gone => assert!(!names.contains(name), "{name} is back (seed {seed})"),
                Fate::Unknown => {}
            }
        }
        assert!(!daemon.log().contains("damaged"), "{}", daemon.log());
    }
}
