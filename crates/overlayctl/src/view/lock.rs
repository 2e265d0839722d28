//! The key that managers start with.

use serde::Serialize;

/// Answer to `unlock-key`.
#[derive(Serialize, Debug)]
pub(crate) struct UnlockKey {
    /// Empty: managers start without one.
    pub(crate) unlock_key: String,
}

impl UnlockKey {
    /// The key alone.
    pub(crate) fn line(&self) -> String {
        format!("{}\n", self.unlock_key)
    }

    /// For people.
    pub(crate) fn sentence(&self, rotated: bool) -> String {
        if self.unlock_key.is_empty() {
            return "Managers start without an unlock key.\n".to_owned();
        }
        let rotated = if rotated { "The unlock key was rotated.\n\n" } else { "" };
        format!(
            "{rotated}After a restart each manager waits for 'overlayctl unlock' and this key:\n\n    \
             {}\n\nKeep it off the hosts: without it a manager that was restarted is lost.\n",
            self.unlock_key
        )
    }
}
