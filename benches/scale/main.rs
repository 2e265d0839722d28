//! Clusters as large as the design must carry, in one process on loopback: what takes longer with
//! the number of nodes, watchers and endpoints.
//!
//! | part | what there is | what is measured |
//! |---|---|---|
//! | `joins` | 3 managers, 2 000 agents that join at once, then watch | until all are in, while the leader is restarted |
//! | `failover` | those 2 000 | how they spread over the managers; until all watch again after a manager died |
//! | `watchers` | 1 manager, 5 000 watches | from a change's acknowledgement until each has seen it |
//! | `endpoints` | 3 managers, 200 000 endpoints on 4 000 networks | snapshot, restart, memory, a new agent's first view and name |
//!
//! Managers are whole nodes. Agents are light: a real join (token, certificate request, TLS 1.3) and
//! a real watch over a TLS connection of their own, chosen as nodes choose it, without a dataplane,
//! gossip or a view of their own: their views alone would be as large as everything else together.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines. Arguments name parts; none: all of them.

#![expect(clippy::cast_precision_loss, reason = "figures that people read")]
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock, and looks again and again"
)]

mod agent;
mod endpoints;
mod failover;
mod joins;
mod managers;
mod watchers;

use std::{fmt::Display, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

/// Longest wait for anything; whoever waits longer has failed.
const PATIENCE: Duration = Duration::from_mins(2);

/// That of `overlayd`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One line of the result.
fn print(name: impl Display, value: impl Display, unit: &str, target: &str) {
    println!("{name}\t{value}\t{unit}\t{target}");
}

/// The value at this place in percent.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Resident memory of this process in bytes: the second number of its `statm`, in pages of 4 KiB.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("a second number")?.parse()?;
    Ok(pages * 4096)
}

/// Looks every few milliseconds until `look` gives something.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .with_context(|| format!("not within {PATIENCE:?}: {what}"))
}

async fn part(name: &str, folder: &Path) -> Result<()> {
    match name {
        "joins" => joins::run(folder).await,
        "watchers" => watchers::run(folder).await,
        "endpoints" => endpoints::run(folder).await,
        other => {
            anyhow::bail!("there is no part {other:?}: joins (with failover), watchers, endpoints")
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo adds a flag of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if named.is_empty() {
        // Each in a process of its own, which has no memory of the others.
        for name in ["joins", "watchers", "endpoints"] {
            let status = Command::new(std::env::current_exe()?).arg(name).status()?;
            ensure!(status.success(), "part {name}: {status}");
        }
    }
    for name in named {
        // Benches run in the package's folder: the disk of the project, not a file system in memory.
        let folder = tempfile::tempdir_in("target").context("a folder in target/")?;
        part(&name, folder.path()).await.with_context(|| format!("part {name}"))?;
    }
    Ok(())
}
