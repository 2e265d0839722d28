//! What holds for the whole cluster.

use core::time::Duration;

use overlay_api::v1;
use serde::Serialize;

use super::lock::UnlockKey;
use crate::duration;

/// Answer to `update`.
#[derive(Serialize, Debug)]
pub(crate) struct Updated {
    #[serde(flatten)]
    key: UnlockKey,
    rotation_period_ms: u64,
}

impl From<v1::UpdateClusterResponse> for Updated {
    fn from(answer: v1::UpdateClusterResponse) -> Self {
        let key = UnlockKey { unlock_key: answer.unlock_key };
        Self { key, rotation_period_ms: answer.rotation_period_ms }
    }
}

impl Updated {
    /// For people.
    pub(crate) fn sentence(&self) -> String {
        let period = Duration::from_millis(self.rotation_period_ms);
        format!("{}Keys are rotated every {}.\n", self.key.sentence(false), duration::shown(period))
    }
}
