//! One message on its way.

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;

use super::{Ends, KEEPALIVE, Net, Way};

fn reset() -> Status {
    Status::unavailable("connection reset by peer")
}

fn gave_up() -> Status {
    Status::unavailable("keepalive timed out")
}

impl Net {
    /// Waits as long as the message is under way. An error says that it will never arrive.
    pub(super) async fn carry(&self, ends: Ends) -> Result<(), Status> {
        let deadline = Instant::now() + KEEPALIVE;
        loop {
            let mut changes = self.inner().changes.subscribe();
            let way = self.inner().way(ends);
            match way {
                Way::Open(delay) => {
                    sleep(delay).await;
                    let inner = self.inner();
                    if !inner.alive(ends) {
                        return Err(reset());
                    }
                    if !inner.is_cut(ends) {
                        return Ok(());
                    }
                }
                Way::Broken => return Err(reset()),
                Way::Cut => {
                    if timeout_at(deadline, changes.changed()).await.is_err() {
                        return Err(gave_up());
                    }
                }
            }
        }
    }

    /// Waits until a connection is broken, because an end crashed or a link stayed cut.
    pub(super) async fn broken(&self, ends: Ends) -> Status {
        loop {
            let mut changes = self.inner().changes.subscribe();
            let (alive, cut) = {
                let inner = self.inner();
                (inner.alive(ends), inner.is_cut(ends) || inner.is_cut(ends.back()))
            };
            if !alive {
                return reset();
            }
            if !cut {
                let _ = changes.changed().await;
            } else if timeout(KEEPALIVE, self.healed(ends)).await.is_err() {
                return gave_up();
            }
        }
    }

    async fn healed(&self, ends: Ends) {
        loop {
            let mut changes = self.inner().changes.subscribe();
            let healed = {
                let inner = self.inner();
                let cut = inner.is_cut(ends) || inner.is_cut(ends.back());
                !cut || !inner.alive(ends)
            };
            if healed {
                return;
            }
            let _ = changes.changed().await;
        }
    }
}
