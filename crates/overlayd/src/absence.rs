//! Nodes whose daemons are not heard: whether their dataplane goes on.
//!
//! ```text
//!   suspected ──► its host is asked
//!   dead, left ──┬─ dataplane in user space ───────────────► down
//!                └─ in the kernel ─┬─ its host answers ────► headless   asked again
//!                                  └─ it does not ─────────► down       every 5 s
//! ```
//!
//! Where a daemon was stopped, replaced or killed, the kernel goes on with what it was told, and refuses
//! connections to the port of gossip: connections of its tasks live. A host that is gone answers nothing:
//! connections end, so that clients hear of it.

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, PoisonError},
    time::Instant,
};

use overlay_cluster::server::Verdicts;
use overlay_dataplane::desired::{Absence, Absences};
use overlay_gossip::{MemberState, io::Members};
use overlay_types::{DataplaneKind, NodeId, View};
use tokio::{net::TcpStream, sync::watch, task::JoinSet};

use crate::{
    agent::Viewer,
    liveness,
    reconcile::{Reconciler, Shared},
};

/// How long a host has to answer, each time.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is asked before it is down: the network may lose one question.
const ATTEMPTS: usize = 2;
/// Between an answer and the next question.
const INTERVAL: Duration = Duration::from_secs(5);
/// Hosts that are asked at a time.
const AT_ONCE: usize = 32;

/// Where a node's host answers: nowhere if its daemon was its dataplane.
fn host(view: &View, node: NodeId) -> Option<SocketAddr> {
    let node = view.nodes().get(&node)?;
    (node.capabilities.dataplane == DataplaneKind::Kernel).then_some(node.gossip)
}

/// Nodes that are suspected, dead or have left.
#[derive(Debug, Default)]
struct Absentees(BTreeMap<NodeId, Absentee>);

#[derive(Debug)]
struct Absentee {
    host: Option<SocketAddr>,
    /// Not only suspected.
    is_dead: bool,
    /// What was found out last.
    answers: bool,
    /// `None` while it is asked.
    ask_at: Option<Instant>,
}

impl Absentees {
    /// Takes who is `dead` and who is `suspected` now.
    fn follow(
        &mut self,
        dead: &BTreeSet<NodeId>,
        suspected: &BTreeSet<NodeId>,
        host: impl Fn(NodeId) -> Option<SocketAddr>,
        now: Instant,
    ) {
        self.0.retain(|node, _| dead.contains(node) || suspected.contains(node));
        for node in dead.union(suspected) {
            // Until it is found out, so that nothing ends that could live.
            let new = Absentee { host: None, is_dead: false, answers: true, ask_at: Some(now) };
            let entry = self.0.entry(*node).or_insert(new);
            entry.host = host(*node);
            entry.is_dead = dead.contains(node);
        }
    }

    /// Whom to ask now.
    fn due(&mut self, now: Instant) -> Vec<(NodeId, SocketAddr)> {
        let room = self.room();
        let due = self.0.iter_mut().filter(|(_, entry)| entry.ask_at.is_some_and(|at| at <= now));
        let due = due.filter_map(|(node, entry)| {
            let host = entry.host?;
            Some((*node, host, entry))
        });
        let due = due.take(room).map(|(node, host, entry)| {
            entry.ask_at = None;
            (node, host)
        });
        due.collect()
    }

    fn answered(&mut self, node: NodeId, answers: bool, now: Instant) {
        if let Some(entry) = self.0.get_mut(&node) {
            entry.answers = answers;
            entry.ask_at = Some(now + INTERVAL);
        }
    }

    /// When somebody is to be asked, unless that is once others have answered.
    fn wake(&self) -> Option<Instant> {
        let asked = self.0.values().filter(|entry| entry.host.is_some());
        asked.filter_map(|entry| entry.ask_at).min().filter(|_| self.room() > 0)
    }

    fn room(&self) -> usize {
        AT_ONCE - self.0.values().filter(|entry| entry.ask_at.is_none()).count()
    }

    fn absences(&self) -> Absences {
        let dead = self.0.iter().filter(|(_, entry)| entry.is_dead);
        let absence = |entry: &Absentee| match entry.host {
            Some(_) if entry.answers => Absence::Headless,
            _ => Absence::Down,
        };
        dead.map(|(node, entry)| (*node, absence(entry))).collect()
    }
}

/// What follows from absence, and where it is told.
pub(crate) struct Absent {
    pub(crate) members: watch::Receiver<Members>,
    pub(crate) verdicts: watch::Receiver<Verdicts>,
    pub(crate) viewer: Viewer,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reconciler: Arc<Reconciler>,
}

impl Absent {
    /// Keeps the dataplane knowing who is absent. Runs until the task is ended.
    #[expect(clippy::disallowed_methods, reason = "the shell that reads the clock")]
    pub(crate) async fn keep(mut self) {
        let mut absentees = Absentees::default();
        let mut asked = JoinSet::new();
        loop {
            let now = Instant::now();
            let dead = liveness::dead(&self.verdicts.borrow_and_update());
            let suspected = suspected(&self.members.borrow_and_update());
            self.viewer.read(|view| {
                absentees.follow(&dead, &suspected, |node| host(view, node), now);
            });
            for (node, host) in absentees.due(now) {
                asked.spawn(async move { (node, answers(host).await) });
            }
            self.tell(absentees.absences());
            let pause =
                absentees.wake().map_or(Duration::MAX, |at| at.saturating_duration_since(now));
            tokio::select! {
                changed = self.verdicts.changed() => if changed.is_err() { return },
                changed = self.members.changed() => if changed.is_err() { return },
                Some(Ok((node, answers))) = asked.join_next() => {
                    absentees.answered(node, answers, Instant::now());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell(&self, absences: Absences) {
        let mut told = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != absences {
            tracing::info!(?absences, "nodes whose daemons are not heard");
            *told = absences;
            drop(told);
            self.reconciler.wake();
        }
    }
}

fn suspected(members: &Members) -> BTreeSet<NodeId> {
    let suspected = members.iter().filter(|(_, state)| **state == MemberState::Suspect);
    suspected.map(|(node, _)| *node).collect()
}

/// Whether there is a host that takes or refuses a connection.
async fn answers(host: SocketAddr) -> bool {
    for _ in 0..ATTEMPTS {
        match tokio::time::timeout(PATIENCE, TcpStream::connect(host)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId::from_u128(number.into())
    }

    /// Nodes from 1000 on are in user space.
    fn place(node: NodeId) -> Option<SocketAddr> {
        let number = node.to_u128() as u16;
        (number < 1000).then_some(SocketAddr::from(([192, 0, 2, 1], number)))
    }

    fn nodes(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(node).collect()
    }

    #[test]
    fn d05_g04_a_node_is_down_when_its_host_does_not_answer() {
        let (mut absentees, start) = (Absentees::default(), Instant::now());
        absentees.follow(&nodes([]), &nodes([1]), place, start);
        assert_eq!(absentees.absences(), Absences::new(), "it is suspected only");
        assert_eq!(absentees.due(start), [(node(1), place(node(1)).unwrap())]);
        assert_eq!((absentees.due(start), absentees.wake()), (vec![], None), "it is being asked");

        absentees.follow(&nodes([1, 1001]), &nodes([]), place, start);
        let absent = |first| Absences::from([(node(1), first), (node(1001), Absence::Down)]);
        assert_eq!(absentees.absences(), absent(Absence::Headless));
        absentees.answered(node(1), false, start);
        assert_eq!(absentees.absences(), absent(Absence::Down));
        let again = start + INTERVAL;
        assert_eq!((absentees.due(start), absentees.wake()), (vec![], Some(again)));
        assert_eq!(absentees.due(again).len(), 1, "the one in user space has no host to ask");
        absentees.answered(node(1), true, again);
        assert_eq!(absentees.absences(), absent(Absence::Headless));

        absentees.follow(&nodes([1001]), &nodes([]), place, again);
        absentees.answered(node(1), false, again);
        assert_eq!(absentees.absences(), Absences::from([(node(1001), Absence::Down)]));
    }

    #[test]
    fn a_cluster_that_is_away_is_asked_in_portions() {
        let (mut absentees, start) = (Absentees::default(), Instant::now());
        absentees.follow(&nodes(0..100), &nodes([]), place, start);
        assert_eq!(absentees.due(start).len(), AT_ONCE);
        assert_eq!((absentees.due(start), absentees.wake()), (vec![], None));
        absentees.answered(node(0), true, start);
        assert_eq!(absentees.wake(), Some(start));
        assert_eq!(absentees.due(start).len(), 1);
    }

    #[tokio::test]
    async fn a_host_that_refuses_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(answers(address).await);
        drop(listener);
        assert!(answers(address).await);
    }
}
