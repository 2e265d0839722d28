//! `cargo xtask test`: what must pass before a change is done, on a fresh machine too.

use std::{
    fs::{self, File},
    io,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::TargetKind;

use crate::{
    failures::Failures,
    report::Report,
    setup, verify,
    vm::{self, Scope},
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
        let all = ["test", "--locked", "--workspace", "--no-fail-fast"];
        run_tests(workspace.cargo().args(all))
    });
    report.stage("tests in a virtual machine", || vm::test(workspace, Scope::Dataplane));
    report.stage("fuzz targets", || check_fuzz_targets(workspace));
    for example in workspace.root_targets(&TargetKind::Example) {
        report.stage(&format!("example {example}"), || run_example(workspace, example));
    }
    report.print_summary();
    report.finish()
}

/// Runs tests, whose output is passed on; the error has what those that failed said.
fn run_tests(command: &mut Command) -> Result<()> {
    let shown = workspace::show(command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{shown}`"))?;
    let mut failures = Failures::new(io::stdout());
    io::copy(&mut child.stdout.take().context("no pipe")?, &mut failures)?;
    let status = child.wait()?;
    ensure!(status.success(), "`{shown}`: {status}\n{}", failures.describe().join("\n"));
    Ok(())
}

/// They are a workspace of their own, which nothing else compiles; fuzzing itself needs nightly.
fn check_fuzz_targets(workspace: &Workspace) -> Result<()> {
    let own = ["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    workspace::run(workspace.cargo().args(["check", "--all-targets"]).args(own))
}

fn run_example(workspace: &Workspace, name: &str) -> Result<()> {
    // With the features that the tests were built with, or most dependencies were built once more.
    workspace::run(workspace.cargo().args([
        "build",
        "--locked",
        "--workspace",
        "--example",
        name,
    ]))?;
    let program = workspace.target().join("debug/examples").join(name);
    let mut bounded = workspace.command("timeout");
    // `--foreground` leaves the example within reach of Ctrl-C.
    bounded
        .args(["--foreground", "--kill-after=10", &EXAMPLE_BOUND_S.to_string()])
        .arg(program)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    // In a file: of an example that had to be ended, processes may go on that have a pipe's end.
    let said = workspace.target().join(format!("{name}.said"));
    bounded.stderr(File::create(&said).with_context(|| said.display().to_string())?);
    println!("$ {}", workspace::show(&bounded));
    let status = bounded.status().context("could not start `timeout` (package coreutils)")?;
    let said = String::from_utf8_lossy(&fs::read(said)?).into_owned();
    match status.code() {
        Some(0) => {
            print!("{said}");
            Ok(())
        }
        Some(TIMED_OUT) => bail!("example {name} did not end within {EXAMPLE_BOUND_S} s: {said}"),
        _ => bail!("example {name}: {status}: {said}"),
    }
}
