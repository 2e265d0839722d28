//! Waiting for what other processes do.
#![expect(clippy::disallowed_methods, reason = "a wait for other processes has an end")]

use core::time::Duration;
use std::{thread, time::Instant};

use anyhow::{Context, Result};

/// Between two questions: others need the processor to make the answer another one.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is an answer, for `patience` at most.
///
/// # Errors
/// The last one that `ask` gave.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => thread::park_timeout(PAUSE),
            answer => return answer.with_context(|| format!("not within {patience:?}: {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, ensure};

    use super::*;

    #[test]
    fn the_answer_or_the_last_error() {
        let mut asked = 0;
        let answer = until("the third", Duration::MAX / 4, || {
            asked += 1;
            ensure!(asked == 3, "too early");
            Ok(asked)
        });
        assert_eq!(answer.ok(), Some(3));
        let never = until("never", Duration::ZERO, || Err::<(), _>(anyhow!("no")));
        assert_eq!(format!("{:#}", never.unwrap_err()), "not within 0ns: never: no");
    }
}
