//! The shell on real sockets of the loopback network. Each test has addresses of its own.

#![expect(clippy::disallowed_methods, reason = "tests of the shell read the clock")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use overlay_crypto::{
    aead::AeadKey,
    keyring::{RingKey, RingKeys},
};
use overlay_gossip::{
    Counters, DropReason, GossipConfig, GossipError, Identity, MemberState,
    config::{MAX_DATAGRAM, MAX_STREAM_MESSAGE},
    io::{GossipHandle, GossipSettings},
};
use overlay_types::{Epoch, Incarnation, NodeId};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(20);

fn node_id(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

fn start(address: SocketAddr, number: u8) -> Result<GossipHandle, GossipError> {
    let key = RingKey { epoch: Epoch::new(1), key: AeadKey::from_bytes([7; 32]) };
    GossipHandle::start(GossipSettings {
        listen: address,
        identity: Identity::new(node_id(number), Incarnation::new(1), address),
        keys: RingKeys { next: None, current: key, previous: None },
        config: GossipConfig::default(),
        seed: number.into(),
    })
}

async fn wait_for(handle: &GossipHandle, expected: &[(u8, MemberState)]) {
    let expected = expected.iter().map(|(n, state)| (node_id(*n), *state)).collect();
    let mut members = handle.members();
    let reached = timeout(LIMIT, members.wait_for(|known| *known == expected)).await;
    reached.expect("in time").expect("running");
}

/// Asks for the counters until the condition holds.
async fn wait_for_counters(handle: &GossipHandle, what: impl Fn(&Counters) -> bool) -> Counters {
    let deadline = Instant::now() + LIMIT;
    loop {
        let counters = handle.counters().await.expect("running");
        if what(&counters) {
            return counters;
        }
        assert!(Instant::now() < deadline, "{counters:?}");
        tokio::task::yield_now().await;
    }
}

use MemberState::{Alive, Dead, Left, Suspect};

#[rstest]
#[case(["127.0.71.1:7946", "127.0.71.2:7946", "127.0.71.3:7946"])]
#[case(["[::1]:17946", "[::1]:17947", "[::1]:17948"])]
#[tokio::test]
async fn g01_three_nodes_form_one_leaves_one_dies(#[case] addresses: [&str; 3]) {
    let addresses = addresses.map(|text| text.parse().unwrap());
    let nodes = [1, 2, 3].map(|n| start(addresses[usize::from(n) - 1], n).unwrap());
    for node in &nodes[1..] {
        node.announce(vec![addresses[0]]).await.unwrap();
    }
    for node in &nodes {
        wait_for(node, &[(1, Alive), (2, Alive), (3, Alive)]).await;
    }
    let [one, two, three] = nodes;
    two.leave().await.unwrap();
    wait_for(&one, &[(1, Alive), (2, Left), (3, Alive)]).await;
    wait_for(&three, &[(1, Alive), (2, Left), (3, Alive)]).await;
    drop(three);
    wait_for(&one, &[(1, Alive), (2, Left), (3, Suspect)]).await;
    wait_for(&one, &[(1, Alive), (2, Left), (3, Dead)]).await;
}

#[tokio::test]
async fn g01_bad_input_on_both_listeners_is_counted_and_survived() {
    let address: SocketAddr = "127.0.72.1:7946".parse().unwrap();
    let node = start(address, 1).unwrap();

    let udp = UdpSocket::bind("127.0.72.9:0").await.unwrap();
    for garbage in [vec![], vec![0; 40], vec![1; 100], vec![0xFF; 200], vec![0; MAX_DATAGRAM + 1]] {
        udp.send_to(&garbage, address).await.unwrap();
    }
    let mut sealed_elsewhere = vec![1];
    sealed_elsewhere.extend_from_slice(&1_u64.to_be_bytes());
    sealed_elsewhere.extend_from_slice(&[9; 100]);
    udp.send_to(&sealed_elsewhere, address).await.unwrap();

    // Garbage, a length beyond the limit, an end before the length, and nothing at all.
    for bytes in [
        [&10_u32.to_be_bytes()[..], &[5; 10]].concat(),
        (MAX_STREAM_MESSAGE as u32 + 1).to_be_bytes().to_vec(),
        [&500_u32.to_be_bytes()[..], &[5; 10]].concat(),
        vec![],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // Wait until it has been dealt with, so that the limit per host is not what answers.
        let _ = stream.read(&mut [0]).await;
    }
    let counters = wait_for_counters(&node, |c| c.total_dropped() >= 10).await;
    let expected = [
        (DropReason::Oversized, 2),
        (DropReason::Truncated, 3),
        (DropReason::UnknownVersion, 1),
        (DropReason::UnknownEpoch, 1),
        (DropReason::Unauthentic, 1),
        (DropReason::StreamBroken, 2),
    ];
    assert_eq!(counters.drops().collect::<Vec<_>>(), expected);
    assert_eq!((counters.datagrams_in, counters.streams_in), (0, 0));
    wait_for(&node, &[(1, Alive)]).await;
}

#[tokio::test]
async fn g01_half_open_connections_are_bounded_and_end() {
    let addresses = ["127.0.73.1:7946", "127.0.73.2:7946"].map(|a| a.parse().unwrap());
    let node = start(addresses[0], 1).unwrap();
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(addresses[0]).await.unwrap());
    }
    wait_for_counters(&node, |c| c.dropped(DropReason::TooManyStreams) == 16).await;
    // Meanwhile others are served.
    let other = start(addresses[1], 2).unwrap();
    other.announce(vec![addresses[0]]).await.unwrap();
    wait_for(&node, &[(1, Alive), (2, Alive)]).await;
    // And nobody may stay.
    for mut stream in idle {
        let end = timeout(LIMIT, stream.read(&mut [0])).await.expect("closed in time");
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    wait_for_counters(&node, |c| c.dropped(DropReason::StreamBroken) == 4).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let address: SocketAddr = "127.0.74.1:7946".parse().unwrap();
    let _first = start(address, 1).unwrap();
    let error = start(address, 2).unwrap_err().to_string();
    assert!(error.contains("udp 127.0.74.1:7946"), "{error}");
    let unusable = start("0.0.0.0:7946".parse().unwrap(), 3).unwrap_err();
    assert!(matches!(unusable, GossipError::UnusableAddress(_)), "{unusable}");
}
