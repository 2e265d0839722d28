//! Whether this manager is in touch with its cluster: a leader answers it.
//!
//! One that is not may be cut off, or no manager any more without knowing it. It has no news, and
//! would have none for a node that watches it, also the one that it runs on. One that has just started
//! is not until its state has every write that was acknowledged before: a node that came back would take
//! an older one for news, and undo what it does not show.

use core::{mem, time::Duration};

use tokio::time::MissedTickBehavior;

use super::Control;

/// What a manager knows of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It has just started and looks.
    Unknown,
    /// A leader answered it.
    In,
    /// None did.
    Out,
}

/// Between two looks. With the patience that a look has, a manager is out of touch after seven
/// seconds without a leader: an election takes less.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks until the manager stops.
pub(super) async fn run(control: &Control) {
    let mut stop = control.0.stop.subscribe();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let outcome = control.linearize().await;
        let touched = if outcome.is_ok() { Touch::In } else { Touch::Out };
        let changed = |known: &mut Touch| mem::replace(known, touched) != touched;
        if !control.0.touch.send_if_modified(changed) {
            continue;
        }
        match outcome {
            Ok(()) => tracing::info!("a leader answers this manager"),
            Err(status) => tracing::warn!(
                reason = status.message(),
                "no leader answers this manager; nodes that watch it ask another"
            ),
        }
    }
}
