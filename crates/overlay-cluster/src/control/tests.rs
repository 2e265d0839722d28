use core::time::Duration;

use overlay_api::{
    status::reason,
    v1::{self, watcher_server::Watcher},
};
use overlay_testkit::objects::{cluster, node};
use overlay_types::{ClusterId, Node, RequestId, Role};
use rstest::rstest;
use tempfile::TempDir;
use tonic::{Code, Request};
use tonic_health::ServingStatus;

use super::{membership::member, *};
use crate::{
    ca::{NodeCredentials, PendingJoin, RootCa, Subject, join::SigningRequest},
    raft::store::faults::{Fault, FaultyDisk},
    server::{Api, health},
    state::{Action, Response, tests::init},
};

/// Longer than anything here takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A manager on its own, on a disk that can fail.
struct Alone {
    control: Control,
    disk: FaultyDisk,
    path: PathBuf,
    _folder: TempDir,
}

fn credentials(cluster: ClusterId, node: NodeId) -> NodeCredentials {
    let ca = RootCa::generate(cluster, now()).unwrap();
    let pending = PendingJoin::new().unwrap();
    let request = SigningRequest::from_der(pending.request()).unwrap();
    let certificate = ca.sign(&request, Subject::at_first(node, Role::Manager), now()).unwrap();
    pending.complete(&certificate, ca.certificate().clone().into(), now()).unwrap()
}

fn config(path: &std::path::Path, node: &Node) -> ControlConfig {
    let credentials = credentials(cluster().id, node.id);
    ControlConfig {
        node: node.id,
        tls: Arc::new(NodeTls::new(&credentials).unwrap()),
        store: path.to_owned(),
        key: DataKey::from_bytes([5; 32]),
        create: true,
        advertise: [127, 0, 0, 1].into(),
        rotation: RotationPolicy::default(),
        snapshot_after: 100,
    }
}

impl Alone {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (FaultyDisk::default(), folder.path().join("state"));
        let config = config(&path, &node(1));
        let (file, on) = (path.clone(), disk.clone());
        let owner = Owner { cluster: cluster().id, node: node(1).id, key: config.key.clone() };
        let open = move |replica| on.open(&file, &owner, replica);
        let control = Control::start_on(Box::new(open), World::of(&config), config).await.unwrap();
        control.form(member(&node(1))).await.unwrap();
        let made = Self { control, disk, path, _folder: folder };
        made.write(Action::InitCluster(Box::new(init(cluster())))).await.unwrap();
        made
    }

    async fn write(&self, action: Action) -> Result<Response, Status> {
        self.control.write(RequestId::from_u128(rand::random()), action).await
    }

    fn knows(&self, number: u128) -> bool {
        let id = node(number).id;
        self.control.replica().read(|state| state.view().nodes().contains_key(&id))
    }
}

#[rstest]
#[case::full(Fault::Full, "no storage space")]
#[case::failed_sync(Fault::FailedSync, "the device did not answer")]
#[case::short_write(Fault::ShortWrite, "half of it was written")]
#[tokio::test(flavor = "multi_thread")]
async fn r07_a_manager_says_what_is_wrong_with_its_disk_and_comes_back(
    #[case] fault: Fault,
    #[case] reason: &str,
) {
    let alone = Alone::start().await;
    alone.write(Action::JoinNode(node(2))).await.unwrap();
    assert_eq!(alone.control.failure(), None);
    assert_eq!(health::of_manager(&alone.control).await, ServingStatus::Serving);

    alone.disk.set(fault);
    // More than one: the manager has tried to open its file again in between.
    for number in [3, 4, 5] {
        let refused = alone.write(Action::JoinNode(node(number))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let failure = alone.control.failure().unwrap();
        for text in [refused.message(), &failure] {
            assert!(text.contains(reason), "{text}");
            assert!(text.contains(&alone.path.display().to_string()), "{text}");
        }
        assert_eq!(health::of_manager(&alone.control).await, ServingStatus::NotServing);
        assert!(alone.control.linearize().await.is_err());
        assert!(alone.knows(2) && !alone.knows(number));
    }

    alone.disk.set(Fault::None);
    let back = async {
        while alone.write(Action::JoinNode(node(6))).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, back).await.expect("the manager takes part again");
    assert_eq!(alone.control.failure(), None);
    alone.control.linearize().await.unwrap();
    assert_eq!(health::of_manager(&alone.control).await, ServingStatus::Serving);
    assert!(alone.knows(2) && alone.knows(6));
    alone.control.stop().await;
}

#[tokio::test]
async fn o03_a_manager_that_knows_no_leader_is_not_serving() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("state"), &node(1));
    let control = Control::start(config).await.unwrap();
    assert_eq!(health::of_manager(&control).await, ServingStatus::NotServing);
    control.stop().await;
}

#[tokio::test]
async fn o03_a_manager_whose_disk_stands_still_is_out_of_touch() {
    let alone = Alone::start().await;
    let looking = alone.control.clone();
    let looks =
        tokio::spawn(async move { looking.lead(watch::Sender::default().subscribe()).await });
    alone.disk.set(Fault::SlowSync);
    // Its core waits until this is on the disk.
    let raft = alone.control.raft();
    let mut grows = core::pin::pin!(raft.add_learner(node(2).id, member(&node(2)), false));
    assert!(futures::poll!(&mut grows).is_pending());
    tokio::time::pause();
    let mut touch = alone.control.touch();
    let out = touch.wait_for(|touch| *touch == Touch::Out);
    tokio::time::timeout(DEADLINE, out).await.expect("it notices").unwrap();
    let status = alone.control.linearize().await.unwrap_err();
    assert_eq!(reason(&status), Some(Reason::ManagerOut), "{status}");
    assert!(status.message().contains("disk"), "{status}");
    assert_eq!(health::of_manager(&alone.control).await, ServingStatus::NotServing);
    tokio::time::resume();

    alone.disk.set(Fault::None);
    grows.await.unwrap();
    let back = touch.wait_for(|touch| *touch == Touch::In);
    tokio::time::timeout(DEADLINE, back).await.expect("it is back").unwrap();
    looks.abort();
    alone.control.stop().await;
}

/// As of one that is demoted right after its start: whoever watches it would hear nothing any more.
#[tokio::test]
async fn o03_a_watch_of_a_manager_that_has_not_found_a_leader_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("state"), &node(1));
    let control = Control::start(config).await.unwrap();
    let api = Api::new(control.clone(), watch::Sender::default().subscribe());
    let mut watching = api.watch(Request::new(v1::WatchRequest::default()));
    assert!(futures::poll!(&mut watching).is_pending());
    control.stop().await;
    let ended = tokio::time::timeout(DEADLINE, watching).await.expect("it ends");
    assert_eq!(reason(&ended.unwrap_err()), Some(Reason::ManagerOut));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_stops_is_not_started_again() {
    let alone = Alone::start().await;
    alone.control.stop().await;
    let refused = alone.write(Action::JoinNode(node(2))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(alone.control.failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_reads_that_wait_together_see_what_was_written_before() {
    let alone = Alone::start().await;
    for number in 2..20 {
        alone.write(Action::JoinNode(node(number))).await.unwrap();
        let reads = (0..8).map(|_| alone.control.linearize());
        for read in futures::future::join_all(reads).await {
            read.unwrap();
        }
        assert!(alone.knows(number));
    }
}

#[tokio::test]
async fn r06_a_leader_without_a_quorum_answers_all_and_its_log_stays_short() {
    let alone = Alone::start().await;
    let raft = alone.control.raft();
    // Nobody answers there.
    let other = Member { control: Some(([127, 0, 0, 1], 1).into()), ..member(&node(2)) };
    raft.add_learner(node(2).id, other, false).await.unwrap();
    let voters = BTreeSet::from([node(1).id, node(2).id]);
    let grown = tokio::spawn(async move { raft.change_membership(voters, true).await });
    let voters = |metrics: &openraft::RaftMetrics<NodeId, Member>| {
        metrics.membership_config.voter_ids().count() == 2
    };
    let grows = alone.control.raft().wait(Some(DEADLINE));
    grows.metrics(voters, "there is no quorum").await.unwrap();

    let before = alone.control.figures().last_index;
    tokio::time::pause();
    // Each round waits for as long as a write does.
    for round in 0..4 {
        let writes = (0..100).map(|_| alone.write(Action::JoinNode(node(3 + round))));
        for answer in futures::future::join_all(writes).await {
            let status = answer.unwrap_err();
            assert_eq!(reason(&status), Some(Reason::NoLeader), "{status}");
        }
    }
    tokio::time::resume();
    let entries = alone.control.figures().last_index - before;
    assert!((1..=4).contains(&entries), "{entries}");
    grown.abort();
    alone.control.stop().await;
}
