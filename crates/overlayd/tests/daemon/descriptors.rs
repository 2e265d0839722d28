//! All file descriptors of a daemon are used up by connections that are held open.

#![expect(clippy::disallowed_methods, reason = "CPU time is held against real time")]

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use overlay_api::v1::{
    self, local_node_client::LocalNodeClient, networks_client::NetworksClient,
    nodes_client::NodesClient,
};

use crate::{
    Daemon, Way,
    calls::{channel_of, until},
};

/// Descriptors that the daemon may have; it takes some fifty for itself.
const LIMIT: usize = 128;
/// How long it is watched while it has none left.
const WATCHED: Duration = Duration::from_secs(3);
/// What it may use of that: a loop that spins takes all of it.
const MOST_CPU: Duration = Duration::from_secs(1);

/// CPU time that the daemon has taken (`proc_pid_stat(5)`).
fn cpu_time(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap()).collect();
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap().cast_unsigned();
    Duration::from_millis(ticks.iter().sum::<u64>() * 1000 / per_second)
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_daemon_without_descriptors_says_so_and_serves_again_when_it_has_some() {
    let limit = format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"");
    let through = ["sh", "-c", &limit].map(str::to_owned).to_vec();
    let address = Ipv4Addr::new(127, 51, 4, 1);
    let (folder, way) = (tempfile::tempdir().unwrap(), Way::through(through));
    let mut daemon = Daemon::start_in(folder, address, "info", way);
    let channel = until("its socket answers", || channel_of(&daemon)).await;
    let mut local = LocalNodeClient::new(channel.clone());
    let made = local.init_cluster(v1::InitClusterRequest::default()).await;
    let node = made.unwrap().into_inner().node;

    let mut networks = NetworksClient::new(channel.clone());
    let mut create = async |name: &str| {
        let spec = v1::NetworkSpec { name: name.to_owned(), ..Default::default() };
        let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
        networks.create_network(request).await
    };
    create("before").await.unwrap();
    until("what it needs of connections is there", async || {
        let mut local = LocalNodeClient::new(channel.clone());
        let status = local.get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
        (status.revision > 1).then_some(())
    })
    .await;

    let locals: Vec<_> =
        (0..LIMIT).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    daemon.until_logged("cannot accept connections for now");
    let remotes: Vec<_> = [2377, 7946]
        .into_iter()
        .flat_map(|port| (0..20).map(move |_| TcpStream::connect((address, port)).unwrap()))
        .collect();
    let said = [
        "cannot accept connections for now",
        "cannot accept control connections for now",
        "cannot accept gossip connections for now",
    ];
    for text in &said {
        daemon.until_logged(text);
    }
    // Who has a connection is served, though nothing new can be opened for it.
    let mut nodes = NodesClient::new(channel.clone());
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    create("meanwhile").await.unwrap();
    let request = v1::GetNodeRequest { node: node.clone(), consistency: None };
    let known = nodes.get_node(request).await.unwrap().into_inner().node.unwrap().node.unwrap();
    let request = v1::UpdateNodeRequest {
        node,
        role: known.role,
        labels: [("a".to_owned(), "b".to_owned())].into(),
        changed_at: known.meta.unwrap().changed_at,
        ..Default::default()
    };
    nodes.update_node(request).await.unwrap();
    daemon.until_logged("the view is not kept");

    let before = cpu_time(&daemon);
    tokio::time::sleep(WATCHED).await;
    let used = cpu_time(&daemon).saturating_sub(before);
    assert!(used < MOST_CPU, "{used:?} of CPU time in {WATCHED:?}");
    let log = daemon.log();
    for text in said {
        // A file that was being written when the last descriptor went gives one back, and somebody
        // takes it: that is told, and not each of some thirty attempts.
        assert!((1..=3).contains(&log.matches(text).count()), "{text}:\n{log}");
    }
    assert_eq!(daemon.child.try_wait().unwrap(), None, "{log}");

    drop((locals, remotes));
    daemon.until_logged("the view is kept again");
    let channel = until("its socket answers", || channel_of(&daemon)).await;
    let mut nodes = NodesClient::new(channel);
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    daemon.until_logged("connections are accepted again");
    drop(TcpStream::connect((address, 2377)).unwrap());
    daemon.until_logged("control connections are accepted again");
}

/// Shells allow 1024, which some hundred containers take.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_allows_itself_as_many_descriptors_as_it_may_have() {
    let limit = format!("ulimit -Sn {LIMIT} && ulimit -Hn {} && exec \"$0\" \"$@\"", 2 * LIMIT);
    let through = ["sh", "-c", &limit].map(str::to_owned).to_vec();
    let address = Ipv4Addr::new(127, 51, 4, 2);
    let (folder, way) = (tempfile::tempdir().unwrap(), Way::through(through));
    let daemon = Daemon::start_in(folder, address, "info", way);
    until("its socket answers", || channel_of(&daemon)).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let values: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(values, [2 * LIMIT; 2]);
}
