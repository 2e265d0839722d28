//! `cargo xtask lab`: a cluster on this machine, or a command where it may break the network.
//!
//! ```text
//!  lab up ──── root ────────────────────────► up ── … ── down
//!        └──── anybody, --shell ── unshare ──► up, a shell, down
//!  lab -- CMD ──────────────────── unshare ──► CMD
//! ```

mod down;
mod guide;
mod process;
mod state;
mod up;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use overlay_testkit::hosts::Programs;

use self::{process::Process, state::State};
use crate::workspace::{self, Workspace};

/// What to do with the lab, or which command to run.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Lab {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Run this command, with its arguments, as root of a fresh network namespace
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster, a network namespace for each host, a container on each; or the daemons of a
    /// lab that is up, where they have ended. Without root it is there for one shell
    Up(Up),
    /// Stop what `up` started and remove what it made
    Down,
}

/// How much `up` starts, and for how long.
#[derive(Args, Clone)]
struct Up {
    /// Hosts; a laptop carries 20
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=20))]
    nodes: u8,
    /// Have it there for one shell, as it is without root, and gone when the shell ends
    #[arg(long)]
    shell: bool,
    /// Set in the shell's namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

/// Does it.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    let Some(verb) = &lab.verb else { return Err(exec(&lab.command)) };
    let workspace = Workspace::load()?;
    let state = State::open(workspace.root());
    match verb {
        Verb::Down => down::run(&state),
        Verb::Up(up) if up.inside => in_shell(&state, up.nodes),
        Verb::Up(up) => {
            build(&workspace)?;
            if up.shell || !workspace::is_root() {
                return unshare(&state, up);
            }
            up::run(&state, up.nodes, &programs()?)?;
            guide::print(&state, up.nodes, &programs()?);
            Ok(())
        }
    }
}

fn build(workspace: &Workspace) -> Result<()> {
    let mut build = workspace.cargo();
    build.args(["build", "--package", "overlayd", "--package", "overlayctl"]);
    workspace::run(&mut build)
}

/// They are where cargo put xtask.
fn programs() -> Result<Programs> {
    let own = std::env::current_exe().context("where is xtask?")?;
    Ok(Programs::in_folder(own.parent().context("xtask is in a folder")?))
}

/// Runs `up --inside` as root of namespaces that end with it, whatever ends it.
fn unshare(state: &State, up: &Up) -> Result<()> {
    state.refuse_when_up()?;
    let mut unshare = Command::new("unshare");
    if !workspace::is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--"]);
    unshare.arg(std::env::current_exe().context("where is xtask?")?);
    unshare.args(["lab", "up", "--inside", "--nodes", &up.nodes.to_string()]);
    let mut child = unshare.spawn().context("could not start `unshare` (package util-linux)")?;
    Process::of(child.id()).and_then(|process| state.keep_shell(process))?;
    let status = child.wait()?;
    state.forget_shell()?;
    finish(status)
}

/// A shell whose lab is gone when it ends.
fn in_shell(state: &State, nodes: u8) -> Result<()> {
    State::mount_run()?;
    up::run(state, nodes, &programs()?)?;
    guide::print(state, nodes, &programs()?);
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "sh".into());
    let status = Command::new(&shell).status();
    down::run(state)?;
    finish(status.with_context(|| format!("could not start {}", shell.display()))?)
}

/// The exit status of the last command in a shell is the lab's.
fn finish(status: ExitStatus) -> Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => bail!("the lab was ended with its shell: {status}"),
    }
}

/// Replaces this process by the command, so signals and the exit status are the command's own.
#[expect(clippy::print_stderr, reason = "stdout belongs to the command")]
fn exec(command: &[OsString]) -> anyhow::Error {
    let arguments = unshare_arguments(workspace::is_root());
    eprintln!("lab: unshare {} (with loopback up)", arguments.join(" "));
    let mut unshare = Command::new("unshare");
    unshare
        .args(arguments)
        .args(["--", "sh", "-c", "ip link set lo up && exec \"$@\"", "lab"])
        .args(command);
    anyhow::Error::new(unshare.exec()).context("could not start `unshare` (package util-linux)")
}

/// A fresh network namespace; without root, in a fresh user namespace in which we are root.
fn unshare_arguments(root: bool) -> &'static [&'static str] {
    if root { &["--net"] } else { &["--user", "--map-root-user", "--net"] }
}
