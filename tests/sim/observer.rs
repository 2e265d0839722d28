//! Follows what a manager applies, one revision at a time.

use overlay_cluster::{control::Control, watch::Interest};
use overlay_types::{Change, NodeId, Revision};

use crate::{check::unique_address::Holders, ledger::Ledger, nodes};

/// Enters each revision that this manager applies, and looks at the addresses of each.
pub(crate) async fn run(id: NodeId, control: Control, ledger: Ledger) {
    loop {
        let everything = |_: &_| Interest::Everything;
        let (mut events, _, first) = control.replica().subscribe(everything, Revision::ZERO);
        let mut revision = first.revision;
        let mut holders = Holders::default();
        let look = |holders: &mut Holders, changes: &[Change], revision| {
            for change in changes {
                if let Err(what) = holders.follow(change) {
                    let who = nodes::short(id);
                    ledger.violate(what.at(format!("{who} at revision {revision}")));
                }
            }
        };
        look(&mut holders, &first.changes, revision);
        while let Ok(event) = events.recv().await {
            if event.replaced || event.revision > revision.next() {
                break;
            }
            if event.revision <= revision {
                continue;
            }
            revision = event.revision;
            ledger.enter(id, revision, event.changes.clone());
            look(&mut holders, &event.changes, revision);
        }
    }
}
