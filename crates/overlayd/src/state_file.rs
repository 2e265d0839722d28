//! The wait for a manager's state file, which a run that just ended may still be closing.

use core::time::Duration;
use std::time::Instant;

use overlay_cluster::control::ControlError;

use crate::NodeError;

/// How long a run may take to close it.
const LINGER: Duration = Duration::from_secs(5);
/// Between two attempts to open it.
const PAUSE: Duration = Duration::from_millis(10);

/// What `attempt` comes to once nobody else has the file open.
#[expect(clippy::disallowed_methods, reason = "nothing tells when a file was closed")]
pub(crate) async fn once_closed<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, NodeError>
where
    F: Future<Output = Result<T, NodeError>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(NodeError::Control(ControlError::Store(error)))
                if error.is_in_use() && begun.elapsed() < LINGER =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
