//! `cargo xtask sim`: more seeds of the cluster simulation than `cargo test` runs, or one again.

use anyhow::Result;

use crate::workspace::{self, Workspace};

/// Runs `seeds` of them, from `first` on. With a single one, a failure comes with the log of it.
pub(crate) fn run(workspace: &Workspace, seeds: u64, first: u64, release: bool) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .args(["test", "--locked", "--quiet", "--package", "overlay", "--test", "sim"])
        .args(release.then_some("--release"))
        .arg("--")
        .args(["--exact", "seeds::every_seed_holds_every_invariant", "--nocapture"])
        .env("SIM_SEEDS", seeds.to_string())
        .env("SIM_FIRST_SEED", first.to_string());
    if seeds == 1 {
        command.env("SIM_LOG", "1");
    }
    workspace::run(&mut command)
}
