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
    fn keep_last(&mut self) {
        let mut seen = BTreeSet::new();
        self.changes.reverse();
        self.changes.retain(|change| seen.insert(change.key()));
        self.changes.reverse();
    }
}

/// Batches that a subscriber gets as one.
#[derive(Clone, Debug)]
pub struct Gathered {
    batch: Batch,
    /// Changes were added to others: some may concern the same object. A whole state has each once.
    mixed: bool,
}

impl From<Batch> for Gathered {
    fn from(batch: Batch) -> Self {
        Self { batch, mixed: false }
    }
}

impl Gathered {
    /// Whether there is nothing to tell but the revision.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// How many changes there are.
    pub fn changes(&self) -> usize {
        self.batch.changes.len()
    }

    /// Takes the batch that comes after these.
    pub fn extend(&mut self, next: Batch) {
        if next.snapshot {
            *self = next.into();
        } else {
            self.mixed |= !self.batch.changes.is_empty() && !next.changes.is_empty();
            self.batch.revision = next.revision;
            self.batch.changes.extend(next.changes);
        }
    }

    /// What they come to: of each object the last change.
    pub fn told(mut self) -> Batch {
        if self.mixed {
            self.batch.keep_last();
        }
        self.batch
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

    fn put(node: &Node) -> Change {
        Change::Put(Object::Node(node.clone()))
    }

    fn batch(revision: u64, changes: &[Change]) -> Batch {
        Batch { revision: Revision::new(revision), snapshot: false, changes: changes.to_vec() }
    }

    #[test]
    fn of_each_object_the_last_change_is_told() {
        let first = Node { availability: Availability::Drain, ..objects::node(1) };
        let (second, gone) = (objects::node(2), ObjectKey::Node(objects::node(2).id));
        let mut gathered = Gathered::from(batch(2, &[put(&objects::node(1)), put(&second)]));
        gathered.extend(batch(3, &[put(&first), Change::Delete(gone)]));
        assert_eq!(gathered.told(), batch(3, &[put(&first), Change::Delete(gone)]));
    }

    #[test]
    fn what_nothing_was_added_to_is_told_as_it_is() {
        let changes = [put(&objects::node(1)), put(&objects::node(2))];
        let whole = Batch { snapshot: true, ..batch(4, &changes) };
        let mut gathered = Gathered::from(batch(2, &changes));
        gathered.extend(batch(3, &changes));
        assert!(gathered.mixed);
        gathered.extend(whole.clone());
        gathered.extend(batch(5, &[]));
        assert!(!gathered.mixed);
        assert_eq!(gathered.told(), Batch { revision: Revision::new(5), ..whole });
    }
}
