//! `cargo xtask test`: what must pass before a change is done, on a fresh machine too.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use cargo_metadata::TargetKind;

use crate::{
    report::Report,
    setup, verify, vm,
    workspace::{self, Workspace},
};

/// Longest run of one example, in seconds: three-node takes about a minute on two idle cores, and
/// CI's are not idle.
const EXAMPLE_BOUND_S: u32 = 300;

/// What `timeout` exits with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// Runs everything, also after a failure, and ends with a summary.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut report = Report::default();
    report.stage("setup", setup::run);
    report.stage("verify", || verify::run(workspace));
    report.stage("tests", || {
        workspace::run(workspace.cargo().args([
            "test",
            "--locked",
            "--workspace",
            "--no-fail-fast",
        ]))
    });
    report.stage("tests in a virtual machine", || vm::test(workspace));
    report.stage("fuzz targets", || check_fuzz_targets(workspace));
    for example in workspace.root_targets(&TargetKind::Example) {
        report.stage(&format!("example {example}"), || run_example(workspace, example));
    }
    report.print_summary();
    report.finish()
}

/// They are a workspace of their own, which nothing else compiles; fuzzing itself needs nightly.
fn check_fuzz_targets(workspace: &Workspace) -> Result<()> {
    let own = ["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    workspace::run(workspace.cargo().args(["check", "--all-targets"]).args(own))
}

fn run_example(workspace: &Workspace, name: &str) -> Result<()> {
    // Built before the clock runs. `cargo run` then becomes the example, so `timeout` ends the
    // example itself, and `--foreground` leaves it within reach of Ctrl-C.
    let run = ["--locked", "--quiet", "--package", "overlay", "--example", name];
    workspace::run(workspace.cargo().arg("build").args(run))?;
    let mut bounded = workspace.command("timeout");
    bounded
        .args(["--foreground", "--kill-after=10", &EXAMPLE_BOUND_S.to_string()])
        .arg(workspace::cargo_program())
        .arg("run")
        .args(run)
        .stdin(Stdio::null());
    println!("$ cargo run --example {name}");
    let status = bounded.status().context("could not start `timeout` (package coreutils)")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(TIMED_OUT) => bail!("example {name} did not end within {EXAMPLE_BOUND_S} s"),
        _ => bail!("example {name}: {status}"),
    }
}
