//! Three hosts, each a network namespace with `overlayd` in it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{cluster::Cluster, hosts::Programs};

/// Where hosts have their folders, in the empty `/run` of this program.
const FOLDER: &str = "/run/orchestrator";

/// Three hosts with their daemons.
pub(crate) fn start() -> Result<Cluster> {
    let programs = Programs::in_folder(&folder()?);
    Cluster::start(Path::new(FOLDER), &programs, &[const { Vec::new() }; 3])
}

/// Builds the daemon and its command line where they are not there: to where this example is.
pub(crate) fn build() -> Result<()> {
    let folder = folder()?;
    let Programs { overlayd, overlayctl } = Programs::in_folder(&folder);
    if overlayd.exists() && overlayctl.exists() {
        return Ok(());
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--locked", "--package", "overlayd", "--package", "overlayctl"]);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.ancestors().nth(2).context("the example is in target/PROFILE/examples")?;
    Ok(folder.to_owned())
}
