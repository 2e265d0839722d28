//! `cargo xtask lab -- CMD`: a place where a command may break the network.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use crate::workspace;

/// Replaces this process by the command, so signals and the exit status are the command's own.
#[expect(clippy::print_stderr, reason = "stdout belongs to the command")]
pub(crate) fn run(command: &[OsString]) -> Result<()> {
    let arguments = unshare_arguments(workspace::is_root());
    eprintln!("lab: unshare {} (with loopback up)", arguments.join(" "));
    let mut unshare = Command::new("unshare");
    unshare
        .args(arguments)
        .args(["--", "sh", "-c", "ip link set lo up && exec \"$@\"", "lab"])
        .args(command);
    Err(unshare.exec()).context("could not start `unshare` (package util-linux)")
}

/// A fresh network namespace; without root, in a fresh user namespace in which we are root.
fn unshare_arguments(root: bool) -> &'static [&'static str] {
    if root { &["--net"] } else { &["--user", "--map-root-user", "--net"] }
}
