//! What a manager takes from outside: the time of day, the other managers, and its disk.
//!
//! A simulation hands in its own, and runs the manager's real code on a virtual clock.

use core::fmt;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use overlay_types::UnixMillis;

use super::ControlConfig;
use crate::raft::{
    store::Medium,
    transport::{Links, TlsLinks},
};

/// The world that a manager lives in.
#[derive(Clone)]
pub struct World {
    /// The time of day.
    pub clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// Channels to the other managers.
    pub links: Arc<dyn Links>,
    /// Where its state is kept.
    pub medium: Medium,
}

impl World {
    /// The machine's: its clock, TLS connections, and a file.
    pub(super) fn of(config: &ControlConfig) -> Self {
        Self {
            clock: Arc::new(now),
            links: Arc::new(TlsLinks::new(Arc::clone(&config.tls), config.advertise)),
            medium: Medium::File,
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("medium", &self.medium).finish_non_exhaustive()
    }
}

/// Wall-clock time; commands carry it so that `apply` reads none.
#[expect(clippy::disallowed_methods, reason = "the shell that proposes commands")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
