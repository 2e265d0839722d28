//! Hears of changes of the host's rules: what a firewall's reload took away from the filter of members is
//! put back in milliseconds.

use core::time::Duration;
use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use overlay_dataplane::{Error, kernel::nft::Watch};

/// Shortest time between two wake-ups: others may change rules all the time, and each look is at
/// everything.
const PAUSE: Duration = Duration::from_millis(20);

/// A thread that listens. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RulesWatch {
    /// The thread sees its end close.
    keep: Option<UnixStream>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RulesWatch {
    /// Calls `wake` after changes in the calling thread's network namespace, the daemon's own too.
    pub(crate) fn start(wake: impl Fn() + Send + 'static) -> Result<Self, Error> {
        let watch = Watch::open()?;
        let (keep, ended) = UnixStream::pair().map_err(Error::Runtime)?;
        let thread = thread::Builder::new().name("overlay-rules".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = listen(watch, &ended, &wake) {
                tracing::warn!(%error, "what others do to rules is put back every two seconds only");
            }
        });
        Ok(Self { keep: Some(keep), thread: Some(thread.map_err(Error::Runtime)?) })
    }
}

impl Drop for RulesWatch {
    fn drop(&mut self) {
        self.keep = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn listen(mut watch: Watch, ended: &UnixStream, wake: &impl Fn()) -> anyhow::Result<()> {
    let pause = PollTimeout::try_from(PAUSE)?;
    loop {
        if has_ended(ended.as_fd(), Some(watch.as_fd()), PollTimeout::NONE)? {
            return Ok(());
        }
        if watch.changed()? {
            wake();
            if has_ended(ended.as_fd(), None, pause)? {
                return Ok(());
            }
        }
    }
}

/// Waits until something happens or the time is over.
fn has_ended(
    end: BorrowedFd<'_>,
    news: Option<BorrowedFd<'_>>,
    wait: PollTimeout,
) -> Result<bool, Errno> {
    let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds: Vec<_> = [watched(end)].into_iter().chain(news.map(watched)).collect();
    match poll(&mut fds, wait) {
        Err(Errno::EINTR) => Ok(false),
        polled => polled.map(|_| fds[0].any() == Some(true)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use overlay_testkit::lab;

    use super::*;

    #[test]
    fn d06_a_change_of_the_rules_is_heard_and_the_watch_ends() {
        if lab::skip() {
            return;
        }
        let host = lab::Namespace::new().unwrap();
        let (heard, hear) = mpsc::channel();
        let watch = host.enter(|| RulesWatch::start(move || heard.send(()).unwrap()).unwrap());
        for table in ["a", "b"] {
            host.run(&["nft", "add", "table", "inet", table]).unwrap();
            hear.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        drop(watch);
        // The sender went with the thread.
        assert_eq!(hear.iter().count(), 0);
    }
}
