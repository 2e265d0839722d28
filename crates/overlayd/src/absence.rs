//! Nodes whose daemons are not heard: whether their dataplane goes on.
//!
//! ```text
//!   suspected ──► its host is asked
//!   dead, left ──┬─ dataplane in user space ────────────────────► down
//!                └─ in the kernel ─┬─ its host answers ─────────► headless
//!                                  └─ it has not for 2 seconds ─► down, and asked on
//! ```
//!
//! Where a daemon was stopped, replaced or killed, the kernel goes on with what it was told, and refuses
//! connections to the port of gossip: connections of its tasks live. A host that is gone answers nothing:
//! connections end, so that clients hear of it.
//!
//! A host that answers may have lost its networks all the same: after `leave --force`, or a reboot that its
//! daemon did not survive. What was connected there hangs until the node is removed, or clients give up.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::{Arc, PoisonError},
    time::Instant,
};

use overlay_cluster::server::Verdicts;
use overlay_dataplane::desired::{Absence, Absences};
use overlay_gossip::{MemberState, io::Members};
use overlay_types::{DataplaneKind, NodeId, View};
use tokio::{net::TcpSocket, sync::watch, task::JoinSet};

use crate::{
    agent::Viewer,
    liveness,
    reconcile::{Reconciler, Shared},
};

/// How long a host has to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it says nothing until it is down. The suspected are asked, so that this is over with the suspicion.
const SILENCE: Duration = Duration::from_secs(2);
/// Until one that was silent is asked again, and one that has answered for the first time; it doubles.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Nodes hear of a suspicion at about the same time, and ask within this one.
const SPREAD: Duration = Duration::from_millis(500);
/// Hosts that are asked at a time.
const AT_ONCE: usize = 128;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A connection was taken, or refused.
    Given,
    Silence,
    /// This host could not ask.
    Unknown,
}

/// A node whose dataplane does not end with its daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Where its host answers.
    host: SocketAddr,
    /// Encrypted networks are in its kernel, too.
    encrypted: bool,
}

/// Nodes that are suspected, dead or have left.
#[derive(Debug)]
struct Absentees {
    /// When the suspected are asked.
    delay: Duration,
    nodes: BTreeMap<NodeId, Absentee>,
}

#[derive(Debug)]
struct Absentee {
    place: Option<Place>,
    /// Not only suspected.
    is_dead: bool,
    is_down: bool,
    /// When it was asked what it has not answered.
    silent_since: Option<Instant>,
    asking: Asking,
    /// Until the next question but one.
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Since(Instant),
    At(Instant),
}

impl Absentees {
    fn new(delay: Duration) -> Self {
        Self { delay, nodes: BTreeMap::new() }
    }

    /// Takes who is `dead` and who is `suspected` now.
    fn follow(
        &mut self,
        dead: &BTreeSet<NodeId>,
        suspected: &BTreeSet<NodeId>,
        place: impl Fn(NodeId) -> Option<Place>,
        now: Instant,
    ) {
        self.nodes.retain(|node, _| dead.contains(node) || suspected.contains(node));
        for node in dead.union(suspected) {
            let is_dead = dead.contains(node);
            let entry = self.nodes.entry(*node).or_insert_with(|| Absentee {
                place: None,
                is_dead,
                // Until it is found out, so that nothing ends that could live.
                is_down: false,
                silent_since: None,
                asking: Asking::At(if is_dead { now } else { now + self.delay }),
                pause: PAUSE,
            });
            (entry.place, entry.is_dead) = (place(*node), is_dead);
        }
    }

    /// Whom to ask now: those that wait for longest.
    fn due(&mut self, now: Instant) -> Vec<(NodeId, SocketAddr)> {
        let room = self.room();
        let waiting = self.nodes.iter_mut().filter_map(|(node, entry)| match entry.asking {
            Asking::At(at) if at <= now => Some((at, *node, entry.place?.host, entry)),
            _ => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(at, node, ..)| (*at, *node));
        let asked = waiting.into_iter().take(room).map(|(_, node, host, entry)| {
            entry.asking = Asking::Since(now);
            (node, host)
        });
        asked.collect()
    }

    fn answered(&mut self, node: NodeId, answer: Answer, now: Instant) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let Asking::Since(asked) = entry.asking else { return };
        match answer {
            Answer::Given => {
                (entry.is_down, entry.silent_since) = (false, None);
                entry.pause = (entry.pause * 2).min(LONGEST_PAUSE);
            }
            Answer::Silence => {
                let since = *entry.silent_since.get_or_insert(asked);
                let is_down = now.saturating_duration_since(since) >= SILENCE;
                entry.pause = if is_down { (entry.pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
                entry.is_down |= is_down;
            }
            Answer::Unknown => {}
        }
        entry.asking = Asking::At(now + entry.pause);
    }

    /// When somebody is to be asked, unless that is once others have answered.
    fn wake(&self) -> Option<Instant> {
        let asked = self.nodes.values().filter(|entry| entry.place.is_some());
        let due = asked.filter_map(|entry| match entry.asking {
            Asking::At(at) => Some(at),
            Asking::Since(_) => None,
        });
        due.min().filter(|_| self.room() > 0)
    }

    fn room(&self) -> usize {
        let asked = |entry: &&Absentee| matches!(entry.asking, Asking::Since(_));
        AT_ONCE - self.nodes.values().filter(asked).count()
    }

    fn absences(&self) -> Absences {
        let dead = self.nodes.iter().filter(|(_, entry)| entry.is_dead);
        let absence = |entry: &Absentee| match entry.place {
            Some(Place { encrypted, .. }) if !entry.is_down => Absence::Headless { encrypted },
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
    /// Address that hosts are asked from.
    pub(crate) from: IpAddr,
}

impl Absent {
    /// Keeps the dataplane knowing who is absent. Runs until the task is ended.
    #[expect(clippy::disallowed_methods, reason = "the shell that reads the clock")]
    pub(crate) async fn keep(mut self) {
        let mut absentees = Absentees::new(rand::random_range(Duration::ZERO..SPREAD));
        let mut asked = JoinSet::new();
        loop {
            let now = Instant::now();
            let dead = liveness::dead(&self.verdicts.borrow_and_update());
            let suspected = suspected(&self.members.borrow_and_update());
            self.viewer.read(|view| {
                absentees.follow(&dead, &suspected, |node| place(view, node), now);
            });
            for (node, host) in absentees.due(now) {
                let from = self.from;
                asked.spawn(async move { (node, ask(host, from).await) });
            }
            self.tell(absentees.absences());
            let wake = absentees.wake();
            let pause = wake.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
            tokio::select! {
                changed = self.verdicts.changed() => if changed.is_err() { return },
                changed = self.members.changed() => if changed.is_err() { return },
                Some(Ok((node, answer))) = asked.join_next() => {
                    absentees.answered(node, answer, Instant::now());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell(&self, absences: Absences) {
        let mut told = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == absences {
            return;
        }
        for (node, absence) in absences.iter().filter(|(node, now)| told.get(node) != Some(now)) {
            tracing::info!(%node, ?absence, "its daemon is not heard");
        }
        *told = absences;
        drop(told);
        self.reconciler.wake();
    }
}

fn place(view: &View, node: NodeId) -> Option<Place> {
    let node = view.nodes().get(&node)?;
    let is_kernel = node.capabilities.dataplane == DataplaneKind::Kernel;
    // Unspecified: another node has its address, and it has not said where it is.
    let host = Some(node.gossip).filter(|host| is_kernel && !host.ip().is_unspecified())?;
    // What a kernel lacks that carries plain networks, it lacks for encrypted ones.
    let encrypted = node.host.as_ref().is_some_and(|report| report.missing.is_empty());
    Some(Place { host, encrypted })
}

/// Those that may be dead: verdicts follow what gossip says a moment later, and what was found out of a
/// suspected node meanwhile is not forgotten.
fn suspected(members: &Members) -> BTreeSet<NodeId> {
    let suspected = members.iter().filter(|(_, state)| **state != MemberState::Alive);
    suspected.map(|(node, _)| *node).collect()
}

async fn ask(host: SocketAddr, from: IpAddr) -> Answer {
    let connect = async {
        let socket = if host.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if from.is_ipv4() == host.is_ipv4() {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(host).await
    };
    match tokio::time::timeout(PATIENCE, connect).await {
        Err(_) => Answer::Silence,
        Ok(Ok(_)) => Answer::Given,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Answer::Given,
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Answer::Silence
            }
            _ => {
                tracing::debug!(%host, %error, "whether a host is there cannot be asked");
                Answer::Unknown
            }
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId::from_u128(number.into())
    }

    const HEADLESS: Absence = Absence::Headless { encrypted: true };

    /// Nodes from 1000 on are in user space.
    fn place(node: NodeId) -> Option<Place> {
        let number = node.to_u128() as u16;
        let host = SocketAddr::from(([192, 0, 2, 1], number));
        (number < 1000).then_some(Place { host, encrypted: true })
    }

    fn nodes(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(node).collect()
    }

    /// A cluster whose hosts answer what `answer` says, asked for `time`.
    fn asked(
        absentees: &mut Absentees,
        start: Instant,
        time: Duration,
        answer: impl Fn(NodeId) -> Answer,
    ) -> Instant {
        let mut now = start;
        let mut under_way: Vec<(Instant, NodeId)> = Vec::new();
        while now < start + time {
            under_way.extend(absentees.due(now).iter().map(|(node, _)| (now + PATIENCE, *node)));
            let next = under_way.iter().map(|(at, _)| *at).chain(absentees.wake()).min();
            now = next.map_or(start + time, |next| next.max(now));
            for (_, node) in under_way.extract_if(.., |(at, _)| *at <= now) {
                absentees.answered(node, answer(node), now);
            }
        }
        now
    }

    #[test]
    fn d05_g04_a_node_is_down_when_its_host_has_been_silent() {
        let (mut absentees, start) = (Absentees::new(SPREAD), Instant::now());
        absentees.follow(&nodes([]), &nodes([1]), place, start);
        assert_eq!(absentees.absences(), Absences::new(), "it is suspected only");
        assert_eq!((absentees.due(start), absentees.wake()), (vec![], Some(start + SPREAD)));

        absentees.follow(&nodes([1, 1001]), &nodes([]), place, start);
        let absent = |first| Absences::from([(node(1), first), (node(1001), Absence::Down)]);
        assert_eq!(absentees.absences(), absent(HEADLESS));
        let now = asked(&mut absentees, start, SILENCE, |_| Answer::Silence);
        assert_eq!(absentees.absences(), absent(HEADLESS));
        let now = asked(&mut absentees, now, PATIENCE + PAUSE, |_| Answer::Silence);
        assert_eq!(absentees.absences(), absent(Absence::Down));
        let now = asked(&mut absentees, now, LONGEST_PAUSE, |_| Answer::Unknown);
        assert_eq!(absentees.absences(), absent(Absence::Down), "nothing was found out");
        let now = asked(&mut absentees, now, LONGEST_PAUSE, |_| Answer::Given);
        assert_eq!(absentees.absences(), absent(HEADLESS));

        absentees.follow(&nodes([1001]), &nodes([]), place, now);
        absentees.answered(node(1), Answer::Silence, now);
        assert_eq!(absentees.absences(), Absences::from([(node(1001), Absence::Down)]));
    }

    #[test]
    fn g04_what_was_found_out_of_a_suspected_node_holds_when_it_is_dead() {
        let (mut absentees, mut now) = (Absentees::new(SPREAD), Instant::now());
        for (state, dead) in
            [(MemberState::Suspect, None), (MemberState::Dead, None), (MemberState::Dead, Some(1))]
        {
            let members = Members::from([(node(1), state), (node(2), MemberState::Alive)]);
            absentees.follow(&nodes(dead), &suspected(&members), place, now);
            now = asked(&mut absentees, now, SILENCE + PATIENCE, |_| Answer::Silence);
        }
        assert_eq!(absentees.absences(), [(node(1), Absence::Down)].into());
        let after_all = absentees.nodes[&node(1)].silent_since.unwrap();
        assert!(now - after_all >= SILENCE * 3, "it was asked from the suspicion on");
    }

    #[test]
    fn a_question_that_is_lost_ends_nothing() {
        let (mut absentees, start) = (Absentees::new(SPREAD), Instant::now());
        absentees.follow(&nodes([1]), &nodes([]), place, start);
        let mut now = start;
        for _ in 0..10 {
            now = asked(&mut absentees, now, SILENCE / 2, |_| Answer::Silence);
            now = asked(&mut absentees, now, LONGEST_PAUSE, |_| Answer::Given);
            assert_eq!(absentees.absences(), [(node(1), HEADLESS)].into());
        }
    }

    /// More than can be asked at a time.
    #[test]
    fn all_of_a_large_cluster_are_found_out() {
        let (mut absentees, start) = (Absentees::new(SPREAD), Instant::now());
        absentees.follow(&nodes(0..900), &nodes([]), place, start);
        assert_eq!(absentees.due(start).len(), AT_ONCE);
        assert_eq!((absentees.due(start), absentees.wake()), (vec![], None));
        for number in 0..AT_ONCE as u16 {
            absentees.answered(node(number), Answer::Silence, start);
        }
        let odd = |node: NodeId| node.to_u128() % 2 == 1;
        let answer = |node| if odd(node) { Answer::Given } else { Answer::Silence };
        asked(&mut absentees, start, SILENCE * 10, answer);
        for (node, absence) in absentees.absences() {
            assert_eq!(absence == HEADLESS, odd(node), "{node}");
        }
    }

    #[tokio::test]
    async fn a_host_that_refuses_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (host, from) = (listener.local_addr().unwrap(), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(ask(host, from).await, Answer::Given);
        drop(listener);
        assert_eq!(ask(host, from).await, Answer::Given);
        let of_nobody = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(ask(host, of_nobody).await, Answer::Unknown);
    }
}
