//! The last changes, bounded.

use std::{collections::VecDeque, sync::Arc};

use overlay_types::{Change, Revision};

/// The changes that one write made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Revision that they lead to.
    pub revision: Revision,
    /// The changes.
    pub changes: Arc<[Change]>,
    /// The state was replaced as a whole: who follows it starts again.
    pub replaced: bool,
}

/// The most recent events, for subscribers that come back.
#[derive(Debug)]
pub struct Window {
    /// Revision before the oldest event.
    base: Revision,
    events: VecDeque<Event>,
    changes: usize,
}

impl Window {
    /// Changes that the window holds at most. At about 300 bytes each this is 20 MB, and at 1 000
    /// writes a second a minute in which a subscriber can come back without a snapshot.
    pub const MAX_CHANGES: usize = 65_536;

    /// An empty window of a state at `revision`.
    pub const fn new(revision: Revision) -> Self {
        Self { base: revision, events: VecDeque::new(), changes: 0 }
    }

    /// Revision after the newest event.
    pub fn revision(&self) -> Revision {
        self.events.back().map_or(self.base, |event| event.revision)
    }

    /// Takes the next event. One that replaces the state, or does not follow the last, empties the
    /// window.
    pub fn push(&mut self, event: Event) {
        if event.replaced || event.revision != self.revision().next() {
            *self = Self::new(event.revision);
            return;
        }
        self.changes += event.changes.len();
        self.events.push_back(event);
        while self.changes > Self::MAX_CHANGES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.base = oldest.revision;
            self.changes -= oldest.changes.len();
        }
    }

    /// The events after `revision`, oldest first; `None` if some of them are gone, or if the
    /// revision lies in the future of this state.
    pub fn since(&self, revision: Revision) -> Option<impl Iterator<Item = &Event>> {
        let known = self.base <= revision && revision <= self.revision();
        let skip = usize::try_from(revision.get().checked_sub(self.base.get())?).ok()?;
        known.then(|| self.events.iter().skip(skip))
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{NodeId, ObjectKey};

    use super::*;

    fn event(revision: u64, changes: usize) -> Event {
        let change = Change::Delete(ObjectKey::Node(NodeId::from_u128(1)));
        Event {
            revision: Revision::new(revision),
            changes: vec![change; changes].into(),
            replaced: false,
        }
    }

    fn since(window: &Window, revision: u64) -> Option<Vec<u64>> {
        Some(window.since(Revision::new(revision))?.map(|e| e.revision.get()).collect())
    }

    #[test]
    fn who_is_in_the_window_gets_what_it_missed() {
        let mut window = Window::new(Revision::new(4));
        (5..8).for_each(|revision| window.push(event(revision, 1)));
        assert_eq!(since(&window, 3), None);
        assert_eq!(since(&window, 4), Some(vec![5, 6, 7]));
        assert_eq!(since(&window, 6), Some(vec![7]));
        assert_eq!(since(&window, 7), Some(vec![]));
        assert_eq!(since(&window, 8), None);
    }

    #[test]
    fn the_window_is_bounded_by_changes() {
        let mut window = Window::new(Revision::ZERO);
        window.push(event(1, Window::MAX_CHANGES));
        assert_eq!(since(&window, 0), Some(vec![1]));
        window.push(event(2, 1));
        assert_eq!(since(&window, 0), None);
        assert_eq!(since(&window, 1), Some(vec![2]));
    }

    #[test]
    fn a_gap_empties_the_window() {
        let mut window = Window::new(Revision::ZERO);
        window.push(event(1, 1));
        window.push(event(9, 1));
        assert_eq!(since(&window, 1), None);
        assert_eq!(since(&window, 9), Some(vec![]));
    }

    #[test]
    fn a_replaced_state_empties_the_window_also_at_the_next_revision() {
        let mut window = Window::new(Revision::ZERO);
        window.push(event(1, 1));
        window.push(Event { replaced: true, ..event(2, 0) });
        assert_eq!(since(&window, 1), None);
        assert_eq!(since(&window, 2), Some(vec![]));
    }
}
