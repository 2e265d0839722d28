//! The applied state of a manager, and who reads and watches it.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use overlay_types::{Change, Object, ObjectKey, Revision};
use tokio::sync::{broadcast, watch};

use super::types::{LogId, Outcome, StoredMembership};
use crate::{
    state::{Command, State},
    watch::{Event, Feed, Interest, Window},
};

/// Events that a subscriber may lag behind before it gets a snapshot instead. One event is about
/// 300 bytes, shared by all subscribers.
const EVENT_QUEUE: usize = 4096;

/// After a panic inside `apply` the state may be half of one: nobody may read it.
const HALF_APPLIED: &str = "a command was applied without a panic";

/// The state as far as it is applied on this manager.
///
/// Readers take the lock for as long as they look; the raft core alone writes.
#[derive(Debug)]
pub struct Replica {
    applied: RwLock<Applied>,
    window: Mutex<Window>,
    events: broadcast::Sender<Event>,
    departures: watch::Sender<()>,
    progress: watch::Sender<Option<LogId>>,
}

/// The state and the log entry that it was left by.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    pub(super) state: State,
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl Replica {
    pub(super) fn new(applied: Applied) -> Self {
        Self {
            window: Mutex::new(Window::new(applied.state.view().revision())),
            progress: watch::Sender::new(applied.last),
            applied: RwLock::new(applied),
            events: broadcast::Sender::new(EVENT_QUEUE),
            departures: watch::Sender::default(),
        }
    }

    /// Looks at the state. Short work only: writes wait meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    pub(super) fn lock(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().expect(HALF_APPLIED)
    }

    /// Follows which log entry is applied.
    pub fn progress(&self) -> watch::Receiver<Option<LogId>> {
        self.progress.subscribe()
    }

    /// Follows whether nodes were removed or roots replaced.
    pub fn departures(&self) -> watch::Receiver<()> {
        self.departures.subscribe()
    }

    /// How many subscribe to changes.
    pub fn watches(&self) -> usize {
        self.events.receiver_count()
    }

    /// Subscribes first and takes the first batch then, so that nothing falls in between.
    pub fn subscribe(
        &self,
        interest: impl FnOnce(&State) -> Interest,
        from: Revision,
    ) -> (broadcast::Receiver<Event>, Feed, crate::watch::Batch) {
        let events = self.events.subscribe();
        let applied = self.lock();
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let interest = interest(&applied.state);
        let (feed, first) = Feed::start(interest, from, applied.state.view(), &window);
        (events, feed, first)
    }

    /// Forgets which changes led here, as after more of them than the window holds.
    #[cfg(test)]
    pub(crate) fn forget_changes(&self) {
        let applied = self.lock();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        *window = Window::new(applied.state.revision());
    }

    /// Applies the commands of an entry; there are none in one that only moves the log.
    pub(super) fn apply(&self, log_id: LogId, commands: &[Arc<Command>]) -> Vec<Outcome> {
        let mut events = Vec::with_capacity(commands.len());
        let mut applied = self.applied.write().expect(HALF_APPLIED);
        applied.last = Some(log_id);
        let one = |command: &Arc<Command>| {
            let done = applied.state.apply(command)?;
            if !done.changes.is_empty() {
                let (revision, changes) = (applied.state.revision(), Arc::from(done.changes));
                events.push(Event { revision, changes, replaced: false });
            }
            Ok(done.response)
        };
        let outcomes = commands.iter().map(one).collect();
        self.remember(&events);
        drop(applied);
        self.announce(events);
        outcomes
    }

    pub(super) fn apply_membership(&self, membership: StoredMembership) {
        let mut applied = self.applied.write().expect(HALF_APPLIED);
        applied.last = *membership.log_id();
        applied.membership = membership;
    }

    /// Takes a snapshot in place of the state. Subscribers start again.
    pub(super) fn install(&self, new: Applied) {
        let mut applied = self.applied.write().expect(HALF_APPLIED);
        *applied = new;
        let revision = applied.state.revision();
        let events = vec![Event { revision, changes: Arc::default(), replaced: true }];
        self.remember(&events);
        drop(applied);
        self.announce(events);
        self.publish_progress();
    }

    /// Tells those who wait for a log entry how far the state is.
    pub(super) fn publish_progress(&self) {
        let last = self.lock().last;
        self.progress.send_replace(last);
    }

    /// Keeps events for subscribers that come back, while the state that they lead to is locked.
    fn remember(&self, events: &[Event]) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().for_each(|event| window.push(event));
    }

    /// Tells those who listen, which look at the state then: it must not be locked. Who subscribed since
    /// passes over what its first batch has.
    fn announce(&self, events: Vec<Event>) {
        // A root that is replaced is gone from the cluster.
        let removes = |change: &Change| {
            matches!(change, Change::Delete(ObjectKey::Node(_)) | Change::Put(Object::Cluster(_)))
        };
        if events.iter().any(|event| event.replaced || event.changes.iter().any(removes)) {
            self.departures.send_replace(());
        }
        for event in events {
            // An error only says that nobody listens.
            let _ = self.events.send(event);
        }
    }
}
