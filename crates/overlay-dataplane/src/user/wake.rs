//! Waking the switch's thread, at most once until it has looked.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;

/// Wakes the thread that polls.
#[derive(Debug)]
pub(crate) struct Wake {
    waker: mio::Waker,
    /// Someone has woken the thread since it last looked.
    pending: AtomicBool,
}

impl Wake {
    pub(crate) fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let waker = mio::Waker::new(poll.registry(), token)?;
        Ok(Self { waker, pending: AtomicBool::new(false) })
    }

    /// Wakes the thread: a ring or the command queue has something for it.
    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake the switch");
        }
    }

    /// The thread is about to look at all rings.
    pub(crate) fn clear(&self) {
        self.pending.swap(false, Ordering::AcqRel);
    }
}
