//! A crash in tests: after a number of calls to the kernel every further one fails.

use core::cell::Cell;
use std::io;

thread_local! {
    static FUSE: Cell<Option<usize>> = const { Cell::new(None) };
    static CHANGES: Cell<usize> = const { Cell::new(0) };
}

/// Lets `calls` calls of this thread pass from now on, or all of them.
pub(in crate::kernel) fn light(calls: Option<usize>) {
    FUSE.set(calls);
}

/// Whether calls are counted.
pub(in crate::kernel) fn is_lit() -> bool {
    FUSE.get().is_some()
}

/// Whether it has burnt down.
pub(in crate::kernel) fn is_burnt() -> bool {
    FUSE.get() == Some(0)
}

/// Counts a call. Fails when the process is taken to have crashed before it.
pub(in crate::kernel) fn burn() -> io::Result<()> {
    match FUSE.get() {
        None => Ok(()),
        Some(0) => Err(io::Error::from_raw_os_error(nix::libc::EOWNERDEAD)),
        Some(left) => {
            FUSE.set(Some(left - 1));
            Ok(())
        }
    }
}

/// Takes note of requests that change something.
pub(in crate::kernel) fn note_changes(count: usize) {
    CHANGES.set(CHANGES.get() + count);
}

/// How many such requests this thread has sent.
pub(in crate::kernel) fn changes() -> usize {
    CHANGES.get()
}
