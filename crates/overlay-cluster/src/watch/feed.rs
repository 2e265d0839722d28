//! What one subscriber still has to be told.

use std::collections::BTreeSet;

use overlay_types::{Change, Revision, View};

use super::{Event, Interest, Window};

/// Changes that lead to a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The revision that they lead to.
    pub revision: Revision,
    /// They lead there from nothing; otherwise from the batch before.
    pub snapshot: bool,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Whether it tells nothing but the revision.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.snapshot
    }

    /// Forgets changes that later ones of the same object undo.
    pub fn keep_last(&mut self) {
        let mut seen = BTreeSet::new();
        self.changes.reverse();
        self.changes.retain(|change| seen.insert(change.key()));
        self.changes.reverse();
    }

    /// Takes the batch that comes after this one.
    pub fn extend(&mut self, next: Self) {
        if next.snapshot {
            *self = next;
        } else {
            self.revision = next.revision;
            self.changes.extend(next.changes);
        }
    }
}

/// One subscriber's place in the stream of changes.
///
/// ```text
///            in the window, own networks untouched
///   start ──────────────────────────────────────────► deltas ◄─┐
///     └──── otherwise: snapshot ──────────────────────► │      │ event
///                          ▲                            ├──────┘
///                          └──── gap in the events ◄────┘
/// ```
#[derive(Debug)]
pub struct Feed {
    interest: Interest,
    revision: Revision,
}

impl Feed {
    /// A subscriber with this interest that holds the state at `from`, and its first batch.
    pub fn start(
        interest: Interest,
        from: Revision,
        view: &View,
        window: &Window,
    ) -> (Self, Batch) {
        let missed = window.since(from).filter(|_| from != Revision::ZERO);
        let mut feed = Self { interest, revision: from };
        if let Some(events) = missed {
            let events: Vec<&Event> = events.collect();
            if events.iter().all(|event| feed.interest.is_untouched_by(&event.changes)) {
                let changes = events
                    .iter()
                    .flat_map(|event| feed.interest.narrow(view, &event.changes))
                    .collect();
                feed.revision = window.revision();
                return (feed, Batch { revision: window.revision(), snapshot: false, changes });
            }
        }
        let batch = feed.restart(view);
        (feed, batch)
    }

    /// A snapshot, for a subscriber that lost its place.
    pub fn restart(&mut self, view: &View) -> Batch {
        self.revision = view.revision();
        self.interest.renew(view);
        Batch {
            revision: self.revision,
            snapshot: true,
            changes: self.interest.snapshot(view).into_iter().map(Change::Put).collect(),
        }
    }

    /// What the subscriber is told of `event`; `None` if it has that already. `view` is the state
    /// at the event or after it.
    pub fn next(&mut self, view: &View, event: &Event) -> Option<Batch> {
        if event.replaced {
            return Some(self.restart(view));
        }
        if event.revision <= self.revision {
            return None;
        }
        if event.revision != self.revision.next() {
            return Some(self.restart(view));
        }
        self.revision = event.revision;
        let changes = self.interest.narrow(view, &event.changes);
        Some(Batch { revision: event.revision, snapshot: false, changes })
    }
}

#[cfg(test)]
mod tests {
    use overlay_testkit::objects;
    use overlay_types::{Availability, Node, Object, ObjectKey};

    use super::*;

    #[test]
    fn of_each_object_the_last_change_is_told() {
        let first = Node { availability: Availability::Drain, ..objects::node(1) };
        let (second, gone) = (objects::node(2), ObjectKey::Node(objects::node(2).id));
        let put = |node: &Node| Change::Put(Object::Node(node.clone()));
        let changes = vec![put(&objects::node(1)), put(&second), put(&first), Change::Delete(gone)];
        let mut batch = Batch { revision: Revision::new(4), snapshot: false, changes };
        batch.keep_last();
        assert_eq!(batch.changes, [put(&first), Change::Delete(gone)]);
    }
}
